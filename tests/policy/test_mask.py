"""Masks by themselves: conditions, envelopes, sections."""

import hashlib
from typing import Any

import pytest

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import InvalidArgument, Reason
from services.kit.policy.mask import ReadMask
from tests.policy.support import TAX, TYPE, context, engine, permit


def mask_of(*texts: str) -> ReadMask:
    return engine(*texts).mask(TAX, context(), TYPE)


def record(**fields: Any) -> Any:
    return TYPE.message(envelope={"key": "K", "version": 2, "fact_time": {"seconds": 5}, "digest": b"old"}, **fields)


def test_conditions_are_grouped_and_the_empty_group_always_holds() -> None:
    mask = mask_of(
        permit("a", ["code"]),
        permit("b", ["colour", "count"], rows="count > 1"),
        permit("c", ["phone"], rows="colour = 'RED'"),
        permit("d", ["phone"], rows="count > 1"),
    )
    assert [[c.text for c in group] for group in mask.conditions] == [
        [],
        ["count > 1"],
        ["colour = 'RED'", "count > 1"],
    ]
    for count, colour, truth, left in (
        (2, 1, (True, True, True), {"code", "colour", "count", "phone"}),
        (2, 2, (True, True, False), {"code", "colour", "count"}),
        (1, 1, (True, False, False), {"code"}),
    ):
        found = record(code="x", count=count, colour=colour, phone="1")
        assert mask.truth(found, {}) == truth
        mask.cutter(truth)(found)
        assert {f.name for f, _ in found.ListFields()} - {"envelope"} == left
    found = record(code="x", count=2, colour=1, phone="1")
    mask.cutter()(found)
    assert {f.name for f, _ in found.ListFields()} == {"envelope", "code"}
    with pytest.raises(ValueError, match="3 conditions"):
        mask.cutter((True,))


def test_the_envelope_is_cut_like_the_body() -> None:
    found = record(code="x", found_at={"seconds": 5})
    mask_of(permit("p", ["code", "found_at"])).cutter((True,))(found)
    assert (found.envelope.key, found.envelope.version) == ("K", 2)
    assert found.envelope.fact_time.seconds == 5
    assert found.envelope.digest == hashlib.sha256(b"\x12\x01x\x5a\x02\x08\x05").digest()

    found = record(code="x-1234567", found_at={"seconds": 5})
    mask_of(permit("p", ["code"], transform="last4"), permit("q", ["found_at"], transform="year")).cutter((True,))(
        found
    )
    assert not found.envelope.key
    assert not found.envelope.HasField("fact_time")
    assert found.code == "****4567"
    assert found.envelope.digest != b"old"

    bare = TYPE.message(code="x")
    mask_of(permit("p")).cutter((True,))(bare)
    assert not bare.HasField("envelope")


def test_parts_are_cut_inside_and_dropped_where_nothing_of_them_is_given() -> None:
    lines = [
        {"line_no": 1, "goods": "tea", "results": [{"analyte": "Pb", "reading": {"value": "0.2"}}]},
        {"line_no": 2, "goods": "salt", "price": {"amount": {"value": "5"}, "currency_code": "CNY"}},
    ]
    found = record(lines=lines, place={"street": "West Rd", "country": "CN"})
    mask_of(permit("p", ["lines.line_no", "lines.results.analyte"])).cutter((True,))(found)
    assert not found.HasField("place")
    assert [(line.line_no, line.goods, line.HasField("price")) for line in found.lines] == [
        (1, "", False),
        (2, "", False),
    ]
    assert [(r.analyte, r.HasField("reading")) for r in found.lines[0].results] == [("Pb", False)]
    mask_of(permit("p", ["place.country"])).cutter((True,))(found)
    assert not found.lines


def test_a_selection_keeps_the_whole_and_names_unknown_fields() -> None:
    whole = mask_of(permit("p", ["code", "lines.goods", "lines.line_no"]))
    part = whole.restrict(["lines"])
    assert set(part.grants) == {"lines.goods", "lines.line_no"}
    assert part.whole is whole
    assert part.restrict(["lines.goods"]).whole is whole
    assert whole.restrict(["lines"]) is part
    assert [d.field for d in part.decisions] == [
        p for p in (leaf.path for leaf in TYPE.leaves) if p.startswith("lines.")
    ]
    with pytest.raises(InvalidArgument, match=r"'lines\.goods'") as caught:
        whole.restrict(["lines.good"])
    assert caught.value.reason is Reason.FIELD_UNKNOWN


def test_sections_say_how_it_came_out() -> None:
    whole = mask_of(permit("p", ["code", "colour"]), permit("q", ["phone"], transform="last4"))
    for paths, status in (
        (["code", "colour"], exchange_pb2.SECTION_STATUS_OK),
        (["code", "count"], exchange_pb2.SECTION_STATUS_PARTIAL),
        (["code", "phone"], exchange_pb2.SECTION_STATUS_PARTIAL),
        (["count"], exchange_pb2.SECTION_STATUS_DENIED),
    ):
        section = whole.restrict(paths).section()
        assert section.status == status
        assert (section.record_type, section.agency) == ("museum.Specimen", "museum")
        assert section.policy_version == whole.version
        assert len(section.decisions) == len(paths)
    section.record_type = "changed"
    assert whole.restrict(["count"]).section().record_type == "museum.Specimen"


def test_the_most_telling_reason_is_told() -> None:
    mask = engine(permit("p", ["code"])).mask(TAX, context(basis="CN-CUSTOMS-RISK"), TYPE)
    assert mask.reason is Reason.BASIS_MISMATCH
    assert mask.restrict(["colour"]).reason is Reason.NO_PERMIT
    assert mask_of(permit("p", ["code"])).restrict(["code"]).reason is Reason.PERMITTED


def test_the_gateway_clears_what_both_do_not_give_and_keeps_transformed_values() -> None:
    mask = mask_of(permit("p", ["code", "colour"]), permit("q", ["phone"], transform="last4"))
    found = record(code="x", colour=1, phone="****4321", count=3)
    mask.clearer()(found)
    assert (found.code, found.colour, found.phone, found.HasField("count")) == ("x", 1, "****4321", False)
    assert found.envelope.key == "K"
    mask.clearer(frozenset({"colour", "count"}))(found)
    assert {f.name for f, _ in found.ListFields()} == {"envelope", "colour"}
    assert not found.envelope.key


def test_what_a_mask_compiles_has_an_end() -> None:
    mask = mask_of(permit("p", [], when='context.purpose == "P-REBATE" && resource.share != "withheld"'))
    for number in range(600):
        mask.restrict(["code"] * number)
    assert mask.restrict(["code"]).grants
