"""The catalogue, read from the contracts."""

import pytest

from hutong.api.customs.v1 import declaration_pb2
from hutong.api.taxation.v1 import vat_filing_pb2
from services.kit.errors import InvalidArgument, Reason
from services.kit.records import catalogue
from services.kit.records.catalogue import Catalogue
from services.kit.records.values import Kind


def test_every_agency_owns_something() -> None:
    known = catalogue.load()
    assert known.owners() == ("commerce", "customs", "publicsecurity", "quality", "recognition", "taxation")
    assert all(kind.name in known.owned_by(kind.owner) for kind in known)


def test_fields_are_found_wherever_they_stand() -> None:
    kind = catalogue.load().get("customs.Declaration")
    assert kind.field("lines").kind is Kind.PART
    assert kind.field("lines.hs10").repeated
    assert not kind.field("ie_flag").repeated
    assert kind.field("ie_flag").indexed
    assert "envelope" not in kind.fields


@pytest.mark.parametrize(
    ("path", "hint"), [("line.hs10", "lines.hs10"), ("declarationno", "declaration_no"), ("ie_flg", "ie_flag")]
)
def test_an_unknown_field_names_the_nearest(path: str, hint: str) -> None:
    with pytest.raises(InvalidArgument, match=f"did you mean '{hint}'") as refused:
        catalogue.load().get("customs.Declaration").field(path)
    assert refused.value.reason is Reason.FIELD_UNKNOWN


def test_an_unknown_record_type_names_the_nearest() -> None:
    with pytest.raises(InvalidArgument, match=r"did you mean 'customs\.Declaration'") as refused:
        catalogue.load().get("customs.Decleration")
    assert refused.value.reason is Reason.RECORD_TYPE_UNKNOWN


def test_a_path_selects_all_below_it_once_and_in_order() -> None:
    kind = catalogue.load().get("customs.Declaration")
    assert kind.expand(["lines.hs10", "ie_flag", "lines"]) == (
        "ie_flag",
        *(leaf.path for leaf in kind.leaves if leaf.path.startswith("lines.")),
    )
    assert kind.expand([]) == tuple(leaf.path for leaf in kind.leaves)


def test_keys_are_joined_and_must_be_whole() -> None:
    kind = Catalogue.of(vat_filing_pb2.VatFiling).get("taxation.VatFiling")
    filing = vat_filing_pb2.VatFiling(uscc="91350211M0000XUF46")
    with pytest.raises(ValueError, match="incomplete"):
        kind.key_of(filing)
    filing.period.year, filing.period.month = 2026, 5
    assert kind.key_of(filing) == "91350211M0000XUF46~2026-05"


def test_the_schema_is_told_to_callers() -> None:
    info = Catalogue.of(declaration_pb2.Declaration).get("customs.Declaration").info()
    fields = {f.path: f for f in info.fields}
    assert fields["declaration_no"].key
    assert fields["trader_uscc"].subject == "cn.uscc"
    assert any(e.startswith("WCO ") for e in fields["lines.hs10"].elements)
