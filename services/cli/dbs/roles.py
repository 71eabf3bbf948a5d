"""`hutong db roles`: the SQL for roles that may do what a node needs, and nothing else.

Two for each database: its owner, who migrates, and the one the node runs as, which cannot change the schema, and of
what is only ever added to cannot change or remove a row.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

import sqlalchemy as sa
import typer

from services.cli.dbs.places import LOG, Config, Node, Place
from services.cli.output import AsJson, print_json
from services.kit.log.writer import ERASABLE

_READ: Final = "SELECT"
_ADD: Final = "SELECT, INSERT"
_CHANGE: Final = "SELECT, INSERT, UPDATE"
_REMOVE: Final = "SELECT, INSERT, DELETE"

_END: Final = "SELECT, INSERT, UPDATE (_superseded_at)"
"""On versions of records: of one that is there only its end is ever written."""

_RIGHTS: Final[Mapping[str, str]] = {
    "alembic_version": _READ,
    # the log
    "log_entry": _ADD,
    "log_hash": _ADD,
    "log_head": "SELECT, UPDATE",
    "log_opening": _REMOVE,
    "log_part": _REMOVE,
    "log_recent": _REMOVE,
    "log_text": "SELECT, INSERT, UPDATE (text)",
    "log_witnessed": _CHANGE,
    "log_evidence": _REMOVE,
    "log_cosigned": _REMOVE,
    "log_token": _REMOVE,
    "log_quota": f"{_CHANGE}, DELETE",
    # departments
    "change_clock": "SELECT, UPDATE",
    "applied_row": _ADD,
    "inbox_event": _ADD,
    "inbox_position": f"{_CHANGE}, DELETE",
    "inbox_clock": "SELECT, UPDATE",
    # recognition
    "procedure": _ADD,
    "case_agency": _ADD,
    "stage_event": _ADD,
    "rests_on": _ADD,
    "reminder": _ADD,
    "outbox": _REMOVE,
    "outbox_clock": "SELECT, UPDATE",
    "outbox_reader": f"{_CHANGE}, DELETE",
    "result_told": _ADD,
    # supervision
    "authorization_event": _ADD,
    "authorization_agency": _ADD,
    "authorization_clock": "SELECT, UPDATE",
    "reservation": _REMOVE,
    "officer_token": _REMOVE,
}
"""By table; of all others rows may be added and changed."""

_NEW: Final = "current_setting('server_version_num')::int >= 170000"
"""Servers on which a role that is not the owner may be let order a VACUUM."""
_THRESHOLD: Final = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 0"
"""What is erased is to be freed soon; on older servers only the owner may order it, so autovacuum does it unasked."""


def rights(metadata: sa.MetaData) -> dict[str, str]:
    """Say what the role of a running node may do with each table."""
    found = {"alembic_version": _READ}
    for table in metadata.sorted_tables:
        usual = _END if "_superseded_at" in table.c else _CHANGE
        found[table.name] = _RIGHTS.get(table.name, usual)
    return found


def grants(metadata: sa.MetaData, role: str) -> Iterator[str]:
    """Write what gives a role these rights and takes all others; run by the owner, after every upgrade."""
    for table, given in rights(metadata).items():
        yield f"REVOKE ALL ON {quoted(table)} FROM {quoted(role)}"
        yield f"GRANT {given} ON {quoted(table)} TO {quoted(role)}"
        if table in ERASABLE:
            yield f"DO $$ BEGIN IF {_NEW} THEN {_maintain(table, role)}; END IF; END $$"


def _maintain(table: str, role: str) -> str:
    return f"GRANT MAINTAIN ON {quoted(table)} TO {quoted(role)}"


def quoted(name: str) -> str:
    """Write an identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def names(node: Node, place: Place) -> tuple[str, str]:
    """Name the roles of a database: its owner, and the one the node runs as."""
    agency, system = node.config.node.agency, node.config.node.system
    who = agency if system == "node" else f"{agency}_{system}"
    own = f"hutong_{who}_{place.name}"
    return f"{own}_owner", own


def statements(node: Node, place: Place) -> Iterator[str]:
    """Write the SQL that makes both roles in a database; may be run again, and must be after every upgrade."""
    owner, own = names(node, place)
    for role in (owner, own):
        exists = f"SELECT FROM pg_roles WHERE rolname = '{role}'"
        made = f"CREATE ROLE {quoted(role)} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE"
        yield f"DO $$ BEGIN IF NOT EXISTS ({exists}) THEN {made}; END IF; END $$"
    yield _on_database("REVOKE ALL ON DATABASE ", " FROM PUBLIC")
    yield _on_database("GRANT CONNECT ON DATABASE ", f" TO {quoted(owner)}, {quoted(own)}")
    yield "REVOKE ALL ON SCHEMA public FROM PUBLIC"
    yield f"GRANT USAGE, CREATE ON SCHEMA public TO {quoted(owner)}"
    yield f"GRANT USAGE ON SCHEMA public TO {quoted(own)}"
    for table, given in rights(place.metadata).items():
        wanted = [
            f"ALTER TABLE {quoted(table)} OWNER TO {quoted(owner)}",
            f"REVOKE ALL ON {quoted(table)} FROM PUBLIC, {quoted(own)}",
            f"GRANT {given} ON {quoted(table)} TO {quoted(own)}",
        ]
        if table in ERASABLE:
            wanted.append(f"ALTER TABLE {quoted(table)} SET ({_THRESHOLD})")
            wanted.append(f"IF {_NEW} THEN {_maintain(table, own)}; END IF")
        there = f"to_regclass('public.{quoted(table)}') IS NOT NULL"
        yield f"DO $$ BEGIN IF {there} THEN {'; '.join(wanted)}; END IF; END $$"


def _on_database(before: str, after: str) -> str:
    """Write a statement that names the database it is run in; no driver may take a part of it for a parameter."""
    return f"DO $$ BEGIN EXECUTE '{before}' || quote_ident(current_database()) || '{after}'; END $$"


def roles(
    config: Config,
    only: Annotated[str, typer.Option("--only", metavar="store|log", help="Only this database's.")] = "",
    as_json: AsJson = False,
) -> None:
    """Print the SQL that makes least-privilege roles in a node's PostgreSQL databases; connects to nothing.

    Run it in each database as its administrator, then `hutong db upgrade` as the owner role with --for, and give the
    node the URL of the other role. That one cannot create, change or drop a table; it cannot change or remove an entry
    of the log, nor a version of a record. Passwords are yours to set (`\\password` in psql), or let roles log in by
    certificate.

    \b
    Examples:
      hutong db roles --config customs.toml --only store | psql --dbname customs
      hutong db roles --config customs.toml --only log | psql --dbname customs_log
    """
    node = Node.of(config)
    chosen = [place for place in node.places if only in {"", place.name}]
    if not chosen:
        raise typer.BadParameter(f"this node has no database {only!r}: it is `store` or `{LOG}`")
    if as_json:
        print_json({place.name: list(statements(node, place)) for place in chosen})
        return
    for place in chosen:
        typer.echo(f"-- {node.name}: run this in the database of its {place.name}")
        for statement in statements(node, place):
            typer.echo(f"{statement};")
