"""Cases: the way to them for everything that is not the store itself.

Every change is one transaction, in a thread; what other cases gain by it, one more for each of them.
"""

import datetime as dt
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import sqlalchemy as sa

from services.kit.clock import Clock
from services.kit.credentials.published import PublishedKeys
from services.kit.errors import FailedPrecondition, Reason, Unavailable
from services.kit.records.database import Database, Work
from services.recognition import appending, doubts, due, ledger, submitting
from services.recognition.agencies import Agencies
from services.recognition.appending import Outcome, Sender
from services.recognition.arrangements import Arrangements
from services.recognition.calendars import Calendars
from services.recognition.case import fold
from services.recognition.casework import Act, Appended, Application, Snapshot
from services.recognition.dossier import no_such_case
from services.recognition.events import Event
from services.recognition.ledger import Head, Selection, Stored
from services.recognition.procedures import Procedures
from services.recognition.reasons import Reasons
from services.recognition.rulebook import BACKDATING, SKEW, Rulebook
from services.recognition.tasks import Desk
from services.recognition.view import view

_log = logging.getLogger(__name__)

_BATCH: Final = 50
"""Cases that one look at what is due takes on; the next look takes the next."""

_RETRY: Final = dt.timedelta(minutes=1)
"""When a case that could not be attended to is tried again, so that it does not hold up the others."""

Snapshots = list[Snapshot]
Sent = list[tuple[int, Event]]
Attend = Callable[[sa.Connection, Rulebook, str, dt.datetime], due.Attended]


