"""`hutong up`: a whole mesh on this machine, one process per node, until Ctrl-C."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from services.cli import filling
from services.cli.fleet import Fleet, Node
from services.cli.output import AsJson, console, print_json, table
from services.cli.question import Folder
from services.cli.sample import story
from services.cli.zone import CALLERS, DEFAULT_FOLDER, DEFAULT_ZONE, Zone
from services.kit.errors import FailedPrecondition, Reason

app = typer.Typer(rich_markup_mode="rich")


@app.command()
def up(
    folder: Folder = DEFAULT_FOLDER,
    zone_name: Annotated[str, typer.Option("--zone", help="Name of a zone that is made now.")] = DEFAULT_ZONE,
    base_port: Annotated[
        int, typer.Option(min=0, max=65000, metavar="N", help="Ports from here on; 0: as configured, else free ones.")
    ] = 0,
    data: Annotated[
        Path | None, typer.Option(help="Folder of real sources to fill empty stores from.", show_default=False)
    ] = None,
    sample: Annotated[bool, typer.Option(help="Fill empty stores with the synthetic zone.")] = True,
    as_json: AsJson = False,
) -> None:
    """Run a whole mesh on this machine, one process per node, over mutual TLS.

    Its nodes: every department, the recognition service (cases and stage results), the supervision service
    (authorizations) and the gateway.

    A zone folder that is not there is made: authority, certificates, configs, policies, stores with the synthetic
    zone in them. Certificates are renewed while it runs. Ctrl-C drains; a second one does not wait.

    \b
    Examples:
      hutong up
      hutong up --dir /srv/zone --zone port.example --base-port 9400 --no-sample
    """
    with console(stderr=True).status("Preparing the zone"):
        zone = Zone.prepare(folder, zone_name, base_port)
    filling.fill(zone, data, with_sample=sample, quiet=as_json)
    died = asyncio.run(_run(zone, as_json))
    if died:
        raise FailedPrecondition(Reason.NODE_FAILED, f"while the mesh was up, these nodes ended: {', '.join(died)}")


async def _run(zone: Zone, as_json: bool) -> list[str]:
    """Run until asked to stop; gives the nodes that ended unasked."""
    died: list[str] = []

    def on_death(node: Node) -> None:
        died.append(node.name)
        _tell_death(node, as_json)

    fleet = Fleet(zone, on_death=on_death)
    _stop_on_signals(fleet)
    # A signal cancels this task wherever it stands; leaving the fleet drains it.
    with suppress(asyncio.CancelledError):
        with console(stderr=True).status("Starting the nodes"):
            await fleet.start()
        _tell_up(fleet, as_json)
        await asyncio.Event().wait()
    if not as_json:
        console().print("Draining …")
    await fleet.stop()
    if as_json:
        print_json({"state": "stopped"}, lines=True)
    else:
        console().print("Stopped; nothing is left running.")
    return died


def _stop_on_signals(fleet: Fleet) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            fleet.cut()
        elif task:
            task.cancel()
        asked = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _tell_up(fleet: Fleet, as_json: bool) -> None:
    rows = [
        (node.name, str(fleet.zone.identity(node.identity)), node.address, node.config.node.metrics or "")
        for node in fleet.nodes.values()
    ]
    if as_json:
        keys = ("node", "identity", "address", "metrics")
        nodes = [dict(zip(keys, row, strict=True)) for row in rows]
        print_json({"state": "serving", "dir": str(fleet.zone.folder), "nodes": nodes}, lines=True)
        return
    out = console()
    out.print(table(f"Zone {fleet.zone.name} is up", ("Node", "Identity", "Address", "Metrics"), rows))
    out.print(Text(f"ask:  {_example(fleet.zone)}"))
    out.print(Text("stop: Ctrl-C"))


def _tell_death(node: Node, as_json: bool) -> None:
    if as_json:
        code = node.process.returncode if node.process else None
        print_json({"state": "died", "node": node.name, "exit_code": code, "log": str(node.log)}, lines=True)
        return
    out = console(stderr=True)
    out.print(Text.assemble((f"{node.name} ended on its own. ", "bold red"), "Its last words:"))
    out.print(Text(node.last_lines(), style="dim"))
    out.print(Text(f"Its log: {node.log}. The others go on; `hutong up` again brings it back."))


def _example(zone: Zone) -> str:
    """Write a question that this mesh can answer."""
    where = "" if zone.folder == DEFAULT_FOLDER.absolute() else f" --dir {zone.folder}"
    try:
        exporter = story(zone.sample).exporter
    except FailedPrecondition:
        return f"hutong query{where} --as {CALLERS[0]} …   (hutong query --help)"
    return (
        f"hutong query{where} --as taxation/refund --purpose P-REBATE --basis CN-VAT-REBATE "
        f"--subject {exporter.text} --select customs.Declaration --select commerce.Enterprise"
    )
