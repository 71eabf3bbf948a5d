"""ISO 8601 durations: measured, and added to a moment by the calendar."""

import datetime as dt

import pytest

from services.kit.durations import add_duration, duration_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT1S", 1), ("PT24H", 86_400), ("P180D", 180 * 86_400), ("P2W", 14 * 86_400), ("P1Y", 31_556_952), ("P0D", 0)],
)
def test_durations_are_measured(text: str, seconds: int) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "1D", "P1", "P1H", "PT1D", "P-1D", "P1D ", "p1d", "P1.5D"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        duration_seconds(text)
    with pytest.raises(ValueError, match="ISO 8601"):
        add_duration(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), text)


@pytest.mark.parametrize(
    ("start", "text", "end"),
    [
        ("2026-01-31T10:00:00+00:00", "P1M", "2026-02-28T10:00:00+00:00"),
        ("2024-02-29T10:00:00+00:00", "P1Y", "2025-02-28T10:00:00+00:00"),
        ("2024-02-29T10:00:00+00:00", "P4Y", "2028-02-29T10:00:00+00:00"),
        ("2026-11-30T10:00:00+08:00", "P1Y3M", "2028-02-29T10:00:00+08:00"),
        ("2026-12-31T23:59:59+00:00", "PT1S", "2027-01-01T00:00:00+00:00"),
        ("2026-03-01T00:00:00+00:00", "P2W1DT1H1M", "2026-03-16T01:01:00+00:00"),
    ],
)
def test_durations_are_added_by_the_calendar(start: str, text: str, end: str) -> None:
    assert add_duration(dt.datetime.fromisoformat(start), text) == dt.datetime.fromisoformat(end)


def test_an_end_that_has_no_date_is_refused() -> None:
    with pytest.raises(OverflowError):
        add_duration(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "P9000Y")
    with pytest.raises(OverflowError):
        add_duration(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "P9999999999D")
