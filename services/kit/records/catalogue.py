"""The record types of the mesh, read from the descriptors: one place to change.

Everything that must know what a record looks like (tables, policy schema, masks, the gateway's plan, the command
line's listing) asks here. A new agency is a new proto package; nothing in this file knows its name.
"""

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Self, cast

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

import hutong.api
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.schema.v1 import options_pb2
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.records import values
from services.kit.records.values import Kind

ENVELOPE = "envelope"
"""Name of the first field of every record."""

_LONGEST_NAME = 128

KEY_SEPARATOR = "~"
"""Joins the parts of a composite key (AIP-122 allows it inside a resource id)."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record type, wherever in the record it stands."""

    path: str
    name: str
    descriptor: FieldDescriptor
    kind: Kind
    repeated: bool
    """The field, or a part it stands in, is repeated."""
    share: int
    grade: int
    key: bool
    subject: str
    """Scheme of the subject it names, or empty."""
    scheme: str
    """Identifier scheme its value is checked against, or empty."""
    indexed: bool
    groups: tuple[str, ...]
    elements: tuple[tuple[str, str], ...]

    @property
    def type_text(self) -> str:
        """The field's type in words, for people."""
        text = f"enum {values.enum_of(self.descriptor).name}" if self.kind is Kind.ENUM else str(self.kind)
        return f"repeated {text}" if self.descriptor.is_repeated else text


