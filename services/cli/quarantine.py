"""`hutong quarantine`: look at rows that no record could be made of, drive them again, or set them aside."""

import asyncio
from collections.abc import AsyncIterator
from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from adapters import mapping as mappings
from adapters import reading
from adapters.mapping import Mapping
from services.cli.department import Department
from services.cli.load import Config
from services.cli.loading import Loaded, duplicates, run_info, summary
from services.cli.output import AsJson, console, pairs, print_json, table
from services.cli.question import Folder
from services.cli.zone import DEFAULT_FOLDER
from services.kit.errors import InvalidArgument
from services.kit.records import ingest
from services.kit.records.quarantine import Entry, Quarantine, Standing
from services.kit.records.store import RecordStore

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Rows that no record could be made of: none is lost, each keeps its reason and its original bytes.\n\n"
    "\b\nExamples:\n"
    "  hutong quarantine list commerce\n"
    "  hutong quarantine show commerce 3f9a04\n"
    "  hutong quarantine retry commerce --all --mapping fixed.yaml\n",
)

Agency = Annotated[str, typer.Argument(metavar="AGENCY", help="Whose quarantine.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The entry's id, or enough of its beginning.")]

_PAGE = 500
_SHOWN = 4096
"""Bytes of a row that are shown to a person; machines get them all."""

ENCODINGS = ("utf-8-sig", "gb18030")
"""Tried in this order to show a row's bytes as text."""


