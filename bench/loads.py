"""Loading a source, with everything that ingest does, against reading the same file and inserting its bare rows."""

import csv
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from services.cli.department import Department
from services.cli.loading import load
from services.cli.zone import Zone


@dataclass(frozen=True)
class Load:
    """How one source was loaded."""

    name: str
    rows: int
    seconds: float
    bare_seconds: float

    @property
    def ratio(self) -> float:
        """Time over the yardstick's."""
        return self.seconds / self.bare_seconds


async def measure(zone: Zone, agency: str, mapping: str, source: Path) -> Load:
    """Load `source` into an empty store, and beside it row by row into a bare table."""
    department = Department.of(agency, zone.folder)
    async with department.store() as store:
        started = time.perf_counter()
        loaded = await load(department, store, department.mapping(mapping), str(source))
        seconds = time.perf_counter() - started
    report = loaded.report
    if report.loaded + report.unchanged + report.quarantined != report.read:
        raise RuntimeError("rows were lost")
    return Load(source.name, report.read, seconds, bare(source))


def bare(source: Path) -> float:
    """Read the file with the csv module and insert its rows as text into one SQLite table, durable, in one commit."""
    folder = Path(tempfile.mkdtemp())
    try:
        started = time.perf_counter()
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
        width = max(map(len, rows))
        database = sqlite3.connect(folder / "bare.db")
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        columns = ", ".join(f"c{n} TEXT" for n in range(width))
        database.execute(f"CREATE TABLE rows ({columns})")
        places = ", ".join("?" * width)
        padded = (row + [""] * (width - len(row)) for row in rows)
        with database:
            database.executemany(f"INSERT INTO rows VALUES ({places})", padded)
        database.close()
        return time.perf_counter() - started
    finally:
        shutil.rmtree(folder)
