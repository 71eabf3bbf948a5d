"""Scopes as they are asked for: checked against the catalogue and the jurisdiction, and written in one way.

What passes is what approvers sign off, byte for byte. So it holds nothing that they could not be shown: no field that
this version of the contract does not know, no record type or field that does not exist, no subject in two spellings.
"""

import datetime as dt
from typing import Final

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.kit import reader
from services.kit.doors import MAX_FIELDS, MAX_FILTERS, MAX_SELECTIONS
from services.kit.errors import InvalidArgument, Reason
from services.kit.jurisdiction import Jurisdiction
from services.kit.policy.engine import LIMITS
from services.kit.records import conditions
from services.kit.records.catalogue import Catalogue, RecordType, nearest

MAX_SUBJECTS: Final = 1000
"""Most subjects of a scope."""

MAX_ROWS: Final = 10**12
"""Largest quota: more rows than all registers together hold."""

MAX_BYTES: Final = 192 * 1024
"""Most bytes of a scope."""

NONCE_BYTES: Final = 16
"""Size of the nonce that keeps a scope's digest from being guessed: 128 bits."""

EMERGENCY: Final = dt.timedelta(hours=4)
"""The longest that an emergency authorization may be in force."""


_NAME: Final = 200
"""Most characters of a record type's name, or a field's path."""


class Scopes:
    """Checks scopes."""

    def __init__(self, catalogue: Catalogue, pack: Jurisdiction, longest: dt.timedelta) -> None:
        """`longest` is how long an authorization may be in force, and how far in the future it may begin."""
        self._catalogue = catalogue
        self._pack = pack
        self._longest = longest

    def check(self, asked: pb.Scope, system: str, now: dt.datetime) -> pb.Scope:
        """Check a scope that `system` (`agency/system`) asks for; gives it with subjects in their normal form.

        Raises `InvalidArgument`: SCOPE_INVALID, or the reason of the part that is wrong (RECORD_TYPE_UNKNOWN,
        FIELD_UNKNOWN, FILTER_INVALID, SUBJECT_INVALID, PURPOSE_UNKNOWN, BASIS_UNKNOWN, CASE_MISSING, …).
        """
        if asked.ByteSize() > MAX_BYTES:
            raise _wrong(f"it has at most {MAX_BYTES} bytes", "")
        if len(asked.subjects) > MAX_SUBJECTS:
            raise _wrong(f"at most {MAX_SUBJECTS} subjects", "subjects")
        scope = normal(asked)
        if scope.caller != system:
            raise _wrong("an authorization is for the system that asks for it", "caller")
        self._context(scope)
        self._time(scope, now)
        if not 1 <= scope.row_quota <= MAX_ROWS:
            raise _wrong(f"row_quota is a number from 1 to {MAX_ROWS}", "row_quota")
        if not 0 <= scope.rows_per_minute <= MAX_ROWS:
            raise _wrong(f"rows_per_minute is a number from 0 to {MAX_ROWS}", "rows_per_minute")
        kinds = self._types(scope)
        _subjects(scope, kinds)
        return scope

    def _context(self, scope: pb.Scope) -> None:
        for name, limit in (("purpose", LIMITS["purpose"]), ("legal_basis", LIMITS["legal_basis"])):
            text: str = getattr(scope, name)
            if len(text) > limit or not text.isprintable():
                raise _wrong(f"{name} is at most {limit} printable characters", name)
        for code, known, reason in (
            (scope.purpose, self._pack.purposes, Reason.PURPOSE_UNKNOWN),
            (scope.legal_basis, self._pack.bases, Reason.BASIS_UNKNOWN),
        ):
            if code not in known:
                raise InvalidArgument(reason, f"there is no {code!r} in the jurisdiction's list{nearest(code, known)}")
        case, longest = scope.case_ref, LIMITS["case_ref"]
        if not case.strip():
            raise InvalidArgument(Reason.CASE_MISSING, "an authorization names its case: case_ref", field="case_ref")
        if len(case) > longest or not case.isprintable():
            raise _wrong(f"case_ref is at most {longest} printable characters", "case_ref")

    def _time(self, scope: pb.Scope, now: dt.datetime) -> None:
        try:
            begin, end = scope.not_before.ToDatetime(dt.UTC), scope.not_after.ToDatetime(dt.UTC)
        except ValueError:
            raise _wrong("not_before and not_after are moments that a clock shows", "not_before") from None
        if not scope.HasField("not_before") or not scope.HasField("not_after"):
            raise _wrong("say from when and until when", "not_before")
        if scope.not_before.nanos % 1000 or scope.not_after.nanos % 1000:
            raise _wrong("moments are exact to the microsecond", "not_before")
        longest = min(self._longest, EMERGENCY) if scope.emergency else self._longest
        if not begin < end or end <= now:
            raise _wrong("not_after lies after not_before, and in the future", "not_after")
        if end - begin > longest:
            raise _wrong(f"it is in force for at most {longest}", "not_after")
        if begin > now + self._longest:
            raise _wrong(f"it begins within {self._longest}", "not_before")

    def _types(self, scope: pb.Scope) -> list[RecordType]:
        if not 1 <= len(scope.types) <= MAX_SELECTIONS:
            raise _wrong(f"it opens at least one record type, and at most {MAX_SELECTIONS}", "types")
        if sum(len(part.condition) for part in scope.types) > MAX_FILTERS:
            raise _wrong(f"its conditions have at most {MAX_FILTERS} characters together", "types")
        kinds: list[RecordType] = []
        for part in scope.types:
            if any(len(name) > _NAME for name in (part.record_type, *part.fields)):
                raise _wrong(f"names have at most {_NAME} characters", "types")
            kind = self._catalogue.get(part.record_type)
            if kind.name in {known.name for known in kinds}:
                raise InvalidArgument(Reason.RECORD_TYPE_REPEATED, "name every record type once, with all its fields")
            if not 1 <= len(part.fields) <= MAX_FIELDS or len(set(part.fields)) != len(part.fields):
                raise _wrong(f"{kind.name}: name at least one field and at most {MAX_FIELDS}, each once", "fields")
            kind.expand(part.fields)
            if part.condition:
                conditions.parse(part.condition, kind)
            elif not scope.subjects:
                raise _wrong(f"{kind.name} has no condition, and there are no subjects: name one or the other", "types")
            kinds.append(kind)
        return kinds


