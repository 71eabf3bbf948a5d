"""`hutong doctor`: look at everything a node needs, and say what to do."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from certs.errors import CertificateError
from services.cli import checks, configs
from services.cli.checks import Finding
from services.cli.hints import HINTS
from services.cli.output import AsJson, console, print_json, table
from services.cli.question import Folder
from services.cli.statuses import STYLES, Light
from services.cli.zone import DEFAULT_FOLDER, Zone
from services.kit.errors import HutongError

app = typer.Typer(rich_markup_mode="rich")

_WORST = (Light.GREEN, Light.YELLOW, Light.RED)


@app.command()
def doctor(
    name: Annotated[str, typer.Argument(metavar="[ROOM]", help="A node; without it, all of the zone folder.")] = "",
    file: Annotated[
        Path | None, typer.Option("--config", metavar="TOML", help="Its config, where it is in no zone folder.")
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    everything: Annotated[bool, typer.Option("--all", help="Tell of what is well, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at what a node needs, from its config to whom it calls, and say what to do about what is wrong.

    Files and who may read them, the certificate, the revocation list, the log's key, policies, databases and the room
    they have, and whether the node serves and everyone whom it calls. Nothing is changed. Run it as the node's user.

    \b
    Examples:
      hutong doctor
      hutong doctor customs --all
      hutong doctor gateway --config /etc/hutong/node/node.toml
    """
    if file is not None and not name:
        raise typer.BadParameter("say which room the config is of: hutong doctor ROOM --config FILE")
    nodes = [(name, file)] if file is not None else _of_zone(Zone.open(folder), name)
    found = {node: asyncio.run(_look(node, path)) for node, path in nodes}
    if as_json:
        print_json({node: [_as_dict(finding) for finding in findings] for node, findings in found.items()})
    else:
        _print(found, everything)
    if _worst(found) is Light.RED:
        raise typer.Exit(1)


def _of_zone(zone: Zone, name: str) -> list[tuple[str, Path]]:
    return [(node, zone.config_file(node)) for node in ([name] if name else zone.nodes)]


async def _look(name: str, file: Path) -> list[Finding]:
    try:
        config, stores = configs.read(name, file), configs.migrations_of(name)
    except (HutongError, CertificateError) as error:
        advice = HINTS.get(error.reason, "")
        return [Finding(Light.RED, "config", f"{error.reason}: {error}", advice)]
    return [finding async for finding in checks.all_of(name, file, config, stores)]


def _print(found: dict[str, list[Finding]], everything: bool) -> None:
    out = console()
    shown: list[list[str | Text]] = [
        [Text("●", style=STYLES[finding.light]), node, finding.what, finding.said, finding.advice or "–"]
        for node, findings in found.items()
        for finding in findings
        if everything or finding.light is not Light.GREEN
    ]
    if shown:
        out.print(table("", ("", "Node", "What", "How it stands", "What to do"), shown))
    looks = sum(len(findings) for findings in found.values())
    bad = sum(finding.light is not Light.GREEN for findings in found.values() for finding in findings)
    out.print(Text(f"{looks} looks at {len(found)} nodes: {bad or 'nothing'} to do something about", style="dim"))


def _worst(found: dict[str, list[Finding]]) -> Light:
    lights = {finding.light for findings in found.values() for finding in findings}
    return max(lights, key=_WORST.index, default=Light.GREEN)


def _as_dict(finding: Finding) -> dict[str, str]:
    return {"light": finding.light, "what": finding.what, "said": finding.said, "advice": finding.advice}
