"""Results and tasks, as the service's doors use them: one transaction each, and those who wait are woken."""

import datetime as dt
import logging
import uuid
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from services.kit.clock import Clock
from services.kit.credentials import results as credentials
from services.kit.credentials import status
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.results import Statement
from services.kit.credentials.status import BITS, StatusList
from services.kit.errors import InvalidArgument, NotFound, Reason, Unavailable
from services.kit.events import outbox
from services.kit.events.outbox import NewEvent
from services.kit.records.database import Database
from services.recognition import due, ledger, registry, stage_results, status_lists, tasks
from services.recognition.case import CaseState, fold
from services.recognition.cases import Cases
from services.recognition.casework import Act
from services.recognition.events import Kind
from services.recognition.registry import Change, Changed, Entered
from services.recognition.stage_results import Result, State
from services.recognition.stages import StageStatus
from services.recognition.status_lists import Reserved
from services.recognition.tables import CASE
from services.recognition.tasks import Disposition, Task

_log = logging.getLogger(__name__)

LIFETIME: Final = dt.timedelta(hours=24)
"""How long a signed status list may be relied on at all."""

TTL: Final = dt.timedelta(minutes=5)
"""How long it may be kept before it is looked up again."""

_SCHEMES: Final = frozenset({"cn.uscc", "hutong.token"})
_REFUSED: Final = "NOT_STANDING"
"""Reason of giving a stage back when its result is examined anew."""


