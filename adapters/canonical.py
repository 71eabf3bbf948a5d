"""Canonical text of values, read: the one form every parser ends in, and the form of our own files.

The opposite of `services.kit.records.values.text_of`, field for field: what that writes, this reads, and nothing else.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from hutong.api.common.v1 import common_pb2
from services.kit.records import values
from services.kit.records.catalogue import Field
from services.kit.records.values import Kind

_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_INTEGER = re.compile(r"-?[0-9]+")
_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?")


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("is no whole number")
    return int(text)


def _decimal(text: str) -> common_pb2.Decimal:
    if not _DECIMAL.fullmatch(text):
        raise ValueError("is no decimal number")
    return common_pb2.Decimal(value=text)


def _date(text: str) -> common_pb2.Date:
    found = _DATE.fullmatch(text)
    if not found:
        raise ValueError("is no date of the form YYYY-MM-DD")
    year, month, day = (int(part or 0) for part in found.groups())
    # A part of a date is checked as the first day it covers.
    dt.date(year, month or 1, day or 1)
    return common_pb2.Date(year=year, month=month, day=day)


def _period(text: str) -> common_pb2.Period:
    day = _date(text)
    if day.day:
        raise ValueError("is no period of the form YYYY-MM or YYYY")
    return common_pb2.Period(year=day.year, month=day.month)


def _timestamp(text: str) -> Timestamp:
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("is a time without a zone")
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return text == "true"


def _money(text: str) -> common_pb2.Money:
    amount, _, currency = text.partition(" ")
    if not re.fullmatch("[A-Z]{3}", currency):
        raise ValueError("has no ISO 4217 currency")
    return common_pb2.Money(currency_code=currency, amount=_decimal(amount))


def _quantity(text: str) -> common_pb2.Quantity:
    number, _, unit = text.partition(" ")
    return common_pb2.Quantity(value=_decimal(number), unit_code=unit)


_READ: Mapping[Kind, Callable[[str], Any]] = {
    Kind.STRING: str,
    Kind.INT: _integer,
    Kind.BOOL: _bool,
    Kind.BYTES: bytes.fromhex,
    Kind.DATE: _date,
    Kind.PERIOD: _period,
    Kind.TIMESTAMP: _timestamp,
    Kind.DECIMAL: _decimal,
    Kind.MONEY: _money,
    Kind.QUANTITY: _quantity,
}


def reader(known: Field) -> Callable[[str], Any]:
    """Get the reader of a field's canonical text; it raises `ValueError` for anything else."""
    if known.kind is Kind.ENUM:
        return lambda text: values.enum_number(known.descriptor, text)
    return _READ[known.kind]
