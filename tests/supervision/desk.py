"""Authorizations in a database of their own, officers of several agencies, and a clock that a test sets."""

import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from services.kit import jurisdiction
from services.kit.authorizations.scope import scope_digest
from services.kit.authorizations.tickets import Ticket
from services.kit.caller import Caller
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.officers.tokens import Officer, Role
from services.kit.records import catalogue, migrations
from services.kit.records.database import Database
from services.supervision.authorizations import Authorizations
from services.supervision.books import Authorization, Books
from services.supervision.events import Signatures
from services.supervision.moments import Moments
from services.supervision.node import AGENCY, MIGRATIONS
from services.supervision.quota import Quota, Wanted
from services.supervision.rules import Terms
from services.supervision.scope import Scopes
from services.supervision.seals import Seals
from services.supervision.state import State
from tests.zone import ZONE

START: Final = dt.datetime(2026, 3, 4, 9, 30, tzinfo=dt.UTC)
SECRET: Final = b"0123456789abcdef0123456789abcdef"
SYSTEM: Final = "supervision/aml"
FIRM: Final = "91110000600037341L"
DAY: Final = dt.timedelta(days=1)
HOUR: Final = dt.timedelta(hours=1)
MINUTE: Final = dt.timedelta(minutes=1)
SECOND: Final = dt.timedelta(seconds=1)
TERMS: Final = Terms(owner_approval=True, break_glass=False, approval_within=3 * DAY, review_within=3 * DAY)
CUSTOMS: Final = Caller(f"spiffe://{ZONE}/customs/node", "customs", "node")
TAXATION: Final = Caller(f"spiffe://{ZONE}/taxation/node", "taxation", "node")
TYPE: Final = "customs.Declaration"


@dataclass
class Clock:
    """A clock that a test sets."""

    moment: dt.datetime = START

    def __call__(self) -> dt.datetime:
        return self.moment

    def move(self, by: dt.timedelta) -> None:
        self.moment += by


def scope(system: str = SYSTEM, begin: dt.datetime = START, **changes: Any) -> pb.Scope:
    """A good scope, with some of it changed."""
    until: dt.timedelta = changes.pop("lasts", 14 * DAY)
    given: dict[str, Any] = {
        "caller": system,
        "purpose": "P-AML",
        "legal_basis": "CN-AML",
        "case_ref": "STR-2026-7",
        "types": [pb.ScopedType(record_type=TYPE, fields=["declaration_no", "total_value_cny"])],
        "subjects": [common_pb2.SubjectId(scheme="cn.uscc", value=FIRM)],
        "row_quota": 100,
        "no_bulk": True,
    }
    made = pb.Scope(**given | changes)
    made.not_before.FromDatetime(begin)
    made.not_after.FromDatetime(begin + until)
    return made


def officer(agency: str, subject: str, *roles: Role, now: dt.datetime = START, jti: str = "") -> Officer:
    """An officer whose token was found good."""
    every = roles or tuple(Role)
    return Officer(agency, subject, frozenset(every), now, now + 5 * MINUTE, jti or str(uuid.uuid4()))


