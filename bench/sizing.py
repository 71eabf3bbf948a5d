"""From results to docs/operations/sizing.md: what one more question, session, entry and record costs, to multiply."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench import page
from bench.asking.job import QUANTILES
from bench.charts import number
from bench.page import Charts, Regions, Results, table
from bench.results import REPOSITORY

PAGE: Final = REPOSITORY / "docs" / "operations" / "sizing.md"
_DEPARTMENTS: Final = 5
"""Departments that the federated question asks."""
_HEADS: Final = (
    "gateway, µs",
    "each department, µs",
    "gateway, questions/s of a core",
    "department, questions/s of a core",
    "p50 ms",
    "p99 ms",
)


def write(results: Results, target: Path = PAGE) -> None:
    """Write every region of the page of which there are results; leaves the rest as it is."""
    page.write(results, target, REGIONS)


def _cpu(results: Results, _drawn: Charts) -> str:
    found = page.main_part(results)
    if found is None:
        return ""
    heads = ["in flight", "asked", *_HEADS]
    rows: list[list[str]] = []
    for load in found["loads"]:
        if load["side"] not in ("session", "unary"):
            continue
        figures = {name: float(each["median"]) for name, each in load["figures"].items()}
        gateway, department = figures["gateway_us"], figures["departments_us"] / _DEPARTMENTS
        asked = "by session" if load["side"] == "session" else "by unary call"
        shown = (gateway, department, 1e6 / gateway, 1e6 / department, figures["p50_ms"], figures["p99_ms"])
        rows.append([str(load["in_flight"]), asked, *map(number, shown)])
    machine = found["machine"]
    where = f"{machine['cores']} cores of {machine['cpu']}, everything on the one machine, SQLite:\n\n"
    return where + table(heads, rows) + _paced(results, found)


def _paced(results: Results, found: Mapping[str, Any]) -> str:
    """Say what a question costs where questions come one by one, at a steady pace, over so many sessions."""
    paces = [(1, pace) for pace in found.get("paced", ()) if pace["side"] == "session"]
    paces += [(each["sessions"], each["paced"][0]) for each in results.get("sessions", {}).get("open", ())]
    rows: list[list[str]] = []
    for sessions, pace in paces:
        gateway, department = float(pace["gateway_us"]), float(pace["departments_us"]) / _DEPARTMENTS
        shown = (gateway, department, 1e6 / gateway, 1e6 / department)
        waits = (pace["quantiles_ms"][QUANTILES.index(percent)] for percent in (50.0, 99.0))
        rows.append([f"{pace['per_second']:,.0f} a second", f"{sessions:,}", *map(number, (*shown, *waits))])
    return table(["at a steady pace", "over sessions", *_HEADS], rows) if rows else ""


def _memory(results: Results, _drawn: Charts) -> str:
    rows: list[list[str]] = []
    if nodes := results.get("nodes"):
        resident = {each["node"]: float(each["resident_mb"]["median"]) for each in nodes["nodes"]}
        rows += [[f"{name}, just started", number(size)] for name, size in _alike(resident).items()]
    if sessions := results.get("sessions"):
        most = sessions["open"][-1]
        grown = (most["resident_mb"] - most["resident_before_mb"]) / most["sessions"] * 1000
        rows.append([f"gateway, for each 1,000 open sessions (measured with {most['sessions']:,})", number(grown)])
    if records := results.get("records"):
        most = records["sizes"][-1]
        rows.append([f"a department with {most['records']:,} records, under load", number(most["resident_mb"])])
        streamed = records["streamed"]
        grown = max(size - streamed["before_mb"][name] for name, size in streamed["most_mb"].items())
        rows.append([f"more, while {streamed['records']:,} records are streamed", number(grown)])
    return table(["", "MB of memory"], rows) if rows else ""


def _alike(resident: Mapping[str, float]) -> dict[str, float]:
    """Put departments together: they are alike."""
    others = {name: size for name, size in resident.items() if name in ("gateway", "recognition", "supervision")}
    return {"a department": max(size for name, size in resident.items() if name not in others), **others}


def _disk(results: Results, _drawn: Charts) -> str:
    found = results.get("storage")
    if found is None:
        return ""
    gateway = found["entries"]["gateway"]
    others = [sizes for name, sizes in found["entries"].items() if name != "gateway"]
    department = {name: median(sizes[name] for sizes in others) for name in others[0]}
    entries = [
        [f"gateway's log, an entry (a question to {len(others)} departments)", *map(number, gateway.values())],
        ["department's log, an entry (a question, one record given)", *map(number, department.values())],
    ]
    engines = {"body": "its content", "sqlite": "SQLite", "postgresql": "PostgreSQL"}
    records = [[name, *map(number, sizes.values())] for name, sizes in found["records"].items()]
    first = next(iter(found["records"].values()))
    names = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
    written = [f"{names[kind]}{comma}{rest}" for kind, comma, rest in (name.partition(",") for name in gateway)]
    return table(["bytes on disk", *written], entries) + table(
        ["a version of a record, bytes on disk", *(engines[name] for name in first)], records
    )


REGIONS: Final[Regions] = {"cpu": _cpu, "memory": _memory, "disk": _disk}


def tables(results: Results) -> str:
    """Write the tables of results for a terminal."""
    return page.tables(results, REGIONS)