class Cases:
    """Cases in a database."""

    def __init__(
        self,
        database: Database,
        procedures: Procedures,
        calendars: Calendars,
        agencies: Agencies,
        arrangements: Arrangements,
        published: PublishedKeys,
        clock: Clock,
        *,
        skew: dt.timedelta = SKEW,
        backdating: dt.timedelta = BACKDATING,
        desk: Desk | None = None,
        reasons: Reasons | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._failing: dict[str, dt.datetime] = {}
        self.rulebook = Rulebook(
            procedures,
            calendars,
            agencies,
            arrangements,
            published,
            desk or Desk.load(calendars),
            reasons or Reasons.load(),
            skew,
            backdating,
        )
        """What cases are judged by."""
        self.listeners: list[Callable[[str, int], None]] = []
        """Called with a case's id and version after each commit of this process, in the event loop."""

    async def open(self) -> None:
        """Compare the procedures with those that cases run on, and deadlines with the calendars.

        Raises `FailedPrecondition` with PROCEDURE_CHANGED where a version's file is another than the one in use.
        """
        await self._database.read(self.rulebook.check_unchanged)
        await self.recompute()
        # After a crash between a revocation and what it means for other cases.
        await self.reconsider()

    # What agencies and applicants do.

    async def submit(self, application: Application) -> Snapshot:
        """Begin a case; see `services.recognition.submitting.submit`."""
        now = self._clock()
        begun = await self._database.write(lambda c: submitting.submit(c, self.rulebook, application, now))
        snapshot = await self.get(begun.case_id)
        if begun.fresh:
            self.ring(begun.case_id, snapshot.version)
        return snapshot

    async def append(
        self, case_id: str, act: Act, *, agency: str, expected_version: int | None = None, enterprise: bool = False
    ) -> Appended:
        """Append what has happened, with all that follows from it, or refuse it with its reason."""
        now, sender = self._clock(), Sender(agency, enterprise)
        try:
            outcome = await self._database.write(
                lambda c: appending.append(c, self.rulebook, case_id, act, sender, now, expected_version)
            )
        except FailedPrecondition as refused:
            if refused.reason is Reason.EXAMINATION_VALID:
                await self._attend(case_id, now)  # the result that was found may take the stage's place
            raise
        if outcome.refused is not None:
            self.ring(case_id, outcome.version)
            raise outcome.refused
        return await self._came_of(case_id, outcome)

    async def _came_of(self, case_id: str, outcome: Outcome) -> Appended:
        appended = outcome.appended
        assert appended is not None  # noqa: S101 - an outcome is the one or the other
        if not appended.duplicate:
            self.ring(case_id, appended.version)
        try:
            if outcome.fresh is not None:
                said = outcome.fresh
                await self.offer(said.scheme, said.subject, said.fact, besides=case_id)
            if outcome.revoked:
                await self.reconsider(outcome.revoked, besides=case_id)
        except Unavailable:
            # What was appended stays appended; the other cases come to it when they are attended to next.
            _log.warning("Other cases could not be attended to", extra={"fields": {"case_id": case_id}})
        return appended

    def append_in(
        self, connection: sa.Connection, case_id: str, act: Act, *, agency: str, now: dt.datetime
    ) -> Appended:
        """Append inside a transaction of the caller's, which ends with it where this is refused.

        Nobody is woken: call `ring` after the commit.
        """
        outcome = appending.append(connection, self.rulebook, case_id, act, Sender(agency), now)
        if outcome.appended is None:
            raise outcome.refused or FailedPrecondition(Reason.EVENT_NOT_ALLOWED, "the event was refused")
        return outcome.appended

    async def remind(self, case_id: str, stage: str, *, request_id: str, caller: str) -> Sent:
        """Remind who holds a stage, or all of them (`stage` empty); see `services.recognition.due.remind`."""
        now = self._clock()
        sent = await self._database.write(
            lambda c: due.remind(c, self.rulebook, case_id, stage, request_id, caller, now)
        )
        self.ring(case_id, sent[-1][0])
        return sent

    # What can be seen.

    async def get(self, case_id: str, *, now: dt.datetime | None = None) -> Snapshot:
        """Get a case as it stands; raises `NotFound` with CASE_NOT_FOUND."""
        return (await self._snapshots(lambda c: [ledger.load(c, case_id)], now, short=True))[0]

    async def head(self, case_id: str) -> Head:
        """Get the row of a case, without its events; raises `NotFound` with CASE_NOT_FOUND."""
        found = await self._database.read(lambda c: ledger.load_head(c, case_id), short=True)
        if found is None:
            raise no_such_case()
        return found

    async def events(self, case_id: str, after: int = 0) -> tuple[Event, ...]:
        """Get the events of a case after a number, in order."""
        return await self._database.read(lambda c: ledger.load_events(c, case_id, after), short=True)

    async def takes_part(self, agency: str, case_id: str) -> bool:
        """Tell whether an agency takes part in a case."""
        return await self._database.read(lambda c: ledger.takes_part(c, agency, case_id), short=True)

    async def list(self, wanted: Selection, *, limit: int, after: tuple[dt.datetime, str] | None = None) -> Snapshots:
        """List cases, the newest application first, going on after `applied_at` and id of one."""
        return await self._snapshots(
            lambda c: ledger.load_many(c, ledger.list_heads(c, wanted, limit=limit, after=after)), None
        )

    async def _snapshots(
        self, find: Work[Sequence[Stored | None]], now: dt.datetime | None, *, short: bool = False
    ) -> Snapshots:
        moment = now or self._clock()

        def work(connection: sa.Connection) -> Snapshots:
            return [self._snapshot(connection, stored, moment) for stored in find(connection)]

        return await self._database.read(work, short=short)

    def _snapshot(self, connection: sa.Connection, stored: Stored | None, now: dt.datetime) -> Snapshot:
        if stored is None:
            raise no_such_case()
        procedure = self.rulebook.procedure(connection, stored.head.procedure)
        state = fold(procedure, stored.events)
        # Between reading the row and reading the events others may have come: the events are what counts.
        head = replace(stored.head, version=len(stored.events), status=state.status.value, closed_at=state.closed_at)
        asked = doubts.questions(connection, head.case_id) if state.doubted else ()
        return Snapshot(head, procedure, state, stored.events, view(state, self.rulebook.calendars, now), asked)

    # What becomes due.

    async def tick(self, now: dt.datetime | None = None) -> int:
        """Attend to the cases in which something is due; gives how many events came of it.

        Each case is a transaction of its own. One that cannot be attended to is left for a while; where the store
        cannot be reached, this raises `Unavailable`.
        """
        moment = now or self._clock()
        self._failing = {case: retry for case, retry in self._failing.items() if retry > moment}
        waiting = await self._database.read(lambda c: ledger.due(c, moment, _BATCH + len(self._failing)))
        done = 0
        for case_id in waiting:
            if case_id not in self._failing:
                done += await self._attend(case_id, moment)
        return done

    async def _attend(self, case_id: str, now: dt.datetime, what: Attend = due.attend) -> int:
        try:
            attended = await self._database.write(lambda c: what(c, self.rulebook, case_id, now))
        except Unavailable:
            raise
        except Exception:
            # Whatever it is about this case, the others must not wait for it.
            _log.exception("A case could not be attended to", extra={"fields": {"case_id": case_id}})
            self._failing[case_id] = now + _RETRY
            return 0
        if attended.added:
            self.ring(case_id, attended.version)
        return attended.added

    async def next_due(self) -> dt.datetime | None:
        """Tell when something is due next; None where nothing ever is."""
        return await self._database.read(ledger.next_due, short=True)

    async def recompute(self, calendars: Calendars | None = None, now: dt.datetime | None = None) -> int:
        """Compute deadlines anew where a calendar has changed since; gives how many have moved.

        `calendars` are new ones to go on with.
        """
        if calendars is not None:
            self.rulebook = self.rulebook.on(calendars)
        moment, moved, after = now or self._clock(), 0, ""
        while True:
            last = after
            stale = await self._database.read(lambda c: due.on_old_calendars(c, self.rulebook, _BATCH, last))  # noqa: B023
            if not stale:
                return moved
            for case_id in stale:
                moved += await self._attend(case_id, moment, due.recompute)
            after = stale[-1]

    # What one case means for others.

    async def offer(self, scheme: str, subject: str, fact: str, *, besides: str = "") -> None:
        """Let open cases that wait for a fact about a subject take the result there is now."""
        now = self._clock()
        waiting = await self._database.read(
            lambda c: due.waiting_for(c, self.rulebook, scheme, subject, fact, besides=besides)
        )
        for case_id in waiting:
            await self._attend(case_id, now)

    async def reconsider(self, ref: str = "", *, besides: str = "") -> None:
        """Say in the cases that rest on a result that it was revoked; of any result, where none is named."""
        now = self._clock()
        for case_id in await self._database.read(lambda c: due.resting_on_revoked(c, ref)):
            if case_id != besides:
                await self._attend(case_id, now)

    def ring(self, case_id: str, version: int) -> None:
        """Wake whoever follows a case; for those who write in transactions of their own."""
        for listener in self.listeners:
            listener(case_id, version)
