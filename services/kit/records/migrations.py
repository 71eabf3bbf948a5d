"""Schema migrations of a room's database, with Alembic.

A room's `migrations/versions/` holds files named `0001_initial.py`, `0002_….py`: the number is the revision, and each
follows the one before. So the newest revision can be told without loading anything, and a node whose database is
current starts without Alembic. Where two processes start at once, one migrates and the other waits and finds it done.

While a version is replaced by the next one, both run on one database. So a revision after the first only adds (tables,
columns that may be empty or have a default, indexes), or says at its top what else is true of it:

    fill = "0.8.0"         it writes into columns of others what the program itself writes since that release
    contract = "0.9.0"     it drops what was last used by that release
    stop = "why"           nothing of the node may run meanwhile

`docs/operations/upgrade.md` has the rule, and a test holds all revisions to it.
"""

import io
import re
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from services.kit.errors import FailedPrecondition, Reason
from services.kit.records import locks, tables
from services.kit.records.catalogue import Catalogue
from services.kit.records.database import engine, not_migrated, sync_url, translated

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x48_75_74_6F_6E_67
"""Key of the lock that whoever migrates holds."""

_SCRIPTS = Path(__file__).parent / "alembic"
_NONE = ""
_OURS = re.compile(r"\d{4}")
_APPLICATION = "hutong-migrations"
_SESSIONS = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hutong'"
)
"""Whoever migrates has another name: nodes of the new version may start at once, and wait for each other."""


def exists(url: str) -> bool:
    """Tell whether there is a database to connect to: always for a server, a file for SQLite."""
    parsed = sync_url(url)
    return parsed.get_backend_name() != "sqlite" or Path(str(parsed.database)).exists()


def head(folder: Path) -> str:
    """Get a room's newest revision; raises `FailedPrecondition` where the room has no migrations."""
    found = sorted(m[1] for p in (folder / "versions").glob("*.py") if (m := re.match(r"(\d{4})_", p.name)))
    if not found:
        raise FailedPrecondition(Reason.SCHEMA_INVALID, f"there are no migrations in {folder.name}/versions")
    return found[-1]


class Standing(StrEnum):
    """How a database stands to this program."""

    NEW = "NEW"
    """There is nothing in it yet."""
    BEHIND = "BEHIND"
    CURRENT = "CURRENT"
    NEWER = "NEWER"
    """A newer version of the program has migrated it."""
    FOREIGN = "FOREIGN"
    """What is in it is not this room's."""


@dataclass(frozen=True, slots=True)
class Step:
    """A revision that is to be run."""

    revision: str
    summary: str
    """What it does, in a line."""
    fill: str
    """The release since which the program itself writes what this fills in; empty where it fills nothing in."""
    contract: str
    """The release that last used what it drops; empty where it drops nothing."""
    stop: str
    """Why nothing of the node may run meanwhile; empty where it may."""


@dataclass(frozen=True, slots=True)
class State:
    """What there is to know of a database's schema."""

    standing: Standing
    revision: str
    """Empty where nothing ever migrated it."""
    wanted: str
    steps: tuple[Step, ...] = ()
    """What an upgrade would run."""
    why: str = ""
    """Of one that is newer or not ours, what tells."""


def revision(url: str) -> str:
    """Get the revision a database is at; empty where nothing ever migrated it."""
    if not exists(url):
        return _NONE
    with _reading(url) as connection:
        return _revision(connection)


def look(url: str, folder: Path) -> State:
    """Look how a database stands to a room's migrations, thoroughly; changes nothing.

    Raises `Unavailable` where it cannot be reached.
    """
    if not exists(url):
        return State(Standing.NEW, _NONE, head(folder), _steps(folder, _NONE))
    with _reading(url) as connection:
        return _look(connection, folder)


@contextmanager
def _reading(url: str) -> Generator[sa.Connection]:
    reader = engine(url, writer=False, application=_APPLICATION)
    try:
        with translated(), reader.connect() as connection:
            yield connection
    finally:
        reader.dispose()


def _revision(connection: sa.Connection) -> str:
    if not sa.inspect(connection).has_table("alembic_version"):
        return _NONE
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() or _NONE


def _look(connection: sa.Connection, folder: Path) -> State:
    there, wanted = _revision(connection), head(folder)
    tables_there = set(sa.inspect(connection).get_table_names()) - {"alembic_version"}
    if not there:
        if tables_there:
            named = ", ".join(sorted(tables_there)[:3])
            return State(Standing.FOREIGN, there, wanted, why=f"it holds {named}, and nothing here has migrated it")
        return State(Standing.NEW, there, wanted, _steps(folder, there))
    if not _OURS.fullmatch(there):
        return State(Standing.FOREIGN, there, wanted, why=f"its revision {there!r} is none of this program's")
    if there > wanted:
        return State(Standing.NEWER, there, wanted, why=f"this program knows no revision after {wanted}")
    if missing := _tables_at(folder, there) - tables_there:
        return State(Standing.FOREIGN, there, wanted, why=_lacks(there, missing))
    steps = _steps(folder, there)
    return State(Standing.BEHIND if steps else Standing.CURRENT, there, wanted, steps)


