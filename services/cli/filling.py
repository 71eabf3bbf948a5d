"""Fills the empty stores of a zone: with the synthetic zone, with real sources, or with both.

A store that holds anything is left alone: what an operator loaded is not to be mixed with samples.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adapters.mapping import Mapping as SourceMapping
from adapters.mapping import with_source_system
from services.cli import sample
from services.cli.department import AUTO, Department
from services.cli.loading import Bar, Loaded, load, summary
from services.cli.output import console
from services.cli.rooms import rooms
from services.cli.zone import Zone
from services.kit.errors import FailedPrecondition, Reason


@dataclass(frozen=True, slots=True)
class Source:
    """One source to be loaded."""

    agency: str
    mapping: str
    path: Path
    source_system: str = ""

    def open_mapping(self, department: Department) -> SourceMapping:
        """Load its mapping."""
        found = department.mapping(self.mapping)
        return with_source_system(found, self.source_system) if self.source_system else found


REAL: Final[Mapping[str, Mapping[str, str]]] = {
    "commerce": {
        "commerce/cn_enterprise_2019_fujian.csv": "cn_registry_2019",
        "commerce/cn_enterprise_2018_jiangsu.csv": "cn_registry_2018",
    },
    "customs": {"customs/wco_dms_xml_hmrc_cds": "wco_dms"},
    "taxation": {"taxation/mx_sat_69b_2021-05-18.csv": "mx_sat_69b"},
    "quality": {"quality/eu_rasff_2023_2024.csv": "eu_rasff"},
    "publicsecurity": {
        "public_security/ofac_sdn.csv": "ofac_sdn",
        "public_security/nz_stolen_vehicles_2013.csv": "nz_stolen_vehicles",
    },
}
"""Real sources that mappings exist for: where they lie in a data folder, and their mappings, by agency."""


def real_sources(data: Path) -> list[Source]:
    """Find the real sources in a folder; raises `FailedPrecondition` SAMPLE_MISSING where there is none at all."""
    found = [
        Source(agency, mapping, data / path)
        for agency, sources in REAL.items()
        for path, mapping in sources.items()
        if (data / path).exists()
    ]
    if not found:
        expected = ", ".join(path for sources in REAL.values() for path in sources)
        raise FailedPrecondition(Reason.SAMPLE_MISSING, f"{data} holds none of the sources known here: {expected}")
    return found


def sample_sources(folder: Path) -> list[Source]:
    """List the sources of a sample zone that was written to `folder`."""
    written: Mapping[str, Any] = sample.manifest(folder)
    tables: Mapping[str, Mapping[str, Any]] = written["tables"]
    return [
        Source(name.partition(".")[0], f"{AUTO}{name}", folder / table["path"], written["source_system"])
        for name, table in tables.items()
    ]


async def load_all(zone: Zone, sources: Sequence[Source], progress: Bar | None = None) -> list[Loaded]:
    """Load sources, agency by agency."""
    loaded: list[Loaded] = []
    for agency in sorted({source.agency for source in sources}):
        department = Department.of(agency, zone.folder)
        async with department.store() as store:
            for source in sources:
                if source.agency == agency:
                    mapping = source.open_mapping(department)
                    loaded.append(await load(department, store, mapping, str(source.path), progress))
    return loaded


async def _empty(zone: Zone) -> set[str]:
    """Bring every store's schema up to date, and tell which agencies' stores hold nothing."""
    empty: set[str] = set()
    for agency in rooms():
        async with Department.of(agency, zone.folder).store() as store:
            if not await store.last_seq():
                empty.add(agency)
    return empty


def fill(zone: Zone, data: Path | None, *, with_sample: bool, quiet: bool) -> None:
    """Fill the stores that are empty, from real sources, the synthetic zone, or both; says what was loaded."""
    empty = asyncio.run(_empty(zone))
    sources = real_sources(data) if data is not None else []
    if with_sample and empty:
        sample.write(zone.sample, sample.Setting())
        sources += sample_sources(zone.sample)
    wanted = [source for source in sources if source.agency in empty]
    if not wanted:
        return
    with Bar(quiet=quiet) as progress:
        loaded = asyncio.run(load_all(zone, wanted, progress))
    if not quiet:
        kind = "synthetic records, marked as such" if data is None else "real sources and synthetic records"
        console().print(summary(totals(loaded), f"Loaded: {kind if with_sample else 'real sources'}"))


def totals(loaded: Sequence[Loaded]) -> list[Loaded]:
    """Add up what became of the sources of one agency that need no mapping of their own: one line instead of many."""
    lines: list[Loaded] = []
    for each in loaded:
        last = lines[-1] if lines else None
        if last and last.agency == each.agency and each.mapping == last.mapping == f"{each.agency}.auto":
            report = last.report.plus(
                loaded=each.report.loaded, unchanged=each.report.unchanged, reasons=each.report.reasons
            )
            lines[-1] = Loaded(each.agency, each.mapping, f"{int(last.source.split()[0]) + 1} files", report)
        elif each.mapping == f"{each.agency}.auto":
            lines.append(Loaded(each.agency, each.mapping, "1 files", each.report))
        else:
            lines.append(each)
    return lines
