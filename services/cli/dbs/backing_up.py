"""`hutong db backup`, `restore` and `verify`: copies of a node's state, and the proof that they are what they were.

A backup is a folder: one SQLite file for each database, whatever the node keeps them in, and a manifest. The store is
copied first and the log after it, each as it is at one moment while the node runs. So whatever was answered from the
records in a backup is in its log; what the log has beyond that is told.
"""

import hashlib
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final

import sqlalchemy as sa
import typer
from rich.progress import MofNCompleteColumn

from certs.files import make_folder, write_atomically
from services.cli import door
from services.cli.dbs import copying, proving
from services.cli.dbs.places import LOG, STORE, Config, Node, Place
from services.cli.dbs.proving import Agreement, Findings
from services.cli.logs.where import witnesses
from services.cli.output import AsJson, Bar, console, pairs, print_json
from services.kit.clock import system_clock
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.log import keys
from services.kit.log.checkpoint import SignedCheckpoint, open_checkpoint
from services.kit.records import migrations

MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_CHUNK: Final = 1 << 20

Checkpoints = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", metavar="FILE", help="A checkpoint that somebody else has kept; may be given again."),
]


def backup(
    config: Config,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A folder that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy a node's store and log into a folder, while the node runs.

    Both are of one moment each, the log's the later one: whatever was answered from the records that are copied is in
    the log that is copied. The folder holds all the node knows, and is nobody else's to read. Keys and secrets are not
    in it: keep them apart.

    \b
    Example:
      hutong db backup --config customs.toml --to /backup/customs-2026-03-01
    """
    node = Node.of(config)
    for place in node.places:
        migrations.check(place.url, place.folder)
    if to.exists():
        raise FailedPrecondition(Reason.FOLDER_NOT_EMPTY, f"{to} is there already; a backup is not written over")
    make_folder(to)
    with Bar(MofNCompleteColumn(), quiet=as_json) as bar:
        parts = {place.name: _copied(place, to, bar) for place in node.places}
    manifest = {
        "format": _FORMAT,
        "node": node.name,
        "origin": node.origin,
        "version": metadata.version("hutong"),
        "databases": parts,
    }
    # Last of all: a folder without it is no backup.
    write_atomically(to / MANIFEST, json.dumps(manifest, indent=2).encode())
    if as_json:
        print_json(manifest)
        return
    console().print(pairs([("Node", node.name), *((name, f"{_rows(part)} rows") for name, part in parts.items())]))


def _copied(place: Place, folder: Path, bar: Bar) -> dict[str, Any]:
    target = _in(folder, place)
    task = bar.progress.add_task(place.name, total=None)
    taken = system_clock()
    with place.snapshot() as connection:
        rows = copying.copy(connection, target, lambda _name, done: bar.progress.update(task, completed=done))
    copying.close(target)
    return {
        "file": f"{place.name}.db",
        "revision": migrations.head(place.folder),
        "taken": taken.isoformat(),
        "rows": rows,
        "sha256": _digest(copying.file_of(target)),
    }


def restore(
    config: Config,
    source: Annotated[Path, typer.Option("--from", metavar="DIR", help="The backup.")],
    checkpoint: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Fill the empty databases of a node's config from a backup, and prove what is in them.

    The backup is proven first, then copied, then the copy is proven. Give the last checkpoint that a witness of the log
    has kept: entries that it has and the backup has not are lost, and the log must not go on under its old key as if
    there had been none. Nothing is written over.

    \b
    Example:
      hutong db restore --config customs.toml --from /backup/customs-2026-03-01 --checkpoint witnessed
    """
    node = Node.of(config)
    manifest = _manifest(source, node)
    places = [_from(source, place, manifest) for place in node.places]
    before = _prove(node, places, checkpoint or [])
    # What is lost is told, and no reason to lose the rest.
    if before.faults == before.unmet:
        for old, new in zip(places, node.places, strict=True):
            with old.snapshot() as connection:
                copying.copy(connection, new)
        before = _prove(node, node.places, checkpoint or [])
    _tell(before, as_json)


def verify(
    config: Config,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A backup; by default the node's own databases.")
    ] = None,
    checkpoint: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Prove that a node's log and records are whole and agree: in its databases, or in a backup of them.

    Of the log every entry, every hash and the signature; and that it continues each checkpoint given. Of the records
    every digest, and that each record's versions are one history. Of both, that what the log says was given had been
    recorded by then. Exit code 1 where anything does not hold.

    \b
    Examples:
      hutong db verify --config customs.toml --from /backup/customs-2026-03-01 --checkpoint witnessed
      hutong db verify --config customs.toml
    """
    node = Node.of(config)
    if source is None:
        _tell(_prove(node, node.places, checkpoint or []), as_json)
        return
    manifest = _manifest(source, node)
    places = [_from(source, place, manifest) for place in node.places]
    _tell(_prove(node, places, checkpoint or []), as_json)


def _prove(node: Node, places: Sequence[Place], checkpoints: Sequence[Path]) -> Findings:
    """Prove what is in these databases; raises what stands in the way, or is beyond a finding."""
    found = Findings()
    by_name = {place.name: place for place in places}
    key = keys.find(node.keys, node.origin)
    for place in places:
        migrations.check(place.url, place.folder)
    with _snapshot(by_name.get(STORE)) as store, _snapshot(by_name[LOG]) as log:
        if log is None:
            raise AssertionError("a node without a log has none to prove")
        witnessed = [_signed(node, path.read_text(encoding="utf-8"), path.name) for path in checkpoints]
        witnessed += [_signed(node, note, "of the log's database") for note in proving.kept_checkpoints(log)]
        proving.prove_log(log, key, witnessed, found)
        if store is not None and node.tables is not None:
            proving.prove_records(store, node.tables, found)
            Agreement(store, node.tables, node.live, found).compare(log)
    return found


@contextmanager
def _snapshot(place: Place | None) -> Generator[sa.Connection | None]:
    if place is None:
        yield None
        return
    with place.snapshot() as connection:
        yield connection


def _signed(node: Node, text: str, name: str) -> SignedCheckpoint:
    try:
        return open_checkpoint(text, [keys.find(node.keys, node.origin)], witnesses(node.keys))
    except HutongError as error:
        raise FailedPrecondition(error.reason, f"the checkpoint {name}: {error.message}") from None


def _tell(found: Findings, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found) | {"ok": not found.faults})
    else:
        out = console()
        out.print(
            pairs(
                [
                    ("Log entries", str(found.entries)),
                    ("Root", found.root or "-"),
                    ("Last entry", found.newest.isoformat() if found.newest else "-"),
                    ("Checkpoints continued", ", ".join(map(str, found.checkpoints)) or "-"),
                    ("Openings", str(found.openings)),
                    ("Record versions", str(found.records)),
                    ("Answers compared", str(found.compared)),
                    ("Answers from newer records", str(found.later)),
                    ("Entries lost", str(found.lost)),
                ]
            )
        )
        for line in found.wrong:
            out.print(line, style="red", markup=False)
        if not found.faults:
            out.print("whole: log and records are what they were, and agree", style="green")
    if found.faults:
        raise typer.Exit(door.FAILED)


def _manifest(folder: Path, node: Node) -> dict[str, Any]:
    """Read a backup's manifest, and check that it is this node's and its files are what was written.

    Raises `FailedPrecondition` BACKUP_INVALID; STORE_NOT_MIGRATED or STORE_NEWER where it is of another version.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        parts, whose = manifest["databases"], manifest["origin"]
        if manifest["format"] != _FORMAT:
            raise _invalid(folder, f"it is of format {manifest['format']}, and this program reads {_FORMAT}")
        if whose != node.origin:
            raise _invalid(folder, f"it is of {whose}, and this config of {node.origin}")
        if set(parts) != {place.name for place in node.places}:
            raise _invalid(folder, f"it holds {', '.join(sorted(parts))}")
        for name, part in parts.items():
            if _digest(folder / part["file"]) != part["sha256"]:
                raise _invalid(folder, f"the file of its {name} is not what was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid(folder, f"it cannot be read ({type(error).__name__})") from None
    return manifest


def _from(folder: Path, place: Place, manifest: dict[str, Any]) -> Place:
    there = _in(folder, place)
    revision = manifest["databases"][place.name]["revision"]
    try:
        migrations.check(there.url, there.folder)
    except FailedPrecondition as error:
        message = f"the backup's {place.name} is at revision {revision}: use the version of the program that made it"
        raise FailedPrecondition(error.reason, message) from None
    return there


def _in(folder: Path, place: Place) -> Place:
    return replace(place, url=f"sqlite:///{folder.absolute() / f'{place.name}.db'}")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _rows(part: dict[str, Any]) -> int:
    return sum(part["rows"].values())


def _invalid(folder: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.BACKUP_INVALID, f"{folder}: {why}")
