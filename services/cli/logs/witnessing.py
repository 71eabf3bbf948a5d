"""`hutong log witness`: who has co-signed what of a log, what its node has co-signed of others, and who was caught."""

import asyncio
import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.text import Text

from certs.svid import SvidFiles
from services.cli.logs import evidence
from services.cli.logs.evidence import Evidence, iso
from services.cli.logs.where import Config, Local, Node, Where
from services.cli.output import AsJson, console, pairs, print_json, table
from services.cli.question import Folder
from services.cli.zone import DEFAULT_FOLDER
from services.kit.clock import system_clock
from services.kit.log import notes
from services.kit.log.checkpoint import origin_of
from services.kit.log.nodelog import NodeLog
from services.kit.log.showing import Showing, Standing
from services.kit.log.tables import COSIGNED, WITNESSED
from services.kit.log.writer import read_head

_BAD = (Standing.FORKED, Standing.AHEAD)


@dataclass(frozen=True, slots=True)
class _Round:
    """How the witnesses answered just now."""

    standings: dict[str, Standing]

    @property
    def bad(self) -> bool:
        return any(standing in _BAD for standing in self.standings.values())


def witness(
    node: Node = "",
    config: Config = None,
    now: Annotated[
        bool, typer.Option("--now", help="Show the newest checkpoint to every witness first, without waiting.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write all evidence: both signed checkpoints.")
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Show which witnesses have co-signed a log, and up to which entry; and which logs this node has co-signed.

    Another agency's node co-signs a checkpoint only where it continues the last one it has seen of that log. Where one
    does not, the log was rewritten, or shows different members different histories: both checkpoints are kept as
    evidence, each signed by the log itself; --out writes them, for anybody to check who has the log's published key.
    Exit code 1 where there is evidence against any log.

    \b
    Examples:
      hutong log witness customs
      hutong log witness customs --now
      hutong log witness taxation --out ./evidence
      hutong log witness --config /etc/hutong/node.toml --json
    """
    local = Where(node=node, config=config, folder=folder).required
    round_ = asyncio.run(_ask(local)) if now else None
    with local.connect() as connection:
        found, caught = _read(connection, local), evidence.read(connection)
    files = evidence.write(caught, out) if out is not None and caught else []
    if as_json:
        standings = {} if round_ is None else {name: each.value for name, each in round_.standings.items()}
        against = [each.as_dict() for each in caught]
        print_json(found | {"evidence": against, "answers": standings, "files": [str(file) for file in files]})
    else:
        _show(found, caught, round_)
        _show_files(files, out)
    if caught or (round_ is not None and round_.bad):
        raise typer.Exit(1)


async def _ask(local: Local) -> _Round:
    """Show the newest checkpoint to every witness, once."""
    tls = local.config.tls
    log = NodeLog.of(local.section, local.config.node, local.url, system_clock)
    await log.open()
    try:
        files = SvidFiles(tls.certificate, tls.key, tls.bundle)
        showing = Showing.of(log, local.section, local.config.node, files)
        try:
            await showing.recall()
            await showing.show()
            return _Round(showing.standings)
        finally:
            await showing.stop()
    finally:
        await log.close()


def _read(connection: sa.Connection, local: Local) -> dict[str, Any]:
    size = read_head(connection).size
    zone = local.config.node.zone
    configured = [origin_of(zone, agency, peer.system) for agency, peer in local.section.witnesses.items()]
    kept = {row.witness: row for row in connection.execute(sa.select(COSIGNED))}
    witnesses = [_cosigned(name, kept.get(name), size) for name in sorted({*configured, *kept})]
    witnessed = connection.execute(sa.select(WITNESSED).where(WITNESSED.c.size > 0).order_by(WITNESSED.c.origin))
    return {
        "log": local.origin,
        "entries": size,
        "witnesses": witnesses,
        "cosigned": [{"log": row.origin, "size": row.size, "time": iso(row.time)} for row in witnessed],
    }


def _cosigned(name: str, row: Any, size: int) -> dict[str, object]:
    if row is None:
        return {"witness": name, "size": 0, "behind": size, "time": None}
    seconds = int.from_bytes(notes.parse_signature(row.cosignature).data[:8], "big")
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return {"witness": name, "size": row.size, "behind": max(0, size - row.size), "time": iso(moment)}


def _show(found: dict[str, Any], caught: list[Evidence], round_: _Round | None) -> None:
    out = console()
    standings = round_.standings if round_ else {}
    rows = [_row(each, standings.get(each["witness"])) for each in found["witnesses"]]
    if rows:
        title = f"{found['log']}, {found['entries']} entries: who co-signs it"
        out.print(table(title, ("Witness", "Up to", "Behind", "When", "Answer"), rows))
    else:
        out.print(Text(f"Nobody co-signs {found['log']}: its config names no witness, [log.witnesses.AGENCY]."))
    if found["cosigned"]:
        seen = ((each["log"], str(each["size"]), each["time"]) for each in found["cosigned"])
        out.print(table("What this node has co-signed", ("Log", "Up to", "When"), seen))
    if caught:
        out.print("Evidence of two histories (--out writes both checkpoints)", style="red")
        for each in caught:
            out.print(pairs(each.rows()), style="red")


def _show_files(files: list[Path], folder: Path | None) -> None:
    if folder is not None:
        told = f"{len(files)} files in {folder}" if files else "there is no evidence against any log: nothing written"
        console().print(told, markup=False, soft_wrap=True)


def _row(each: dict[str, Any], standing: Standing | None) -> list[str | Text]:
    up_to = str(each["size"]) if each["size"] else "nothing yet"
    answer = Text(standing.value if standing else "", style="red" if standing in _BAD else "")
    return [each["witness"], up_to, str(each["behind"]), each["time"] or "", answer]
