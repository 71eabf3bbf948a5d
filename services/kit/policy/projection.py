"""Message types that hold some fields of a record type only: read by one of them, everything else is unknown.

So what is not given is dropped all at once, with what is unknown anyway, instead of field by field. On the wire such a
type is the record type: its fields have the same numbers and types. They have the same names too, so that transforms
work on it; enums are plain numbers, which is what they are on the wire.
"""

from collections.abc import Iterable
from typing import Final, cast
from weakref import WeakSet

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

from services.kit.records.catalogue import ENVELOPE, RecordType
from services.kit.records.values import Kind

_MOST: Final = 1024
"""Most of them at a time, some ten kilobytes each: callers choose the fields, so there must be an end to them."""
_NAME: Final = "Projected"
_PART: Final = "Part{}"

_made: "WeakSet[type[Message]]" = WeakSet()


def with_parts(paths: Iterable[str]) -> frozenset[str]:
    """Add to paths of fields those of the parts they stand in."""
    found: set[str] = set()
    for path in paths:
        names = path.split(".")
        found.update(".".join(names[: depth + 1]) for depth in range(len(names)))
    return frozenset(found)


def projected(record_type: RecordType, kept: frozenset[str]) -> type[Message] | None:
    """Make the type with the fields and parts at the paths `kept`, of which the envelope may be one.

    None where there are too many such types already.
    """
    if len(_made) >= _MOST:
        return None
    pool = descriptor_pool.DescriptorPool()
    file = FileDescriptorProto(name="projected.proto", package="projected", syntax="proto3")
    descriptor = cast("Descriptor", record_type.message.DESCRIPTOR)
    found = _fill(file.message_type.add(name=_NAME), descriptor, f".projected.{_NAME}", "", kept, record_type)
    known: set[str] = set()
    for used in found:
        _add(pool, used, known)
    file.dependency.extend(sorted({used.name for used in found}))
    pool.AddSerializedFile(file.SerializeToString())
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"projected.{_NAME}"))
    _made.add(made)
    return made


def _fill(
    into: DescriptorProto, descriptor: Descriptor, name: str, prefix: str, kept: frozenset[str], record_type: RecordType
) -> list[FileDescriptor]:
    """Fill a message with the fields that are kept; gives the files of the messages they hold."""
    used: list[FileDescriptor] = []
    for field in descriptor.fields:
        path = f"{prefix}{field.name}"
        if path not in kept:
            continue
        added = _field(into, field)
        if field.message_type is None:
            continue
        if path != ENVELOPE and record_type.fields[path].kind is Kind.PART:
            part = _PART.format(field.number)
            added.type_name = f"{name}.{part}"
            nested = into.nested_type.add(name=part)
            used += _fill(nested, field.message_type, added.type_name, f"{path}.", kept, record_type)
        else:
            added.type_name = f".{field.message_type.full_name}"
            used.append(field.message_type.file)
    return used


def _field(into: DescriptorProto, field: FieldDescriptor) -> FieldDescriptorProto:
    label = FieldDescriptorProto.LABEL_REPEATED if field.is_repeated else FieldDescriptorProto.LABEL_OPTIONAL
    kind = FieldDescriptor.TYPE_INT32 if field.enum_type is not None else field.type
    added = into.field.add(
        name=field.name, number=field.number, label=label, type=FieldDescriptorProto.Type.ValueType(kind)
    )
    if field.has_presence and field.message_type is None:
        added.proto3_optional, added.oneof_index = True, len(into.oneof_decl)
        into.oneof_decl.add(name=f"_{field.name}")
    return added


def _add(pool: descriptor_pool.DescriptorPool, file: FileDescriptor, known: set[str]) -> None:
    if file.name in known:
        return
    known.add(file.name)
    for needed in file.dependencies:
        _add(pool, needed, known)
    pool.AddSerializedFile(file.serialized_pb)
