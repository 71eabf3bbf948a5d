"""Replaying an event log into a store of cases, beside a bare insert of the same rows into a table."""

import datetime as dt
import sqlite3
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from services.cli import importing
from services.cli.casebook import Casebook
from services.kit.clock import system_clock
from services.recognition import codec, ledger, log_profiles
from services.recognition.importing import Importer
from services.recognition.ledger import Selection
from services.recognition.procedure import Procedure

ROUNDS = 5

BARE = """
CREATE TABLE cases (case_id TEXT PRIMARY KEY, version INTEGER, procedure TEXT, subject TEXT, applied_at TEXT);
CREATE TABLE events (case_id TEXT, sequence INTEGER, event_id TEXT, body BLOB, PRIMARY KEY (case_id, sequence));
CREATE UNIQUE INDEX events_id ON events (case_id, event_id);
"""


@dataclass(frozen=True)
class Replay:
    """How one log was replayed; medians of rounds."""

    name: str
    events: int
    """Of the log."""
    seconds: float
    parse_seconds: float
    """Of these, for reading the log."""
    bare_seconds: float

    @property
    def per_second(self) -> float:
        """Log events per second, from the file to the last commit."""
        return self.events / self.seconds

    @property
    def ratio(self) -> float:
        """Time over the yardstick's."""
        return self.seconds / self.bare_seconds


async def measure(log: Path, code: str) -> Replay:
    """Replay `log` into empty stores, and beside it insert the very rows that come of it into a bare database."""
    rounds = [await _round(log, code) for _ in range(ROUNDS)]
    seconds, parse, bare = (statistics.median(times) for times in zip(*(r[1:] for r in rounds), strict=True))
    return Replay(log.name, rounds[0][0], seconds, parse, bare)


async def _round(path: Path, code: str) -> tuple[int, float, float, float]:
    with tempfile.TemporaryDirectory(prefix="hutong-replay-") as folder:
        book = Casebook.of(Path(), f"sqlite:///{folder}/cases.db", make=True)
        procedure = book.rulebook.procedures.in_force(code, system_clock())
        profile = log_profiles.load(procedure)
        async with book.open() as database:
            started = time.perf_counter()
            log = importing.read(path, profile)
            parsed = time.perf_counter()
            importer = Importer(database, book.rulebook, procedure, profile, system_clock())
            done = await importing.write(importer, log)
            seconds = time.perf_counter() - started
            if done.loaded != done.read:
                raise RuntimeError(f"cases were refused: {done.reasons}")
            heads = await database.read(lambda c: ledger.list_heads(c, Selection(), limit=done.read))
            stored = await database.read(lambda c: ledger.load_many(c, heads))
        return log.events, seconds, parsed - started, bare(Path(folder), stored, procedure)


def bare(folder: Path, cases: list[ledger.Stored], procedure: Procedure) -> float:
    """Insert rows that lie ready, with the indexes that the real ones have, durable, in one commit."""
    rows = [(c.head.case_id, n, e.id, codec.encode(e)) for c in cases for n, e in enumerate(c.events, 1)]
    heads = [(c.head.case_id, c.head.version, procedure.label, c.head.subject, _text(c.head.applied_at)) for c in cases]
    database = sqlite3.connect(folder / "bare.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.executescript(BARE)
    started = time.perf_counter()
    with database:
        database.executemany("INSERT INTO cases VALUES (?, ?, ?, ?, ?)", heads)
        database.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
    seconds = time.perf_counter() - started
    database.close()
    return seconds


def _text(moment: dt.datetime) -> str:
    return moment.isoformat()
