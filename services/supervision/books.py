"""Authorizations as they were read and verified: nothing of the store is believed that the service did not write.

Checked are every event's signature, that each is chained to the one before, that its row says what was signed, that the
last is the last (the seal), that it has every act that the node's own log has, that the scope is the one requested, and
that the rules allow what happened. What does not pass is treated as unknown, and said loudly: in the log and in the
metric `hutong_authorizations_broken`.
"""

import datetime as dt
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Final

import sqlalchemy as sa
from google.protobuf.message import DecodeError

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.kit.authorizations.scope import scope_digest
from services.kit.errors import InvalidArgument
from services.kit.records.catalogue import Catalogue
from services.supervision import store
from services.supervision.events import Event, HistoryBroken, Kind, Signatures, digest
from services.supervision.seals import Seals
from services.supervision.state import Standing, State, standing
from services.supervision.store import Head, Row

Act = tuple[Kind, str]
"""What was done to an authorization, and for an approval the pseudonym of who did it: there are two."""

_NOTHING: Final[frozenset[Act]] = frozenset()
_KEPT: Final = 4096
_TRIES: Final = 8
_log = logging.getLogger(__name__)


def act(kind: Kind, officer: str) -> Act:
    """Name an act."""
    return kind, officer if kind is Kind.APPROVED else ""


