"""What gRPC puts into HTTP/2 headers, one function each way.

(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.)
"""

import base64
import binascii
import math
import re
from typing import Final

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_FINENESS: Final = 1000
"""A timeout is written with three digits, rounded up: so many calls have the same header, which is sent as an index."""
_LONGEST: Final = 99_999_999
_ESCAPED: Final = re.compile(rb"[^\x20-\x24\x26-\x7e]")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


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