@app.command("list")
def list_(
    agency: Agency,
    reason: Annotated[str, typer.Option(metavar="REASON", help="Only with this reason.")] = "",
    mapping: Annotated[str, typer.Option(metavar="M", help="Only of this mapping.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also what was resolved or dismissed.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    after: Annotated[str, typer.Option(metavar="ID", help="Go on after this entry.")] = "",
    folder: Folder = DEFAULT_FOLDER,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List entries, with counts by reason."""
    department = Department.of(agency, folder, config)

    async def read() -> tuple[tuple[Entry, ...], dict[tuple[Standing, str], int]]:
        async with department.store() as store:
            quarantine = Quarantine(store)
            state = None if everything else Standing.OPEN
            found = await quarantine.entries(state=state, mapping=mapping, reason=reason, limit=limit, after=after)
            return found, await quarantine.counts()

    entries, counts = asyncio.run(read())
    if as_json:
        print_json(
            {
                "entries": [as_dict(entry) for entry in entries],
                "counts": [{"state": s, "reason": r, "entries": n} for (s, r), n in counts.items()],
            }
        )
        return
    _show_list(agency, entries, counts, limit)


@app.command("show")
def show(
    agency: Agency, entry_id: Id, folder: Folder = DEFAULT_FOLDER, config: Config = None, as_json: AsJson = False
) -> None:
    """Show one entry with its original bytes, as text where they can be read as text."""
    department = Department.of(agency, folder, config)

    async def read() -> Entry:
        async with department.store() as store:
            return await Quarantine(store).get(entry_id)

    entry = asyncio.run(read())
    if as_json:
        print_json(as_dict(entry))
        return
    out = console()
    encoding, text = decoded(entry.original)
    rows = [
        ("Id", entry.id),
        ("State", entry.state),
        ("Reason", f"{entry.reason}: {entry.detail}"),
        ("Where", f"{entry.source}, at {entry.position}"),
        ("Mapping", f"{entry.mapping} (makes {entry.record_type})"),
        ("Seen", f"{entry.times_seen} times, {entry.first_seen:%Y-%m-%d %H:%M} to {entry.last_seen:%Y-%m-%d %H:%M}"),
        ("Bytes", f"{len(entry.original)}, shown as {encoding}"),
    ]
    out.print(pairs(rows))
    out.print(Text(text[:_SHOWN] + (" …" if len(text) > _SHOWN else "")), soft_wrap=True)


@app.command("retry")
def retry(
    agency: Agency,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which entries.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every open entry.")] = False,
    mapping: Annotated[
        str, typer.Option(metavar="M", help="Through this mapping; by default each through its own.")
    ] = "",
    folder: Folder = DEFAULT_FOLDER,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Drive rows through a mapping again; those that become records are resolved.

    With --all and --mapping, every open entry of that mapping's name is driven. A row never replaces a record that
    is there with other content.
    """
    if bool(ids) == everything:
        raise typer.BadParameter("give ids, or --all")
    department = Department.of(agency, folder, config)
    results = asyncio.run(_retry(department, ids or [], mapping))
    if as_json:
        print_json({"retries": [each.as_dict() for each in results]})
        return
    out = console()
    if not results:
        out.print("Nothing is open.")
        return
    out.print(summary(results))


@app.command("dismiss")
def dismiss(
    agency: Agency, entry_id: Id, folder: Folder = DEFAULT_FOLDER, config: Config = None, as_json: AsJson = False
) -> None:
    """Decide that an entry need not become a record; it stays, and stays findable."""
    department = Department.of(agency, folder, config)

    async def work() -> Entry:
        async with department.store() as store:
            quarantine = Quarantine(store)
            entry = await quarantine.get(entry_id)
            await quarantine.dismiss(entry.id)
            return await quarantine.get(entry.id)

    entry = asyncio.run(work())
    if as_json:
        print_json(as_dict(entry))
    else:
        typer.echo(f"{entry.id} is dismissed; `hutong quarantine list {agency} --all` still shows it")


async def _retry(department: Department, ids: list[str], name: str) -> list[Loaded]:
    async with department.store() as store:
        quarantine = Quarantine(store)
        chosen = department.mapping(name) if name else None
        if ids:
            entries = [await quarantine.get(each) for each in ids]
        else:
            entries = [entry async for entry in _open(quarantine, chosen.name if chosen else "")]
        results: list[Loaded] = []
        entries.sort(key=lambda e: (e.mapping, e.record_type, e.source))
        for (_, _, source), group in groupby(entries, key=lambda e: (e.mapping, e.record_type, e.source)):
            results.append(await drive(department, store, chosen, source, list(group)))
        return results


async def drive(
    department: Department, store: RecordStore, chosen: Mapping | None, source: str, entries: list[Entry]
) -> Loaded:
    """Drive entries of one source again, through the mapping chosen or their own."""
    used = chosen or _own(department, entries[0])
    keys = department.keys()
    report = await ingest.retry(
        store,
        entries,
        lambda entry: reading.retry(used, entry.position, entry.original, keys, entry.layout),
        run_info(used, source, entries[0].layout),
        duplicates=duplicates(used),
    )
    return Loaded(department.room.agency, used.name, source, report)


def _own(department: Department, entry: Entry) -> Mapping:
    """Find the mapping an entry came through; raises `InvalidArgument` where it is none of the room's."""
    automatic = mappings.auto(department.room.catalogue().get(entry.record_type))
    if entry.mapping == automatic.name:
        return automatic
    try:
        return department.mapping(entry.mapping)
    except InvalidArgument as error:
        hint = f"{error.message}; name the file with --mapping"
        raise InvalidArgument(error.reason, hint, **error.metadata) from None


async def _open(quarantine: Quarantine, mapping: str) -> AsyncIterator[Entry]:
    after = ""
    while page := await quarantine.entries(mapping=mapping, limit=_PAGE, after=after):
        for entry in page:
            yield entry
        after = page[-1].id


def decoded(original: bytes) -> tuple[str, str]:
    """Read bytes as text where that is possible; gives the encoding and the text, bytes that are none escaped."""
    for encoding in ENCODINGS:
        try:
            return encoding.removesuffix("-sig"), original.decode(encoding)
        except UnicodeDecodeError:
            continue
    return "escaped bytes", original.decode("ascii", "backslashreplace")


def as_dict(entry: Entry) -> dict[str, object]:
    """Write an entry for machines: the bytes in full, as hexadecimal, and as text where they are some."""
    encoding, text = decoded(entry.original)
    return {
        "id": entry.id,
        "state": entry.state,
        "reason": entry.reason,
        "detail": entry.detail,
        "record_type": entry.record_type,
        "mapping": entry.mapping,
        "source": entry.source,
        "position": entry.position,
        "run": entry.run_id,
        "first_seen": entry.first_seen.isoformat(),
        "last_seen": entry.last_seen.isoformat(),
        "times_seen": entry.times_seen,
        "encoding": encoding,
        "text": text,
        "original_hex": entry.original.hex(),
    }


def _show_list(agency: str, entries: tuple[Entry, ...], counts: dict[tuple[Standing, str], int], limit: int) -> None:
    out = console()
    if not counts:
        out.print("The quarantine is empty.")
        return
    out.print(table("By reason", ("State", "Reason", "Entries"), ((s, r, str(n)) for (s, r), n in counts.items())))
    rows = [(e.id, e.reason, e.source, e.position, e.detail[:80], decoded(e.original)[1][:60]) for e in entries]
    out.print(table("Entries", ("Id", "Reason", "Source", "At", "Detail", "Begins"), rows))
    if len(entries) == limit:
        out.print(Text(f"more: --after {entries[-1].id}", style="dim"))
    out.print(Text(f"one in full: hutong quarantine show {agency} ID", style="dim"))
