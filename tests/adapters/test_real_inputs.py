"""The real inputs, with counts taken by hand: what is there loads, what cannot is named, nothing is lost."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from adapters import mapping, reading
from adapters.rows import Cause, Mapped, Unmapped
from hutong.api.commerce.v1 import enterprise_pb2
from hutong.api.customs.v1 import declaration_pb2
from hutong.api.publicsecurity.v1 import vehicle_pb2, watchlist_entry_pb2
from hutong.api.quality.v1 import notification_pb2
from hutong.api.taxation.v1 import status_notice_pb2
from tests.adapters.specimens import SECRETS, outcomes

ROOMS = Path(__file__).resolve().parents[2] / "services"

Found = tuple[list[Mapped], list[Unmapped]]


def read(shared_data: Path, name: str, source: str) -> Found:
    room, _, file = name.partition(".")
    made = mapping.load(ROOMS / room / "mappings" / f"{file}.yaml")
    read = reading.read(made, shared_data / source, SECRETS)
    found = outcomes(read)
    assert read.done == read.total
    return found


T = TypeVar("T")


def messages(found: Sequence[Mapped], kind: type[T]) -> list[T]:
    return [m.message for m in found if isinstance(m.message, kind)]


@pytest.fixture(scope="module")
def fujian(shared_data: Path) -> Found:
    return read(shared_data, "commerce.cn_registry_2019", "commerce/cn_enterprise_2019_fujian.csv")


def test_fujian_has_6099_enterprises_of_which_one_is_shifted(fujian: Found) -> None:
    mapped, unmapped = fujian
    assert (len(mapped), len(unmapped)) == (6098, 1)
    assert (unmapped[0].position, unmapped[0].reason) == ("4397", Cause.VALUE_INVALID)
    assert "91350400MA32K7W49G" in unmapped[0].original.decode()
    firms = messages(mapped, enterprise_pb2.Enterprise)
    assert len({f.uscc for f in firms}) == 6098
    assert sum(f.HasField("reg_capital_amt") for f in firms) == 6098 - 839 - 4 - 3
    assert Counter(f.reg_capital_ccy for f in firms) == {"CNY": 2883 + 1402 + 947, "USD": 16 + 4, "": 839 + 4 + 3}
    assert sum(not f.entity_type for f in firms) == 1660
    assert all(f.region_code.startswith("35") for f in firms)
    assert not any("N/A" in str(f) for f in firms)


@pytest.mark.parametrize(
    ("line", "amount", "currency"),
    [
        (2, "1000000", "CNY"),  # 100(万元人民币)
        (3, "", ""),  # N/A
        (4, "8880000", "CNY"),  # 888万元人民币
    ],
)
def test_fujian_capital_by_line(fujian: Found, line: int, amount: str, currency: str) -> None:
    (found,) = [m.message for m in fujian[0] if m.position == str(line)]
    assert isinstance(found, enterprise_pb2.Enterprise)
    assert (found.reg_capital_amt.value, found.reg_capital_ccy) == (amount, currency)


def test_jiangsu_has_2000_enterprises(shared_data: Path) -> None:
    mapped, unmapped = read(shared_data, "commerce.cn_registry_2018", "commerce/cn_enterprise_2018_jiangsu.csv")
    assert (len(mapped), len(unmapped)) == (2000, 0)
    firms = messages(mapped, enterprise_pb2.Enterprise)
    assert Counter(f.reg_capital_ccy for f in firms) == {"": 647, "CNY": 575 + 553 + 207 + 6 + 2, "USD": 7 + 3}
    assert sum(f.reg_capital_amt.value == "759175400" for f in firms) == 1  # 75,917.5400(万)


def test_the_customs_messages_are_all_recognised(shared_data: Path) -> None:
    mapped, unmapped = read(shared_data, "customs.wco_dms", "customs/wco_dms_xml_hmrc_cds")
    assert (len(mapped), len(mapped) + len(unmapped)) == (122, 389)
    reasons = Counter(u.reason.value for u in unmapped)
    assert reasons == {"NOT_A_DECLARATION": 265, "MALFORMED_XML": 1, "KEY_MISSING": 1}
    (broken,) = [u for u in unmapped if u.reason is Cause.MALFORMED_XML]
    assert (broken.position, broken.detail[:7]) == ("TT_EX002a/TT_EX002a.xml", "line 72")
    kinds = Counter(u.detail.partition(":")[0] for u in unmapped if u.reason is Cause.NOT_A_DECLARATION)
    assert sum(n for kind, n in kinds.items() if kind.startswith("notification DMS")) == 227
    assert {kind: n for kind, n in kinds.items() if not kind.startswith("notification")} == {
        "amendment": 10,
        "cancellation": 3,
        "goods presentation": 2,
        "inventoryLinkingMovementRequest": 15,
        "InventoryLinkingImportsValidateMovementResponse": 3,
        "inventoryLinkingQueryRequest": 1,
        "inventoryLinkingConsolidationRequest": 1,
        "inventoryLinkingImportsGoodsArrival": 1,
        "FileUploadRequest": 1,
        "FileUploadResponse": 1,
    }


def test_the_declarations_hold_what_their_messages_say(shared_data: Path) -> None:
    mapped, _ = read(shared_data, "customs.wco_dms", "customs/wco_dms_xml_hmrc_cds")
    found = messages(mapped, declaration_pb2.Declaration)
    assert len({d.declaration_no for d in found}) == 121, "two messages carry the same reference"
    assert Counter(d.ie_flag for d in found)[declaration_pb2.IE_FLAG_E] == 18
    assert sum(len(d.lines) for d in found) == 135
    assert sum(len(d.containers) for d in found) == 90
    (two,) = [d for d in found if d.declaration_no == "ADDITEM23062023KS2"]
    assert [(line.hs10, line.ccy, line.origin_country) for line in two.lines] == [
        ("8510900000", "GBP", "US"),
        ("8510100000", "GBP", "US"),
    ]
    assert (two.importer_id, two.transaction_term, two.packages) == ("GB553202734852", "CIF", 65)


def test_the_tax_list_has_4505_notices_and_its_mask_is_not_one_taxpayer(shared_data: Path) -> None:
    mapped, unmapped = read(shared_data, "taxation.mx_sat_69b", "taxation/mx_sat_69b_2021-05-18.csv")
    assert (len(mapped), len(unmapped)) == (4505, 0)
    notices = messages(mapped, status_notice_pb2.StatusNotice)
    hidden = [n for n in notices if n.identity_suppressed]
    assert len(hidden) == 87
    assert not any(n.taxpayer_id or n.taxpayer_name for n in hidden)
    assert all(n.suppression_ground for n in hidden)
    assert not any(n.suppression_ground for n in notices if not n.identity_suppressed)
    # 4,397 different texts stand in the column; one of them is the mask.
    assert len({n.taxpayer_id for n in notices if n.taxpayer_id}) == 4397 - 1
    situations = Counter(status_notice_pb2.NoticeSituation.Name(n.situation) for n in notices)
    assert situations["NOTICE_SITUATION_DEFINITIVE"] == 3741
    assert sum(len(n.definitive_finding.sat_published_on) == 2 for n in notices) == 14
    (folded,) = [m for m in mapped if "-" in m.position]
    assert folded.position == "4431-4433"


def test_the_food_alerts_are_1807_rows_of_1611_notifications(shared_data: Path) -> None:
    mapped, unmapped = read(shared_data, "quality.eu_rasff", "quality/eu_rasff_2023_2024.csv")
    assert (len(mapped), len(unmapped)) == (1807, 0)
    alerts = messages(mapped, notification_pb2.Notification)
    assert len({a.reference for a in alerts}) == 1611
    assert len({(a.reference, a.search_term) for a in alerts}) == 1807
    assert sum(a.reference_ambiguous for a in alerts) == 152 + 12 + 1
    assert all(a.reference_ambiguous is (len(a.reference) < 9) for a in alerts)
    assert any("3-monochlor-1,2-propanediol (3-MCPD)" in a.hazards for a in alerts)
    assert sum(not a.foodex2_code for a in alerts) == 44 + 4


def test_the_watch_list_has_7379_entries(shared_data: Path) -> None:
    mapped, unmapped = read(shared_data, "publicsecurity.ofac_sdn", "public_security/ofac_sdn.csv")
    assert (len(mapped), len(unmapped)) == (7379, 0)
    entries = messages(mapped, watchlist_entry_pb2.WatchlistEntry)
    kinds = Counter(watchlist_entry_pb2.WatchlistEntryType.Name(e.entry_type) for e in entries)
    assert {kind.rpartition("_")[2]: n for kind, n in kinds.items()} == {
        "INDIVIDUAL": 3845,
        "ENTITY": 2994,
        "VESSEL": 323,
        "AIRCRAFT": 217,
    }
    assert not any('"-0-' in str(e) for e in entries)
    assert sum(e.HasField("vessel_tonnage") for e in entries) == 67
    assert {"CAATSA - RUSSIA", "IFSR"} < {p for e in entries for p in e.programs}


def test_the_stolen_vehicles_are_3635_with_15_plates_twice(shared_data: Path) -> None:
    source = "public_security/nz_stolen_vehicles_2013.csv"
    mapped, unmapped = read(shared_data, "publicsecurity.nz_stolen_vehicles", source)
    assert (len(mapped), len(unmapped)) == (3635, 0)
    cars = messages(mapped, vehicle_pb2.Vehicle)
    tokens = Counter(c.plate_token for c in cars)
    assert len(tokens) == 3620
    assert sum(n == 2 for n in tokens.values()) == 15
    assert not any(c.plate_no and c.plate_no in c.plate_token for c in cars if len(c.plate_no) > 3)
    assert sum(not c.model_year for c in cars) == 10
    assert cars[0].plate_no == "007579", "a plate keeps its zeros"