def _tables_at(folder: Path, revision: str) -> set[str]:
    """Say which tables a room's database has at a revision, by making one."""
    from alembic import command  # noqa: PLC0415 - see `_migrate`

    scratch = sa.create_engine("sqlite://")
    try:
        with scratch.begin() as connection:
            command.upgrade(_config(folder, connection), revision)
            return set(sa.inspect(connection).get_table_names()) - {"alembic_version"}
    finally:
        scratch.dispose()


def _steps(folder: Path, there: str) -> tuple[Step, ...]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see `_migrate`

    found = ScriptDirectory(str(_SCRIPTS), version_locations=[str(folder / "versions")]).walk_revisions()
    scripts = [script for script in found if script.revision > there]
    return tuple(
        Step(s.revision, s.doc, *(getattr(s.module, said, "") for said in ("fill", "contract", "stop")))
        for s in reversed(scripts)
    )


def check(url: str, folder: Path, named: Collection[str] = ()) -> None:
    """Check that a database is at the room's newest revision, and has the tables of these names.

    Raises `FailedPrecondition`: STORE_NOT_MIGRATED where it is behind, STORE_NEWER where it is ahead of this program,
    STORE_FOREIGN where it is none of this room's; `Unavailable` where it cannot be reached.
    """
    there, wanted = _check_current(url, folder, named)
    if there != wanted:
        raise not_migrated(f"it is at revision {there or 'none'}, this program needs {wanted}")


def check_before(url: str, folder: Path, named: Collection[str], *, migrate: bool) -> None:
    """Check as `check` does, before anything is changed; where it will be migrated, one that is behind passes."""
    if not migrate:
        check(url, folder, named)
        return
    there, wanted = _check_current(url, folder, named)
    if there != wanted and (state := look(url, folder)).standing is Standing.FOREIGN:
        raise _foreign(state.why)


def _check_current(url: str, folder: Path, named: Collection[str]) -> tuple[str, str]:
    """Give the revision a database is at, and the newest; all that is told without loading Alembic is checked."""
    wanted = head(folder)
    if not exists(url):
        return _NONE, wanted
    with _reading(url) as connection:
        there = _revision(connection)
        _check_ours(there, wanted)
        if there == wanted and (missing := set(named) - set(sa.inspect(connection).get_table_names())):
            raise _foreign(_lacks(there, missing))
    return there, wanted


def _lacks(revision: str, missing: Collection[str]) -> str:
    return f"it is at revision {revision}, but has no {', '.join(sorted(missing)[:3])}"


def _check_ours(there: str, wanted: str) -> None:
    if there and not _OURS.fullmatch(there):
        raise _foreign(f"its revision {there!r} is none of this program's")
    if there > wanted:
        raise FailedPrecondition(
            Reason.STORE_NEWER,
            f"the database is at revision {there}, and this program knows none after {wanted}: a newer one migrated it",
        )


def _foreign(why: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.STORE_FOREIGN, f"the database is not this node's: {why}")


def upgrade(url: str, folder: Path, to: str = "") -> bool:
    """Bring a database to the room's newest revision (or `to`); gives whether there was anything to do.

    All of it happens in one transaction, or nothing. Raises `Unavailable` where the database cannot be reached;
    `FailedPrecondition`: STORE_NEWER where it is ahead of this program, STORE_FOREIGN where it is not this room's,
    STORE_IN_USE where a revision needs the node to stand still and it does not.
    """
    target = to or head(folder)
    there = revision(url)
    if there == target:
        return False
    _check_ours(there, target)
    if (parsed := sync_url(url)).get_backend_name() == "sqlite":
        path = Path(str(parsed.database))
        path.parent.mkdir(parents=True, exist_ok=True)
        # Records are nobody else's business; the files SQLite puts beside this one inherit its mode.
        path.touch(mode=0o600)
    return _migrate(url, folder, target, "upgrade")


def downgrade(url: str, folder: Path, to: str = "base") -> bool:
    """Take a database back to a revision; what newer tables held is lost. For tests and rescue."""
    return _migrate(url, folder, to, "downgrade")


def _migrate(url: str, folder: Path, target: str, direction: Literal["upgrade", "downgrade"]) -> bool:
    with _locked(url) as connection:
        if _revision(connection) == target:
            return False
        if direction == "upgrade":
            _check_upgrade(connection, folder)
        # Loaded here and not above: a node whose database is current never needs it, nor its ten megabytes.
        from alembic import command  # noqa: PLC0415

        getattr(command, direction)(_config(folder, connection), target)
        return True


def _check_upgrade(connection: sa.Connection, folder: Path) -> None:
    """Check that a database is ours, and that nothing uses it where it must not be used meanwhile."""
    state = _look(connection, folder)
    if state.standing is Standing.FOREIGN:
        raise _foreign(state.why)
    stopping = [step for step in state.steps if step.stop]
    if state.revision and stopping and (count := in_use(connection)):
        raise FailedPrecondition(
            Reason.STORE_IN_USE,
            f"revision {stopping[0].revision} needs the node to be stopped ({stopping[0].stop}), and {count} of its "
            "connections are open",
        )


