"""Envelopes and sections as bytes: records are stored serialized, and leave without being taken apart twice.

Messages of one type that are serialized one after the other are their merge, and a field may stand anywhere in a
message; so a record is its envelope, field 1, in front of its serialized body.
"""

import datetime as dt
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Final

from services.kit import wire
from services.kit.records.source import StoredRecord

EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_SHORT: Final = tuple(wire.varint(number) for number in range(1024))
_FIVE_BYTES: Final = 1 << 28
"""From here on numbers take five bytes, up to 2**35."""
_VERSIONS: Final = tuple(
    (wire.whole(2, n) if n else b"") + (wire.whole(3, n - 1) if n > 1 else b"") for n in range(256)
)


def varint(number: int) -> bytes:
    """Write a whole number that is not negative."""
    return _SHORT[number] if number < 1024 else wire.varint(number)


def timestamp(moment: dt.datetime) -> bytes:
    """Serialize a moment as a `google.protobuf.Timestamp`."""
    since = moment - EPOCH
    written, n = _seconds(since.days * 86_400 + since.seconds), since.microseconds * 1000
    if n >= _FIVE_BYTES:
        return written + bytes(
            (16, n & 127 | 128, n >> 7 & 127 | 128, n >> 14 & 127 | 128, n >> 21 & 127 | 128, n >> 28)
        )
    return written + wire.whole(2, n) if n else written


@lru_cache(maxsize=1024)
def _seconds(number: int) -> bytes:
    """Write the seconds of a `Timestamp`; what is answered now has the same ones, and so has what came together."""
    # Negative numbers are written as those of 64 bits that they look like.
    return wire.whole(1, number & (1 << 64) - 1) if number else b""


def enclosed(record: StoredRecord, body: bytes, *, key: bool, fact_time: bool) -> bytes:
    """Serialize a record as it leaves, from its body as disclosed: an envelope of its own in front of that.

    `key` and `fact_time` say whether the envelope shows those.
    """
    version = record.version
    moment = timestamp(record.recorded_at)
    head = (
        _text(b"\x0a", record.key) if key else b"",
        _VERSIONS[version] if version < 256 else wire.whole(2, version) + wire.whole(3, version - 1),
        _moment(b"\x22", record.fact_time) if fact_time else b"",
        b"\x2a",
        _SHORT[len(moment)],
        moment,
        _origin(record.source_system, record.state),
        sha256(body).digest(),
    )
    written = b"".join(head)
    return b"".join((b"\x0a", varint(len(written)), written, body))


def section(head: bytes, full_name: str, records: Iterable[bytes], as_of: dt.datetime, next_page_token: str) -> bytes:
    """Complete a section that begins with `head`, its fields that are not about records.

    `full_name` is that of the records' message.
    """
    moment = timestamp(as_of)
    parts = [head, b"\x2a", _SHORT[len(moment)], moment]
    kind = _kind(full_name)
    for record in records:
        length = varint(len(record))
        parts += (b"\x32", varint(len(kind) + len(length) + len(record)), kind, length, record)
    if next_page_token:
        parts.append(wire.embedded(8, next_page_token.encode()))
    return b"".join(parts)


def type_url(full_name: str) -> str:
    """Name a message as `Any` does."""
    return f"type.googleapis.com/{full_name}"


@lru_cache(maxsize=1024)
def _kind(full_name: str) -> bytes:
    """Write an `Any` up to the length of its value."""
    return _text(b"\x0a", type_url(full_name)) + b"\x12"


@lru_cache(maxsize=1024)
def _origin(source_system: str, state: int) -> bytes:
    """Write an envelope's source system, state, and the digest up to its bytes."""
    return _text(b"\x32", source_system) + wire.whole(7, state) + b"\x42\x20"


def _text(tag: bytes, text: str) -> bytes:
    written = text.encode()
    return tag + varint(len(written)) + written if written else b""


def _moment(tag: bytes, moment: dt.datetime | None) -> bytes:
    if moment is None:
        return b""
    written = timestamp(moment)
    return tag + _SHORT[len(written)] + written
