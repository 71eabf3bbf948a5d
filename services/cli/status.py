"""`hutong status`: every node of a zone at a glance, by lights."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from certs.svid import SvidFiles
from services.cli.answer import as_dict
from services.cli.output import AsJson, console, print_json, table
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.statuses import STYLES, Asked, Light, Standing, ask, lights
from services.cli.zone import DEFAULT_FOLDER, Zone
from services.kit.errors import FailedPrecondition, Reason

app = typer.Typer(rich_markup_mode="rich")

OPERATOR = "operator/admin"
_COLUMNS = ("", "Node", "Version", "Up", "Certificate", "Lag", "Calls", "Log", "What to look at")

As = Annotated[str, typer.Option("--as", metavar="AGENCY/SYSTEM", help="An operator, from the zone folder.")]
Nodes = Annotated[
    list[str] | None,
    typer.Option(
        "--node", metavar="AGENCY/SYSTEM=HOST:PORT", help="A node elsewhere, instead of a zone folder's; repeatable."
    ),
]
Watch = Annotated[float, typer.Option("--watch", metavar="SECONDS", min=0, help="Ask again and again; until Ctrl-C.")]


@app.command()
def status(
    caller: As = OPERATOR,
    node: Nodes = None,
    watch: Watch = 0,
    folder: Folder = DEFAULT_FOLDER,
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Show every node of a zone: whether it serves, what it runs, how long its certificate lasts, what is wrong.

    Green is well, yellow wants to be looked at, red does not work or soon will not. Lag is how old
    the oldest is of what a node knows of others' events and of other zones. Nodes answer operators only.

    \b
    Examples:
      hutong status
      hutong status --watch 2
      hutong status --node customs/node=customs.internal:50051 --cert op.pem --bundle roots.pem
    """
    asked = _elsewhere(node, cert, key, bundle, folder, caller) if node else _zone(folder, caller, cert, key, bundle)
    if as_json:
        found = asyncio.run(ask(asked))
        print_json([_as_dict(standing) for standing in found])
    elif watch:
        asyncio.run(watched(asked, watch))
        return
    else:
        found = asyncio.run(ask(asked))
        console().print(_shown(found))
    if any(lights(standing)[0] is Light.RED for standing in found):
        raise typer.Exit(1)


def _zone(folder: Path, caller: str, cert: Path | None, key: Path | None, bundle: Path | None) -> list[Asked]:
    zone = Zone.open(folder)
    files = SvidFiles(cert, key or cert, bundle) if cert and bundle else zone.credentials(caller)
    files.load()
    places = [zone.node(name).node for name in zone.nodes]
    return [Asked(place.listen, zone.identity(f"{place.agency}/{place.system}"), files) for place in places]


def _elsewhere(
    nodes: list[str], cert: Path | None, key: Path | None, bundle: Path | None, folder: Path, caller: str
) -> list[Asked]:
    files = SvidFiles(cert, key or cert, bundle) if cert and bundle else Zone.open(folder).credentials(caller)
    trust_domain = files.load().spiffe_id.trust_domain
    asked: list[Asked] = []
    for text in nodes:
        path, found, target = text.partition("=")
        agency, slash, system = path.partition("/")
        if not (found and target and slash and agency and system):
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"--node {text!r}: write agency/system=host:port")
        asked.append(Asked.of(trust_domain, agency, system, target, files))
    return asked


async def watched(asked: list[Asked], seconds: float) -> None:
    """Show how nodes do, again and again, so many seconds after each other; until it is cancelled."""
    with Live(console=console(), refresh_per_second=4) as live:
        while True:
            live.update(_shown(await ask(asked)))
            await asyncio.sleep(seconds)


def _shown(found: list[Standing]) -> Group:
    rows = [_row(standing) for standing in found]
    wrong = sum(lights(standing)[0] is Light.RED for standing in found)
    line = f"{len(found)} {'node' if len(found) == 1 else 'nodes'}" + (f", {wrong} of them red" if wrong else "")
    return Group(table("", _COLUMNS, rows), Text(line, style="dim"))


def _row(standing: Standing) -> list[str | Text]:
    light, remarks = lights(standing)
    said = Text("; ".join(remarks) or "–", style=STYLES[light] if remarks else "dim")
    head: list[str | Text] = [Text("●", style=STYLES[light]), standing.asked.path]
    status = standing.status
    if status is None:
        return [*head, "", "", "", "", "", "", said]
    return [
        *head,
        status.version,
        _span(standing.up),
        _span(standing.certified),
        "–" if standing.lag is None else _span(standing.lag),
        f"{standing.value('hutong_calls_running'):.0f}",
        f"{standing.value('hutong_log_entries'):,.0f}",
        said,
    ]


def _span(seconds: float) -> str:
    """Write a span of time in its two largest units."""
    left = max(0, int(seconds))
    for size, unit, smaller, below in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if left >= size:
            return f"{left // size}{unit} {left % size // smaller}{below}"
    return f"{left}s"


def _as_dict(standing: Standing) -> dict[str, object]:
    light, remarks = lights(standing)
    told = as_dict(standing.status) if standing.status is not None else None
    return {"node": standing.asked.path, "light": light, "remarks": remarks, "status": told}
