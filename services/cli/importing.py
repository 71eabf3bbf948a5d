"""`hutong case import`: a log of cases that happened elsewhere, into the store of cases."""

import asyncio
import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import TaskProgressColumn
from rich.text import Text

from adapters import eventlog
from adapters.eventlog import Log
from services.cli.casebook import Casebook, Store
from services.cli.output import AsJson, Bar, console, print_json, table
from services.cli.question import Folder
from services.cli.zone import DEFAULT_FOLDER
from services.kit.clock import system_clock
from services.recognition import log_profiles
from services.recognition.importing import Imported, Importer
from services.recognition.log_profiles import LogProfile
from services.recognition.logged_cases import Refusal
from services.recognition.procedure import Procedure
from services.recognition.procedure_file import read as read_procedure

_SHOWN: Final = 20
"""Refused cases that are shown to people; machines get all."""


def import_(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="An event log: XES or CSV, plain or gzip.")],
    procedure: Annotated[
        str, typer.Option("--procedure", metavar="P", help="CODE, CODE@version, or a procedure file.")
    ],
    profile: Annotated[
        Path | None,
        typer.Option("--profile", metavar="FILE", help="How the log's names are to be understood.", show_default=False),
    ] = None,
    source: Annotated[
        str, typer.Option(metavar="WORD", help="Goes into the ids of the cases: for logs with the same case numbers.")
    ] = "",
    folder: Folder = DEFAULT_FOLDER,
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Import a log of cases that happened elsewhere.

    Every case ends as loaded, unchanged or refused: read = loaded + unchanged + refused, always. A case with anything
    in it that the procedure does not allow is refused whole, with its reason. A log that is cut, damaged or no log is
    refused whole, and leaves nothing behind. Importing the same log again changes nothing; one that has grown adds what
    is new. The node may run meanwhile.

    A log is XES, or a table with one line per event; what a table says of the case has `case:` before its name. Stages
    and agencies are found by title or code. A profile (YAML) says the rest: procedure, applied, deadline, planned_end,
    end: {attribute, stage}, subject: {scheme, attribute}, activities, groups, transitions, columns.

    \b
    Examples:
      hutong case import receipt.xes.gz --procedure WABO-RECEIPT
      hutong case import receipt.csv --procedure WABO-RECEIPT --store sqlite:///cases.db
      hutong case import log.csv --procedure ./permits@1.0.0.yaml --profile permits-log.yaml
    """
    book = Casebook.of(folder, store, make=True)
    found = find(book, procedure)
    names = log_profiles.load(found, profile)
    done = asyncio.run(_import(book, log, found, names, source, quiet=as_json))
    if as_json:
        print_json(as_dict(done))
    else:
        _tell(done)
    if done.refused and not done.loaded + done.unchanged:
        raise typer.Exit(1)


def find(book: Casebook, name: str) -> Procedure:
    """Find a procedure by file, label or code; raises where there is none, or it does not stand."""
    if name.endswith(".yaml"):
        return read_procedure(Path(name), book.rulebook.agencies, [*book.rulebook.calendars])
    code, _, version = name.partition("@")
    known = book.rulebook.procedures
    return known.get(f"{code.upper()}@{version}") if version else known.in_force(code.upper(), system_clock())


async def _import(
    book: Casebook, path: Path, procedure: Procedure, profile: LogProfile, source: str, *, quiet: bool
) -> Imported:
    with _Shown(quiet=quiet) as bar:
        log = read(path, profile, bar.begin(f"{path.name}: reading"))
        async with book.open() as database:
            importer = Importer(database, book.rulebook, procedure, profile, system_clock(), source)
            return await write(importer, log, bar.begin(f"{path.name}: {len(log.cases)} cases"))


def read(path: Path, profile: LogProfile, show: Callable[[int, int], None] | None = None) -> Log:
    """Read a log, as `case import` does."""
    with _undisturbed():
        return eventlog.read(path, profile.layout, show=show)


async def write(importer: Importer, log: Log, show: Callable[[int, int], None] | None = None) -> Imported:
    """Write the cases of a log, as `case import` does."""
    with _undisturbed():
        return await importer.run(log, show)


@contextmanager
def _undisturbed() -> Generator[None]:
    """Keep the collector of garbage from looking through all that is there already, again and again.

    A log makes many objects and no garbage; nothing else runs in this process.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Shown(Bar):
    def __init__(self, *, quiet: bool) -> None:
        super().__init__(TaskProgressColumn(), quiet=quiet)

    def begin(self, what: str) -> Callable[[int, int], None]:
        task = self.progress.add_task(what, total=None)
        return lambda done, total: self.progress.update(task, completed=done, total=total)


def _tell(done: Imported) -> None:
    out = console()
    columns = ("Log", "Form", "Procedure", "Read", "Loaded", "Unchanged", "Refused", "Events", "Why")
    why = ", ".join(f"{reason} {count}" for reason, count in done.reasons.items())
    counts = (done.read, done.loaded, done.unchanged, len(done.refused), done.events)
    out.print(table("", columns, [(done.log, done.form, done.procedure, *(str(n) for n in counts), why)]))
    if done.grown:
        out.print(Text(f"Of those loaded, {done.grown} were there before, and the log tells more of them now."))
    if done.moved:
        out.print(Text(f"{done.moved} cases begin before the application that the log states: with what came first."))
    if done.refused:
        rows = ((r.case_id, _where(r), r.reason.value, r.message) for r in done.refused[:_SHOWN])
        out.print(table(f"Refused: {len(done.refused)}", ("Case", "Where", "Reason", "Why"), rows))
        if len(done.refused) > _SHOWN:
            out.print(Text(f"… and {len(done.refused) - _SHOWN} more; --json lists all"))


def _where(refusal: Refusal) -> str:
    parts = [f"line {refusal.line}" if refusal.line else "", f"event {refusal.event}" if refusal.event else ""]
    return ", ".join(part for part in parts if part)


def as_dict(done: Imported) -> dict[str, Any]:
    """Write what became of a log for machines."""
    return {
        "log": done.log,
        "form": done.form,
        "procedure": done.procedure,
        "read": done.read,
        "loaded": done.loaded,
        "grown": done.grown,
        "unchanged": done.unchanged,
        "refused": len(done.refused),
        "events": done.events,
        "moved": done.moved,
        "reasons": done.reasons,
        "refusals": [
            {"case": r.case_id, "line": r.line, "event": r.event, "reason": r.reason.value, "message": r.message}
            for r in done.refused
        ],
    }
