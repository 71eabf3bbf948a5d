"""What gRPC puts into HTTP/2 headers: single ones, a function each way, and those that a call begins and ends with.

(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.)
"""

import base64
import binascii
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from services.kit import wire
from services.kit.errors import DOMAIN, HutongError, InvalidArgument, Reason, ResourceExhausted
from services.kit.transport.seam import METADATA_BYTES

Headers = tuple[tuple[bytes, bytes], ...]

_MOST_MESSAGE: Final = 2048
"""Bytes of `grpc-message`: what is more may be more than the peer takes of trailers."""

_CONTENT: Final = (b"content-type", b"application/grpc")

HEAD: Final = ((b":status", b"200"), _CONTENT)
"""The beginning of every answer."""

OK: Final = ((b"grpc-status", b"0"),)
"""The end of a call that ended well."""

_POST: Final = b"POST"
_TRAILERS: Final = b"trailers"
_CONTENT_TYPES: Final = frozenset((b"application/grpc", b"application/grpc+proto"))
_UNIMPLEMENTED: Final = (b"grpc-status", b"12")
_USUAL: Final = frozenset(
    b":method :scheme :path :authority te content-type user-agent "
    b"grpc-timeout grpc-encoding grpc-accept-encoding accept-encoding".split()
)
"""Headers that are the transport's, and no call's metadata."""

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_FINENESS: Final = 1000
"""A timeout is written with three digits, rounded up: so many calls have the same header, which is sent as an index."""
_LONGEST: Final = 99_999_999
_ESCAPED: Final = re.compile(rb"[^\x20-\x24\x26-\x7e]")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


@lru_cache(maxsize=1024)
def timeout_of(text: bytes) -> float:
    """Read `grpc-timeout`, in seconds; raises `ValueError`."""
    found = _TIMEOUT.fullmatch(text)
    if not found:
        raise ValueError("grpc-timeout is up to eight digits and a unit")
    return int(found[1]) * _UNITS[found[2]]


def timeout(seconds: float) -> bytes:
    """Write `grpc-timeout`: never less than `seconds`, and at most a hundredth, or a microsecond, more."""
    unit, per_second = (b"u", 1e6) if seconds < 0.1 else (b"m", 1e3) if seconds < 90_000 else (b"S", 1.0)
    count = seconds * per_second
    step = 1
    while count / step >= _FINENESS:
        step *= 10
    # What floating point makes of 0.29 s, 290.00000000000006 ms hence, is no reason for another millisecond.
    rounded = math.ceil(count / step - 1e-6) * step
    return b"%d%s" % (min(max(rounded, 1), _LONGEST), unit)


def percent_encode(message: str) -> bytes:
    """Write `grpc-message`."""
    return _ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], message.encode(errors="replace"))


def percent_decode(text: bytes) -> str:
    """Read `grpc-message`; what is no escape, or no UTF-8, is shown as best it can be."""
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text).decode(errors="replace")


def details(status: bytes) -> bytes:
    """Write `grpc-status-details-bin`, without padding."""
    return base64.b64encode(status).rstrip(b"=")


def read_details(text: bytes) -> bytes | None:
    """Read `grpc-status-details-bin`, the first where there are several, padded or not; None where it is no base64."""
    first = text.partition(b",")[0].strip().rstrip(b"=")
    try:
        return base64.b64decode(first + b"=" * (-len(first) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def trailers(error: HutongError) -> Headers:
    """Write an error as trailers."""
    status = wire.to_status(error)
    text = f"{DOMAIN}: {error.message}"[:1024]
    while len(message := percent_encode(text)) > _MOST_MESSAGE:
        text = text[: len(text) // 2]
    return (
        (b"grpc-status", b"%d" % status.code),
        (b"grpc-message", message),
        (wire.DETAILS_KEY.encode(), details(status.SerializeToString())),
    )


def mismatch(sent: Mapping[bytes, bytes], *, known: bool) -> Headers | None:
    """Give the answer to what is no call; None where the headers are those of one, of an rpc that is `known`."""
    if sent.get(b":method") != _POST:
        return ((b":status", b"405"), (b"allow", b"POST"))
    if not _is_grpc(sent.get(b"content-type", b"")):
        return ((b":status", b"415"), (b"accept", b"application/grpc"))
    if sent.get(b"te") != _TRAILERS:
        # Something between us takes trailers away, and statuses with them (PROTOCOL-HTTP2, "TE").
        error = InvalidArgument(Reason.MALFORMED_REQUEST, "te is not trailers")
        return ((b":status", b"400"), _CONTENT, *trailers(error))
    if not known:
        return (*HEAD, _UNIMPLEMENTED, (b"grpc-message", b"no such method"))
    if sent.get(b"grpc-encoding", b"identity") != b"identity":
        message = (b"grpc-message", b"messages must not be compressed")
        return (*HEAD, _UNIMPLEMENTED, message, (b"grpc-accept-encoding", b"identity"))
    return None


def _is_grpc(content: bytes) -> bool:
    return content in _CONTENT_TYPES or content.partition(b";")[0].strip().lower() in _CONTENT_TYPES


def read_call(sent: Mapping[bytes, bytes], every: Headers) -> tuple[float | None, Mapping[str, str]]:
    """Get a call's timeout in seconds, None where it has none, and its own headers, out of all that were sent.

    Raises `InvalidArgument` MALFORMED_REQUEST and `ResourceExhausted` REQUEST_TOO_LARGE.
    """
    timeout = sent.get(b"grpc-timeout")
    try:
        remaining = None if timeout is None else timeout_of(timeout)
    except ValueError as error:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, str(error)) from None
    return remaining, {} if sent.keys() <= _USUAL else _metadata(every)


def _metadata(sent: Headers) -> dict[str, str]:
    """Take a call's own headers; what is binary, or no ASCII, is nobody's. Raises `ResourceExhausted`."""
    size = sum(len(name) + len(value) + 32 for name, value in sent)
    if size > METADATA_BYTES:
        message = f"the headers have {size} bytes; the limit is {METADATA_BYTES}"
        raise ResourceExhausted(Reason.REQUEST_TOO_LARGE, message, limit_bytes=str(METADATA_BYTES))
    return {
        name.decode(): value.decode()
        for name, value in sent
        if name not in _USUAL
        and not name.endswith(b"-bin")
        and not name.startswith((b"grpc-", b":"))
        and name.isascii()
        and value.isascii()
    }
