"""What the values of a record look like outside protobuf: as text in keys and tables, as columns in a store.

Every leaf field has a `Kind`; the kind alone decides how a value is written as text (`text_of`), what goes into its
column (`column_of`) and what a caller's literal must look like to be compared with it (`column_from_text`).
"""

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import ROUND_DOWN, Context, Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

Column = int | str | bool | dt.datetime | bytes | None
"""What a column holds. Decimals are integers scaled by `SCALE`; dates and periods are ISO text, which sorts right."""

SCALE = 6
"""Decimal columns hold the number times ten to this power: exact, comparable, the same in every database."""

_DECIMAL_LIMIT = 2**63 - 1
_MOST_DIGITS = 19 - SCALE
_CUTTING = Context(prec=40, rounding=ROUND_DOWN)


class Kind(StrEnum):
    """What a field holds."""

    STRING = "string"
    INT = "int"
    BOOL = "bool"
    ENUM = "enum"
    BYTES = "bytes"
    DATE = "date"
    TIMESTAMP = "timestamp"
    DECIMAL = "decimal"
    MONEY = "money"
    QUANTITY = "quantity"
    PERIOD = "period"
    PART = "part"


_MESSAGES: Mapping[str, Kind] = {
    "google.protobuf.Timestamp": Kind.TIMESTAMP,
    "hutong.api.common.v1.Date": Kind.DATE,
    "hutong.api.common.v1.Decimal": Kind.DECIMAL,
    "hutong.api.common.v1.Money": Kind.MONEY,
    "hutong.api.common.v1.Quantity": Kind.QUANTITY,
    "hutong.api.common.v1.Period": Kind.PERIOD,
}
_SCALARS: Mapping[int, Kind] = {
    FieldDescriptor.TYPE_STRING: Kind.STRING,
    FieldDescriptor.TYPE_BYTES: Kind.BYTES,
    FieldDescriptor.TYPE_BOOL: Kind.BOOL,
    FieldDescriptor.TYPE_ENUM: Kind.ENUM,
    FieldDescriptor.TYPE_INT32: Kind.INT,
    FieldDescriptor.TYPE_INT64: Kind.INT,
    FieldDescriptor.TYPE_UINT32: Kind.INT,
}


def kind_of(descriptor: FieldDescriptor) -> Kind:
    """Tell what a field holds; raises `TypeError` for types records must not use (floats above all)."""
    if descriptor.message_type is not None:
        return _MESSAGES.get(descriptor.message_type.full_name, Kind.PART)
    try:
        return _SCALARS[descriptor.type]
    except KeyError:
        raise TypeError(f"{descriptor.full_name}: records hold no values of this protobuf type") from None


def is_set(descriptor: FieldDescriptor, message: Message) -> bool:
    """Tell whether a singular field is known: has presence and is set, or differs from its default."""
    if descriptor.has_presence:
        return message.HasField(descriptor.name)
    return bool(getattr(message, descriptor.name) != descriptor.default_value)


def enum_name(descriptor: FieldDescriptor, number: int) -> str:
    """Write an enum value without its type's prefix: `CLEARED` for `DECLARATION_STATUS_CLEARED`."""
    enum = enum_of(descriptor)
    value = enum.values_by_number.get(number)
    return value.name.removeprefix(_enum_prefix(enum)) if value else str(number)


def enum_number(descriptor: FieldDescriptor, text: str) -> int:
    """Read an enum value written with or without its type's prefix; raises `ValueError` for an unknown one."""
    enum = enum_of(descriptor)
    value = enum.values_by_name.get(_enum_prefix(enum) + text) or enum.values_by_name.get(text)
    if value is None:
        raise ValueError(f"{text!r} is no value of {enum.name}")
    return value.number


def enum_of(descriptor: FieldDescriptor) -> EnumDescriptor:
    """Get the enum of a field; raises `TypeError` where the field is none."""
    if descriptor.enum_type is None:
        raise TypeError(f"{descriptor.full_name} is no enum")
    return descriptor.enum_type


def _enum_prefix(enum: EnumDescriptor) -> str:
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


