"""The time, as something that is passed in: nothing in the mesh asks the machine behind a test's back."""

import datetime as dt
from collections.abc import Callable

Clock = Callable[[], dt.datetime]
"""Gives the present moment, aware, in UTC."""


def system_clock() -> dt.datetime:
    """Give the machine's time."""
    return dt.datetime.now(dt.UTC)