def normal(asked: pb.Scope) -> pb.Scope:
    """Write a scope with its subjects in their normal form; raises `InvalidArgument` for one that is none.

    Raises SCOPE_INVALID where it holds fields that this version of the contract does not know, or a nonce: whoever
    chose that could try out afterwards which scope a digest is of.
    """
    if asked.nonce:
        raise _wrong("the service chooses the nonce", "nonce")
    scope = pb.Scope()
    scope.CopyFrom(asked)
    scope.DiscardUnknownFields()
    if scope.ByteSize() != asked.ByteSize():
        raise _wrong("it holds fields that this version does not know, and no approver could be shown", "")
    for subject in scope.subjects:
        subject.value = reader.subject_of(subject.scheme, subject.value, subject.as_written)[1]
    return scope


def with_nonce(scope: pb.Scope, nonce: bytes) -> pb.Scope:
    """Give a scope with a nonce."""
    made = pb.Scope()
    made.CopyFrom(scope)
    made.nonce = nonce
    return made


def _subjects(scope: pb.Scope, kinds: list[RecordType]) -> None:
    seen: set[tuple[str, str]] = set()
    for subject in scope.subjects:
        if (subject.scheme, subject.value) in seen:
            raise _wrong("a subject stands twice", "subjects")
        if not any(subject.scheme in kind.subjects for kind in kinds):
            raise _wrong(f"no record type of the scope is found by {subject.scheme}", "subjects")
        seen.add((subject.scheme, subject.value))


def _wrong(why: str, field: str) -> InvalidArgument:
    named = {"field": f"scope.{field}"} if field else {}
    return InvalidArgument(Reason.SCOPE_INVALID, f"the scope does not stand: {why}", **named)
