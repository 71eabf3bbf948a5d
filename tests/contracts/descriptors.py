"""The contracts as the tests see them: read from the installed modules, without the kit's catalogue.

The catalogue refuses what it does not like; these tests are about the contracts themselves, so they look on their own.
"""

import importlib
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor

from hutong.api.schema.v1 import options_pb2

REPOSITORY = Path(__file__).resolve().parents[2]
PROTO = REPOSITORY / "proto"
AGENCIES = ("commerce", "customs", "publicsecurity", "quality", "taxation")


def project(path: Path) -> dict[str, Any]:
    """Read the `project` table of a `pyproject.toml`."""
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return table


@cache
def contract_files() -> tuple[FileDescriptor, ...]:
    """Import every generated module of the five agencies and give its file descriptor."""
    modules = sorted(p for agency in AGENCIES for p in (PROTO / "hutong/api" / agency).rglob("*_pb2.py"))
    names = [".".join(p.relative_to(PROTO).with_suffix("").parts) for p in modules]
    return tuple(importlib.import_module(name).DESCRIPTOR for name in names)


def is_record(message: Descriptor) -> bool:
    return message.GetOptions().HasExtension(options_pb2.record)


def records() -> list[Descriptor]:
    return [m for f in contract_files() for m in f.message_types_by_name.values() if is_record(m)]


def services() -> list[ServiceDescriptor]:
    return [s for f in contract_files() for s in f.services_by_name.values()]


def parts_of(record: Descriptor) -> Iterator[Descriptor]:
    """Give the parts a record is made of: messages of its own file."""
    for field in record.fields:
        if field.message_type is not None and field.message_type.file.name == record.file.name:
            yield field.message_type


def business_fields(message: Descriptor) -> list[FieldDescriptor]:
    return [f for f in message.fields if f.name != "envelope"]


def rule(field: FieldDescriptor) -> options_pb2.FieldRule:
    found: options_pb2.FieldRule = field.GetOptions().Extensions[options_pb2.field]
    return found


def record_rule(message: Descriptor) -> options_pb2.RecordRule:
    found: options_pb2.RecordRule = message.GetOptions().Extensions[options_pb2.record]
    return found


def key_names(message: Descriptor) -> list[str]:
    return [f.name for f in business_fields(message) if rule(f).key]


def type_name(field: FieldDescriptor) -> str:
    """Name a field's type: the message's full name, `enum`, or the scalar's name."""
    if field.message_type is not None:
        return field.message_type.full_name
    if field.enum_type is not None:
        return "enum"
    return _SCALARS[field.type]


_SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_BYTES: "bytes",
}
