"""What all ways of asking have in common."""

from collections.abc import Callable
from typing import Any, Protocol

Told = Callable[[Any], None]
"""Is given an answer, or the exception there is in its place; called in the loop."""


class Way(Protocol):
    """Asks one question at a time, as many at once as it is told to."""

    async def open(self) -> None:
        """Connect."""
        ...

    def ask(self, number: int, told: Told, /) -> None:
        """Ask about an enterprise, and have `told` called once with what came: parsed, not yet checked."""
        ...

    def check(self, number: int, answer: Any, /) -> None:
        """Check an answer field by field; raises `WrongAnswerError`."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...