@dataclass(frozen=True, slots=True)
class RecordType:
    """One kind of record, with the agency that owns it."""

    name: str
    """Short name, `customs.Declaration`."""
    full_name: str
    owner: str
    title: str
    local_title: str
    pattern: str
    fact_time: str
    message: type[Message]
    fields: Mapping[str, Field]
    """Every field by path, parts included, in order of declaration."""
    leaves: tuple[Field, ...]
    key_fields: tuple[Field, ...]
    subjects: Mapping[str, tuple[Field, ...]]
    indexed: tuple[Field, ...]

    @property
    def collection(self) -> str:
        """The collection in resource names: `declarations`."""
        return self.pattern.partition("/")[0]

    def field(self, path: str) -> Field:
        """Get a field; raises `InvalidArgument` naming the nearest where there is none."""
        try:
            return self.fields[path]
        except KeyError:
            hint = nearest(path, self.fields)
            raise InvalidArgument(
                Reason.FIELD_UNKNOWN, f"{self.name} has no field {path!r}{hint}", record_type=self.name, field=path
            ) from None

    def expand(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Turn asked paths into leaf paths, in order of declaration; nothing asked means every leaf.

        Raises `InvalidArgument` for a path that does not exist.
        """
        asked = {self.field(path).path for path in paths}
        if not asked:
            return tuple(leaf.path for leaf in self.leaves)
        return tuple(leaf.path for leaf in self.leaves if any(p in asked for p in _prefixes(leaf.path)))

    def key_of(self, message: Message) -> str:
        """Write a record's key; raises `ValueError` where a part of it is missing."""
        parts = [values.text_of(f.descriptor, getattr(message, f.name)) for f in self.key_fields if _known(f, message)]
        if len(parts) != len(self.key_fields) or not all(parts):
            raise ValueError(f"{self.name}: the key ({', '.join(f.name for f in self.key_fields)}) is incomplete")
        return KEY_SEPARATOR.join(parts)

    def info(self) -> exchange_pb2.RecordTypeInfo:
        """Describe the type for callers."""
        return exchange_pb2.RecordTypeInfo(
            name=self.name,
            owner=self.owner,
            title=self.title,
            local_title=self.local_title,
            message=self.full_name,
            fields=[
                exchange_pb2.FieldInfo(
                    path=f.path,
                    type=f.type_text,
                    share=options_pb2.ShareClass.ValueType(f.share),
                    grade=options_pb2.Grade.ValueType(f.grade),
                    key=f.key,
                    subject=f.subject,
                    indexed=f.indexed,
                    elements=[f"{standard} {element}" for standard, element in f.elements],
                )
                for f in self.leaves
            ],
        )


def _known(field: Field, message: Message) -> bool:
    # An integer key part may well be 0; everything else that is empty is missing.
    return field.kind is Kind.INT or values.is_set(field.descriptor, message)


def _prefixes(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def nearest(name: str, known: Iterable[str]) -> str:
    """Word a hint at the known name most like `name`: `; did you mean 'hs10'?`, or nothing."""
    if len(name) > _LONGEST_NAME:
        return ""  # looking for likenesses takes time, and no name of ours is as long
    by_folded = {k.casefold(): k for k in known}
    found = get_close_matches(name.casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[found[0]]!r}?" if found else ""


def _field(descriptor: FieldDescriptor, prefix: str, repeated: bool) -> Field:
    rule: options_pb2.FieldRule = descriptor.GetOptions().Extensions[options_pb2.field]
    path = f"{prefix}{descriptor.name}"
    if not rule.share or not rule.grade:
        raise FailedPrecondition(Reason.SCHEMA_INVALID, f"{descriptor.full_name} states no share class or grade")
    field = Field(
        path=path,
        name=descriptor.name,
        descriptor=descriptor,
        kind=values.kind_of(descriptor),
        repeated=repeated or descriptor.is_repeated,
        share=rule.share,
        grade=rule.grade,
        key=rule.key,
        subject=rule.subject,
        scheme=rule.scheme or rule.subject,
        indexed=rule.indexed or rule.key or bool(rule.subject),
        groups=tuple(rule.groups),
        elements=tuple((e.standard, e.id) for e in rule.elements),
    )
    if field.indexed and (prefix or field.repeated):
        raise FailedPrecondition(Reason.SCHEMA_INVALID, f"{descriptor.full_name} is indexed, but repeated or in a part")
    return field


def _walk(descriptor: Descriptor, prefix: str = "", repeated: bool = False) -> Iterator[Field]:
    for child in descriptor.fields:
        if not prefix and child.name == ENVELOPE:
            continue
        field = _field(child, prefix, repeated)
        yield field
        if field.kind is Kind.PART and child.message_type is not None:
            yield from _walk(child.message_type, f"{field.path}.", field.repeated)


def record_type(descriptor: Descriptor) -> RecordType:
    """Read one record type from its descriptor; raises `FailedPrecondition` where the schema contradicts itself."""
    rule: options_pb2.RecordRule = descriptor.GetOptions().Extensions[options_pb2.record]
    fields = {field.path: field for field in _walk(descriptor)}
    leaves = tuple(f for f in fields.values() if f.kind is not Kind.PART)
    subjects: dict[str, tuple[Field, ...]] = {}
    for leaf in leaves:
        if leaf.subject:
            subjects[leaf.subject] = (*subjects.get(leaf.subject, ()), leaf)
    names = re.findall(r"{(\w+)}", rule.pattern)
    keys = tuple(f for f in leaves if f.key)
    first = descriptor.fields[0]
    if names != [f.name for f in keys] or not keys:
        raise FailedPrecondition(Reason.SCHEMA_INVALID, f"{descriptor.full_name}: pattern does not name the key fields")
    if first.name != ENVELOPE or first.number != 1:
        raise FailedPrecondition(Reason.SCHEMA_INVALID, f"{descriptor.full_name}: field 1 is not the envelope")
    if rule.fact_time and rule.fact_time not in fields:
        raise FailedPrecondition(Reason.SCHEMA_INVALID, f"{descriptor.full_name}: fact_time names no field")
    return RecordType(
        name=f"{rule.owner}.{descriptor.name}",
        full_name=descriptor.full_name,
        owner=rule.owner,
        title=rule.title,
        local_title=rule.local_title,
        pattern=rule.pattern,
        fact_time=rule.fact_time,
        message=message_factory.GetMessageClass(descriptor),
        fields=fields,
        leaves=leaves,
        key_fields=keys,
        subjects=subjects,
        indexed=tuple(f for f in leaves if f.indexed),
    )


class Catalogue:
    """The record types one process knows, by short name."""

    def __init__(self, types: Iterable[RecordType]) -> None:
        self._types = {t.name: t for t in sorted(types, key=lambda t: t.name)}

    @classmethod
    def of(cls, *messages: type[Message]) -> Self:
        """Make a catalogue of the given messages."""
        return cls(record_type(cast("Descriptor", m.DESCRIPTOR)) for m in messages)

    def get(self, name: str) -> RecordType:
        """Get a record type; raises `InvalidArgument` naming the nearest where there is none."""
        try:
            return self._types[name]
        except KeyError:
            raise InvalidArgument(
                Reason.RECORD_TYPE_UNKNOWN,
                f"there is no record type {name!r}{nearest(name, self._types)}",
                record_type=name,
            ) from None

    def owned_by(self, agency: str) -> "Catalogue":
        """Get the part of the catalogue that one agency owns."""
        return Catalogue(t for t in self if t.owner == agency)

    def owners(self) -> tuple[str, ...]:
        """List the agencies that own anything, sorted."""
        return tuple(sorted({t.owner for t in self}))

    def __iter__(self) -> Iterator[RecordType]:
        return iter(self._types.values())

    def __len__(self) -> int:
        return len(self._types)

    def __contains__(self, name: object) -> bool:
        return name in self._types


@cache
def load() -> Catalogue:
    """Load every record type of every contract installed under `hutong.api`."""
    return Catalogue(record_type(d) for d in _descriptors())


def _descriptors() -> Iterator[Descriptor]:
    for name in sorted(set(_modules())):
        for descriptor in importlib.import_module(name).DESCRIPTOR.message_types_by_name.values():
            if descriptor.GetOptions().HasExtension(options_pb2.record):
                yield descriptor


def _modules() -> Iterator[str]:
    # Namespace packages have no __init__ for pkgutil to walk; the folders say it all.
    for root in map(Path, hutong.api.__path__):
        for path in root.rglob("*_pb2.py"):
            yield ".".join(("hutong", "api", *path.relative_to(root).with_suffix("").parts))
