"""Errors and their way over the wire."""

import inspect

import pytest
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from services.kit import errors, wire
from services.kit.errors import Code, HutongError, InvalidArgument, Reason

CLASSES = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, HutongError) and c is not HutongError
]


def test_reasons_are_their_own_names() -> None:
    assert all(reason.name == reason.value for reason in Reason)
    assert len(Reason.__members__) == len(set(Reason))


def test_every_code_has_one_class_and_one_number() -> None:
    assert {c.code for c in CLASSES} == set(Code)
    assert len({c.code for c in CLASSES}) == len(CLASSES)
    assert len(set(wire.NUMBERS.values())) == len(Code)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("reason", [Reason.NO_PERMIT, Reason.PAGE_TOKEN_MISMATCH])
def test_an_error_survives_the_wire(cls: type[HutongError], reason: Reason) -> None:
    sent = cls(reason, "the message", field="lines.hs10")
    status = wire.to_status(sent)
    back = wire.from_status(status.code, status.message, status.SerializeToString())
    assert type(back) is cls
    assert (back.reason, back.message, back.metadata) == (reason, "the message", {"field": "lines.hs10"})


def test_a_strangers_status_becomes_ours_by_its_code() -> None:
    assert wire.from_status(14, "connect failed", None).reason is Reason.DEPARTMENT_UNREACHABLE
    assert wire.from_status(4, "too late", None).reason is Reason.DEPARTMENT_TIMEOUT
    assert wire.from_status(2, "what?", None).code is Code.INTERNAL


@pytest.mark.parametrize(("reason", "domain"), [("NO_PERMIT", "elsewhere.example"), ("NOT_OURS", errors.DOMAIN)])
def test_details_of_others_are_not_taken_for_ours(reason: str, domain: str) -> None:
    status = status_pb2.Status(code=3, message="m")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    back = wire.from_status(3, "m", status.SerializeToString())
    assert isinstance(back, InvalidArgument)
    assert back.reason is Reason.INTERNAL
