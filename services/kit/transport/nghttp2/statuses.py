"""What a peer's words for failure mean: the errors that grpcio makes of the same words.

So callers need not know which of the two carried their call.
"""

from typing import Final

from ngh2 import ErrorCode

from services.kit import wire
from services.kit.errors import DOMAIN, HutongError
from services.kit.transport.nghttp2 import headers

Headers = tuple[tuple[bytes, bytes], ...]

OK: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

_BY_RESET: Final[dict[int, int]] = {
    ErrorCode.CANCEL: CANCELLED,
    ErrorCode.REFUSED_STREAM: UNAVAILABLE,
    ErrorCode.ENHANCE_YOUR_CALM: RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: 7,
}
"""Status codes by what HTTP/2 streams are cut with (PROTOCOL-HTTP2, "Errors"); others are INTERNAL."""

_BY_HTTP: Final = {
    b"400": INTERNAL,
    b"401": 16,
    b"403": 7,
    b"404": 12,
    b"429": UNAVAILABLE,
    b"502": UNAVAILABLE,
    b"503": UNAVAILABLE,
    b"504": UNAVAILABLE,
}
"""Status codes by those of HTTP (gRPC, "HTTP to gRPC Status Code Mapping"); others are UNKNOWN."""

_NAMES: Final[dict[int, str]] = {code: code.name for code in ErrorCode}
_DETAILS: Final = wire.DETAILS_KEY.encode()
_DOMAIN: Final = f"{DOMAIN}: "


def make(code: int, message: str) -> HutongError:
    """Make the error of a status code that came without details."""
    return wire.from_status(code, message, None)


def outcome(trailers: Headers) -> HutongError | None:
    """Read how a call ended; None where it ended well."""
    found = dict(trailers)
    status = found.get(b"grpc-status")
    if status is None:
        return unsaid()
    code = int(status) if status.isdigit() and len(status) < 3 else UNKNOWN
    if code == OK:
        return None
    message = headers.percent_decode(found.get(b"grpc-message", b"")).removeprefix(_DOMAIN)
    details = found.get(_DETAILS)
    return wire.from_status(code, message, None if details is None else headers.read_details(details))


def unsaid() -> HutongError:
    """Make the error of a call that ended without a word on how."""
    return make(UNKNOWN, "the call ended without a status")


def unfit(response: Headers) -> HutongError | None:
    """Say why a response is none of gRPC's; None where it is one."""
    found = dict(response)
    status = found.get(b":status", b"")
    if status != b"200":
        return make(_BY_HTTP.get(status, UNKNOWN), f"the answer has HTTP status {status.decode(errors='replace')}")
    if not found.get(b"content-type", b"").startswith(b"application/grpc"):
        return make(UNKNOWN, "the answer is none of gRPC's by its content type")
    return None


def cut(code: int) -> HutongError:
    """Read an error code that a stream was cut with."""
    name = _NAMES.get(code, f"{code:#x}")
    return make(_BY_RESET.get(code, INTERNAL), f"the call was cut with {name}")


def late() -> HutongError:
    """Make the error of a call whose deadline has passed."""
    return make(DEADLINE_EXCEEDED, "Deadline Exceeded")
