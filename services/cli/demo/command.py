"""`hutong demo`: a short story on a real mesh, every step checked, nothing left running."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from services.cli import sample
from services.cli.demo import failures, history, policies, questions, recognition, records, supervision, trust
from services.cli.demo.narrator import CheckFailed, Narrator
from services.cli.demo.stage import Stage
from services.cli.door import FAILED, describe
from services.cli.fleet import Fleet
from services.cli.output import AsJson, console
from services.cli.zone import Zone

app = typer.Typer(rich_markup_mode="rich")

STORY: Sequence[Callable[[Stage], Awaitable[None]]] = (
    questions.tax_asks,
    questions.customs_asks,
    questions.wrong_purpose,
    trust.strangers,
    failures.departments_fail,
    policies.changed_live,
    records.quarantine,
    records.real_question,
    recognition.establishment,
    history.real_log,
    supervision.suspicion,
)
"""The steps once the mesh is up, in order."""


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of real sources, loaded beside the synthetic zone.", exists=True, file_okay=False),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the zone folder and say where it is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell a short story on a real mesh and check every step.

    Five departments, the services of recognition and of supervision and a gateway run as processes of their own, over
    mutual TLS, on records loaded through the adapters. Tax asks about an exporter; customs asks the same and sees other
    fields; the wrong purpose; no certificate; a department killed; a policy changed live. Then an enterprise is
    established across four agencies: a stage overdue, a result recognised, a result revoked. At last a supervisor looks
    into a suspicious transaction, under an authorization that two others approve; what was answered is proven, looked
    back at by whom it was about, and decided once more by an auditor. It ends with [bold]demo: N checks passed[/bold],
    exit code 0, and nothing left running.

    \\b
    Examples:
      hutong demo
      hutong demo --data ../shared/data --keep
    """
    folder = Path(tempfile.mkdtemp(prefix="hutong-demo-"))
    narrator = Narrator(as_json=as_json)
    failure = ""
    try:
        asyncio.run(_tell(narrator, folder / "zone", data))
    except CheckFailed as error:
        failure = str(error)
    except Exception as error:
        # Whatever it is, the story ends with its count and a word on it.
        described = describe(error)
        failure = f"{described['reason']}: {described['message']}"
    finally:
        if not keep:
            shutil.rmtree(folder)
    if keep and not as_json:
        console().print(Text(f"The zone is in {folder / 'zone'}; `hutong up --dir` brings it up again."))
    narrator.end(failure)
    if failure:
        raise typer.Exit(FAILED)


async def _tell(narrator: Narrator, folder: Path, data: Path | None) -> None:
    zone = Zone.prepare(folder)
    recognition.prepare(zone)
    trust.identities(narrator, zone)
    await records.come_in(narrator, zone, data)
    narrator.step("Five departments, recognition, supervision and a gateway, each a process of its own")
    died: list[str] = []
    fleet = Fleet(zone, on_death=lambda node: died.append(node.name))
    async with fleet:
        rows = [
            (node.name, node.address, str(node.process.pid if node.process else "")) for node in fleet.nodes.values()
        ]
        narrator.show(("Node", "Address", "Process"), rows)
        narrator.check(len(rows) == len(zone.nodes), f"{len(rows)} nodes answer for their health, over mutual TLS")
        stage = Stage(narrator, zone, fleet, data, sample.story(zone.sample).exporter)
        for step in STORY:
            await step(stage)
    narrator.step("The end")
    narrator.check(not died, "no node ended on its own", died)
    narrator.check(not any(node.running for node in fleet.nodes.values()), "every node has drained and stopped")
