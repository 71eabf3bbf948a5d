"""Following what another node tells, for as long as the node runs, whatever becomes of the other one meanwhile.

A stream that ends, fails or falls silent is opened anew, after pauses that grow until it is heard again.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import ClassVar, Final

from services.kit.errors import HutongError, Reason

_FIRST_PAUSE: Final = 0.05
_log = logging.getLogger(__name__)


class Following(ABC):
    """Follows one stream; what comes of it is for `_follow` to say."""

    found: ClassVar[str] = "are followed"
    lost: ClassVar[str] = "cannot be followed now"
    """How log lines go on."""

    def __init__(self, what: str, *, longest_pause: float, **fields: str) -> None:
        """`what` is followed, as log lines begin; `fields` stand in them. The longest pause is in seconds."""
        self._what = what
        self._fields = fields
        self._longest = longest_pause
        self._pause = _FIRST_PAUSE
        self._task: asyncio.Task[None] | None = None
        self._why = ""
        self.connected = False
        """Whether the other side is heard now."""

    def start(self) -> None:
        """Begin to follow; returns at once, wherever the other side is."""
        self._task = asyncio.create_task(self._run(), name=" ".join(("follow", *self._fields.values())))

    async def stop(self) -> None:
        """Stop at once."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.connected = False

    @abstractmethod
    async def _follow(self) -> None:
        """Follow until the stream ends; calls `_heard` for every word, and raises what goes wrong."""

    def _heard(self) -> None:
        self._pause = _FIRST_PAUSE
        if not self.connected:
            self.connected, self._why = True, ""
            _log.info("%s %s", self._what, self.found, extra={"fields": self._fields})

    async def _run(self) -> None:
        while True:
            self._away(await self._try())
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, self._longest)

    async def _try(self) -> str:
        """Follow until that ends; tells why it did."""
        try:
            await self._follow()
        except HutongError as error:
            return error.reason
        except TimeoutError:
            return Reason.DEPARTMENT_TIMEOUT
        except Exception:
            # Ours is the fault. Whatever it is, trying again is better than silence until somebody looks.
            _log.exception("%s %s: a mistake of ours", self._what, self.lost, extra={"fields": self._fields})
            return Reason.INTERNAL
        return Reason.SHUTTING_DOWN

    def _away(self, why: str) -> None:
        self.connected = False
        if why != self._why:
            # Once for each cause, not for each try: the other side may be away for hours.
            self._why = why
            _log.warning("%s %s", self._what, self.lost, extra={"fields": {**self._fields, "reason": why}})
