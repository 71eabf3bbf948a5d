"""Shows a node's log to its witnesses: the newest checkpoint, every few seconds, for as long as the node runs.

Where the log does not grow, once a minute is enough. A witness that is away holds up nobody and hears of everything
once it is back. One that has seen another history than ours is the loudest thing a node can say.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Final, Self

from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from hutong.api.log.v1 import log_service_pb2
from services.kit.client import Client
from services.kit.config import LogSection, NodeSection
from services.kit.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    HutongError,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from services.kit.log import cosigned, keys, notes
from services.kit.log.checkpoint import origin_of
from services.kit.log.cosigned import Cosigned
from services.kit.log.nodelog import NodeLog
from services.kit.log.notes import Note
from services.kit.telemetry import Telemetry

_ADD: Final = "/hutong.api.log.v1.WitnessService/AddCheckpoint"
_TIMEOUT: Final = 10.0
FRESH: Final = 60.0
"""Seconds that a cosignature of an idle log is let stand before a new one is asked for."""
_TRIES: Final = 3
"""How often a witness is asked again at once: another replica of ours may have shown it more meanwhile."""
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_log = logging.getLogger(__name__)


class Standing(Enum):
    """How a witness stands to our log."""

    UNKNOWN = "unknown"
    """It was not asked yet."""
    COSIGNS = "co-signs"
    AWAY = "away"
    """It cannot be reached, or cannot answer now."""
    REFUSES = "refuses"
    """It answers, but does not co-sign."""
    AHEAD = "ahead"
    """It has co-signed more than our log has: ours was put back to an older state."""
    FORKED = "forked"
    """It has co-signed another history than ours."""


_LOUD: Final = {
    Standing.AHEAD: "A witness has co-signed more than this log has: entries were lost",
    Standing.FORKED: "A witness has co-signed another history than this log's: one of the two was made up",
}


class _Witness:
    """One witness, and what is known of it."""

    def __init__(self, origin: str, client: Client) -> None:
        self.origin = origin
        self.client = client
        self.size = 0
        """What it is at, as far as we know."""
        self.cosigned = float("-inf")
        """When it last co-signed, by our own seconds."""
        self.standing = Standing.UNKNOWN
        self.why = ""
        self.turn = asyncio.Lock()


class Showing:
    """Shows one log to its witnesses."""

    def __init__(
        self,
        log: NodeLog,
        witnesses: Mapping[str, Client],
        folder: Path,
        interval: float,
        telemetry: Telemetry | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`witnesses` are clients of the nodes, by the origin of their own logs: `stop` closes them.

        `folder` has the keys of all logs; `interval` is in seconds, as `monotonic` counts them.
        """
        self._log = log
        self._witnesses = [_Witness(origin, client) for origin, client in sorted(witnesses.items())]
        self._folder = folder
        self._interval = interval
        self._monotonic = monotonic
        self._tasks: list[asyncio.Task[None]] = []
        if telemetry:
            for standing in (Standing.COSIGNS, Standing.AWAY, Standing.REFUSES, Standing.AHEAD, Standing.FORKED):
                name = f"hutong_log_witnesses_{standing.name.lower()}"
                telemetry.gauge(name, f"Witnesses of the log: {standing.value}", self._counter(standing))

    @classmethod
    def of(
        cls, log: NodeLog, section: LogSection, node: NodeSection, files: SvidFiles, telemetry: Telemetry | None = None
    ) -> Self:
        """Make what the config describes; `files` are the node's own identity."""
        witnesses = {
            origin_of(node.zone, agency, peer.system): Client(
                peer.target, SpiffeId.of(node.zone, agency, peer.system), files, transport=node.transport
            )
            for agency, peer in section.witnesses.items()
        }
        return cls(log, witnesses, section.keys, section.interval.total_seconds(), telemetry)

    @property
    def standings(self) -> dict[str, Standing]:
        """How each witness stands, by origin."""
        return {one.origin: one.standing for one in self._witnesses}

    async def start(self) -> None:
        """Recall what witnesses have co-signed, and begin; returns at once, wherever they are."""
        await self.recall()
        for one in self._witnesses:
            self._tasks.append(asyncio.create_task(self._run(one), name=f"show {one.origin}"))

    async def recall(self) -> None:
        """Recall where each witness is, so that none has to be asked; raises as reads of the database do."""
        sizes = await self._log.database.read(cosigned.sizes)
        for one in self._witnesses:
            one.size = sizes.get(one.origin, 0)

    async def stop(self) -> None:
        """Stop at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await asyncio.gather(*(one.client.close() for one in self._witnesses))

    async def show(self) -> None:
        """Show the newest checkpoint to every witness, once; raises nothing of what goes wrong, but says it."""
        await asyncio.gather(*map(self._show, self._witnesses))

    async def show_news(self) -> None:
        """Show it as `show` does, but to no witness that has lately co-signed all there is: what `start` repeats."""
        await asyncio.gather(*map(self._show_news, self._witnesses))

    async def _run(self, one: _Witness) -> None:
        while True:
            await self._show_news(one)
            await asyncio.sleep(self._interval)

    async def _show_news(self, one: _Witness) -> None:
        if not await self._fresh(one):
            await self._show(one)

    async def _fresh(self, one: _Witness) -> bool:
        """Tell whether a witness has co-signed all there is, and not long ago."""
        if one.standing is not Standing.COSIGNS or self._monotonic() - one.cosigned >= FRESH:
            return False
        try:
            return (await self._log.head()).size == one.size
        except HutongError:
            # Whoever shows it says why it cannot.
            return False

    async def _show(self, one: _Witness) -> None:
        try:
            async with one.turn:
                standing, why = await self._ask(one), ""
        except HutongError as error:
            standing, why = _standing(error), str(error.reason)
        except Exception:
            # Ours is the fault. Whatever it is, trying again is better than a log that nobody watches.
            _log.exception("Showing the log failed", extra={"fields": {"witness": one.origin}})
            standing, why = Standing.REFUSES, str(Reason.INTERNAL)
        self._tell(one, standing, why)

    async def _ask(self, one: _Witness) -> Standing:
        """Show the newest checkpoint, from where the witness is, until it is co-signed or refused."""
        for _ in range(_TRIES):
            head = await self._log.head()
            if head.size == 0:
                # An empty log has signed nothing: that others know more of it shows with its first entry.
                return Standing.UNKNOWN
            try:
                await self._add(one, min(one.size, head.size))
            except FailedPrecondition as error:
                if error.reason is not Reason.VERSION_CONFLICT:
                    raise
                one.size = _size(error)
            else:
                return Standing.COSIGNS
            # What a witness has seen was committed before it was shown: whatever replicas wrote, it is in here by now.
            if one.size > (await self._log.head()).size:
                return Standing.AHEAD
        raise FailedPrecondition(Reason.VERSION_CONFLICT, "the witness is elsewhere each time")

    async def _add(self, one: _Witness, old: int) -> None:
        """Have a witness co-sign what our log has beyond `old`, and keep the signature."""
        shown = await self._log.consistency(old)
        request = log_service_pb2.AddCheckpointRequest(old_size=old, proof=shown.hashes, checkpoint=shown.checkpoint)
        answer = await one.client.unary(_ADD, request, log_service_pb2.AddCheckpointResponse, timeout=_TIMEOUT)
        text = notes.parse(shown.checkpoint).text
        signature = notes.parse_signature(answer.cosignature)
        notes.verify(Note(text, (signature,)), [keys.find(self._folder, one.origin).cosigning()])
        kept = Cosigned(one.origin, shown.size, shown.checkpoint, signature.line)
        await self._log.database.write(lambda connection: cosigned.keep(connection, kept))
        one.size, one.cosigned = shown.size, self._monotonic()

    def _tell(self, one: _Witness, standing: Standing, why: str) -> None:
        """Say what changed: once, not every few seconds."""
        changed = (standing, why) != (one.standing, one.why)
        one.standing, one.why = standing, why
        if not changed:
            return
        fields = {"witness": one.origin, "size": one.size, "reason": why}
        if standing in _LOUD:
            _log.error(_LOUD[standing], extra={"fields": fields})
        elif standing in {Standing.AWAY, Standing.REFUSES}:
            _log.warning("The log is not co-signed now", extra={"fields": fields})
        else:
            _log.info("Witness asked", extra={"fields": {**fields, "standing": standing.value}})

    def _counter(self, standing: Standing) -> Callable[[], int]:
        return lambda: sum(one.standing is standing for one in self._witnesses)


def _standing(error: HutongError) -> Standing:
    if error.reason is Reason.LOG_FORKED:
        return Standing.FORKED
    away = isinstance(error, Unavailable | DeadlineExceeded | ResourceExhausted)
    return Standing.AWAY if away else Standing.REFUSES


def _size(error: HutongError) -> int:
    """Read where a witness says it is; raises the error itself where it does not say."""
    text = error.metadata.get("size", "")
    if not _NUMBER.fullmatch(text):
        raise error
    return int(text)