@dataclass
class Desk:
    """Authorizations, as one process has them."""

    folder: Path
    url: str
    database: Database
    signing: SigningKeys
    clock: Clock
    terms: Terms
    broken: list[int] = field(default_factory=list[int])
    others: list["Desk"] = field(default_factory=list["Desk"])
    """Processes beside this one, each with its own connections."""

    def __post_init__(self) -> None:
        published = PublishedKeys.load(self.folder / "keys")
        seals, known = Seals(SECRET), catalogue.load()
        self.signatures = Signatures(self.signing, published)
        self.moments = Moments(self.clock)
        self.books = Books(self.signatures, seals, known, lambda: self.broken.append(1))
        scopes = Scopes(known, jurisdiction.load("cn"), 90 * DAY)
        self.authorizations = Authorizations(
            self.database, self.books, self.signatures, seals, self.moments, scopes, self.terms
        )
        self.quota = Quota(self.authorizations, AGENCY)

    async def other(self, clock: Clock | None = None) -> "Desk":
        """Another process over the same database, or the same one after a restart."""
        made = Desk(self.folder, self.url, Database(self.url), self.signing, clock or self.clock, self.terms)
        # What one process queues for its only writer, two have to settle by the locks of the database.
        self.others.append(made)
        await made.authorizations.open()
        return made

    def close(self) -> None:
        for each in self.others:
            each.close()
        self.database.close()

    async def request(self, by: str = "req", asked: pb.Scope | None = None, **more: Any) -> Authorization:
        wanted = asked or scope(begin=self.clock(), **more)
        agency = wanted.caller.partition("/")[0]
        who = officer(agency, by, now=self.clock())
        return await self.authorizations.request(str(uuid.uuid4()), wanted.caller, wanted, who)

    async def approve(self, found: Authorization, agency: str, by: str, **more: Any) -> Authorization:
        act = self.authorizations.act(found.id, officer(agency, by, now=self.clock(), **more))
        return await self.authorizations.approve(act, found.digest)

    async def active(self, **more: Any) -> Authorization:
        """One that is in force."""
        found = await self.request(**more)
        await self.approve(found, "supervision", "chief")
        return await self.approve(found, "customs", "owner")

    async def reject(self, found: Authorization, agency: str = "customs", by: str = "owner") -> Authorization:
        return await self.authorizations.reject(self.authorizations.act(found.id, officer(agency, by), "TOO_WIDE"))

    async def revoke(
        self, found: Authorization, agency: str = "customs", by: str = "owner", *roles: Role
    ) -> Authorization:
        act = self.authorizations.act(found.id, officer(agency, by, *roles), "CASE_CLOSED")
        return await self.authorizations.revoke(act)

    async def use(self, found: Authorization, by: str = "req", system: str = SYSTEM) -> Authorization:
        act = self.authorizations.act(found.id, officer(system.partition("/")[0], by))
        return await self.authorizations.use(act, system)

    async def review(self, found: Authorization, agency: str, by: str, *roles: Role) -> Authorization:
        return await self.authorizations.review(
            self.authorizations.act(found.id, officer(agency, by, *roles), "JUSTIFIED")
        )

    async def get(self, found: Authorization, agency: str | None = None) -> Authorization:
        return await self.authorizations.get(found.id, agency)

    async def state(self, found: Authorization) -> State:
        return (await self.get(found)).state(self.moments.now())

    async def reserve(
        self, found: Authorization, rows: int, name: str = "", node: Caller = CUSTOMS, record_type: str = TYPE
    ) -> int:
        wanted = Wanted(name or str(uuid.uuid4()), rows, record_type)
        return await self.quota.reserve(self.ticket(found), wanted, node)

    def ticket(self, found: Authorization) -> Ticket:
        issuer, caller = f"spiffe://{ZONE}/{AGENCY}", f"spiffe://{ZONE}/{found.scope.caller}"
        digest, now = scope_digest(found.scope), self.clock()
        return Ticket("t", issuer, found.id, digest, caller, "officer-0", now, now + 5 * MINUTE)

    async def execute(self, statement: Any) -> None:
        """Do something to the database that the service would not."""

        def work(connection: sa.Connection) -> None:
            connection.execute(statement)

        await self.database.write(work)

    async def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        def work(connection: sa.Connection) -> list[dict[str, Any]]:
            return [dict(row) for row in connection.execute(sa.select(table)).mappings()]

        return await self.database.read(work)


@contextlib.asynccontextmanager
async def desk(url: str, folder: Path, terms: Terms = TERMS) -> AsyncGenerator[Desk]:
    """Authorizations in a database that nobody has used yet."""
    signing = SigningKeys.create(folder / "signing", f"spiffe://{ZONE}/{AGENCY}", START - DAY)
    signing.publish(folder / "keys")
    migrations.upgrade(url, MIGRATIONS)
    made = Desk(folder, url, Database(url), signing, Clock(), terms)
    try:
        await made.authorizations.open()
        yield made
    finally:
        made.close()
