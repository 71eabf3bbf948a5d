"""The acts: requested, approved, rejected, revoked, used, reviewed. Each is one transaction.

In it the row of the authorization is locked first, so that of two acts at once one sees the other; the officer's token
is taken, so that nothing is done twice with it; the rules are asked; and the event is signed and added. So an act is
kept with all that belongs to it, or nothing is.
"""

import datetime as dt
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.kit.authorizations.scope import scope_digest
from services.kit.errors import InvalidArgument, Reason
from services.kit.officers.tokens import Officer, Role
from services.kit.officers.verifier import replayed
from services.kit.records.database import Database
from services.supervision import rules, store
from services.supervision.books import Authorization, Books
from services.supervision.events import Event, HistoryBroken, Kind, Person, Signatures, digest
from services.supervision.moments import Moments
from services.supervision.rules import Terms
from services.supervision.scope import NONCE_BYTES, Scopes, normal, with_nonce
from services.supervision.seals import Seals
from services.supervision.store import Head

_ENDING: Final = frozenset({Kind.REJECTED, Kind.REVOKED, Kind.EXHAUSTED})


@dataclass(frozen=True, slots=True)
class Act:
    """What every act begins with: which authorization, by whom, and the reason given."""

    authorization_id: str
    officer: Officer
    by: Person
    reason: str = ""


