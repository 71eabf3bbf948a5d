"""Cases that are watched: what came is sent at once, and again from wherever a watcher left off."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from hutong.api.recognition.v1 import case_service_pb2 as pb
from services.kit.clock import Clock
from services.kit.errors import InvalidArgument, Reason, Unavailable
from services.kit.rpc import Call
from services.kit.streams import Streams
from services.kit.waiting import within
from services.recognition import asked, noting
from services.recognition.case import CaseState
from services.recognition.cases import Cases
from services.recognition.casework import Snapshot
from services.recognition.door import Door, ReachedCase
from services.recognition.view import view

WATCHES: Final = 16
"""Most watches of one caller at a time: each asks the store several times a second for as long as it lasts."""


class Watching:
    """The watches of this node."""

    def __init__(
        self,
        cases: Cases,
        door: Door,
        clock: Clock,
        *,
        poll: float = 0.2,
        heartbeat: float = 10.0,
        watches: int = WATCHES,
    ) -> None:
        """`poll` is how often other replicas' events are looked for, in seconds; `watches` are each caller's."""
        self._cases = cases
        self._door = door
        self._clock = clock
        self._poll = poll
        self._heartbeat = heartbeat
        self._watches = Streams(watches, "watches")
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._stopping = False
        cases.listeners.append(self._ring)

    def stop(self) -> None:
        """End running watches, so that a drain need not wait for them; each is told that it is not its case's end."""
        self._stopping = True
        for case_id in tuple(self._bells):
            self._ring(case_id, 0)

    def _ring(self, case_id: str, _version: int) -> None:
        for bell in self._bells.get(case_id, ()):
            bell.set()

    async def watch_case(self, request: pb.WatchCaseRequest, call: Call) -> AsyncIterator[pb.WatchCaseResponse]:
        """Send the events of a case after a sequence, then each as it comes, until the case is closed.

        The policy is asked, and the case looked for, anew for every look: what is taken from a caller ends its watch.
        Raises `ResourceExhausted` where the caller watches too much already, `Unavailable` with SHUTTING_DOWN where
        the node stops first: only a closed case ends a watch well.
        """
        if request.after < 0:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "sequences are not negative", field="after")
        with self._watches.counted(call.caller.spiffe_id), self._bell(asked.case_id(request.case_id)) as bell:
            async for response in self._watched(request, call, bell):
                yield response

    @contextmanager
    def _bell(self, case_id: str) -> Generator[asyncio.Event]:
        bell = asyncio.Event()
        self._bells[case_id].add(bell)
        try:
            yield bell
        finally:
            self._bells[case_id].discard(bell)
            if not self._bells[case_id]:
                del self._bells[case_id]

    async def _watched(
        self, request: pb.WatchCaseRequest, call: Call, bell: asyncio.Event
    ) -> AsyncIterator[pb.WatchCaseResponse]:
        after, idle = request.after, self._heartbeat
        while not self._stopping:
            # Before the look: what rings from here on is looked for again.
            bell.clear()
            shown = self._door.decide(call.caller, request.context)
            shown.require_event()
            found = await self._door.reached(call.caller, request.case_id)
            call.facts.about((found.head.scheme, found.head.subject))
            if after > found.head.version:
                raise InvalidArgument(Reason.MALFORMED_REQUEST, "the case has not come that far", field="after")
            async for response in self._since(found, call, request, after):
                idle = 0.0
                yield response
            after = max(after, found.head.version)
            if found.head.closed_at is not None:
                return
            if idle >= self._heartbeat:
                idle = 0.0
                yield pb.WatchCaseResponse(version=after)
            idle += await self._pause(bell)
        raise Unavailable(Reason.SHUTTING_DOWN, "the node stops; watch again, after what you have")

    async def _since(
        self, found: ReachedCase, call: Call, request: pb.WatchCaseRequest, after: int
    ) -> AsyncIterator[pb.WatchCaseResponse]:
        """Make what is to be said of the events after a sequence, up to the version that was found."""
        if found.head.version <= after:
            return
        snapshot = await self._cases.get(found.head.case_id)
        for moment in self._replayed(snapshot, after, found.head.version):
            shown = self._door.decide(call.caller, request.context)
            event = shown.event(moment.head, moment.version, moment.events[-1], found.part)
            if event is not None:
                view = shown.case(moment, found.part)
                view.events.append(event)
                noting.cases(call.facts, shown, [(moment.head, view)])
                yield pb.WatchCaseResponse(
                    event=event, stages=view.stages, version=moment.version, case_status=view.case.case_status
                )

    def _replayed(self, snapshot: Snapshot, after: int, until: int) -> Generator[Snapshot]:
        """Give the case as it stood after each event; each is good until the next is asked for."""
        first, *others = snapshot.events[:until]
        state = CaseState.begin(snapshot.procedure, first)
        for number, event in enumerate((first, *others), 1):
            if number > 1:
                state.apply(event)
            if number > after:
                head = replace(snapshot.head, version=number, status=state.status.value, closed_at=state.closed_at)
                reckoning = view(state, self._cases.rulebook.calendars, self._clock())
                yield replace(snapshot, head=head, state=state, events=snapshot.events[:number], reckoning=reckoning)

    async def _pause(self, bell: asyncio.Event) -> float:
        """Wait until something may have come; gives how many seconds that can have been."""
        return 0.0 if await within(bell, self._poll) else self._poll
