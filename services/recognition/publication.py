"""Calendars that are published while the node runs: deadlines that rest on them move at once, and visibly.

New files count only when all of them pass every check; until then the calendars in force stay, and the mistake is
logged and kept in `last_error`.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from services.kit.errors import FailedPrecondition
from services.recognition.calendars import Calendars
from services.recognition.cases import Cases

_log = logging.getLogger(__name__)


class CalendarFiles:
    """The folder of published calendars of one node."""

    def __init__(self, folder: Path) -> None:
        """Load the folder; raises `FailedPrecondition` where a file in it has a mistake."""
        self._folder = folder
        self._seen = self._fingerprint()
        self.calendars = Calendars.load(folder)
        """The last calendars that passed."""
        self.last_error: FailedPrecondition | None = None
        """Why the files as they stand do not count; None where they do."""
        self._turn = asyncio.Lock()

    def watch(self, cases: Cases, seconds: float) -> Callable[[], Awaitable[None]]:
        """Look at an interval until the returned function is called; needs a running event loop."""
        task = asyncio.ensure_future(self._follow(cases, seconds))

        async def stop() -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        return stop

    async def poll(self, cases: Cases) -> int:
        """Look whether the files have changed; gives how many cases' deadlines moved for it.

        Somebody else's look that is going on is waited for: what the files said before this counts when it ends.
        """
        async with self._turn:
            needed = {procedure.calendar for procedure in cases.rulebook.procedures}
            if not await asyncio.to_thread(self._load_if_changed, needed):
                return 0
            moved = await cases.recompute(self.calendars)
        _log.info("Calendars changed", extra={"fields": {"cases": moved}})
        return moved

    async def _follow(self, cases: Cases, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.poll(cases)
            except Exception:
                # Whatever goes wrong, the old calendars stay and the next look is due.
                _log.exception("Calendars could not be looked at")
                self._seen = b""

    def _load_if_changed(self, needed: Iterable[str]) -> bool:
        seen = self._fingerprint()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            found = Calendars.load(self._folder)
            for name in needed:
                found.get(name)  # a calendar that is taken away would stop every case that runs on it
        except FailedPrecondition as error:
            self.last_error = error
            fields = {"reason": error.reason, "mistakes": error.message}
            _log.error("Changed calendars do not pass, the old ones stay in force", extra={"fields": fields})
            return False
        self.calendars = found
        self.last_error = None
        return True

    def _fingerprint(self) -> bytes:
        digest = hashlib.sha256()
        for path in sorted(self._folder.glob("*.yaml")):
            with contextlib.suppress(OSError):
                digest.update(path.name.encode() + b"\x00" + hashlib.sha256(path.read_bytes()).digest())
        return digest.digest()
