"""Fuzzes what reads gRPC's words out of HTTP/2's: messages, timeouts, percent encoding, details.

`python -m tests.transport.fuzz_framing [libFuzzer's options]`; `make fuzz` runs it for a while. No exception but those
that callers expect, and nothing is kept beyond what came in.
"""

from contextlib import suppress
from itertools import pairwise

from tests.transport.fuzzing import Data, fuzz, instrumented

with instrumented("services.kit.transport.nghttp2", "services.kit.wire"):
    from services.kit import wire
    from services.kit.errors import InvalidArgument, Reason, ResourceExhausted
    from services.kit.transport.nghttp2 import headers, statuses
    from services.kit.transport.nghttp2.framing import MessageReader, frame

MOST = 1000


def messages(data: Data) -> None:
    """However it is cut, the same messages come out, or the same error does."""
    body = data.ConsumeBytes(data.ConsumeIntInRange(0, 4 * MOST))
    found = _read(body, [])
    points = [data.ConsumeIntInRange(0, len(body)) for _ in range(data.ConsumeIntInRange(0, 8))]
    assert _read(body, sorted(points)) == found
    if found[1] is None:
        assert b"".join(frame(message) for message in found[0]) == body[: len(body) - found[2]]


def _read(body: bytes, points: list[int]) -> tuple[list[bytes], Reason | None, int]:
    """Read a body cut at some points; gives messages, the reason of an error, and how much is left."""
    reader = MessageReader(MOST)
    messages: list[bytes] = []
    bounds = [0, *points, len(body)]
    for start, end in pairwise(bounds):
        try:
            found = reader.feed(body[start:end])
        except (ResourceExhausted, InvalidArgument) as error:
            # Messages before the wrong one may have been given, or not, by where it was cut.
            return [], error.reason, 0
        messages += found
        assert reader.held <= MOST + 5 + (end - start)
    left = len(body) - sum(len(message) + 5 for message in messages)
    assert reader.partial == (left > 0)
    return messages, None, left


def timeouts(data: Data) -> None:
    """A timeout is a number of seconds that is not negative, or `ValueError`; what we write can be read."""
    with suppress(ValueError):
        assert headers.timeout_of(data.ConsumeBytes(12)) >= 0
    seconds = data.ConsumeFloatInRange(1e-6, 1e7)
    assert seconds <= headers.timeout_of(headers.timeout(seconds)) * (1 + 1e-5)


def texts(data: Data) -> None:
    """Any bytes decode into some text, and any text survives."""
    raw = data.ConsumeBytes(200)
    headers.percent_decode(raw)
    text = data.ConsumeUnicodeNoSurrogates(100)
    encoded = headers.percent_encode(text)
    assert headers.percent_decode(encoded) == text
    assert all(0x20 <= byte < 0x7F for byte in encoded)


def details(data: Data) -> None:
    """Any bytes are details or none; whatever a peer's trailers say, it is an error or it is not."""
    raw = data.ConsumeBytes(200)
    found = headers.read_details(raw)
    wire.from_status(data.ConsumeIntInRange(-5, 99), "", found)
    status = data.ConsumeBytes(60)
    assert headers.read_details(headers.details(status)) == status
    names = (b"grpc-status", b"grpc-message", wire.DETAILS_KEY.encode(), b":status", b"content-type")
    trailers = tuple((names[data.ConsumeIntInRange(0, 4)], data.ConsumeBytes(20)) for _ in range(5))
    statuses.outcome(trailers)
    statuses.unfit(trailers)


PARTS = (messages, timeouts, texts, details)


def one(which: int, data: Data) -> None:
    """Fuzz one part."""
    PARTS[which % len(PARTS)](data)


if __name__ == "__main__":
    fuzz(one)
