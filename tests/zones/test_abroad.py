"""What another zone sends, before it goes on: nothing but what it says it gave, of what it was asked."""

from collections.abc import Callable
from typing import Any

import pytest

from gateway.abroad import ForeignPart
from hutong.api.customs.v1 import declaration_pb2
from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import (
    DeadlineExceeded,
    HutongError,
    Internal,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from services.kit.records import catalogue

ZONE = "inland.example"
CLEAR, REFUSED = exchange_pb2.VERDICT_CLEAR, exchange_pb2.VERDICT_REFUSED
OK, DENIED = exchange_pb2.SECTION_STATUS_OK, exchange_pb2.SECTION_STATUS_DENIED
TIMEOUT, UNAVAILABLE = exchange_pb2.SECTION_STATUS_TIMEOUT, exchange_pb2.SECTION_STATUS_UNAVAILABLE


def part() -> ForeignPart:
    selection = exchange_pb2.Selection(record_type="customs.Declaration")
    return ForeignPart(0, selection, ZONE, catalogue.load().get("customs.Declaration"))


def section(**fields: Any) -> exchange_pb2.Section:
    """One declaration, number given and weight refused."""
    record = declaration_pb2.Declaration(declaration_no="999920260000000001", **fields)
    made = exchange_pb2.Section(record_type="customs.Declaration", agency="customs", zone=ZONE, status=OK)
    made.decisions.add(field="declaration_no", verdict=CLEAR)
    made.decisions.add(field="overseas_party_name", verdict=REFUSED)
    made.records.add().Pack(record)
    return made


def test_what_is_right_goes_on_byte_for_byte() -> None:
    raw = section().SerializeToString() + exchange_pb2.Section(zone=ZONE).SerializeToString()
    cut, rows = part().cut(raw)
    assert cut is raw
    assert rows == 1


@pytest.mark.parametrize(
    "field",
    [{"overseas_party_name": "Example Trading GmbH"}, {"trader_uscc": "91350211M0000XUF46"}],
    ids=["refused", "undecided"],
)
def test_what_it_does_not_say_it_gave_is_cut_off(field: dict[str, str]) -> None:
    raw = section(**field).SerializeToString()
    cut, rows = part().cut(raw)
    assert rows == 1
    record = declaration_pb2.Declaration()
    assert exchange_pb2.Section.FromString(cut).records[0].Unpack(record)
    assert record.declaration_no
    assert not any(getattr(record, name) for name in field)


def test_what_this_version_does_not_know_is_cut_off() -> None:
    made = section()
    made.records[0].value += b"\xfa\x3f\x03abc"
    cut, _ = part().cut(made.SerializeToString())
    assert b"abc" not in cut


def denied(made: exchange_pb2.Section) -> None:
    made.status = DENIED


def of_another_type(made: exchange_pb2.Section) -> None:
    made.record_type = "customs.Manifest"


def of_another_zone(made: exchange_pb2.Section) -> None:
    made.zone = "far.example"


def of_no_zone(made: exchange_pb2.Section) -> None:
    made.zone = ""


def with_another_record(made: exchange_pb2.Section) -> None:
    made.records[0].type_url = "type.googleapis.com/hutong.api.customs.v1.Manifest"


def with_no_record(made: exchange_pb2.Section) -> None:
    made.records[0].value = b"\xff"


def with_no_status(made: exchange_pb2.Section) -> None:
    made.status = exchange_pb2.SECTION_STATUS_UNSPECIFIED


def with_too_many(made: exchange_pb2.Section) -> None:
    for _ in range(200):
        made.records.add().CopyFrom(made.records[0])


@pytest.mark.parametrize(
    "spoil",
    [
        denied,
        of_another_type,
        of_another_zone,
        of_no_zone,
        with_another_record,
        with_no_record,
        with_no_status,
        with_too_many,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_is_no_answer_is_none(spoil: Callable[[exchange_pb2.Section], None]) -> None:
    made = section()
    spoil(made)
    with pytest.raises(Unavailable) as caught:
        part().cut(made.SerializeToString())
    assert caught.value.reason is Reason.ZONE_FAILED


def test_nonsense_is_no_answer() -> None:
    with pytest.raises(Unavailable):
        part().cut(b"\xff\xff")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (PermissionDenied(Reason.CALLER_NOT_LISTED, ""), DENIED, Reason.CALLER_NOT_LISTED),
        (DeadlineExceeded(Reason.ZONE_TIMEOUT, ""), TIMEOUT, Reason.ZONE_TIMEOUT),
        (Unavailable(Reason.ZONE_UNREACHABLE, ""), UNAVAILABLE, Reason.ZONE_UNREACHABLE),
        (ResourceExhausted(Reason.RATE_EXCEEDED, ""), UNAVAILABLE, Reason.RATE_EXCEEDED),
        (Unauthenticated(Reason.CONTEXT_EXPIRED, ""), UNAVAILABLE, Reason.CONTEXT_EXPIRED),
        (Unavailable(Reason.LOG_UNAVAILABLE, ""), UNAVAILABLE, Reason.ZONE_FAILED),
        (Internal(Reason.INTERNAL, ""), UNAVAILABLE, Reason.ZONE_FAILED),
    ],
    ids=lambda value: value.reason if isinstance(value, HutongError) else "",
)
def test_why_there_is_no_answer(error: HutongError, status: int, reason: Reason) -> None:
    """What fails inside another zone is told as just that."""
    made = part().failed(error)
    assert (made.status, made.reason, made.zone, made.agency) == (status, reason, ZONE, "customs")
