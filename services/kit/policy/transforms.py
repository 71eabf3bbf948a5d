"""What a permit may give instead of a value: part of it, a coarser one, or a stand-in.

    clear                 the value itself
    last4                 the last four characters of a text, never more than half of it: `****4321`
    initials              the first letter of every word: `J. S.`; of a name without spaces in Han script `王**`
    pseudonym             a stand-in for a text or digest that nobody without the node's secret can undo or recompute;
                          equal values give equal stand-ins for one consumer and purpose, other ones for another
    bucket:0,1000,5000    the lower edge of the band a number or an enum value lies in; what lies below the first edge
                          is left out; currency and unit stay
    bucket:log10/4        the same with four bands in every decade
    year, month           a date, time (UTC) or period cut to that

A transform keeps the field's type, is checked against it when a policy loads, and never fails open: a value it cannot
work on is left out. Where several permits apply, the least revealing transform wins: `least_revealing`.
"""

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Any, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.kit.records import values
from services.kit.records.catalogue import Field, nearest
from services.kit.records.values import Kind

Change = Callable[[Any], Any]
"""Gives the new value, or None to leave it out; of message values, changes them in place and says whether to keep."""

MIN_SECRET = 32
"""A node's secret has at least this many bytes."""

_NUMERIC = frozenset({Kind.INT, Kind.DECIMAL, Kind.MONEY, Kind.QUANTITY})
_TIMES = frozenset({Kind.DATE, Kind.TIMESTAMP, Kind.PERIOD})
_KINDS: Mapping[str, frozenset[Kind]] = {
    "pseudonym": frozenset({Kind.STRING, Kind.BYTES}),
    "initials": frozenset({Kind.STRING}),
    "last4": frozenset({Kind.STRING}),
    "bucket": _NUMERIC | {Kind.ENUM},
    "year": _TIMES,
    "month": _TIMES,
}
_ORDER = tuple(_KINDS)
_CLEAR = "clear"
_EDGE = re.compile(r"-?\d{1,18}(\.\d{1,6})?")
_LOG = re.compile(r"log10/([1-9]|10)")
_MAX_EDGES = 64
_MAX_NUMBER = Decimal(10) ** 40
_NUMBERS = Context(prec=60)
_RANGES: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class Transform:
    """One transform with its argument; not yet tied to a field."""

    name: str
    argument: str = ""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a transform; None is `clear`. Raises `ValueError` naming the nearest where there is none such."""
        name, colon, argument = text.strip().partition(":")
        if text.strip() == _CLEAR:
            return None
        if name not in _KINDS:
            known = (*_KINDS, _CLEAR)
            raise ValueError(f"there is no transform {name!r}{nearest(name, known)}; there are {', '.join(known)}")
        if bool(colon and argument.strip()) != (name == "bucket"):
            raise ValueError("only bucket takes edges, and needs them: bucket:0,1000,5000 or bucket:log10/4")
        return cls(name, ",".join(part.strip() for part in argument.split(",")))

    @property
    def text(self) -> str:
        """The transform as policies write it."""
        return f"{self.name}:{self.argument}" if self.argument else self.name

    @property
    def rank(self) -> tuple[int, int, str]:
        """Sorts the least revealing first; equally revealing ones by their text, so that the order is total."""
        bands = 0
        if self.name == "bucket":
            logarithmic = _LOG.fullmatch(self.argument)
            # A logarithmic scale over every number there is counts as finer than any list of edges.
            bands = 1000 * int(logarithmic[1]) if logarithmic else self.argument.count(",") + 1
        return _ORDER.index(self.name), bands, self.text

    def check(self, field: Field) -> None:
        """Check that the transform can be used on a field; raises `ValueError` saying why not."""
        self._change(field, b"")

    def bind(self, field: Field, key: bytes) -> Callable[[Message], None]:
        """Make the function that transforms the field in a message (the record, or the part the field stands in).

        `key` is the pseudonym key of consumer and purpose. Raises `ValueError` where the transform does not fit.
        """
        change = _guarded(self._change(field, key))
        name, descriptor = field.name, field.descriptor
        in_message = descriptor.message_type is not None
        if descriptor.is_repeated:
            return _in_each(name, change) if in_message else _of_each(name, change)
        return _in_one(name, change) if in_message else _of_one(name, change, descriptor)

    def _change(self, field: Field, key: bytes) -> Change:
        if field.kind not in _KINDS[self.name]:
            fits = ", ".join(sorted(_KINDS[self.name]))
            raise ValueError(f"{self.text} does not fit {field.path}, which is {field.type_text}; it fits {fits}")
        match self.name:
            case "pseudonym":
                return _pseudonym(field, key)
            case "initials":
                return initials
            case "last4":
                return last4
            case "bucket":
                return _bucket(field, self.argument)
            case _:
                return _truncate(field.kind, to_month=self.name == "month")


def least_revealing(transforms: Iterable[Transform | None]) -> Transform | None:
    """Pick the transform that reveals least; None, the clear value, only where nothing else is given."""
    return min((t for t in transforms if t is not None), key=lambda t: t.rank, default=None)


def pseudonym_key(secret: bytes, consumer: str, purpose: str) -> bytes:
    """Derive the pseudonym key of one consumer and purpose from a node's secret (HKDF, RFC 5869).

    Raises `ValueError` for a secret too short to protect anything.
    """
    if len(secret) < MIN_SECRET:
        raise ValueError(f"the secret has {len(secret)} bytes; at least {MIN_SECRET} are needed")
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (b"pseudonym", consumer.encode(), purpose.encode()))
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


def _guarded(change: Change) -> Change:
    def guarded(value: Any) -> Any:
        try:
            return change(value)
        except Exception:
            return None

    return guarded


def _of_one(name: str, change: Change, descriptor: FieldDescriptor) -> Callable[[Message], None]:
    def of_one(message: Message) -> None:
        if values.is_set(descriptor, message):
            new = change(getattr(message, name))
            if new is None:
                message.ClearField(name)
            else:
                setattr(message, name, new)

    return of_one


def _in_one(name: str, change: Change) -> Callable[[Message], None]:
    def in_one(message: Message) -> None:
        if message.HasField(name) and not change(getattr(message, name)):
            message.ClearField(name)

    return in_one


def _of_each(name: str, change: Change) -> Callable[[Message], None]:
    def of_each(message: Message) -> None:
        items = getattr(message, name)
        new = [n for n in map(change, items) if n is not None]
        del items[:]
        items.extend(new)

    return of_each


def _in_each(name: str, change: Change) -> Callable[[Message], None]:
    def in_each(message: Message) -> None:
        items = getattr(message, name)
        for index in reversed(range(len(items))):
            if not change(items[index]):
                del items[index]

    return in_each


def last4(text: str) -> str | None:
    """Keep the last four characters, or fewer of a short text; nothing of one shorter than six."""
    kept = min(4, len(text) // 2)
    return f"****{text[-kept:]}" if len(text) >= 6 else None


def initials(text: str) -> str | None:
    """Keep the first letter of every word; nothing where that would be more than half of all letters."""
    firsts = [next((c for c in word if c.isalnum()), "") for word in text.split()]
    shown = [f"{c}**" if _is_han(c) else f"{c}." for c in firsts if c]
    letters = sum(c.isalnum() for c in text)
    return " ".join(shown) if shown and 2 * len(shown) <= letters else None


def _is_han(letter: str) -> bool:
    return "CJK" in unicodedata.name(letter, "")


def _pseudonym(field: Field, key: bytes) -> Change:
    # The same identifier gives the same stand-in wherever it stands, so that a consumer can join what it was given.
    domain = (field.scheme or field.name).encode() + b"\0"

    def of_bytes(value: bytes) -> bytes:
        return hmac.digest(key, domain + value, hashlib.sha256)

    def of_text(value: str) -> str:
        return "pn_" + base64.b32encode(of_bytes(value.encode())[:20]).decode().lower()

    return of_bytes if field.kind is Kind.BYTES else of_text


def _bucket(field: Field, argument: str) -> Change:
    if field.kind is Kind.ENUM:
        return _enum_bucket(field, argument.split(","))
    logarithmic = _LOG.fullmatch(argument)
    lower = _decades(int(logarithmic[1])) if logarithmic else _bands(field, argument.split(","))

    def of_int(value: int) -> int | None:
        edge = lower(Decimal(value))
        return None if edge is None else int(edge)

    def of_decimal(message: Any) -> bool:
        value = Decimal(message.value)
        edge = lower(value) if abs(value) < _MAX_NUMBER else None
        if edge is not None:
            message.value = f"{edge:f}"
        return edge is not None

    match field.kind:
        case Kind.INT:
            return of_int
        case Kind.DECIMAL:
            return of_decimal
        case Kind.MONEY:
            return lambda money: of_decimal(money.amount)
        case _:
            return lambda quantity: of_decimal(quantity.value)


def _bands(field: Field, texts: list[str]) -> Callable[[Decimal], Decimal | None]:
    if len(texts) > _MAX_EDGES or not all(_EDGE.fullmatch(t) for t in texts):
        raise ValueError(
            f"bucket takes up to {_MAX_EDGES} numbers or log10/N (N from 1 to 10), not {','.join(texts)!r}"
        )
    edges = [Decimal(t) for t in texts]
    if edges != sorted(set(edges)):
        raise ValueError("the edges of a bucket must rise")
    if field.kind is Kind.INT:
        low, high = _RANGES[field.descriptor.type]
        if any(e != e.to_integral_value() or not low <= e <= high for e in edges):
            raise ValueError(f"{field.path} holds whole numbers from {low} to {high}, and so must the edges")
    edges.reverse()
    return lambda value: next((e for e in edges if e <= value), None)


def _decades(bands: int) -> Callable[[Decimal], Decimal | None]:
    steps = [(Decimal(10) ** (Decimal(k) / bands)).quantize(Decimal("0.001")) for k in range(bands)][::-1]

    def lower(value: Decimal) -> Decimal | None:
        if not value.is_finite():
            return None
        if not value:
            return Decimal(0)
        with localcontext(_NUMBERS):
            exponent = abs(value).adjusted()
            leading = abs(value).scaleb(-exponent)
            edge = next(s for s in steps if s <= leading).scaleb(exponent).normalize()
            # Towards zero on both sides: -1800 lies in the band that begins at -1778.
            return edge.copy_sign(value)

    return lower


def _enum_bucket(field: Field, names: list[str]) -> Change:
    edges = [values.enum_number(field.descriptor, name) for name in names]
    if edges != sorted(set(edges)) or 0 in edges:
        raise ValueError("the edges of a bucket must be known values and rise")
    edges.reverse()
    return lambda number: next((e for e in edges if e <= number), None)


def _truncate(kind: Kind, *, to_month: bool) -> Change:
    def of_date(date: Any) -> bool:
        date.day = 0
        if not to_month:
            date.month = 0
        return True

    def of_period(period: Any) -> bool:
        if not to_month:
            period.month = 0
        return True

    def of_timestamp(stamp: Any) -> bool:
        moment = stamp.ToDatetime()
        start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        stamp.FromDatetime(start if to_month else start.replace(month=1))
        return True

    return {Kind.DATE: of_date, Kind.PERIOD: of_period, Kind.TIMESTAMP: of_timestamp}[kind]
