"""`hutong db check`: each database of some nodes, and whether those nodes could run on it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import sqlalchemy as sa
import typer
from rich.text import Text

from services.cli import door
from services.cli.dbs.places import Node, Place
from services.cli.dbs.roles import rights
from services.cli.output import AsJson, console, print_json, table
from services.kit.errors import Unavailable
from services.kit.records import migrations
from services.kit.records.database import engine, translated
from services.kit.records.migrations import Standing

AWAY: Final = "AWAY"
"""Standing of a database that cannot be reached."""

_TLS: Final = sa.text("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
_SUPER: Final = sa.text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
_MAKES: Final = sa.text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
_MAY: Final = sa.text("SELECT has_table_privilege(quote_ident(:name), :right)")
_ANY: Final = sa.text("SELECT has_any_column_privilege(quote_ident(:name), :right)")


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of a database."""

    node: str
    database: str
    engine: str
    standing: str
    revision: str = ""
    wanted: str = ""
    pending: tuple[str, ...] = ()
    why: str = ""
    """What is wrong with it, in words."""
    tls: str = ""
    """`local`, or whether the connection is under TLS; empty where it is not known."""
    role: str = ""
    """`superuser`, `owner` or `runtime`; empty for SQLite."""
    lacking: tuple[str, ...] = ()
    """Rights that the node needs and the role has not."""
    connections: int = 0
    """Of running nodes."""
    place: str = ""
    """Where the config names it, `FILE:LINE`."""

    @property
    def usable(self) -> bool:
        """Whether the node could run on it now."""
        return self.standing == Standing.CURRENT and not self.lacking


def check_place(node: Node, place: Place) -> Checked:
    """Look at a database; changes nothing."""
    return replace(_look(node, place), place=node.config.at(place.name))


def _look(node: Node, place: Place) -> Checked:
    kind = place.url.partition(":")[0].partition("+")[0]
    try:
        state = migrations.look(place.url, place.folder)
        if not migrations.exists(place.url):
            return Checked(node.name, place.name, kind, state.standing, "", state.wanted, _pending(state.steps))
        made = engine(place.url, writer=False, application="hutong-check")
        try:
            with translated(), made.connect() as connection:
                tls, role, lacking = _server(connection, place, there=bool(state.revision))
                connections = migrations.in_use(connection)
        finally:
            made.dispose()
    except Unavailable as error:
        return Checked(node.name, place.name, kind, AWAY, why=error.message)
    return Checked(
        node.name,
        place.name,
        kind,
        state.standing,
        state.revision,
        state.wanted,
        _pending(state.steps),
        state.why,
        tls,
        role,
        lacking,
        connections,
    )


def _pending(steps: Sequence[migrations.Step]) -> tuple[str, ...]:
    return tuple(f"{step.revision} {step.summary}" for step in steps)


def _server(connection: sa.Connection, place: Place, *, there: bool) -> tuple[str, str, tuple[str, ...]]:
    if connection.dialect.name != "postgresql":
        return "local", "", ()
    driver = connection.connection.driver_connection
    secured: bool = driver.pgconn.ssl_in_use  # type: ignore[union-attr]
    host: str = driver.info.host  # type: ignore[union-attr]
    tls = "on" if secured else "local" if host.startswith("/") else "off"
    if connection.execute(_SUPER).scalar():
        return tls, "superuser", ()
    role = "owner" if connection.execute(_MAKES).scalar() else "runtime"
    lacking = _lacking(connection, place) if there else []
    return tls, role, tuple(lacking)


def _lacking(connection: sa.Connection, place: Place) -> list[str]:
    existing = set(sa.inspect(connection).get_table_names())
    found: list[str] = []
    for name, given in rights(place.metadata).items():
        for right in given.split(", ") if name in existing else ():
            kind, _, column = right.partition(" ")
            asked = {"name": name, "right": kind}
            if not connection.execute(_ANY if column else _MAY, asked).scalar():
                found.append(f"{kind} on {name}")
    return found


def check(
    config: Annotated[
        list[Path], typer.Option("--config", metavar="FILE", help="A node's config; may be given again.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check the databases of nodes: reachable, of this version, under TLS, with the rights the node needs.

    Changes nothing. Exit code 1 where a node could not run on one of its databases as it is: it is away, was never
    migrated (NEW), is of an older version (BEHIND), of a newer one (NEWER), holds something else (FOREIGN), or the role
    lacks a right.

    \b
    Examples:
      hutong db check --config customs.toml
      hutong db check --config customs.toml --config gateway.toml --json
    """
    checked = [check_place(node, place) for node in map(Node.of, config) for place in node.places]
    usable = all(one.usable for one in checked)
    if as_json:
        print_json({"usable": usable, "databases": [asdict(one) | {"usable": one.usable} for one in checked]})
    else:
        _show(checked)
    if not usable:
        raise typer.Exit(door.FAILED)


def _show(checked: Sequence[Checked]) -> None:
    out = console()
    columns = ("Node", "Database", "Engine", "State", "Revision", "TLS", "Role", "In use")
    rows = (
        (
            one.node,
            one.database,
            one.engine,
            Text(one.standing, style="green" if one.usable else "red"),
            f"{one.revision or '-'} of {one.wanted or '-'}",
            one.tls or "-",
            one.role or "-",
            str(one.connections),
        )
        for one in checked
    )
    out.print(table("", columns, rows))
    for one in checked:
        where = f"{one.place}: {one.node} {one.database}"
        for line in (*([one.why] if one.why else []), *(f"pending: {step}" for step in one.pending)):
            out.print(Text(f"{where}: {line}"))
        if one.lacking:
            out.print(Text(f"{where}: the role lacks {', '.join(one.lacking)}"))
