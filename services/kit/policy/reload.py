"""Policy files that are looked at again while the node runs: a change counts at once, or not at all.

A file that is written while it is looked at is left for the next look: cut between two policies it would pass, and lack
what the rest forbids.

New files replace the policies in force only when all of them pass every check; until then the old ones stay, and the
mistake is logged and shown: what was withdrawn in them is still given.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.kit.jurisdiction import Jurisdiction
from services.kit.policy import loader
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.loader import PolicyRefused
from services.kit.policy.policies import PolicySet
from services.kit.records.catalogue import Catalogue

_log = logging.getLogger(__name__)

_SETTLED: Final = 0.05
"""Seconds for which files must stay as they are before they are loaded: longer than anybody takes to write them."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What files say, all of it: an edit within the clock's grain that keeps the size must not be missed."""

    texts: Mapping[str, str]
    problem: str = ""
    """Why they could not be read."""
    error: PolicyRefused | None = field(default=None, compare=False)


class PolicyFiles:
    """The policy files of one node."""

    def __init__(
        self,
        paths: Iterable[Path],
        catalogue: Catalogue,
        jurisdiction: Jurisdiction,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Load the files; raises `PolicyRefused` where they do not pass. `pause` waits for changed ones to settle."""
        self._paths = tuple(paths)
        self._pause = pause
        self._catalogue = catalogue
        self._jurisdiction = jurisdiction
        self._seen = self._look()
        self.policies: PolicySet = self._load(self._seen)
        """The last policies that passed."""
        self.last_error: PolicyRefused | None = None
        """Why the files as they stand are not in force, where they do not pass; None where they do."""
        self.refused = False
        """The files as they stand are not in force, whatever hinders it."""
        self.reloads = 0
        """How often other policies were put in force."""
        self.failures = 0
        """How often changed files did not pass."""
        self.listeners: list[Callable[[PolicySet], None]] = []
        """Who is told of other policies, just before they come into force; they must not wait."""
        self._turn = asyncio.Lock()

    def reload(self, engine: PolicyEngine) -> PolicySet:
        """Load the files now; raises `PolicyRefused` where they do not pass, and leaves the old policies in force."""
        self._seen = self._look()
        found = self._load_or_refuse()
        self._put_in_force(found, engine)
        return found

    async def poll(self, engine: PolicyEngine) -> bool:
        """Look whether the files have changed, and load them if so; tells whether other policies came into force.

        Somebody else's look that is going on is waited for: what the files said before this counts when it ends.
        """
        async with self._turn:
            # In a thread: checking a large set takes a tenth of a second, and answers must not wait for it.
            found = await asyncio.to_thread(self._load_if_changed)
            return found is not None and self._put_in_force(found, engine)

    def _load_if_changed(self) -> PolicySet | None:
        first = self._look()
        if first == self._seen:
            return None
        self._pause(_SETTLED)
        seen = self._look()
        if seen != first:
            return None
        self._seen = seen
        with contextlib.suppress(PolicyRefused):
            return self._load_or_refuse()
        return None

    def watch(self, engine: PolicyEngine, seconds: float) -> Callable[[], Awaitable[None]]:
        """Poll at an interval until the returned function is called; needs a running event loop."""
        task = asyncio.ensure_future(self._poll(engine, seconds))

        async def stop() -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        return stop

    async def _poll(self, engine: PolicyEngine, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.poll(engine)
            except Exception:
                # Whatever goes wrong, the old policies stay and the next look is due.
                _log.exception("Policy files could not be looked at")

    def _load(self, seen: _Look) -> PolicySet:
        if seen.error is not None:
            raise seen.error
        return loader.parse(seen.texts, self._catalogue, self._jurisdiction)

    def _load_or_refuse(self) -> PolicySet:
        try:
            found = self._load(self._seen)
        except PolicyRefused as error:
            self.refused = True
            self.failures += 1
            self.last_error = error
            fields = {"reason": error.reason, "mistakes": [str(problem) for problem in error.problems]}
            _log.error("Changed policies do not pass, the old ones stay in force", extra={"fields": fields})
            raise
        except Exception:
            self.refused = True
            raise
        self.last_error, self.refused = None, False
        return found

    def _put_in_force(self, found: PolicySet, engine: PolicyEngine) -> bool:
        if found.version == engine.policies.version:
            return False
        self.reloads += 1
        self.policies = found
        for listener in self.listeners:
            listener(found)
        engine.replace(found)
        _log.info("Policies changed", extra={"fields": {"version": found.version}})
        return True

    def _look(self) -> _Look:
        try:
            return _Look(loader.read(self._paths))
        except PolicyRefused as error:
            return _Look({}, str(error), error)
