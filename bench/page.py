"""From results to docs/performance.md: tables and charts in marked regions, and everything around them left alone.

A region begins with `<!-- bench:NAME -->` and ends with `<!-- /bench -->`; what stands between is written anew.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench import charts
from bench.asking.job import QUANTILES
from bench.charts import number
from bench.results import REPOSITORY

Results = Mapping[str, Any]
Charts = dict[str, str]
"""SVG by file name."""
Regions = Mapping[str, Callable[[Results, Charts], str]]
"""What writes the regions of a page, by name."""

PAGE: Final = REPOSITORY / "docs" / "performance.md"
_REGION: Final = re.compile(r"(<!-- bench:([a-z]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
_FIGURES: Final = {
    "gateway µs": "gateway_us",
    "departments µs": "departments_us",
    "client µs": "client_us",
    "queries/s": "per_second",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
}
_SHOWN: Final = {50.0: "p50", 90.0: "p90", 99.0: "p99", 99.9: "p99.9", 100.0: "worst"}


def write(results: Results, page: Path = PAGE, regions: Regions | None = None) -> None:
    """Write every region of the page of which there are results, and the charts they show; leaves the rest as it is."""
    drawn: Charts = {}

    def region(found: re.Match[str]) -> str:
        made = (regions or REGIONS)[found[2]](results, drawn)
        return f"{found[1]}{made}{found[3]}" if made else found[0]

    text = _REGION.sub(region, page.read_text(encoding="utf-8"))
    folder = page.with_suffix("")
    for name, svg in drawn.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(svg, encoding="utf-8")
    page.write_text(text, encoding="utf-8")


def tables(results: Results, regions: Regions | None = None) -> str:
    """Write the tables of results for a terminal."""
    made = {name: region(results, {}) for name, region in (regions or REGIONS).items()}
    parts = [f"\n## {name}\n\n{text}" for name, text in made.items() if text]
    return re.sub(r"^!\[.*\n\n?", "", "".join(parts), flags=re.MULTILINE)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table: the first column is text, the others are numbers."""
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def _spread(found: Mapping[str, float]) -> str:
    """Write a median with the least and the most there was."""
    median, low, high = (number(found[name]) for name in ("median", "low", "high"))
    return median if low == high else f"{median} <sub>{low}–{high}</sub>"


def _image(drawn: Charts, name: str, alternative: str, svg: str) -> str:
    drawn[f"{name}.svg"] = svg
    return f"![{alternative}](performance/{name}.svg)\n\n"


def main_part(results: Results) -> Mapping[str, Any] | None:
    """Get the run that compares most."""
    found: Mapping[str, Any] | None = results.get("peers") or results.get("federated")
    return found


def _note(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    return f"{machine['cores']} cores, {machine['cpu']}; medians of {found.get('rounds', 3)} interleaved rounds"


def _machine(results: Results, _drawn: Charts) -> str:
    found = main_part(results)
    if found is None:
        return ""
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Taken on {machine['cores']} cores of {machine['cpu']} with {machine['memory_gib']} GiB, {machine['system']}: "
        f"{versions}. Nodes spoke `{found['transport']}`, the load generator `{found['client']}`. "
        f"{found['subjects']:,} enterprises, one record of one type at each of five departments; every answer of every "
        "side was compared field by field once, and one of 64 during the rounds.\n"
    )


def _median(found: Mapping[str, Any], side: str, in_flight: int, figure: str) -> float | None:
    for load in found["loads"]:
        if (load["side"], load["in_flight"]) == (side, in_flight):
            return float(load["figures"][figure]["median"])
    return None


_RATIOS: Final = (
    (
        "bare",
        "gateway_us",
        "the CPU of a bare grpc.aio gateway that forwards the same five calls and does nothing else",
    ),
    ("nginx", "gateway_us", "the CPU of nginx passing the same six calls on (`grpc_pass`, mutual TLS on both sides)"),
    ("grpcjs", "gateway_us", "the CPU of a fan-out gateway on Node and grpc-js"),
    ("hive", "gateway_us", "the CPU of Hive Gateway with its JIT"),
    ("fdw", "gateway_us", "the CPU of PostgreSQL asking five others through postgres_fdw"),
    ("bare", "departments_us", "the CPU of five bare grpc.aio departments, ours against theirs"),
)


