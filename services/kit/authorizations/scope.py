"""What an authorization opens, at most, read from the contract once and asked for every question.

A scope only ever takes away: fields it does not name, subjects it does not name, rows its condition does not hold for.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from google.protobuf.message import Message

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2
from services.kit import identifiers, lookup
from services.kit.errors import PermissionDenied, Reason
from services.kit.policy.mask import ReadMask
from services.kit.policy.narrowing import narrow
from services.kit.policy.schema import Authorized
from services.kit.records import values as record_values
from services.kit.records.catalogue import RecordType
from services.kit.records.values import Column

Subject = tuple[str, str]
"""Scheme and value."""


def scope_digest(scope: authorization_pb2.Scope) -> bytes:
    """Digest a scope in canonical serialization (SHA-256): what approvers sign off and tickets name."""
    return hashlib.sha256(scope.SerializeToString(deterministic=True)).digest()


@dataclass(frozen=True, slots=True)
class ScopedType:
    """What of one record type is opened."""

    fields: tuple[str, ...]
    """Field paths; each opens all that is below it."""
    condition: str
    """Only rows for which this holds (AIP-160); empty demands nothing of them."""


@dataclass(frozen=True, slots=True, repr=False)
class Scope:
    """What an authorization opens, at most: its scope, as questions are checked against it."""

    text: bytes
    """The scope in canonical serialization, which the digest is of: what the log archives."""
    digest: bytes
    """SHA-256 of that."""
    caller: str
    """The one system that may use it, `agency/system`."""
    purpose: str
    legal_basis: str
    case_ref: str
    types: Mapping[str, ScopedType]
    """By record type."""
    subjects: frozenset[Subject]
    """Whom it is about; empty where conditions say it."""
    not_before: dt.datetime
    not_after: dt.datetime
    no_bulk: bool
    """Only about subjects that the question names."""
    emergency: bool
    _values: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    @classmethod
    def of(cls, scope: authorization_pb2.Scope) -> Self:
        """Read a scope; raises `ValueError` where its times are no moments, or a record type stands in it twice."""
        if len({each.record_type for each in scope.types}) != len(scope.types):
            raise ValueError("a record type stands in it twice")
        subjects = frozenset(_subject(subject) for subject in scope.subjects)
        schemes = {scheme for scheme, _ in subjects}
        return cls(
            text=scope.SerializeToString(deterministic=True),
            digest=scope_digest(scope),
            caller=scope.caller,
            purpose=scope.purpose,
            legal_basis=scope.legal_basis,
            case_ref=scope.case_ref,
            types={each.record_type: ScopedType(tuple(each.fields), each.condition) for each in scope.types},
            subjects=subjects,
            not_before=scope.not_before.ToDatetime(dt.UTC),
            not_after=scope.not_after.ToDatetime(dt.UTC),
            no_bulk=scope.no_bulk,
            emergency=scope.emergency,
            _values={s: frozenset(value for scheme, value in subjects if scheme == s) for s in schemes},
        )

    def authorized(self, authorization_id: str) -> Authorized:
        """Say what policies see of the authorization with this scope."""
        return Authorized(authorization_id, self.emergency, self.case_ref)

    def check_context(self, context: exchange_pb2.RequestContext) -> None:
        """Raise `PermissionDenied` AUTHORIZATION_SCOPE where a question is asked for another reason than this."""
        stated = context.purpose, context.legal_basis, context.case_ref
        if stated != (self.purpose, self.legal_basis, self.case_ref):
            raise _outside("it was given for another purpose, legal basis or case")

    def check_subject(self, subject: Subject | None, record_types: Iterable[str]) -> None:
        """Raise `PermissionDenied` AUTHORIZATION_SCOPE where a question about this subject, or about none, is not open.

        About nobody in particular one may ask only where a condition says which rows are meant, and nothing else does.
        """
        if subject is None and (self.no_bulk or self.subjects):
            raise _outside("name the subject that the question is about")
        if subject is not None and self.subjects and subject not in self.subjects:
            raise _outside("it is about others")
        for name in record_types:
            self._check_bounded(name)

    def check_key(self, kind: RecordType) -> None:
        """Raise `PermissionDenied` AUTHORIZATION_SCOPE where no record of a type can be asked for by its key."""
        self._check_bounded(kind.name)
        if self.subjects and self._values.keys().isdisjoint(kind.subjects):
            raise _outside(f"records of {kind.name} do not say whether they are about those it names")

    def check_changes(self, kind: RecordType) -> None:
        """Raise `PermissionDenied` AUTHORIZATION_SCOPE where changes of a type cannot be followed."""
        if self.no_bulk:
            raise _outside("only what is asked about a subject by name")
        self.check_key(kind)

    def _check_bounded(self, record_type: str) -> None:
        found = self.types.get(record_type)
        if found is not None and not (self.subjects or found.condition):
            raise _outside(f"nothing says which records of {record_type} are meant")

    def narrow(self, mask: ReadMask) -> ReadMask:
        """Give what is left of a whole mask; nothing of a record type that is not in the scope."""
        opened = self.types.get(mask.record_type.name) or ScopedType((), "")
        return narrow(mask, self.digest, opened.fields, opened.condition)

    def concerns(self, mask: ReadMask, record: Message, values: Mapping[str, Column]) -> bool:
        """Tell whether an uncut record is about one of the subjects, as the caller may look for them by policy.

        True of every record where the scope names none.
        """
        return not self.subjects or any(
            self._names(mask, scheme, record, values) for scheme in self._values if scheme in mask.record_type.subjects
        )

    def _names(self, mask: ReadMask, scheme: str, record: Message, values: Mapping[str, Column]) -> bool:
        try:
            via = lookup.by_subject(mask, scheme)
        except PermissionDenied:
            return False
        kind, wanted = mask.record_type, self._values[scheme]
        return any(
            record_values.column_of(kind.field(path).descriptor, record) in wanted
            and all(condition.evaluate(record, values) is True for condition in several)
            for path, several in via
        )


def _subject(subject: common_pb2.SubjectId) -> Subject:
    # As questions have it: the same code may be written with and without separators.
    return subject.scheme, identifiers.check(subject.scheme, subject.value).value


def _outside(why: str) -> PermissionDenied:
    return PermissionDenied(Reason.AUTHORIZATION_SCOPE, f"the authorization does not open this: {why}")
