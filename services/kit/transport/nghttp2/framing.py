"""gRPC messages on an HTTP/2 stream: each is preceded by a flag and its length in five bytes.

(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message".)
"""

from typing import Final

from services.kit.errors import InvalidArgument, Reason, ResourceExhausted

_PREFIX: Final = 5
_PLAIN: Final = b"\0"


def frame(message: bytes) -> bytes:
    """Write a message as it goes over the wire, not compressed."""
    return _PLAIN + len(message).to_bytes(4) + message


class MessageReader:
    """Puts the messages of one direction of a stream together again, however they were cut."""

    __slots__ = ("_most", "_rest", "_wanted")

    def __init__(self, most: int) -> None:
        """`most` is the largest message accepted, in bytes."""
        self._most = most
        # One piece of memory, however small the parts are that came: each by itself would cost many times its size.
        self._rest = bytearray()
        self._wanted = _PREFIX
        """Bytes that must be held before anything more can be told."""

    @property
    def partial(self) -> bool:
        """Whether the bytes so far end inside a message."""
        return bool(self._rest)

    @property
    def held(self) -> int:
        """Bytes that are kept of a message that is not whole."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Give the messages that are whole now.

        Raises `ResourceExhausted` REQUEST_TOO_LARGE as soon as a length is seen that exceeds the most, and
        `InvalidArgument` MALFORMED_REQUEST for a message that is compressed: neither is to be fed further.
        """
        if not self._rest and len(data) >= _PREFIX and self._whole(data, 0) == len(data):
            # Nearly always: one message in one frame.
            return [data[_PREFIX:]]
        self._rest += data
        return self._cut() if len(self._rest) >= self._wanted else []

    def _cut(self) -> list[bytes]:
        found: list[bytes] = []
        at = 0
        self._wanted = _PREFIX
        with memoryview(self._rest) as data:
            while len(data) - at >= _PREFIX:
                end = self._whole(data, at)
                if end > len(data):
                    self._wanted = end - at
                    break
                found.append(bytes(data[at + _PREFIX : end]))
                at = end
        del self._rest[:at]
        return found

    def _whole(self, data: bytes | memoryview, at: int) -> int:
        """Tell where the message whose prefix begins `at` ends."""
        if data[at]:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "messages must not be compressed")
        length = int.from_bytes(data[at + 1 : at + _PREFIX])
        if length > self._most:
            message = f"a message has {length} bytes, larger than max {self._most}"
            raise ResourceExhausted(Reason.REQUEST_TOO_LARGE, message, limit_bytes=str(self._most))
        return at + _PREFIX + length
