"""Messages are put together again however the wire cut them, and refused before they are too much."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import InvalidArgument, Reason, ResourceExhausted
from services.kit.transport.nghttp2.framing import MessageReader, frame

MOST = 300
MESSAGES = st.lists(st.binary(max_size=MOST), max_size=8)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Messages, and their frames cut anywhere."""
    messages = draw(MESSAGES)
    wire = b"".join(map(frame, messages))
    places = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    pieces = [wire[a:b] for a, b in zip([0, *places], [*places, len(wire)], strict=True)]
    return messages, pieces


@given(cuts())
def test_messages_come_out_as_they_went_in(made: tuple[list[bytes], list[bytes]]) -> None:
    messages, pieces = made
    reader = MessageReader(MOST)
    assert [message for piece in pieces for message in reader.feed(piece)] == messages
    assert not reader.partial


@given(MESSAGES, st.binary(min_size=1, max_size=MOST), st.data())
def test_an_end_inside_a_message_shows(messages: list[bytes], last: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(frame(last)) - 1))
    reader = MessageReader(MOST)
    assert reader.feed(b"".join(map(frame, messages)) + frame(last)[:cut]) == messages
    assert reader.partial
    assert reader.held == cut
    assert reader.feed(frame(last)[cut:]) == [last]
    assert not reader.partial


@pytest.mark.parametrize("cut", [5, 6, 200])
def test_too_much_is_refused_when_its_length_is_seen(cut: int) -> None:
    reader = MessageReader(MOST)
    assert reader.feed(frame(b"x" * MOST)) == [b"x" * MOST]
    with pytest.raises(ResourceExhausted) as refused:
        reader.feed(frame(b"x" * (MOST + 1))[:cut])
    assert refused.value.reason is Reason.REQUEST_TOO_LARGE
    assert refused.value.metadata == {"limit_bytes": str(MOST)}


def test_too_much_is_refused_after_others() -> None:
    with pytest.raises(ResourceExhausted):
        MessageReader(MOST).feed(frame(b"good") + b"\0\xff\xff\xff\xff")


@pytest.mark.parametrize("before", [b"", frame(b"good"), frame(b"")])
def test_a_compressed_message_is_refused(before: bytes) -> None:
    with pytest.raises(InvalidArgument) as refused:
        MessageReader(MOST).feed(before + b"\1\0\0\0\0")
    assert refused.value.reason is Reason.MALFORMED_REQUEST


def test_a_large_message_in_small_pieces_takes_time_in_proportion() -> None:
    """Would take minutes if every piece were joined to what is held."""
    message = b"x" * 8_000_000
    wire = frame(message)
    reader = MessageReader(len(message))
    found = [whole for at in range(0, len(wire), 100) for whole in reader.feed(wire[at : at + 100])]
    assert found == [message]


def test_a_message_in_tiny_parts_costs_what_it_weighs() -> None:
    """Whoever sends one byte at a time makes nobody keep an object for each."""
    size = 100_000
    tracemalloc.start()
    try:
        reader = MessageReader(size)
        reader.feed(b"\0" + size.to_bytes(4))
        for number in range(size - 1):
            reader.feed(number.to_bytes(4)[-1:])
        assert reader.held == size + 4
        assert tracemalloc.get_traced_memory()[0] < 2 * size
    finally:
        tracemalloc.stop()
