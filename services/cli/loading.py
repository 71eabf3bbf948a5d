"""One source through one mapping into one store, and the table that says what became of its rows."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from rich.progress import DownloadColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.table import Table

from adapters import reading
from adapters.document import SqlSpec
from adapters.mapping import Mapping
from adapters.reading import Reading
from services.cli import output
from services.cli.department import Department
from services.cli.output import table
from services.kit.records.ingest import Duplicates, ingest, watermark
from services.kit.records.runs import Report, RunInfo
from services.kit.records.store import RecordStore


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of one source."""

    agency: str
    mapping: str
    source: str
    report: Report

    def as_dict(self) -> dict[str, object]:
        """Write it for machines."""
        report = self.report
        return {
            "agency": self.agency,
            "mapping": self.mapping,
            "source": self.source,
            "run": report.run_id,
            "read": report.read,
            "loaded": report.loaded,
            "unchanged": report.unchanged,
            "quarantined": report.quarantined,
            "reasons": dict(report.reasons),
        }


def source_name(mapping: Mapping, location: str) -> str:
    """Name a source the same in every run: a file by its name, a database without its password."""
    if isinstance(mapping.document.source, SqlSpec):
        return sa.make_url(location).render_as_string(hide_password=True)
    return Path(location).absolute().name


async def load(
    department: Department, store: RecordStore, mapping: Mapping, location: str, progress: "Bar | None" = None
) -> Loaded:
    """Read a source to its end; raises `InvalidArgument` where mapping and source do not fit, before any row."""
    name = source_name(mapping, location)
    growing = isinstance(mapping.document.source, SqlSpec)
    since = await watermark(store, mapping.name, name) if growing else None
    rows = reading.read(mapping, location, department.keys(), since)
    info = run_info(mapping, name, rows.layout, "" if growing else _digest(Path(location)))
    show = progress.begin(name, rows) if progress else None
    report = await ingest(
        store,
        rows,
        info,
        duplicates=duplicates(mapping),
        progress=show,
        watermark=(lambda: rows.resume) if growing else None,
    )
    return Loaded(department.room.agency, mapping.name, name, report)


def run_info(mapping: Mapping, source: str, layout: tuple[str, ...], digest: str = "") -> RunInfo:
    """Describe a run of a mapping over a source."""
    return RunInfo(
        mapping=mapping.name,
        record_type=mapping.record.name,
        source=source,
        source_system=mapping.source_system,
        mapping_version=str(mapping.version),
        source_digest=digest,
        layout=layout,
    )


def duplicates(mapping: Mapping) -> Duplicates:
    """Say what several rows with one key are, as the mapping has it."""
    return Duplicates.VERSIONS if mapping.keeps_last_version else Duplicates.QUARANTINE


def _digest(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Bar(output.Bar):
    """Progress on standard error, while somebody looks."""

    def __init__(self, *, rows: bool = False, quiet: bool = False) -> None:
        """`rows` counts rows, as tables do; bytes otherwise."""
        amount: ProgressColumn = MofNCompleteColumn() if rows else DownloadColumn()
        super().__init__(amount, TextColumn("{task.fields[rows]}"), quiet=quiet)

    def begin(self, name: str, reading: Reading) -> Callable[[Report], None]:
        """Show a source; gives what is told of every batch."""
        task = self.progress.add_task(name, total=reading.total, rows="")

        def show(report: Report) -> None:
            bad = f", {report.quarantined} to quarantine" if report.quarantined else ""
            self.progress.update(task, completed=reading.done, rows=f"{report.read} rows{bad}")

        return show


def summary(loads: list[Loaded], title: str = "") -> Table:
    """Make the table of what became of rows."""
    return table(
        title,
        ("Agency", "Source", "Mapping", "Read", "Loaded", "Unchanged", "Quarantined", "Why"),
        (
            (
                each.agency,
                each.source,
                each.mapping,
                *(str(n) for n in (each.report.read, each.report.loaded, each.report.unchanged)),
                str(each.report.quarantined),
                ", ".join(f"{reason} {count}" for reason, count in each.report.reasons.items()),
            )
            for each in loads
        ),
    )
