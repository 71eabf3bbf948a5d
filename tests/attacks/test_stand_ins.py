"""What is given instead of a value must not give it back: pseudonyms, bands, last digits, initials, envelopes."""

from collections.abc import AsyncGenerator

import pytest

from hutong.api.customs.v1 import declaration_pb2
from tests.attacks.asking import MONITOR, REBATE, TAX, declared, found, listed, opened, watch, why
from tests.exchange.mesh import Mesh
from tests.exchange.records import EXPORTER, OTHER

FIELD = 'resource == Hutong::Field::"customs.Declaration'
MORE = "".join(
    f"""
    @id("{name}") @basis("{basis}") @until("2099-01-01T00:00:00Z") @transform("{transform}")
    permit (principal in Hutong::Agency::"{agency}", action, {FIELD}.{field}")
    when {{ context.purpose == "{purpose}" }};
    """
    for name, agency, purpose, basis, field, transform in (
        ("p1", "quality", "P-MONITOR", "CN-OPERATION-MONITORING", "trader_uscc", "pseudonym"),
        ("p2", "quality", "P-STAT", "CN-OPERATION-MONITORING", "trader_uscc", "pseudonym"),
        ("p3", "quality", "P-STAT", "CN-OPERATION-MONITORING", "owner_uscc", "pseudonym"),
        ("p4", "taxation", "P-STAT", "CN-OPERATION-MONITORING", "trader_uscc", "pseudonym"),
        ("b1", "taxation", "P-STAT", "CN-OPERATION-MONITORING", "total_value_cny", "bucket:1000,1000000"),
        ("l1", "taxation", "P-STAT", "CN-OPERATION-MONITORING", "bill_no", "last4"),
        ("i1", "taxation", "P-STAT", "CN-OPERATION-MONITORING", "overseas_party_name", "initials"),
        ("y1", "taxation", "P-STAT", "CN-OPERATION-MONITORING", "declared_at", "year"),
    )
)
STAT = {"purpose": "P-STAT", "legal_basis": "CN-OPERATION-MONITORING"}


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    async with opened(tmp_path_factory.mktemp("stand-ins"), customs=MORE) as mesh:
        await mesh.load("customs", [shaped(n, bill, name) for n, (bill, name) in enumerate(SHORT)])
        yield mesh


SHORT = [("1234", "A"), ("12345", "王"), ("123456", "A B"), ("", ""), ("9", "Al Bo"), ("MSKU0000006", "欧阳 修")]


def shaped(number: int, bill: str, name: str) -> declaration_pb2.Declaration:
    made = declared(f"99992026000000050{number}", value="999.99", trader=EXPORTER if number % 2 else OTHER)
    made.bill_no, made.overseas_party_name, made.owner_uscc = bill, name, made.trader_uscc
    return made


async def everyone(mesh: Mesh, who: str, **context: str) -> list[declaration_pb2.Declaration]:
    return await listed(mesh, who, context=why(**context))


async def test_pseudonyms_of_two_consumers_or_two_purposes_cannot_be_joined(mesh: Mesh) -> None:
    seen = [
        {d.trader_uscc for d in await everyone(mesh, who, **context)}
        for who, context in (("quality/lab", MONITOR), ("quality/lab", STAT), (TAX, STAT))
    ]
    assert [len(names) for names in seen] == [2, 2, 2]
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]
    assert all(name.startswith("pn_") for names in seen for name in names)


async def test_pseudonyms_of_one_consumer_and_purpose_are_the_same_wherever_they_stand(mesh: Mesh) -> None:
    """Two systems of one agency, two fields of one scheme: what may be joined can be."""
    one, two = await everyone(mesh, "quality/lab", **STAT), await everyone(mesh, "quality/other", **STAT)
    assert [d.trader_uscc for d in one] == [d.trader_uscc for d in two] == [d.owner_uscc for d in one]


async def test_a_stand_in_leaves_nothing_of_the_value_behind(mesh: Mesh) -> None:
    for who, context in (("quality/lab", STAT), (TAX, STAT), ("quality/lab", MONITOR)):
        for told in await everyone(mesh, who, **context):
            assert not [s for s in ("9199", "99992026", "999.99") if s.encode() in told.SerializeToString()]
            assert not told.envelope.key
        first = await anext(watch(mesh, who, "customs.Declaration", context=why(**context), from_start=True))
        assert len(first.records) == len(SHORT)
        assert b"9199000" not in first.SerializeToString()


async def test_short_values_are_left_out_instead_of_given_whole(mesh: Mesh) -> None:
    told = await everyone(mesh, TAX, **STAT)
    assert [d.bill_no for d in told] == ["", "", "****456", "", "", "****0006"]
    assert [d.overseas_party_name for d in told] == ["", "", "", "", "A. B.", ""]


async def test_a_value_below_the_first_band_is_left_out(mesh: Mesh) -> None:
    assert not any(d.HasField("total_value_cny") for d in await everyone(mesh, TAX, **STAT))


async def test_a_moment_cut_to_its_year_does_not_come_back_through_the_envelope(mesh: Mesh) -> None:
    for told in await everyone(mesh, TAX, **STAT):
        assert told.declared_at.ToDatetime().isoformat() == "2026-01-01T00:00:00"
        assert not told.envelope.HasField("fact_time")


async def test_the_digest_of_a_pseudonym_is_no_digest_of_the_value(mesh: Mesh) -> None:
    """Records that differ in hidden fields only have one digest: it tells nothing of what was hidden."""
    told = await everyone(mesh, "quality/lab", **MONITOR)
    by_trader = {(d.trader_uscc, d.envelope.digest) for d in told}
    assert len(by_trader) == 2


async def test_the_buyer_of_r07_is_initials_only(mesh: Mesh) -> None:
    (told,) = await found(
        mesh, TAX, "customs.Declaration:overseas_party_name", subject="cn.declaration_no:999920260000000504", **REBATE
    )
    assert told.overseas_party_name == "A. B."