@dataclass(frozen=True, slots=True)
class Authorization:
    """An authorization, verified."""

    head: Head
    scope: pb.Scope
    """What it opens; not to be changed."""
    digest: bytes
    events: tuple[Event, ...]
    signatures: tuple[str, ...] = field(repr=False)
    standing: Standing
    owners: frozenset[str]
    """Agencies that own records in its scope."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.head.authorization_id

    @property
    def agency(self) -> str:
        """The agency that asked for it, and whose system may use it."""
        return self.head.system.partition("/")[0]

    @property
    def reach(self) -> frozenset[str]:
        """The agencies that may see it."""
        return self.owners | {self.agency, *(person.agency for person in self.standing.approvers)}

    def state(self, now: dt.datetime) -> State:
        """Where it stands."""
        return self.standing.state(now)


class Books:
    """Reads authorizations and verifies them; for any thread."""

    def __init__(
        self, signatures: Signatures, seals: Seals, catalogue: Catalogue, on_broken: Callable[[], None] = lambda: None
    ) -> None:
        """`on_broken` is called for everything that does not verify, from whichever thread finds it."""
        self._signatures = signatures
        self._seals = seals
        self._catalogue = catalogue
        self._on_broken = on_broken
        self._seen: OrderedDict[str, Authorization] = OrderedDict()
        self._doubted: set[str] = set()
        """What did not verify when it was last read."""
        self._logged: Mapping[str, frozenset[Act]] = {}
        self._lock = Lock()

    def expect(self, logged: Mapping[str, frozenset[Act]]) -> None:
        """Hold histories to what the node's own log tells of them: one in which an act is missing does not verify."""
        self._logged = logged

    def read(self, connection: sa.Connection, head: Head, *, written: bool = False) -> Authorization:
        """Read one, every event of it; raises `HistoryBroken` where it does not verify, having said so.

        Where somebody changes it meanwhile, what comes is a later row than `head`. What this transaction has `written`
        itself may yet come to nothing: it is remembered once `note` is called, after the commit.
        """
        try:
            found = self._settled(connection, head)
        except HistoryBroken as error:
            self._on_broken()
            with self._lock:
                self._doubted.add(head.authorization_id)
            fields = {"authorization_id": head.authorization_id, "why": str(error)}
            _log.error("An authorization's history does not verify: it is treated as unknown", extra={"fields": fields})
            raise
        with self._lock:
            self._doubted.discard(found.id)
        if not written:
            self.note(found)
        return found

    def _settled(self, connection: sa.Connection, head: Head) -> Authorization:
        for _ in range(_TRIES):
            try:
                found = self._verified(head, store.events(connection, head.authorization_id))
                self._not_shorter(found)
                return found
            except HistoryBroken:
                # Row and events are read one after the other, and others write between: then the row is another now.
                fresh = store.load(connection, head.authorization_id)
                if fresh is None or fresh == head:
                    raise
                head = fresh
        raise HistoryBroken("it changes faster than it can be read")

    def glance(self, connection: sa.Connection, head: Head) -> Authorization:
        """Read one whose events were verified here before, as far as that has not changed; or as `read` does.

        The row is held to its seal; what the last event's digest stands for was read, and cannot have become other.
        """
        with self._lock:
            known = self._seen.get(head.authorization_id)
        if (
            known is None
            or head.authorization_id in self._doubted
            or (known.head.sequence, known.head.tip) != (head.sequence, head.tip)
            or (known.head.scope != head.scope or head.rows_used < known.head.rows_used)
            or not self._sealed(head)
        ):
            return self.read(connection, head)
        found = replace(known, head=head)
        self.note(found)
        return found

    def owner(self, record_type: str) -> str:
        """Say whose records of a type are; raises `InvalidArgument` where there is none such."""
        return self._catalogue.get(record_type).owner

    def seal(self, authorization_id: str, sequence: int, tip: bytes, rows_used: int) -> bytes:
        """Seal a row; see `Seals`."""
        return self._seals.seal(authorization_id, sequence, tip, rows_used)

    def _sealed(self, head: Head) -> bool:
        return self._seals.holds(head.seal, head.authorization_id, head.sequence, head.tip, head.rows_used)

    def _verified(self, head: Head, rows: list[Row]) -> Authorization:
        if not self._sealed(head):
            raise HistoryBroken("its row is not sealed, or sealed with another secret")
        events: list[Event] = []
        previous = b""
        for number, row in enumerate(rows, 1):
            event, follows = self._signatures.read(row.signature)
            if follows != previous:
                raise HistoryBroken("an event does not follow the one before")
            if event.authorization_id != head.authorization_id or (event.sequence, row.sequence) != (number, number):
                raise HistoryBroken("an event stands elsewhere than it was signed for")
            if not _same(event, row) or (events and event.at < events[-1].at):
                raise HistoryBroken("an event's row says something else than was signed")
            previous = digest(row.signature)
            events.append(event)
        if (head.sequence, head.tip) != (len(events), previous):
            raise HistoryBroken("its last event is another")
        if not self._logged.get(head.authorization_id, _NOTHING) <= {act(e.kind, e.by.pseudonym) for e in events}:
            raise HistoryBroken("the node's log has acts that it lacks: an older copy of the store was put back")
        return self._told(head, tuple(events), tuple(row.signature for row in rows))

    def _told(self, head: Head, events: tuple[Event, ...], signatures: tuple[str, ...]) -> Authorization:
        try:
            scope = pb.Scope.FromString(head.scope)
            owners = frozenset(self.owner(kind.record_type) for kind in scope.types)
        except (DecodeError, InvalidArgument):
            raise HistoryBroken("its scope is none") from None
        mark = scope_digest(scope)
        found = standing(scope, mark, events)
        if scope.caller != head.system or str(found.requester) != head.requester or scope.emergency != head.emergency:
            raise HistoryBroken("its row says something else than was signed")
        return Authorization(head, scope, mark, events, signatures, found, owners)

    def _not_shorter(self, found: Authorization) -> None:
        """Notice where an older row was put back, seal and all."""
        with self._lock:
            known = self._seen.get(found.id)
        if known is not None and (
            found.signatures[: len(known.signatures)] != known.signatures or found.head.rows_used < known.head.rows_used
        ):
            raise HistoryBroken("it had come further already")

    def note(self, found: Authorization) -> None:
        """Remember how far one has come: it does not come back from there."""
        with self._lock:
            known = self._seen.get(found.id)
            if known is not None and (known.head.sequence, known.head.rows_used) > (
                found.head.sequence,
                found.head.rows_used,
            ):
                # Whoever was committed later was done sooner.
                return
            self._seen[found.id] = found
            self._seen.move_to_end(found.id)
            if len(self._seen) > _KEPT:
                self._seen.popitem(last=False)


def _same(event: Event, row: Row) -> bool:
    said = (event.kind.value, event.at, event.by.agency, event.by.pseudonym, event.reason)
    return said == (row.kind, row.at, row.agency, row.officer, row.reason_code)
