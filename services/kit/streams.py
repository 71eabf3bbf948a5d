"""How many streams each caller has open: one who opens more and more must not take them from the others."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from services.kit.errors import Reason, ResourceExhausted


class Streams:
    """Counts the streams of one rpc by caller. To be used in one event loop."""

    def __init__(self, most: int, what: str = "streams") -> None:
        """`most` is how many each caller may have at a time; `what` they are called."""
        self._most = most
        self._what = what
        self._open: Counter[str] = Counter()

    @contextmanager
    def counted(self, caller: str) -> Generator[None]:
        """Count one for as long as this lasts; raises `ResourceExhausted` STREAMS_TOO_MANY."""
        if self._open[caller] >= self._most:
            message = f"at most {self._most} {self._what} at a time"
            raise ResourceExhausted(Reason.STREAMS_TOO_MANY, message, limit=str(self._most))
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            # Without what stands at zero, of which there would be more and more.
            self._open = +self._open
