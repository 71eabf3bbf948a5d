"""The register of results on a database, without cases: agencies that sign, and a connection to call functions with."""

import datetime as dt
import uuid
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.kit.credentials import results
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.credentials.results import Statement
from services.kit.events import outbox
from services.kit.events.outbox import NewEvent
from services.kit.records.database import engine
from services.recognition import recognising, registry, status_lists
from services.recognition.calendars import Calendars
from services.recognition.events import Assurance
from services.recognition.procedure_file import parse
from services.recognition.procedures import Procedures
from services.recognition.recognising import Match
from services.recognition.registry import Change, Changed, Entered, Standing
from services.recognition.tables import CASE
from services.recognition.tasks import Desk
from tests.recognition.desk import AGENCIES, START, SUBJECT, prepare


def fresh() -> str:
    return str(uuid.uuid4())


@dataclass
class Register:
    """A database with the tables of the service."""

    made: sa.Engine
    folder: Path
    desk: Desk
    published: PublishedKeys
    now: dt.datetime = START
    post: list[NewEvent] = field(default_factory=list[NewEvent])
    """Everything that was put into the outbox."""

    @contextmanager
    def write(self) -> Generator[tuple[sa.Connection, list[NewEvent]]]:
        """Run a transaction, with the outbox last, as the service does."""
        post: list[NewEvent] = []
        with self.made.begin() as connection:
            yield connection, post
            outbox.put(connection, post, self.now)
        self.post += post

    def keys(self, agency: str) -> SigningKeys:
        return SigningKeys.open(self.folder / "signing" / agency)

    def sign(self, issuer: str = "publicsecurity", fact: str = "person_verified", **said: Any) -> tuple[Statement, str]:
        """Reserve an entry and sign a result; `said` are other fields of the statement."""
        ref = said.setdefault("ref", fresh())
        with self.write() as (connection, _):
            place = status_lists.reserve(connection, issuer, ref, self.now)
        whole: dict[str, Any] = {
            "issuer": issuer,
            "scheme": "cn.uscc",
            "subject": SUBJECT,
            "fact": fact,
            "assurance": Assurance.SUBSTANTIVE,
            "issued_at": self.now,
            "valid_from": said.get("issued_at", self.now),
            "status_uri": place.uri,
            "status_index": place.index,
        }
        whole |= said
        text = results.issue(Statement(**whole), self.keys(issuer))
        return results.verify(text, self.published, at=max(whole["issued_at"], whole["valid_from"])), text

    def put(
        self,
        statement: Statement,
        text: str,
        *,
        case_id: str | None = None,
        stage: str | None = None,
        rests_on: Iterable[str] = (),
        recognisers: Iterable[str] = (),
    ) -> Entered:
        with self.write() as (connection, post):
            return registry.enter(
                connection,
                statement,
                text,
                case_id=statement.case_id if case_id is None else case_id,
                stage=statement.stage if stage is None else stage,
                rests_on=rests_on,
                now=self.now,
                recognisers=tuple(recognisers),
                post=post,
            )

    def enter(
        self,
        issuer: str = "publicsecurity",
        fact: str = "person_verified",
        *,
        rests_on: Iterable[str] = (),
        recognisers: Iterable[str] = (),
        **said: Any,
    ) -> str:
        """Sign a result and enter it; gives its reference."""
        return self.put(*self.sign(issuer, fact, **said), rests_on=rests_on, recognisers=recognisers).result.result_ref

    def recognise(self, ref: str, case_id: str, stage: str, recogniser: str) -> None:
        with self.write() as (connection, _):
            match = Match(ref, "publicsecurity", "TEST@1.0.0", Assurance.SUBSTANTIVE, None)
            recognising.note(connection, case_id=case_id, stage=stage, match=match, recogniser=recogniser, now=self.now)

    def change(
        self,
        ref: str,
        change: Change = Change.REVOKE,
        issuer: str = "publicsecurity",
        reason: str = "ISSUED_IN_ERROR",
    ) -> Changed:
        with self.write() as (connection, post):
            return registry.revoke(
                connection, self.desk, ref, reason, self.now, issuer=issuer, change=change, post=post
            )

    def standing(self, ref: str, case_id: str = "") -> Standing:
        return self.standings([ref], case_id)[ref]

    def standings(self, refs: Iterable[str], case_id: str = "") -> Mapping[str, Standing]:
        with self.write() as (connection, _):
            return registry.standing(connection, self.published, refs, self.now, case_id=case_id)

    def add_case(self, case_id: str, calendar: str = "CN@1") -> None:
        """Put the row of a case, for what only asks for its calendar."""
        row = dict.fromkeys((c.name for c in CASE.c), "") | {
            "case_id": case_id,
            "version": 1,
            "request_id": case_id,
            "applied_at": self.now,
            "closed_at": None,
            "next_at": None,
            "calendar": calendar,
        }
        with self.write() as (connection, _):
            connection.execute(sa.insert(CASE).values(**row))

    def move(self, **delta: float) -> None:
        self.now += dt.timedelta(**delta)


@cache
def procedures_of(*texts: str) -> Procedures:
    """Load the shipped procedures, and others from their texts."""
    return Procedures([*Procedures.load(), *(parse(text, name="test") for text in texts)])


@contextmanager
def register(url: str, folder: Path) -> Generator[Register]:
    """Prepare a database and the agencies' keys."""
    prepare(url, folder, (*AGENCIES, "bank"))
    made = engine(url, writer=True)
    try:
        yield Register(made, folder, Desk.load(Calendars.load()), PublishedKeys.load(folder / "keys"))
    finally:
        made.dispose()