def scaled(number: Decimal) -> int:
    """Turn a decimal into its column form; raises `ValueError` where it does not fit 64 bits.

    Digits past the scale are cut off, so a filter may not tell apart numbers that differ only there; the body keeps
    them all.
    """
    if not number.is_finite():
        raise ValueError("not a finite number")
    if not number:
        return 0
    # Judged by its exponent first: written out, 1E900000 would keep a node busy for minutes.
    if number.adjusted() > _MOST_DIGITS:
        raise ValueError("number too large for a column")
    value = int(number.scaleb(SCALE, _CUTTING))
    if abs(value) > _DECIMAL_LIMIT:
        raise ValueError("number too large for a column")
    return value


def _date_text(value: Any) -> str:
    text = f"{value.year:04d}"
    if value.month:
        text += f"-{value.month:02d}"
        if value.day:
            text += f"-{value.day:02d}"
    return text


def _period_text(value: Any) -> str:
    return f"{value.year:04d}-{value.month:02d}" if value.month else f"{value.year:04d}"


def _timestamp(value: Any) -> dt.datetime:
    # Microseconds: the finest that both databases and Python keep.
    return dt.datetime.fromtimestamp(value.seconds, dt.UTC) + dt.timedelta(microseconds=value.nanos // 1000)


def _timestamp_text(value: Any) -> str:
    return _timestamp(value).isoformat().replace("+00:00", "Z")


_TEXT: Mapping[Kind, Callable[[Any], str]] = {
    Kind.STRING: str,
    Kind.INT: str,
    Kind.BOOL: lambda v: "true" if v else "false",
    Kind.BYTES: lambda v: v.hex(),
    Kind.DATE: _date_text,
    Kind.PERIOD: _period_text,
    Kind.TIMESTAMP: _timestamp_text,
    Kind.DECIMAL: lambda v: v.value,
    Kind.MONEY: lambda v: f"{v.amount.value} {v.currency_code}".strip(),
    Kind.QUANTITY: lambda v: f"{v.value.value} {v.unit_code}".strip(),
}


def text_of(descriptor: FieldDescriptor, value: Any) -> str:
    """Write one value of a leaf field as people and keys know it."""
    kind = kind_of(descriptor)
    return enum_name(descriptor, value) if kind is Kind.ENUM else _TEXT[kind](value)


_COLUMN: Mapping[Kind, Callable[[Any], Column]] = {
    Kind.TIMESTAMP: _timestamp,
    Kind.DECIMAL: lambda v: scaled(Decimal(v.value)),
    Kind.MONEY: lambda v: scaled(Decimal(v.amount.value)),
    Kind.QUANTITY: lambda v: scaled(Decimal(v.value.value)),
    Kind.DATE: _date_text,
    Kind.PERIOD: _TEXT[Kind.PERIOD],
}


def column_of(descriptor: FieldDescriptor, message: Message) -> Column:
    """Take a field's column value from a record; None where the field is not known.

    Raises `ValueError` for a number that is none or does not fit its column.
    """
    if not is_set(descriptor, message):
        return None
    value = getattr(message, descriptor.name)
    convert = _COLUMN.get(kind_of(descriptor))
    try:
        return convert(value) if convert else value
    except InvalidOperation:
        raise ValueError(f"{descriptor.name}: not a decimal number") from None


def _read_timestamp(text: str) -> dt.datetime:
    value = dt.datetime.fromisoformat(text)
    return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)


def _read_bool(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _read_date(text: str) -> str:
    return dt.date.fromisoformat(text).isoformat()


def _read_decimal(text: str) -> int:
    try:
        return scaled(Decimal(text))
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal number") from None


_FROM_TEXT: Mapping[Kind, Callable[[str], Column]] = {
    Kind.STRING: str,
    Kind.PERIOD: str,
    Kind.INT: int,
    Kind.BOOL: _read_bool,
    Kind.DATE: _read_date,
    Kind.TIMESTAMP: _read_timestamp,
    Kind.DECIMAL: _read_decimal,
    Kind.MONEY: _read_decimal,
    Kind.QUANTITY: _read_decimal,
}


def column_from_text(descriptor: FieldDescriptor, text: str) -> Column:
    """Read a literal to compare a field's column with.

    A timestamp without a zone is read as UTC. Raises `ValueError` saying what is wrong with the text.
    """
    kind = kind_of(descriptor)
    if kind is Kind.ENUM:
        return enum_number(descriptor, text)
    try:
        return _FROM_TEXT[kind](text)
    except KeyError:
        raise ValueError(f"fields of type {kind} cannot be compared") from None