class Results:
    """The register and the tasks of one database."""

    def __init__(
        self, database: Database, cases: Cases, signing: SigningKeys, clock: Clock, ring: Callable[[], None]
    ) -> None:
        """`signing` are the service's own keys, for status lists; `ring` is called after events were put out."""
        self._database = database
        self._cases = cases
        self._signing = signing
        self._clock = clock
        self._ring = ring

    # Results.

    async def reserve(self, issuer: str, ref: str) -> Reserved:
        """Reserve the status entry of a result to be signed; see `status_lists.reserve`."""
        now = self._clock()
        return await self._database.write(lambda c: status_lists.reserve(c, issuer, ref, now))

    async def register(self, issuer: str, credential: str) -> Entered:
        """Register a result that was signed outside a case, and offer it to cases that wait for its fact.

        Raises what `credentials.verify` and `registry.enter` do, and `InvalidArgument` with SUBJECT_SCHEME_UNKNOWN, or
        RESULT_SUBJECT for a result of a case: those come with the case's event.
        """
        now, rules = self._clock(), self._cases.rulebook
        statement = credentials.verify(credential, rules.published, at=now, issuer=issuer)
        if statement.case_id:
            raise InvalidArgument(Reason.RESULT_SUBJECT, "a result of a case is registered by the case's own event")
        if statement.scheme not in _SCHEMES:
            message = f"a result is about one of {', '.join(sorted(_SCHEMES))}"
            raise InvalidArgument(Reason.SUBJECT_SCHEME_UNKNOWN, message)
        if not rules.arrangements.proves(issuer, statement.fact):
            # Nobody would rely on it; but it would contradict who may say so, and keep others from examining.
            raise InvalidArgument(Reason.RESULT_FACT, "no arrangement and no procedure has this agency prove this fact")
        told = rules.arrangements.recognisers(issuer, statement.fact, now)

        def work(connection: sa.Connection) -> Entered:
            post: list[NewEvent] = []
            entered = registry.enter(
                connection,
                statement,
                credential,
                case_id="",
                stage=statement.stage,
                now=now,
                recognisers=told,
                post=post,
            )
            outbox.put(connection, post, now)
            return entered

        entered = await self._database.write(work)
        if entered.fresh:
            self._ring()
            await self._offer(statement, now)
        return entered

    async def _offer(self, statement: Statement, now: dt.datetime) -> None:
        """Have the cases looked at that wait for this fact about this subject."""

        def work(connection: sa.Connection) -> bool:
            rules = self._cases.rulebook
            waiting = due.waiting_for(
                connection, rules, statement.scheme, statement.subject, statement.fact, besides=""
            )
            later = sa.or_(CASE.c.next_at.is_(None), CASE.c.next_at > now)
            update = sa.update(CASE).where(CASE.c.case_id.in_(waiting), CASE.c.closed_at.is_(None), later)
            connection.execute(update.values(next_at=now))
            return bool(waiting)

        # A second transaction: locks of cases come before the lock of the register.
        if await self._database.write(work):
            await self._cases.tick(now)

    async def get(self, ref: str) -> Result:
        """Get a result; raises `NotFound` with RESULT_NOT_FOUND."""
        return await self._database.read(lambda c: stage_results.get(c, ref), short=True)

    async def of_subject(
        self, scheme: str, subject: str, *, fact: str = "", after: tuple[dt.datetime, str] | None = None, limit: int
    ) -> list[Result]:
        """List results about a subject, the newest first; see `stage_results.of_subject`."""
        return await self._database.read(
            lambda c: stage_results.of_subject(c, scheme, subject, fact=fact, after=after, limit=limit), short=True
        )

    async def change(
        self, issuer: str, ref: str, reason: str, change: Change, *, request_id: str = "", officer: str = ""
    ) -> Changed:
        """Revoke, suspend or reinstate a result; see `registry.revoke`. Revoking one of a case is an event of the case.

        `tasks` of the answer are all that its revocation ever raised.
        """
        known = await self.get(ref)
        if known.issuer != issuer:
            raise NotFound(Reason.RESULT_NOT_FOUND, "there is no such result")
        if change is Change.REVOKE and known.case_id and known.state is not State.REVOKED:
            act = Act(
                request_id or str(uuid.uuid4()), Kind.REVOKE, known.stage, reason=reason, ref=ref, officer=officer
            )
            await self._cases.append(known.case_id, act, agency=issuer)
            return await self._database.read(lambda c: _came_of(c, Changed(stage_results.get(c, ref))), short=True)
        now, desk = self._clock(), self._cases.rulebook.desk

        def work(connection: sa.Connection) -> Changed:
            post: list[NewEvent] = []
            changed = registry.revoke(connection, desk, ref, reason, now, issuer=issuer, change=change, post=post)
            outbox.put(connection, post, now)
            return _came_of(connection, changed)

        changed = await self._database.write(work)
        if changed.changed:
            self._ring()
            await self._reconsider(changed)
        return changed

    async def _reconsider(self, changed: Changed) -> None:
        """Have the cases say that what they rest on was revoked."""
        if changed.result.state is not State.REVOKED:
            return
        try:
            await self._cases.reconsider(changed.result.result_ref)
        except Unavailable:
            # It is revoked, and its tasks are raised; cases come to it when they are attended to next.
            _log.warning("Cases could not be attended to", extra={"fields": {"ref": changed.result.result_ref}})

    def keys(self, agency: str) -> str:
        """Give an agency's published keys, as a JWK set; raises `NotFound` with KEY_UNKNOWN."""
        found = self._cases.rulebook.published.text(agency)
        if not found:
            raise NotFound(Reason.KEY_UNKNOWN, "this agency has published no keys")
        return found

    async def status_list(self, uri: str) -> str:
        """Sign a status list as it is now; raises `NotFound` with STATUS_LIST_INVALID."""
        now = self._clock()

        def work(connection: sa.Connection) -> str:
            return status.issue(_packed(uri, status_lists.values(connection, uri)), self._signing, now, LIFETIME, TTL)

        return await self._database.read(work)

    # Tasks.

    async def tasks(
        self, owner: str, *, disposed: bool = False, case_id: str = "", after: str = "", limit: int
    ) -> list[Task]:
        """List an agency's tasks, the soonest due first; see `tasks.list_`."""
        return await self._database.read(
            lambda c: tasks.list_(c, owner, disposed=disposed, case_id=case_id, after=after, limit=limit), short=True
        )

    async def dispose(
        self, owner: str, task_id: str, disposition: Disposition, *, reason: str, officer: str = ""
    ) -> Task:
        """Dispose of a task; see `tasks.dispose`."""
        now, desk = self._clock(), self._cases.rulebook.desk
        reopened: list[tuple[str, int]] = []

        def reopen(connection: sa.Connection, task: Task) -> None:
            if (version := self._reopen(connection, task, now)) is not None:
                reopened.append((task.case_id, version))

        task = await self._database.write(
            lambda c: tasks.dispose(
                c,
                desk,
                task_id,
                owner=owner,
                disposition=disposition,
                reason=reason,
                officer=officer,
                now=now,
                reopen=reopen,
            )
        )
        for case_id, version in reopened:
            self._cases.ring(case_id, version)
        return task

    def _reopen(self, connection: sa.Connection, task: Task, now: dt.datetime) -> int | None:
        """Open a stage again, as an event of its agency's that everybody sees; gives the case's version after it.

        Where it stands recognised by the task's result, that is refused; where the result is the agency's own and it
        has revoked it, the stage is started anew. A decision of its own that stands is its agency's to revoke first.
        """
        stored = ledger.load(connection, task.case_id, lock=True)
        if stored is None:
            return None
        state = fold(self._cases.rulebook.procedure(connection, stored.head.procedure), stored.events)
        event_id = str(uuid.uuid5(uuid.NAMESPACE_OID, task.task_id))
        match _again(state, task):
            case Kind.REFUSE_RECOGNITION as kind:
                act = Act(event_id, kind, task.stage, reason=_REFUSED, ref=task.result_ref, officer=task.officer)
            case Kind.START as kind:
                act = Act(event_id, kind, task.stage, officer=task.officer)
            case _:
                return None
        return self._cases.append_in(connection, task.case_id, act, agency=task.owner_agency, now=now).version


def _again(state: CaseState, task: Task) -> Kind | None:
    """Choose the event that opens a stage again; None where there is nothing to open.

    A closed case stays as it is: that its agency has looked at the fact again is kept with the task, and what came of
    that is a result of its own, or a new case's.
    """
    stage = state.stages.get(task.stage)
    if stage is None or stage.ref != task.result_ref or state.closed_at is not None:
        return None
    if stage.status is StageStatus.RECOGNISED:
        return Kind.REFUSE_RECOGNITION
    own = stage.revoked and stage.status in {StageStatus.PASSED, StageStatus.CONDITIONAL}
    return Kind.START if own else None


def _came_of(connection: sa.Connection, changed: Changed) -> Changed:
    """Add the tasks that the revocation of a result ever raised."""
    if changed.result.state is not State.REVOKED:
        return changed
    found = tasks.of_revocation(connection, changed.result.result_ref)
    return Changed(changed.result, tuple(found), changed.changed)


def _packed(uri: str, values: dict[int, int]) -> StatusList:
    per_byte = 8 // BITS
    packed = bytearray(status_lists.SIZE // per_byte)
    for index, value in values.items():
        packed[index // per_byte] |= value << BITS * (index % per_byte)
    return StatusList(uri, BITS, bytes(packed))