class Authorizations:
    """Authorizations in a database."""

    def __init__(
        self,
        database: Database,
        books: Books,
        signatures: Signatures,
        seals: Seals,
        moments: Moments,
        scopes: Scopes,
        terms: Terms,
    ) -> None:
        self.database = database
        self.books = books
        self.moments = moments
        self.listeners: list[Callable[[], None]] = []
        """Called in the event loop after every change that nodes have to hear of."""
        self._signatures = signatures
        self._seals = seals
        self._scopes = scopes
        self._terms = terms

    async def open(self) -> None:
        """Learn how late it has been before; raises `Unavailable` where the database is away."""
        _, latest = await self.database.read(store.last_change)
        self.moments.observe(latest)

    def act(self, authorization_id: str, officer: Officer, reason: str = "") -> Act:
        """Begin an act: the officer goes by a pseudonym from here on."""
        return Act(authorization_id, officer, self._seals.person(officer.agency, officer.subject), reason)

    async def request(self, request_id: str, system: str, asked: pb.Scope, officer: Officer) -> Authorization:
        """Ask for one; the same request again gives what it made.

        Raises `InvalidArgument` for a scope that does not stand, or REQUEST_ID_REUSED; `PermissionDenied`
        EMERGENCY_NOT_ALLOWED; `FailedPrecondition` REVIEW_DUE; `Unauthenticated` OFFICER_TOKEN_REPLAYED.
        """
        act = self.act("", officer)

        def work(connection: sa.Connection) -> Authorization:
            done = store.by_request(connection, system, request_id)
            if done is not None:
                return self._repeated(connection, done, act, asked)
            now = self.moments.require()
            scope = self._scopes.check(asked, system, now)
            if not self._took_token(connection, officer):
                # Where the same request was on its way twice, the other one was faster, and this waited for it.
                return self._repeated(connection, store.by_request(connection, system, request_id), act, asked)
            if scope.emergency:
                rules.check_emergency(self._terms)
                self._check_reviewed(connection, act.by, now)
            scope = with_nonce(scope, secrets.token_bytes(NONCE_BYTES))
            return self._create(connection, request_id, scope, act.by, now) or self._repeated(
                connection, store.by_request(connection, system, request_id), act, asked
            )

        return await self._write(work)

    async def approve(self, act: Act, seen: bytes) -> Authorization:
        """Approve one; `seen` is the digest of the scope that the officer has seen. Raises as `rules` says."""

        def work(found: Authorization, now: dt.datetime) -> Event:
            rules.check_approval(found, act.by, seen, self._terms, now)
            due = now + self._terms.review_within if found.scope.emergency else None
            return self._next(found, Kind.APPROVED, act, now, scope_digest=found.digest, until=due)

        return await self._act(act, work, opens=True)

    async def reject(self, act: Act) -> Authorization:
        """Reject one; raises as `rules` says."""

        def work(found: Authorization, now: dt.datetime) -> Event:
            rules.check_rejection(found, act.by, now)
            return self._next(found, Kind.REJECTED, act, now)

        return await self._act(act, work)

    async def revoke(self, act: Act) -> Authorization:
        """Revoke one; raises as `rules` says."""

        def work(found: Authorization, now: dt.datetime) -> Event:
            approver = Role.APPROVER in act.officer.roles
            rules.check_revocation(found, act.by, approver=approver, now=now)
            return self._next(found, Kind.REVOKED, act, now)

        return await self._act(act, work)

    async def use(self, act: Act, system: str) -> Authorization:
        """Let an officer use one through a system; raises as `rules` says."""

        def work(found: Authorization, now: dt.datetime) -> Event:
            rules.check_use(found, system, now)
            return self._next(found, Kind.USED, act, now)

        return await self._act(act, work, opens=True)

    async def review(self, act: Act) -> Authorization:
        """Review an emergency; raises as `rules` says. Auditors reach every one."""

        def work(found: Authorization, now: dt.datetime) -> Event:
            rules.check_review(found, act.by)
            return self._next(found, Kind.REVIEWED, act, now)

        return await self._act(act, work, everywhere=Role.AUDITOR in act.officer.roles)

    async def get(self, authorization_id: str, agency: str | None) -> Authorization:
        """Read one that an agency may see; any, where no agency is named. Raises `NotFound`."""

        def work(connection: sa.Connection) -> Authorization:
            return self.seen_by(agency, self.loaded(connection, authorization_id))

        return await self.database.read(work)

    def loaded(self, connection: sa.Connection, authorization_id: str, *, lock: bool = False) -> Authorization:
        """Read one in a transaction; raises `NotFound` where there is none, or none that verifies."""
        head = store.load(connection, authorization_id, lock=lock)
        if head is None:
            raise rules.unknown()
        try:
            return self.books.read(connection, head)
        except HistoryBroken:
            raise rules.unknown() from None

    def seen_by(self, agency: str | None, found: Authorization) -> Authorization:
        """Hold what was read to who may see it; raises `NotFound`."""
        if agency is not None and agency not in found.reach:
            raise rules.unknown()
        return found

    def append(self, connection: sa.Connection, found: Authorization, event: Event, *, told: bool = True) -> Head:
        """Sign an event and add it to one whose row this transaction has locked; gives the row as it is then.

        Where nodes have to hear of it it is numbered, which comes last in a transaction.
        """
        text = self._signatures.sign(event, found.head.tip)
        store.append(connection, event, text)
        sequence, tip, used = event.sequence, digest(text), found.head.rows_used
        store.change(
            connection,
            found.id,
            sequence=sequence,
            tip=tip,
            seal=self._seals.seal(found.id, sequence, tip, used),
            over=found.head.over or event.kind in _ENDING,
            touched_at=event.at,
        )
        if told:
            store.change(connection, found.id, change=store.number(connection, event.at))
        return _there(store.load(connection, found.id))

    def ring(self) -> None:
        """Say that something changed that nodes have to hear of."""
        for listener in self.listeners:
            listener()

    async def _act(
        self,
        act: Act,
        work: Callable[[Authorization, dt.datetime], Event],
        *,
        opens: bool = False,
        everywhere: bool = False,
    ) -> Authorization:
        """Do an act; one that `opens` something is not done while the clock is set back."""

        def locked(connection: sa.Connection) -> Authorization:
            found = self.loaded(connection, act.authorization_id, lock=True)
            self.seen_by(None if everywhere else act.officer.agency, found)
            self.moments.observe(found.head.touched_at)
            now = self.moments.require() if opens else self.moments.now()
            if not self._took_token(connection, act.officer):
                raise replayed()
            event = work(found, now)
            head = self.append(connection, found, event, told=event.kind is not Kind.USED)
            return self.books.read(connection, head, written=True)

        return await self._write(locked)

    async def _write(self, work: Callable[[sa.Connection], Authorization]) -> Authorization:
        done = await self.database.write(work)
        self.books.note(done)
        self.ring()
        return done

    def _took_token(self, connection: sa.Connection, officer: Officer) -> bool:
        return store.take_token(connection, officer.agency, officer.jti, officer.remembered_until)

    def _next(
        self,
        found: Authorization,
        kind: Kind,
        act: Act,
        now: dt.datetime,
        *,
        scope_digest: bytes = b"",
        until: dt.datetime | None = None,
    ) -> Event:
        return Event(found.id, found.head.sequence + 1, kind, now, act.by, act.reason, scope_digest, until)

    def _create(
        self, connection: sa.Connection, request_id: str, scope: pb.Scope, by: Person, now: dt.datetime
    ) -> Authorization | None:
        """Store a new one; None where its request id was used at this very moment."""
        not_after = scope.not_after.ToDatetime(dt.UTC)
        lapses_at = min(now + self._terms.approval_within, not_after)
        event = Event(str(uuid.uuid4()), 1, Kind.REQUESTED, now, by, "", scope_digest(scope), lapses_at)
        text = self._signatures.sign(event, b"")
        tip = digest(text)
        head = Head(
            authorization_id=event.authorization_id,
            system=scope.caller,
            request_id=request_id,
            requester=str(by),
            emergency=scope.emergency,
            scope=scope.SerializeToString(deterministic=True),
            requested_at=now,
            not_after=not_after,
            touched_at=now,
            sequence=1,
            tip=tip,
            rows_used=0,
            seal=self._seals.seal(event.authorization_id, 1, tip, 0),
            over=False,
            change=0,
        )
        owners = {self.books.owner(part.record_type) for part in scope.types}
        if not store.create(connection, head, {by.agency, *owners}):
            return None
        store.append(connection, event, text)
        store.change(connection, head.authorization_id, change=store.number(connection, now))
        stored = store.load(connection, head.authorization_id)
        return self.books.read(connection, stored or head, written=True)

    def _repeated(self, connection: sa.Connection, head: Head | None, act: Act, asked: pb.Scope) -> Authorization:
        """Give what a request made that comes again; raises `InvalidArgument` REQUEST_ID_REUSED for another one."""
        if head is None:
            raise replayed()
        # Its token is used up, or is now, so that it is good for nothing else.
        self._took_token(connection, act.officer)
        found = self.loaded(connection, head.authorization_id)
        again = with_nonce(normal(asked), found.scope.nonce)
        if scope_digest(again) != found.digest or act.by != found.standing.requester:
            raise InvalidArgument(Reason.REQUEST_ID_REUSED, "this request id stands for another request already")
        return found

    def _check_reviewed(self, connection: sa.Connection, by: Person, now: dt.datetime) -> None:
        """Raise `FailedPrecondition` where an emergency of the same officer ought to have been reviewed by now."""
        for head in store.emergencies(connection, str(by)):
            try:
                overdue = self.books.read(connection, head).standing.overdue(now)
            except HistoryBroken:
                # Whatever it was, nobody can review it.
                overdue = True
            if overdue:
                raise rules.review_due()


def _there(head: Head | None) -> Head:
    """Hold on to a row that this transaction has just written, or waited for."""
    if head is None:
        raise AssertionError("a row is gone within its transaction")
    return head
