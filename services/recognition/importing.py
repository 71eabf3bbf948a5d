"""Importing event logs: cases that happened elsewhere, kept as if they had happened here.

A log is read and checked whole before anything is kept, so that a bad file leaves nothing behind. Its cases are then
written in batches, each a transaction: where the store fails half-way, what is kept are whole cases, and importing the
log again goes on from there. Every case of a log ends as loaded, unchanged or refused. Ids are made of what the log
says, so that the same case is the same whenever, and in whatever form of the log, it comes again.

Nobody is told of imported events: they are the past. A case that is still open goes on from where the log leaves it.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import sqlalchemy as sa

from adapters.eventlog import Log, LoggedCase, WrongCase
from services.kit.errors import Aborted, Internal, Reason, Unavailable
from services.kit.records.database import Database
from services.kit.records.inserts import insert_or_ignore
from services.recognition import ledger
from services.recognition.dossier import head_of
from services.recognition.events import Event
from services.recognition.ledger import Head, NewCase, Selection, Stored
from services.recognition.log_profiles import LogProfile
from services.recognition.logged_cases import CaseRefused, Refusal, Replayed, Replayer
from services.recognition.procedure import Procedure
from services.recognition.rulebook import Rulebook
from services.recognition.submitting import blank_head
from services.recognition.tables import CASE_AGENCY

_BATCH: Final = 1000
"""Cases in one transaction: enough that a commit costs little, few enough that who else writes waits little."""

_TRIES: Final = 3

IMPORT: Final = "import"
"""The system that imported cases are submitted by, of the agency that leads them."""

ShowCases = Callable[[int, int], None]
"""Told how many cases of the log are done, and how many there are."""


@dataclass(slots=True)
class Imported:
    """What became of a log: read = loaded + unchanged + refused."""

    log: str
    form: str
    procedure: str
    read: int = 0
    loaded: int = 0
    grown: int = 0
    """Of those loaded: cases that were there, and of which the log has told more since."""
    unchanged: int = 0
    events: int = 0
    """Events written, with those that begin and end cases."""
    moved: int = 0
    """Cases in which something happened before the application that the log states: they begin with that."""
    refused: list[Refusal] = field(default_factory=list[Refusal])

    @property
    def reasons(self) -> dict[str, int]:
        """How many cases were refused for each reason."""
        found: dict[str, int] = {}
        for refusal in self.refused:
            found[refusal.reason.value] = found.get(refusal.reason.value, 0) + 1
        return found


@dataclass(frozen=True, slots=True)
class _Case:
    """A case of the log, ready to be stored."""

    logged_id: str
    new: NewCase
    """As it is stored if it is not there yet."""

    @property
    def case_id(self) -> str:
        return self.new.head.case_id

    @property
    def events(self) -> Sequence[Event]:
        return self.new.events


@dataclass(frozen=True, slots=True)
class _Batch:
    """What came of the cases of one transaction."""

    loaded: int
    grown: int
    unchanged: int
    events: int
    refused: tuple[Refusal, ...]


class Importer:
    """Imports logs of one procedure into one store."""

    def __init__(
        self,
        database: Database,
        rulebook: Rulebook,
        procedure: Procedure,
        profile: LogProfile,
        now: dt.datetime,
        source: str = "",
    ) -> None:
        """`source` keeps apart the cases of several logs that go by the same numbers; see `Replayer`."""
        self._database = database
        self._rules = rulebook
        self._procedure = procedure
        self._now = now
        self._replayer = Replayer(procedure, profile, now, source, rulebook.reasons)

    async def run(self, log: Log, show: ShowCases | None = None) -> Imported:
        """Import a log.

        Raises `Unavailable` or `Internal` where the store fails: the whole cases that were written until then stay.
        """
        done = Imported(log.name, log.form, self._procedure.label)
        for start in range(0, len(log.cases), _BATCH):
            some = log.cases[start : start + _BATCH]
            ready = list(self._ready(some, done))
            try:
                batch = await self._write(ready)
            except (Unavailable, Internal) as error:
                kept = f"; {done.loaded + done.unchanged} cases are kept, import the log again to go on"
                raise type(error)(error.reason, error.message + kept) from None
            _count(done, batch, len(some))
            if show is not None:
                show(done.read, len(log.cases))
        return done

    def _ready(self, cases: Iterable[LoggedCase | WrongCase], done: Imported) -> Iterator[_Case]:
        for case in cases:
            if isinstance(case, WrongCase):
                done.refused.append(Refusal(case.case_id, Reason.LOG_INVALID, case.why, line=case.line))
                continue
            try:
                replayed = self._replayer.replay(case)
            except CaseRefused as refused:
                done.refused.append(refused.refusal)
                continue
            done.moved += replayed.moved
            # What was folded is let go of at once: a long log would be thousands of states.
            yield _Case(replayed.logged_id, self._new(replayed))

    async def _write(self, ready: Sequence[_Case]) -> _Batch:
        for _ in range(_TRIES - 1):
            try:
                return await self._database.write(lambda c: self._store(c, ready))
            except Aborted:
                continue  # somebody else imports the same, or adds to one of the cases: look again
        return await self._database.write(lambda c: self._store(c, ready))

    def _store(self, connection: sa.Connection, ready: Sequence[_Case]) -> _Batch:
        ids = tuple(case.case_id for case in ready)
        heads = ledger.list_heads(connection, Selection(case_ids=ids), limit=len(ids))
        known = {stored.head.case_id: stored for stored in ledger.load_many(connection, heads)}
        fresh = [case.new for case in ready if case.case_id not in known]
        if fresh:
            self._rules.keep(connection, self._procedure, self._now)
        events = ledger.bulk_create(connection, fresh)
        refused: list[Refusal] = []
        grown = unchanged = 0
        for case in ready:
            stored = known.get(case.case_id)
            if stored is None:
                continue
            if (why := self._differs(stored, case)) is not None:
                refused.append(why)
            elif len(stored.events) >= len(case.events):
                unchanged += 1
            else:
                events += self._grow(connection, case)
                grown += 1
        return _Batch(len(fresh) + grown, grown, unchanged, events, tuple(refused))

    def _new(self, case: Replayed) -> NewCase:
        return NewCase(self._head(case), self._agencies(case), case.events)

    def _head(self, case: Replayed) -> Head:
        submitter = f"{self._procedure.lead}/{IMPORT}"
        first, version = case.events[0], len(case.events)
        blank = blank_head(self._procedure, first, case.case_id, case.request_id, submitter, version)
        return head_of(self._rules, case.state, blank, self._now)

    def _agencies(self, case: Replayed) -> set[str]:
        """Say who takes part: who did something, and while the case is open everybody who may have to."""
        found = {event.agency for event in case.events[1:]}
        return found if case.state.closed_at is not None else found | self._procedure.takes_part

    def _differs(self, stored: Stored, case: _Case) -> Refusal | None:
        """Say why a case of the log cannot be the one in the store; None where it is, or where one goes on further."""
        pairs = zip(stored.events, case.events, strict=False)
        for number, (there, here) in enumerate(pairs):
            if _content(there) != _content(here):
                message = "the store has another case of this number: it differs"
                return Refusal(case.logged_id, Reason.CASE_EXISTS, message, number)
        if len(stored.events) < len(case.events) and stored.head.procedure != self._procedure.label:
            message = f"the log tells more of it, and it runs on {stored.head.procedure}: import it with that version"
            return Refusal(case.logged_id, Reason.CASE_EXISTS, message)
        return None

    def _grow(self, connection: sa.Connection, case: _Case) -> int:
        stored = ledger.load(connection, case.case_id, lock=True)
        if stored is None or len(stored.events) > len(case.events):
            raise Aborted(Reason.VERSION_CONFLICT, "the case has changed meanwhile")
        more = case.events[len(stored.events) :]
        ledger.append(connection, stored, more, case.new.head)
        rows = [{"agency": agency, "case_id": case.case_id} for agency in sorted(case.new.agencies)]
        connection.execute(insert_or_ignore(connection, CASE_AGENCY), rows)
        return len(more)


def _content(event: Event) -> tuple[object, ...]:
    """What of an event comes from the log; a case that goes on with its version is the same under a newer one."""
    said = event.submission
    first = None if said is None else replace(said, procedure=said.procedure.partition("@")[0])
    return event.id, event.kind, event.stage, event.agency, event.at, event.result, event.officer, first


def _count(done: Imported, batch: _Batch, read: int) -> None:
    done.read += read
    done.loaded += batch.loaded
    done.grown += batch.grown
    done.unchanged += batch.unchanged
    done.events += batch.events
    done.refused += batch.refused
