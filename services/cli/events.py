"""`hutong events`: who follows a node's events and how far each is; and how to go on where some are gone."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import sqlalchemy as sa
import typer

from services.cli.dbs.places import STORE, Config, Node, Place
from services.cli.output import AsJson, console, print_json, table
from services.kit.errors import FailedPrecondition, NotFound, Reason
from services.kit.events import inbox, outbox, retention
from services.kit.records import migrations
from services.kit.records.database import T, engine, translated

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Events between nodes: the [bold]outbox[/bold] of their source, the [bold]inbox[/bold] of a department.\n\n"
    "An event leaves the outbox when it is old and every node that follows has it.\n\n"
    "\b\nExamples:\n"
    "  hutong events readers --config recognition.toml\n"
    "  hutong events forget customs/old --config recognition.toml\n"
    "  hutong events resume recognition/node --after 4711 --config customs.toml\n",
)

_OUTBOX: Final = "outbox"
_INBOX: Final = "inbox_position"


def _store(config: Path, name: str) -> Place:
    """Get the store of a node that has a certain table; raises `FailedPrecondition` CONFIG_INVALID for another."""
    place = Node.of(config).place(STORE)
    if place is None or name not in place.metadata.tables:
        what = "sends no events" if name == _OUTBOX else "receives none"
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{config}: this node {what}")
    migrations.check(place.url, place.folder, place.metadata.tables)
    return place


def _run(place: Place, work: Callable[[sa.Connection], T]) -> T:
    """Run a write in a store; raises `Unavailable`."""
    made = engine(place.url, writer=True)
    try:
        with translated(), made.begin() as connection:
            return work(connection)
    finally:
        made.dispose()


@app.command("readers")
def readers(config: Config, as_json: AsJson = False) -> None:
    """List the nodes that follow this one's events, and how far each of them is."""
    with _store(config, _OUTBOX).snapshot() as connection:
        found, end = retention.readers(connection), outbox.last(connection)
        gone = {reader.audience: outbox.gone(connection, reader.audience) for reader in found}
    rows = [
        (each.node, each.sequence, gone[each.audience], each.heard_at.isoformat(timespec="seconds")) for each in found
    ]
    names = ("node", "has", "gone", "heard_at")
    if as_json:
        print_json({"end": end, "readers": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    title = f"Who follows a log of {end:,} events"
    columns = ("node", "has everything up to", "gone up to", "heard")
    console().print(table(title, columns, ([str(value) for value in row] for row in rows)))


@app.command("forget")
def forget(
    node: Annotated[str, typer.Argument(metavar="AGENCY/SYSTEM", help="The node that is no more.")],
    config: Config,
    as_json: AsJson = False,
) -> None:
    """Forget a node that is no more: nothing is kept for it any longer. One that is there is heard again by itself."""
    if not _run(_store(config, _OUTBOX), lambda connection: retention.forget(connection, node)):
        raise NotFound(Reason.READER_UNKNOWN, f"no node {node} has followed")
    if as_json:
        print_json({"forgotten": node})
    else:
        console().print(f"{node} is forgotten")


@app.command("resume")
def resume(
    source: Annotated[str, typer.Argument(metavar="AGENCY/SYSTEM", help="The node whose events are followed.")],
    after: Annotated[int, typer.Option(min=1, metavar="N", help="`kept_after` of the node's log line.")],
    config: Config,
    as_json: AsJson = False,
) -> None:
    """Go on after a sequence of a source's log, where what comes before it is gone there. Never goes back."""
    reached = _run(_store(config, _INBOX), lambda connection: inbox.resume(connection, source, after))
    if as_json:
        print_json({"source": source, "after": reached})
    else:
        console().print(f"{source} is followed after {reached}")
