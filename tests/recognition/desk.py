"""Cases on a database in one call, with agencies that sign results, and a clock that is moved by hand.

async with desk(url, folder) as bed:
    case = await bed.submit("DEMO")
    await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    await bed.result(case.case_id, "B", "publicsecurity")
"""

import datetime as dt
import json
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.kit.credentials import results
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.credentials.results import Statement
from services.kit.records import migrations
from services.kit.records.database import Database, engine
from services.recognition import registry
from services.recognition.agencies import Agencies
from services.recognition.arrangements import Arrangements
from services.recognition.calendars import Calendars
from services.recognition.cases import Cases
from services.recognition.casework import Act, Appended, Application, Snapshot
from services.recognition.events import Kind, ResultCode
from services.recognition.procedure import Stage
from services.recognition.procedure_file import parse
from services.recognition.procedures import Procedures

REPOSITORY = Path(__file__).resolve().parents[2]
MIGRATIONS = REPOSITORY / "services" / "recognition" / "migrations"
START = dt.datetime(2026, 9, 21, 2, tzinfo=dt.UTC)
"""Monday, ten in the morning in Beijing."""

ZONE = "zone.test"
SUBJECT = "91350200M0000XUF4X"
"""An enterprise's code that stands its check, of nobody."""

AGENCIES = ("commerce", "publicsecurity", "taxation", "customs", "quality")

DEMO = """\
# Two examinations side by side, one of them proven elsewhere just as well, then a decision and a delivery.
code: DEMO
version: 1.0.0
title: Demonstration
local_title: 演示
lead: commerce
calendar: CN
subjects: [cn.uscc]
effective_from: 2024-01-01T00:00:00+08:00
matters: [establishment]
deemed: acceptance
questions:
  foreign: {title: "Is there a foreign investor?", local_title: 是否有境外投资者, default: false}
escalation:
  - {after: 1 working day, to: superior}
  - {after: 3 working days, to: supervision}

stages:
  A:
    title: Acceptance
    local_title: 受理
    agency: commerce
    limit: 5 working days
    overdue: deemed
    supplement: true
    pauses: {SUPPLEMENT: 15 working days}
    reaches: ACCEPTED
  B:
    title: Identity
    local_title: 身份
    agency: publicsecurity
    after: [A]
    limit: 3 working days
    supplement: true
    proves: {fact: person_verified, assurance: SUBSTANTIVE, valid_for: P180D}
    recognised_by: [publicsecurity, commerce, taxation]
  C:
    title: Taxes
    local_title: 税务
    agency: taxation
    after: [A]
    limit: 2 working days
    pauses: {INQUIRY: 10 working days}
    proves: {fact: tax_clear, assurance: FORM_REVIEW, valid_for: P90D}
    recognised_by: [commerce, customs]
  X:
    title: Foreign investment
    local_title: 外资
    agency: foreign-investment
    after: [A]
    when: {foreign: true}
    limit: 3 working days
    optional: true
  D:
    title: Decision
    local_title: 决定
    agency: commerce
    after: [B, C, X]
    limit: 5 working days
    extension: {amount: 5, times: 1, approver: superior}
    proves: {fact: demo_decided, assurance: SUBSTANTIVE}
    recognised_by: [all]
    accepts: false
    reaches: DECIDED
  E:
    title: Delivery
    local_title: 送达
    agency: commerce
    after: [D]
    instant: true
    reaches: DELIVERED
"""

EXPRESS = """\
# The same identity, asked for by another agency: what public security has found for one counts for the other.
code: EXPRESS
version: 1.0.0
title: Express
local_title: 快办
lead: taxation
calendar: CN
subjects: [cn.uscc]
effective_from: 2024-01-01T00:00:00+08:00
matters: [establishment]
deemed: forbidden

stages:
  P:
    title: Identity
    local_title: 身份
    agency: publicsecurity
    limit: 3 working days
    proves: {fact: person_verified, assurance: SUBSTANTIVE, valid_for: P180D}
    recognised_by: [publicsecurity, taxation]
  Q:
    title: Decision
    local_title: 决定
    agency: taxation
    after: [P]
    limit: 3 working days
    reaches: DELIVERED
"""


class Hand:
    """A clock that stands until it is moved."""

    def __init__(self, now: dt.datetime = START) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now

    def move(self, **delta: float) -> dt.datetime:
        self.now += dt.timedelta(**delta)
        return self.now


def fresh() -> str:
    """Make up an id."""
    return str(uuid.uuid4())


