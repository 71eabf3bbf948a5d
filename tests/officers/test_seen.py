"""What was used is remembered for as long as it could be used again, and never forgotten for want of room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import Reason, ResourceExhausted
from services.kit.officers.seen import MemorySeen
from tests.officers.bed import MINUTE, NOW, SECOND, Hand


async def test_until_its_time_is_over() -> None:
    clock = Hand()
    seen = MemorySeen(clock)
    assert await seen.take("customs", "t", NOW + MINUTE)
    for _ in range(2):
        assert not await seen.take("customs", "t", NOW + MINUTE)
        clock.now = NOW + MINUTE
    clock.now += SECOND
    assert await seen.take("customs", "t", clock.now + MINUTE), "by then nobody takes the token itself any more"


async def test_a_clock_set_back_has_nothing_forgotten_twice() -> None:
    clock = Hand(NOW + 10 * MINUTE)
    seen = MemorySeen(clock)
    assert await seen.take("customs", "t", NOW + 15 * MINUTE)
    clock.now = NOW
    assert not await seen.take("customs", "t", NOW + 15 * MINUTE)


async def test_full_it_refuses_and_one_agency_fills_it_for_itself_only() -> None:
    clock = Hand()
    seen = MemorySeen(clock, limit=3)
    for number in range(3):
        assert await seen.take("customs", str(number), NOW + MINUTE)
    for number in range(3, 6):
        with pytest.raises(ResourceExhausted) as refused:
            await seen.take("customs", str(number), NOW + MINUTE)
        assert (refused.value.reason, refused.value.metadata) == (Reason.CALLS_TOO_MANY, {"limit": "3"})
    assert not await seen.take("customs", "0", NOW + MINUTE), "what it knows it still knows"
    assert await seen.take("taxation", "0", NOW + MINUTE)
    clock.now = NOW + MINUTE + SECOND
    assert await seen.take("customs", "3", clock.now + MINUTE)


_TAKES = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from("xyz"), st.integers(0, 20), st.integers(0, 5)), max_size=40
)


@given(_TAKES)
async def test_nothing_is_taken_twice_in_its_time(takes: list[tuple[str, str, int, int]]) -> None:
    clock = Hand()
    seen = MemorySeen(clock)
    held: dict[tuple[str, str], int] = {}
    minute = 0
    for agency, jti, life, later in takes:
        minute += later
        clock.now = NOW + minute * MINUTE
        first = await seen.take(agency, jti, NOW + (minute + life) * MINUTE)
        assert first == (held.get((agency, jti), -1) < minute)
        if first:
            held[agency, jti] = minute + life