def _summary(results: Results, _drawn: Charts) -> str:
    """Say the ratios; above 1 ours costs more."""
    found = main_part(results)
    if found is None:
        return ""
    lines: list[str] = []
    for side, figure, what in _RATIOS:
        pairs = [(_median(found, "session", n, figure), _median(found, side, n, figure)) for n in (64, 16, 1)]
        if all(a and b for a, b in pairs):
            first, *others = (f"{(a or 0) / (b or 1):.2f}" for a, b in pairs)
            lines.append(f"- **{first}** times {what} ({' and '.join(others)} at 16 and 1 in flight)\n")
    if not lines:
        return ""
    return "By session, 64 questions in flight, our gateway and departments take\n\n" + "".join(lines)


def _federated(results: Results, drawn: Charts) -> str:
    found = main_part(results)
    if found is None:
        return ""
    loads = found["loads"]
    heads = ["in flight", "", *_FIGURES, "gateway / bare"]
    rows: list[list[str]] = []
    for load in loads:
        bare = _median(found, "bare", load["in_flight"], "gateway_us")
        ratio = f"{load['figures']['gateway_us']['median'] / bare:.2f}" if bare else ""
        figures = [_spread(load["figures"][name]) for name in _FIGURES.values()]
        rows.append([str(load["in_flight"]), load["label"], *figures, ratio])
    gateway = _by_side(loads, "gateway_us")
    most = max(load["in_flight"] for load in loads)
    whole = {
        load["label"]: {what: load["figures"][f"{what}_us"]["median"] for what in ("gateway", "departments", "client")}
        for load in loads
        # Behind nginx there is a gateway that is not counted: all of it would be less than all of it.
        if load["in_flight"] == most and load["side"] != "nginx"
    }
    bars = charts.bars("Gateway: CPU per federated query", "µs", gateway, _note(found))
    stacks = charts.stacks(f"All of it: CPU per federated query, {most} in flight", "µs", whole, _note(found))
    errors = [f"{load['label']}, {load['in_flight']} in flight: {load['errors']}" for load in loads if load["errors"]]
    return (
        _image(drawn, "gateway", "Gateway CPU per federated query, by side and load", bars)
        + table(heads, rows)
        + ("".join(f"Errors: {line}\n" for line in errors) + "\n" if errors else "")
        + _image(drawn, "whole", "CPU of gateway, departments and client per federated query, by side", stacks)
    )


