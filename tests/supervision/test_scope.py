"""Scopes: what is asked for has to exist, to end, and to be what approvers are shown."""

import datetime as dt
from typing import Any

import pytest

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from services.kit import jurisdiction
from services.kit.authorizations.scope import scope_digest
from services.kit.errors import InvalidArgument, Reason
from services.kit.records import catalogue
from services.supervision.scope import Scopes
from tests.supervision.desk import DAY, FIRM, HOUR, START, SYSTEM, TYPE, scope

SCOPES = Scopes(catalogue.load(), jurisdiction.load("cn"), 90 * DAY)
CONDITION = 'trade_country = "US"'


def checked(asked: pb.Scope, system: str = SYSTEM) -> pb.Scope:
    return SCOPES.check(asked, system, START)


def refused(asked: pb.Scope, system: str = SYSTEM) -> Reason:
    with pytest.raises(InvalidArgument) as caught:
        checked(asked, system)
    assert len(str(caught.value)) < 1000
    return caught.value.reason


def opened(*fields: str, name: str = TYPE, condition: str = "") -> pb.ScopedType:
    return pb.ScopedType(record_type=name, fields=fields, condition=condition)


def subject(value: str, scheme: str = "cn.uscc", as_written: bool = False) -> common_pb2.SubjectId:
    return common_pb2.SubjectId(scheme=scheme, value=value, as_written=as_written)


def test_a_good_one_is_what_it_was() -> None:
    assert checked(scope()) == scope()


def test_subjects_are_written_in_one_way() -> None:
    spaced = scope(subjects=[subject(FIRM.lower())])
    assert scope_digest(checked(spaced)) == scope_digest(scope())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"purpose": ""}, Reason.PURPOSE_UNKNOWN),
        ({"purpose": "P-NONE"}, Reason.PURPOSE_UNKNOWN),
        ({"purpose": "P-AML P-CRIMINAL"}, Reason.PURPOSE_UNKNOWN),
        ({"purpose": "P" * 65}, Reason.SCOPE_INVALID),
        ({"purpose": "P-\n"}, Reason.SCOPE_INVALID),
        ({"legal_basis": ""}, Reason.BASIS_UNKNOWN),
        ({"case_ref": ""}, Reason.CASE_MISSING),
        ({"case_ref": "  "}, Reason.CASE_MISSING),
        ({"case_ref": "c" * 129}, Reason.SCOPE_INVALID),
        ({"case_ref": "a\x00b"}, Reason.SCOPE_INVALID),
        ({"row_quota": 0}, Reason.SCOPE_INVALID),
        ({"row_quota": -1}, Reason.SCOPE_INVALID),
        ({"row_quota": 10**12 + 1}, Reason.SCOPE_INVALID),
        ({"rows_per_minute": -1}, Reason.SCOPE_INVALID),
        ({"types": []}, Reason.SCOPE_INVALID),
        ({"types": [opened()]}, Reason.SCOPE_INVALID),
        ({"types": [opened("declaration_no", "declaration_no")]}, Reason.SCOPE_INVALID),
        ({"types": [opened("none")]}, Reason.FIELD_UNKNOWN),
        ({"types": [opened("x" * 201)]}, Reason.SCOPE_INVALID),
        ({"types": [opened("hs10", name="customs.None")]}, Reason.RECORD_TYPE_UNKNOWN),
        ({"types": [opened("hs10", name="x" * 10_000)]}, Reason.SCOPE_INVALID),
        ({"types": [opened("declaration_no"), opened("trader_uscc")]}, Reason.RECORD_TYPE_REPEATED),
        ({"types": [opened("declaration_no", condition="nonsense")]}, Reason.FILTER_INVALID),
        ({"types": [opened("declaration_no", condition='goods_name = "x"')]}, Reason.FIELD_UNKNOWN),
        ({"types": [opened("declaration_no", condition="declaration_no = :subject")]}, Reason.FILTER_INVALID),
        ({"types": [opened("declaration_no", condition="(" * 9000)]}, Reason.SCOPE_INVALID),
        ({"subjects": []}, Reason.SCOPE_INVALID),
        ({"subjects": [subject("nonsense")]}, Reason.SUBJECT_INVALID),
        ({"subjects": [subject("91110000600037341M")]}, Reason.SUBJECT_INVALID),
        ({"subjects": [subject(FIRM, "none")]}, Reason.SUBJECT_SCHEME_UNKNOWN),
        ({"subjects": [subject(FIRM), subject(f"{FIRM[:8]} {FIRM[8:]}")]}, Reason.SCOPE_INVALID),
        ({"subjects": [subject("5493001KJTIIGC8Y1R12", "lei")]}, Reason.SCOPE_INVALID),
        ({"subjects": [subject(FIRM)] * 1001}, Reason.SCOPE_INVALID),
        ({"lasts": dt.timedelta()}, Reason.SCOPE_INVALID),
        ({"lasts": -DAY}, Reason.SCOPE_INVALID),
        ({"lasts": 90 * DAY + HOUR}, Reason.SCOPE_INVALID),
        ({"begin": START + 91 * DAY}, Reason.SCOPE_INVALID),
        ({"begin": START - 15 * DAY}, Reason.SCOPE_INVALID),
        ({"emergency": True}, Reason.SCOPE_INVALID),
    ],
)
def test_what_does_not_stand(changes: dict[str, Any], reason: Reason) -> None:
    assert refused(scope(**changes)) is reason


def test_it_is_for_the_system_that_asks() -> None:
    assert refused(scope("supervision/other")) is Reason.SCOPE_INVALID
    assert refused(scope(), "supervision/other") is Reason.SCOPE_INVALID


def test_times_have_to_be_there_and_to_be_moments() -> None:
    for name in ("not_before", "not_after"):
        asked = scope()
        asked.ClearField(name)
        assert refused(asked) is Reason.SCOPE_INVALID
        getattr(asked, name).seconds = 10**15
        assert refused(asked) is Reason.SCOPE_INVALID
    asked = scope()
    asked.not_after.nanos = 1
    assert refused(asked) is Reason.SCOPE_INVALID


def test_a_condition_stands_for_subjects() -> None:
    asked = scope(types=[opened("declaration_no", condition=CONDITION)], subjects=[], no_bulk=False)
    assert checked(asked).types[0].condition == CONDITION
    both = [opened("declaration_no", condition=CONDITION), opened("penalty_no", name="customs.Penalty")]
    assert refused(scope(types=both, subjects=[])) is Reason.SCOPE_INVALID


def test_the_nonce_is_the_services() -> None:
    assert refused(scope(nonce=bytes(16))) is Reason.SCOPE_INVALID


def test_nothing_that_approvers_could_not_be_shown() -> None:
    """A field of a later version would be signed off unseen."""
    raw = scope().SerializeToString()
    for extra in (b"\xa2\x06\x04wide", b""):
        asked = pb.Scope.FromString(raw + extra)
        assert (asked.SerializeToString() == raw) == (not extra)
        if extra:
            assert refused(asked) is Reason.SCOPE_INVALID
        else:
            checked(asked)
    inner = scope(types=[pb.ScopedType.FromString(opened("declaration_no").SerializeToString() + b"\xa2\x06\x01x")])
    assert refused(inner) is Reason.SCOPE_INVALID


def test_parts_and_codes_as_written() -> None:
    asked = scope(types=[opened("lines.hs10")], subjects=[subject("91350211M0000XUF46", as_written=True)])
    assert checked(asked) == asked
