"""A clock that never goes back, whatever the machine's does."""

import datetime as dt
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.clock import Forward

NOW = dt.datetime(2026, 11, 22, 9, tzinfo=dt.UTC)


@given(st.lists(st.integers(-1000, 1000), min_size=1))
def test_it_gives_the_latest_moment_seen(offsets: list[int]) -> None:
    moments = [NOW + dt.timedelta(seconds=offset) for offset in offsets]
    coming = iter([moments[0], *moments])
    clock = Forward(lambda: next(coming))
    assert [clock() for _ in moments] == [max(moments[: place + 1]) for place in range(len(moments))]


def test_it_says_so_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    offsets = [0, 0, 3600, 3545, 0, 1, 3600, 0]
    coming = iter([NOW + dt.timedelta(seconds=offset) for offset in offsets])
    clock = Forward(lambda: next(coming))
    with caplog.at_level(logging.WARNING):
        for _ in offsets[1:]:
            clock()
    assert len(caplog.records) == 2