def _by_side(loads: Sequence[Mapping[str, Any]], figure: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for load in loads:
        value = float(load["figures"][figure]["median"])
        found.setdefault(load["label"], {})[f"{load['in_flight']} in flight"] = value
    return found


def _paced(results: Results, drawn: Charts) -> str:
    found = main_part(results)
    if found is None or not found["paced"]:
        return ""
    paces = found["paced"]
    rows: list[list[str]] = []
    series: dict[str, list[tuple[float, float]]] = {}
    for pace in paces:
        waits = [pace["quantiles_ms"][QUANTILES.index(percent)] for percent in _SHOWN]
        us = [number(pace[name]) for name in ("gateway_us", "departments_us")]
        rows.append([pace["label"], *map(number, waits), *us, f"{pace['count']:,}", number(pace["late_ms"])])
        series[pace["label"]] = list(enumerate(waits))
    heads = ["", *(f"{name} ms" for name in _SHOWN.values()), "gateway µs", "departments µs", "questions", "late ms"]
    ticks = {float(place): name for place, name in enumerate(_SHOWN.values())}
    rate = paces[0]["per_second"]
    title = f"Waits at {rate:.0f} queries a second"
    chart = charts.lines(title, "percentile", "ms", series, x_ticks=ticks, log_y=True, note=_machine_note(found))
    return _image(drawn, "paced", f"{title}, by side and percentile", chart) + table(heads, rows)


def _machine_note(found: Mapping[str, Any]) -> str:
    return f"{found['machine']['cores']} cores, {found['machine']['cpu']}"


def _peers(results: Results, _drawn: Charts) -> str:
    found = results.get("peers")
    if found is None:
        return ""
    labels = {load["side"]: load["label"] for load in found["loads"]}
    peers: dict[str, list[str]] = {side: lacks for side, lacks in found["lacks"].items() if lacks}
    first = next(iter(peers.values()), list[str]())
    common = [lack for lack in first if all(lack in lacks for lacks in peers.values())]
    rows = [
        [labels[side], number(found["memory_mb"][side]), "; ".join(lack for lack in lacks if lack not in common) or "—"]
        for side, lacks in found["lacks"].items()
    ]
    missing = [f"`{name}` was left out: {why.splitlines()[0]}\n" for name, why in found["missing"].items()]
    said = f"None of them has: {'; '.join(common)}.\n\n" if common else ""
    return (
        said
        + table(["", "gateway, MB of memory", "and does not"], rows).replace("---: |\n", "--- |\n")
        + "".join(missing)
        + ("\n" if missing else "")
    )


def _logged(results: Results, _drawn: Charts) -> str:
    found = results.get("logged")
    if found is None:
        return ""
    rows: list[list[str]] = []
    for in_flight in sorted({load["in_flight"] for load in found["loads"]}):
        pair = {load["side"]: load["figures"] for load in found["loads"] if load["in_flight"] == in_flight}
        ours, theirs = pair["logged"], pair["unlogged"]
        ratio = ours["per_second"]["median"] / theirs["per_second"]["median"]
        names = ("per_second", "gateway_us", "departments_us", "p50_ms")
        both = [_spread(side[name]) for name in names for side in (ours, theirs)]
        rows.append([str(in_flight), f"**{ratio:.2f}**", *both])
    heads = ["queries/s", "gateway µs", "departments µs", "p50 ms"]
    doubled = [f"{head}, {which}" for head in heads for which in ("logged", "unlogged")]
    return table(["in flight", "rate, logged / unlogged", *doubled], rows)


def _policy(results: Results, _drawn: Charts) -> str:
    found = results.get("policy")
    if found is None:
        return ""
    us = found["us"]
    decision, parse = us["one decision of Cedar's"]["median"], us["parse and write"]["median"]
    beside = {
        "look-up of what was decided, each time a prepared question is asked": ("one decision of Cedar's", decision),
        "look-up of a mask, by caller, context and type": ("one decision of Cedar's", decision),
        "cut at the department": ("parse and write", parse),
        "cut at the department, with its digest": ("parse and write", parse),
        "cut again at the gateway": ("parse and write", parse),
    }
    rows = [
        [name, _spread(us[name]), other, number(value), f"**{us[name]['median'] / value:.2g}**"]
        for name, (other, value) in beside.items()
    ]
    return table(["", "µs", "beside", "µs", "ratio"], rows)


def _records(results: Results, drawn: Charts) -> str:
    found = results.get("records")
    if found is None:
        return ""
    rows: list[list[str]] = []
    series: dict[str, list[tuple[float, float]]] = {}
    for size in found["sizes"]:
        one, many = (load["figures"] for load in size["loads"])
        us, gateway = many["departments_us"], many["gateway_us"]
        megabytes = [number(size["file_mb"]), number(size["resident_mb"])]
        rows.append([f"{size['records']:,}", *map(_spread, (us, gateway, one["p50_ms"], many["p50_ms"])), *megabytes])
        series.setdefault("department", []).append((size["records"], us["median"]))
        series.setdefault("gateway", []).append((size["records"], gateway["median"]))
    heads = [
        "records",
        "department µs",
        "gateway µs",
        "p50 ms, alone",
        "p50 ms, 64 in flight",
        "file MB",
        "resident MB",
    ]
    title = "One question by subject, over the size of the department"
    chart = charts.lines(title, "records", "µs", series, log_x=True, note=_note(found))
    streamed = found["streamed"]
    nodes = [
        [name, *(number(streamed[when][name]) for when in ("before_mb", "first_quarter_mb", "most_mb"))]
        for name in streamed["before_mb"]
    ]
    about = f"Resident MB while {streamed['records']:,} records of one enterprise are streamed, page after page:\n\n"
    return (
        _image(drawn, "records", title, chart)
        + table(heads, rows)
        + about
        + table(["", "before", "in the first quarter", "at most"], nodes)
    )


def _sessions(results: Results, drawn: Charts) -> str:
    found = results.get("sessions")
    if found is None:
        return ""
    rows: list[list[str]] = []
    series: dict[str, list[tuple[float, float]]] = {}
    for each in found["open"]:
        load, pace = each["loads"][0], each["paced"][0]
        p50, p99 = (pace["quantiles_ms"][QUANTILES.index(percent)] for percent in (50.0, 99.0))
        errors = sum(pace["errors"].values()) + sum(load["errors"].values())
        grown = (each["resident_mb"] - each["resident_before_mb"]) / each["sessions"] * 1e3
        # Of few sessions it says nothing.
        apiece = f"{grown:,.0f}" if each["sessions"] >= 100 else "—"
        figures = [_spread(load["figures"]["gateway_us"]), number(p50), number(p99), str(errors)]
        rows.append([f"{each['sessions']:,}", *figures, number(each["resident_mb"]), apiece])
        series.setdefault("gateway", []).append((each["sessions"], load["figures"]["gateway_us"]["median"]))
    rate = found["open"][0]["paced"][0]["per_second"]
    heads = ["sessions", "gateway µs, 64 in flight", f"p50 ms at {rate:,.0f}/s", f"p99 ms at {rate:,.0f}/s", "errors"]
    heads += ["gateway, resident MB", "kB a session"]
    chart = charts.lines(
        "Gateway CPU per query, over sessions", "open sessions", "µs", series, log_x=True, note=_note(found)
    )
    return _image(drawn, "sessions", "Gateway CPU per query, over open sessions", chart) + table(heads, rows)


def _sweep(part: str, what: str, title: str, extra: str = "") -> Callable[[Results, Charts], str]:
    def region(results: Results, drawn: Charts) -> str:
        found = results.get(part)
        if found is None:
            return ""
        rows: list[list[str]] = []
        series: dict[str, list[tuple[float, float]]] = {"gateway": [], "departments, together": []}
        for each in found["counts"]:
            figures = each["loads"][0]["figures"]
            gateway, departments = figures["gateway_us"], figures["departments_us"]
            more = [number(each[extra])] if extra else []
            rows.append([f"{each[what]:,}", _spread(gateway), _spread(departments), _spread(figures["p50_ms"]), *more])
            series["gateway"].append((each[what], gateway["median"]))
            series["departments, together"].append((each[what], departments["median"]))
        chart = charts.lines(title, what, "µs", series, log_x=True, note=_note(found))
        heads = [
            what,
            "gateway µs",
            "departments µs, together",
            "p50 ms",
            *([extra.replace("_", ", ")] if extra else []),
        ]
        return _image(drawn, part, title, chart) + table(heads, rows)

    return region


def _nodes(results: Results, _drawn: Charts) -> str:
    found = results.get("nodes")
    if found is None:
        return ""
    rows = [[each["node"], _spread(each["start_s"]), _spread(each["resident_mb"])] for each in found["nodes"]]
    return table(["node", "start to first healthy answer, s", "resident MB"], rows)


def _others(results: Results, _drawn: Charts) -> str:
    rows: list[list[str]] = []
    load = results.get("load", {})
    if "ratio" in load:
        rows.append(
            [f"load {load['rows']:,} rows of a register", "a bare insert of the same file", number(load["ratio"])]
        )
    rows += [
        [f"replay {log['name']}", "a bare insert of the rows that come of it", number(log["ratio"])]
        for log in results.get("replay", {}).get("logs", ())
    ]
    if proofs := results.get("proofs"):
        what = f"verify a log of {proofs['entries']:,} entries whole"
        rows.append([what, "reading and hashing the same entries", number(proofs["ratio"])])
    made = table(["", "beside", "time, ratio"], rows) if rows else ""
    if proofs:
        made += table(
            ["proofs of that log", "ms"],
            [
                ["inclusion, median", number(proofs["inclusion_ms"])],
                ["inclusion, worst", number(proofs["inclusion_worst_ms"])],
                ["consistency, median", number(proofs["consistency_ms"])],
                ["checking an inclusion, median", number(proofs["check_ms"])],
            ],
        )
    if lag := results.get("revocation"):
        heads = [f"{lag['count']} revocations under load", "ms"]
        made += table(heads, [[name, number(lag[f"{name}_ms"])] for name in ("p50", "p99", "worst")])
    return made


REGIONS: Final[Regions] = {
    "machine": _machine,
    "summary": _summary,
    "federated": _federated,
    "paced": _paced,
    "peers": _peers,
    "logged": _logged,
    "policy": _policy,
    "records": _records,
    "sessions": _sessions,
    "departments": _sweep("departments", "departments", "CPU per query, over the number of departments asked"),
    "fields": _sweep("fields", "fields", "CPU per query, over the fields of one record"),
    "policies": _sweep("policies", "policies", "CPU per query, over the policies of each agency", "start_s"),
    "nodes": _nodes,
    "others": _others,
}