def in_use(connection: sa.Connection) -> int:
    """Count the connections of running nodes, as far as the database can tell: SQLite cannot, and gives 0."""
    if connection.dialect.name != "postgresql":
        return 0
    return int(connection.execute(_SESSIONS).scalar_one())


@contextmanager
def _locked(url: str) -> Generator[sa.Connection]:
    """Begin the one transaction that may change this database's schema; others wait for its end."""
    writer = engine(url, writer=True, application=_APPLICATION)
    try:
        # SQLite's BEGIN IMMEDIATE is the lock already.
        with translated(), writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
                connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            locks.alone(connection, _LOCK)
            yield connection
    finally:
        writer.dispose()


def _config(folder: Path, connection: sa.Connection, **attributes: object) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - see `_migrate`

    config = Config(stdout=io.StringIO(), attributes={"connection": connection, **attributes})
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(folder / "versions").replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config


def differences(url: str, catalogue: Catalogue) -> list[Any]:
    """Compare a database with the tables derived from the record types; gives Alembic's list of differences."""
    from alembic import autogenerate  # noqa: PLC0415 - see `_migrate`
    from alembic.migration import MigrationContext  # noqa: PLC0415

    with _reading(url) as connection:
        context = MigrationContext.configure(connection)
        return list(autogenerate.compare_metadata(context, tables.derive(catalogue).metadata))


def revise(url: str, folder: Path, catalogue: Catalogue, message: str = "initial") -> Path:
    """Write the migration from a room's newest revision to the tables its contracts ask for now; gives its file.

    `url` is a scratch database, brought to that revision first. What comes out is a draft to be read and tidied, except
    a room's first two revisions, which are whole and are written together; that gives the first one's file.
    """
    versions = folder / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(p.name[:4]) for p in versions.glob("[0-9][0-9][0-9][0-9]_*.py"))
    if not numbers:
        path = versions / f"0001_{message}.py"
        path.write_text(first_text(catalogue), encoding="utf-8")
        (versions / "0002_inbox.py").write_text(second_text(catalogue), encoding="utf-8")
        return path
    from alembic import command  # noqa: PLC0415 - see `_migrate`

    upgrade(url, folder)
    following = f"{numbers[-1] + 1:04d}"
    metadata = tables.derive(catalogue).metadata
    with _locked(url) as connection:
        config = _config(folder, connection, metadata=metadata, render_item=_render)
        command.revision(config, message, autogenerate=True, rev_id=following)
    return next(versions.glob(f"{following}_*.py"))


def first_text(catalogue: Catalogue) -> str:
    """Write the first revision of a room that owns these record types."""
    derived = tables.derive(catalogue).records.values()
    owners = ", ".join(catalogue.owners())
    creates = "\n".join(_create_text(t) for t in derived)
    drops = "".join(f'        "{t.table.name}",\n' for t in derived)
    return f'''"""The first tables of {owners}: one per record type, and those that every department has."""

import sqlalchemy as sa

from services.kit.records import first_revision as first

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create every table."""
    first.create_own_tables()
{creates}


def downgrade() -> None:
    """Drop every table, with all that it holds."""
    first.drop_tables(
{drops}    )
'''


def second_text(catalogue: Catalogue) -> str:
    """Write the second revision of a room that owns these record types, the same in every room."""
    owners = ", ".join(catalogue.owners())
    return f'''"""The inbox of {owners}: what other nodes sent, and how far each has been followed."""

from services.kit.events import revisions

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create the inbox."""
    revisions.create_inbox_tables()


def downgrade() -> None:
    """Drop the inbox, with all that it received."""
    revisions.drop_inbox_tables()
'''


def _create_text(table: tables.RecordTable) -> str:
    name = table.table.name
    lines = [f'"{name}"', *(f'sa.Column("{c.name}", {_type_text(c.type)})' for c in table.columns.values())]
    indexes = {str(i.name): i for i in table.table.indexes}
    named = [
        (c.name, indexes[f"{name}_{c.name}_ix"]) for c in table.columns.values() if f"{name}_{c.name}_ix" in indexes
    ]
    for word, partial in (("whole", False), ("current", True)):
        columns = [f'"{n}"' for n, i in named if (i.dialect_kwargs.get("sqlite_where") is not None) is partial]
        if columns:
            lines.append(f"{word}=({', '.join(columns)}{',' if len(columns) == 1 else ''})")
    return "    first.create_record_table(\n" + "".join(f"        {line},\n" for line in lines) + "    )"


def _type_text(kind: sa.types.TypeEngine[Any]) -> str:
    if isinstance(kind, tables.UtcDateTime):
        return "first.MOMENT"
    return "first.TEXT" if isinstance(kind, sa.Text) else f"sa.{type(kind).__name__}()"


def _render(kind: str, item: object, _context: object) -> str | Literal[False]:
    # Migrations stand by themselves: what the tables mean today must not change what was done then.
    if kind == "type" and isinstance(item, tables.UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False
