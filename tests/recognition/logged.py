"""A procedure for logs, a store of cases without a node, and the way from a log into it."""

import datetime as dt
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adapters import eventlog
from adapters.eventlog import Log
from services.kit.credentials.keys import PublishedKeys
from services.kit.records import migrations
from services.kit.records.database import Database
from services.recognition import ledger, log_profiles
from services.recognition.agencies import Agencies
from services.recognition.arrangements import Arrangements
from services.recognition.calendars import Calendars
from services.recognition.importing import Imported, Importer
from services.recognition.ledger import Selection, Stored
from services.recognition.log_profiles import LogProfile
from services.recognition.procedure import Procedure
from services.recognition.procedure_file import parse
from services.recognition.procedures import Procedures
from services.recognition.reasons import Reasons
from services.recognition.rulebook import Rulebook
from services.recognition.tasks import Desk
from tests.adapters.logs import Case, xes

MIGRATIONS = Path(__file__).resolve().parents[2] / "services" / "recognition" / "migrations"
NOW = dt.datetime(2026, 11, 2, 9, tzinfo=dt.UTC)

TEXT = """\
code: LOGGED
version: 1.0.0
title: What a log tells
local_title: 日志
lead: office
calendar: CN
subjects: [hutong.token, cn.uscc]
effective_from: 2024-01-01T00:00:00+08:00
matters: [permit]
deemed: forbidden
agencies:
  office: {title: The office, local_title: 办公室}
  unit-1: {title: Unit 1, local_title: 一科}
  unit-2: {title: Unit 2, local_title: 二科}
stages:
  A: {title: Look, local_title: 查看, agency: unit-1, optional: true, repeatable: true}
  B: {title: Think, local_title: 思考, agency: unit-2, optional: true, repeatable: true}
  W: {title: Work, local_title: 办理, agency: unit-2, optional: true, limit: 5 working days, pauses: {TEST: null}}
  Z: {title: End, local_title: 结束, agency: office, instant: true, reaches: DELIVERED}
"""

LOGGED = parse(TEXT)
NEWER = parse(TEXT.replace("version: 1.0.0", "version: 1.1.0"))
PROFILE = LogProfile.model_validate(
    {
        "procedure": "LOGGED",
        "applied": "applied",
        "deadline": "deadline",
        "end": {"attribute": "closed", "stage": "Z"},
        "groups": {"?": "office"},
    }
)


@cache
def rulebook() -> Rulebook:
    """What cases are judged by, with the procedures above beside those that come with the product."""
    agencies, calendars = Agencies.load(), Calendars.load()
    procedures = Procedures([*Procedures.load(agencies=agencies), LOGGED, NEWER])
    arranged = Arrangements.load(agencies=agencies, procedures=procedures)
    return Rulebook(procedures, calendars, agencies, arranged, PublishedKeys.of(), Desk.load(calendars), Reasons.load())


@dataclass(frozen=True)
class Store:
    """A store of cases, and a folder for logs."""

    database: Database
    folder: Path

    def log(self, content: str | bytes, profile: LogProfile = PROFILE) -> Log:
        path = self.folder / "log"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return eventlog.read(path, profile.layout)

    def importer(
        self,
        procedure: Procedure = LOGGED,
        profile: LogProfile = PROFILE,
        now: dt.datetime = NOW,
        source: str = "",
    ) -> Importer:
        return Importer(self.database, rulebook(), procedure, profile, now, source)

    async def bring(
        self,
        cases: Sequence[Case],
        procedure: Procedure = LOGGED,
        profile: LogProfile = PROFILE,
        now: dt.datetime = NOW,
        source: str = "",
    ) -> Imported:
        done = await self.importer(procedure, profile, now, source).run(self.log(xes(cases), profile))
        assert done.read == done.loaded + done.unchanged + len(done.refused) == len({case.name for case in cases})
        return done

    async def case(self, case_id: str) -> Stored:
        found = await self.database.read(lambda c: ledger.load(c, case_id))
        assert found is not None
        return found

    async def ids(self) -> set[str]:
        heads = await self.database.read(lambda c: ledger.list_heads(c, Selection(), limit=10_000))
        return {head.case_id for head in heads}


@asynccontextmanager
async def store(url: str, folder: Path) -> AsyncGenerator[Store]:
    """Open an empty store."""
    migrations.upgrade(url, MIGRATIONS)
    database = Database(url)
    try:
        yield Store(database, folder)
    finally:
        database.close()


def shipped(shared_data: Path) -> tuple[Procedure, LogProfile, Path]:
    """Give the procedure, the profile and the folder of the real log."""
    procedure = rulebook().procedures.versions("WABO-RECEIPT")[0]
    return procedure, log_profiles.load(procedure), shared_data / "approval"
