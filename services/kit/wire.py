"""Errors on the wire: `google.rpc.Status` with an `ErrorInfo`, one function each way."""

from contextlib import suppress

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]

from services.kit import errors
from services.kit.errors import Code, HutongError, Reason

NUMBERS = {
    Code.INVALID_ARGUMENT: 3,
    Code.DEADLINE_EXCEEDED: 4,
    Code.NOT_FOUND: 5,
    Code.PERMISSION_DENIED: 7,
    Code.RESOURCE_EXHAUSTED: 8,
    Code.FAILED_PRECONDITION: 9,
    Code.ABORTED: 10,
    Code.INTERNAL: 13,
    Code.UNAVAILABLE: 14,
    Code.UNAUTHENTICATED: 16,
}
"""Status code numbers (google.rpc.Code)."""

_CLASSES: dict[int, type[HutongError]] = {
    NUMBERS[cls.code]: cls
    for cls in (
        errors.InvalidArgument,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.NotFound,
        errors.FailedPrecondition,
        errors.Aborted,
        errors.ResourceExhausted,
        errors.DeadlineExceeded,
        errors.Unavailable,
        errors.Internal,
    )
}
_DEFAULT_REASONS = {
    4: Reason.DEPARTMENT_TIMEOUT,
    8: Reason.REQUEST_TOO_LARGE,
    14: Reason.DEPARTMENT_UNREACHABLE,
    16: Reason.IDENTITY_INVALID,
}
_LONGEST = 512
"""Most characters of a message, or of a value in its metadata. Both may repeat what a caller wrote, and trailing
metadata of more than some kilobytes is refused by the transport, with everything in it."""
DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata that carries the serialized status."""


def varint(value: int) -> bytes:
    """Write a whole number that is not negative, seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def whole(number: int, value: int) -> bytes:
    """Write a whole number that is not negative as field `number` (1 to 15)."""
    return bytes((number << 3,)) + varint(value)


def embedded(number: int, message: bytes) -> bytes:
    """Write a serialized message as field `number` (1 to 15) of another: tag, length, bytes.

    Serialized messages of one type that are put one after the other are their merge (Protocol Buffers encoding,
    "Last One Wins"), so an answer can be joined from parts that are serialized already.
    """
    length, tag = len(message), number << 3 | 2
    if length < 0x80:
        return bytes((tag, length)) + message
    if length < 0x4000:
        return bytes((tag, length & 0x7F | 0x80, length >> 7)) + message
    return bytes((tag,)) + varint(length) + message


def to_status(error: HutongError) -> status_pb2.Status:
    """Write an error as the status a caller gets."""
    status = status_pb2.Status(code=NUMBERS[error.code], message=_cut(error.message))
    metadata = {name: _cut(value) for name, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=errors.DOMAIN, metadata=metadata)
    status.details.add().Pack(info)
    return status


def from_status(code: int, message: str, details: bytes | None) -> HutongError:
    """Read the error another node answered with; what is not ours becomes INTERNAL or UNAVAILABLE by its code.

    Details that cannot be read are as good as none: they are the other side's, who may be anybody.
    """
    cls = _CLASSES.get(code, errors.Internal)
    if details:
        with suppress(DecodeError):
            status = status_pb2.Status.FromString(details)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == errors.DOMAIN and info.reason in Reason.__members__.values():
                    return cls(Reason(info.reason), status.message, **dict(info.metadata))
    return cls(_DEFAULT_REASONS.get(code, Reason.INTERNAL), message)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def read_status(details: bytes) -> HutongError:
    """Read an error that came as a serialized status alone; `from_status` for what is none."""
    with suppress(DecodeError):
        return from_status(status_pb2.Status.FromString(details).code, "the other side failed", details)
    return from_status(NUMBERS[Code.INTERNAL], "the other side failed", None)