class Bed:
    """Cases, and the agencies that work on them."""

    def __init__(self, url: str, folder: Path, cases: Cases, database: Database, clock: Hand) -> None:
        self.url = url
        self.cases = cases
        self.database = database
        self.clock = clock
        self.folder = folder

    def keys(self, agency: str) -> SigningKeys:
        return SigningKeys.open(self.folder / "signing" / agency)

    async def submit(self, procedure: str = "DEMO", **said: Any) -> Snapshot:
        """Submit an application of an enterprise that is `SUBJECT`, unless it is said otherwise."""
        whole: dict[str, Any] = {"request_id": fresh(), "submitter": "commerce/window"}
        whole |= {"procedure": procedure, "scheme": "cn.uscc", "subject": SUBJECT, **said}
        return await self.cases.submit(Application(**whole))

    async def act(
        self,
        case_id: str,
        kind: Kind,
        stage: str,
        agency: str,
        *,
        expected_version: int | None = None,
        enterprise: bool = False,
        **said: Any,
    ) -> Appended:
        """Append an event, with an id of its own unless one is given."""
        whole: dict[str, Any] = {"id": fresh(), "kind": kind, "stage": stage, **said}
        act = Act(**whole)
        return await self.cases.append(
            case_id, act, agency=agency, expected_version=expected_version, enterprise=enterprise
        )

    async def result(
        self, case_id: str, stage: str, agency: str, code: ResultCode = ResultCode.PASS, **said: Any
    ) -> Appended:
        """Give a stage's result, signed where it proves a fact."""
        snapshot = await self.cases.get(case_id)
        of = snapshot.procedure.stage(stage)
        if of.proves is not None and code is not ResultCode.FAIL and "credential" not in said:
            said["credential"] = await self.sign(snapshot, of)
        return await self.act(case_id, Kind.RESULT, stage, agency, result=code, **said)

    async def sign(self, snapshot: Snapshot, of: Stage, **changed: Any) -> str:
        """Sign the result of a stage; `changed` are fields of its statement."""
        assert of.proves is not None
        now, ref = self.clock(), fresh()
        place = await self.database.write(lambda c: registry.reserve(c, of.agency, ref, now))
        whole: dict[str, Any] = {
            "ref": ref,
            "issuer": of.agency,
            "scheme": snapshot.head.scheme,
            "subject": snapshot.head.subject,
            "fact": of.proves.code,
            "assurance": of.proves.assurance,
            "issued_at": now,
            "valid_from": now,
            "valid_until": of.proves.until(now),
            "case_id": snapshot.case_id,
            "stage": of.code,
            "status_uri": place.uri,
            "status_index": place.index,
        }
        return results.issue(Statement(**whole | changed), self.keys(of.agency))

    async def ready(self, case_id: str) -> list[str]:
        """List the stages of a case that somebody may begin with."""
        snapshot = await self.cases.get(case_id)
        return [code for code, stage in snapshot.state.stages.items() if stage.status == "READY"]

    async def kinds(self, case_id: str) -> list[str]:
        """List the kinds of a case's events with their stages."""
        return [f"{e.kind}:{e.stage}" if e.stage else str(e.kind) for e in await self.cases.events(case_id)]

    async def rows(self, table: sa.Table) -> Sequence[sa.RowMapping]:
        """Get every row of a table."""
        return await self.database.read(lambda c: c.execute(sa.select(table)).mappings().all())

    async def outbox(self, kind: str = "") -> list[sa.RowMapping]:
        """Get what other agencies are told, in order."""
        text = sa.text("SELECT audience, kind, key, payload FROM outbox ORDER BY sequence")
        found = await self.database.read(lambda c: c.execute(text).mappings().all())
        return [row for row in found if kind in {"", row["kind"]}]

    async def reminded(self) -> set[str]:
        """Get the ids of the reminders that agencies were told of, each told once to each of them."""
        told = [
            (row["audience"], json.loads(row["payload"])["stage_event_id"]) for row in await self.outbox("reminder")
        ]
        assert len(told) == len(set(told))
        return {event_id for _, event_id in told}

    async def through(self, case_id: str, *stages: tuple[str, str]) -> None:
        """Start and pass stages, each with its agency."""
        for stage, agency in stages:
            of = (await self.cases.get(case_id)).procedure.stage(stage)
            if not of.instant:
                await self.act(case_id, Kind.START, stage, agency)
            await self.result(case_id, stage, agency)


@cache
def procedures_of(texts: tuple[str, ...]) -> Procedures:
    """Load shipped procedures, and others from their texts."""
    return Procedures([*Procedures.load(), *(parse(text) for text in texts)])


def build(
    url: str,
    folder: Path,
    clock: Hand,
    *,
    procedures: Iterable[str] = (DEMO, EXPRESS),
    calendars: Calendars | None = None,
    kind: type[Cases] = Cases,
    **more: Any,
) -> Bed:
    """Make cases on a database that is migrated, with the keys in a folder; for processes of their own too."""
    agencies, known = Agencies.load(), procedures_of(tuple(procedures))
    published = PublishedKeys.load(folder / "keys")
    arrangements = Arrangements.load(agencies=agencies, procedures=known)
    database = Database(url)
    cases = kind(database, known, calendars or Calendars.load(), agencies, arrangements, published, clock, **more)
    return Bed(url, folder, cases, database, clock)


def prepare(url: str, folder: Path, agencies: Iterable[str] = AGENCIES) -> None:
    """Migrate a database and make the agencies' keys, once."""
    migrations.upgrade(url, MIGRATIONS)
    for agency in agencies:
        if not (folder / "keys" / f"{agency}.jwks.json").exists():
            made = SigningKeys.create(
                folder / "signing" / agency, f"spiffe://{ZONE}/{agency}", START - dt.timedelta(days=400)
            )
            made.publish(folder / "keys")


@asynccontextmanager
async def desk(url: str, folder: Path, clock: Hand | None = None, **more: Any) -> AsyncGenerator[Bed]:
    """Run cases on an empty database; `folder` keeps the agencies' keys."""
    prepare(url, folder)
    bed = build(url, folder, clock or Hand(), **more)
    try:
        await bed.cases.open()
        yield bed
    finally:
        bed.database.close()


def execute(url: str, *statements: str) -> None:
    """Run statements by hand, behind the node's back."""
    made = engine(url, writer=True)
    with made.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    made.dispose()
