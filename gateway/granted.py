"""Message types that have granted fields only: to them, whatever is not granted is unknown.

A record that such a type reads and writes without losing a byte holds nothing else: two calls tell, where clearing
takes one for every field. Which fields there are is found by cutting a record that has them all, by the mask itself, so
that there is nothing here to disagree with it.
"""

from collections import OrderedDict
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

from services.kit.policy.mask import ReadMask

_MOST: Final = 256
"""Types that are kept; each takes some thirty kilobytes."""
_PACKAGE: Final = "granted"
_NUMBER: Final = 1
_WIRE: Final = {FieldDescriptor.TYPE_ENUM: FieldDescriptor.TYPE_INT32}
"""An enum is a number on the wire, and may have any value."""

_made: OrderedDict[tuple[type[Message], bytes], type[Message]] = OrderedDict()


def type_of(mask: ReadMask) -> type[Message] | None:
    """Make the type of what a mask gives, envelope and all; None where no type can say it."""
    message: Any = mask.record_type.message
    if not _plain(message.DESCRIPTOR, ()):
        return None
    probe = message()
    _fill(probe)
    mask.clearer()(probe)
    key = (message, probe.SerializeToString(deterministic=True))
    found = _made.get(key)
    if found is None:
        found = _made[key] = _make(probe)
        if len(_made) > _MOST:
            _made.popitem(last=False)
    return found


def _plain(message: Descriptor, above: tuple[Descriptor, ...]) -> bool:
    """Tell whether a type has an end, and fields of the kinds only that are taken over here."""
    if message in above or message.GetOptions().map_entry:
        return False
    for field in message.fields:
        oneof = field.containing_oneof
        # What `optional` makes is a choice of one.
        if field.type == FieldDescriptor.TYPE_GROUP or (oneof is not None and len(oneof.fields) > 1):
            return False
        if field.message_type is not None and not _plain(field.message_type, (*above, message)):
            return False
    return True


def _fill(message: Any) -> None:
    """Set every field there is."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            _fill(getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name))
            if not field.is_repeated:
                getattr(message, field.name).SetInParent()
        elif field.is_repeated:
            getattr(message, field.name).append(_value(field))
        else:
            setattr(message, field.name, _value(field))


def _value(field: FieldDescriptor) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return b"x" if field.type == FieldDescriptor.TYPE_BYTES else "x"
    return field.cpp_type == FieldDescriptor.CPPTYPE_BOOL or _NUMBER


def _make(probe: Message) -> type[Message]:
    file = FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    name = _write(file, probe)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _write(file: FileDescriptorProto, probe: Message) -> str:
    """Write the type that has the fields which are set; gives its name."""
    name = f"M{len(file.message_type)}"
    written = file.message_type.add(name=name)
    for field, value in probe.ListFields():
        inner = value[0] if field.is_repeated else value
        _write_field(written, field, _write(file, inner) if isinstance(inner, Message) else "")
    return f"{_PACKAGE}.{name}"


def _write_field(message: DescriptorProto, field: FieldDescriptor, of_type: str) -> None:
    added = message.field.add(name=field.name, number=field.number)
    added.type = FieldDescriptorProto.Type.ValueType(_WIRE.get(field.type, field.type))
    added.label = FieldDescriptorProto.LABEL_REPEATED if field.is_repeated else FieldDescriptorProto.LABEL_OPTIONAL
    if of_type:
        added.type_name = f".{of_type}"
    if field.containing_oneof is not None:
        added.proto3_optional = True
        added.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{field.name}")
