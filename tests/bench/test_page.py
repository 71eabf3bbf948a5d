"""The page of results: only what is marked is written, from what was measured, and the charts are pictures."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench import charts, page, results
from bench.asking.job import QUANTILES

REPOSITORY = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
SPREAD = {"median": 200.0, "low": 190.0, "high": 210.0}


def _load(side: str, in_flight: int, gateway: float) -> dict[str, Any]:
    figures = dict.fromkeys(("departments_us", "client_us", "per_second", "p50_ms", "p99_ms"), SPREAD)
    gateway_us = {"median": gateway, "low": gateway, "high": gateway}
    return {
        "side": side,
        "label": side.title(),
        "in_flight": in_flight,
        "figures": {"gateway_us": gateway_us, **figures},
        "queries": 10,
        "errors": {},
    }


def _pace(side: str) -> dict[str, Any]:
    waits = [1.0 + place for place in range(len(QUANTILES))]
    us = {"gateway_us": 1.0, "departments_us": 2.0, "client_us": 3.0}
    told: dict[str, Any] = {
        "side": side,
        "label": side.title(),
        "per_second": 200.0,
        "count": 5000,
        "late_ms": 0.5,
        "errors": {},
    }
    return {**told, **us, "quantiles_ms": waits}


def measured() -> dict[str, Any]:
    """What one run could have found."""
    loads = [_load(side, n, us) for n in (1, 16, 64) for side, us in (("session", 50.0), ("bare", 200.0))]
    federated = {
        "subjects": 2000,
        "rounds": 3,
        "transport": "nghttp2",
        "client": "nghttp2",
        "missing": {},
        "lacks": {"session": [], "bare": ["field policy"]},
        "memory_mb": {"session": 140.0, "bare": 70.0},
        "loads": loads,
        "paced": [_pace("session"), _pace("bare")],
    }
    sweep = {"loads": [_load("session", 64, 50.0)]}
    machine = {"machine": {**results.machine(), "cpu": "A <fast> CPU"}}
    found: dict[str, dict[str, Any]] = {
        "federated": federated,
        "peers": {**federated, "missing": {"hive": "not installed\nat all"}},
        "logged": {"loads": [_load(side, 64, 50.0) for side in ("logged", "unlogged")]},
        "fields": {"counts": [{"fields": count, **sweep} for count in (1, 9)]},
        "policies": {"counts": [{"policies": count, "start_s": 3.0, **sweep} for count in (10, 100)]},
    }
    return {name: {**part, **machine} for name, part in found.items()}


def test_only_marked_regions_are_written(tmp_path: Path) -> None:
    target = tmp_path / "performance.md"
    own = "# Mine\n\n<!-- written by hand -->\nstays\n"
    target.write_text(
        f"{own}\n<!-- bench:summary -->\nold\n<!-- /bench -->\n\nmine, too\n"
        "\n<!-- bench:nodes -->\nkept: nothing was measured\n<!-- /bench -->\n"
        "\n<!-- bench:federated -->\n<!-- /bench -->\n"
    )
    page.write(measured(), target)
    text = target.read_text()
    assert text.startswith(own)
    assert "mine, too" in text
    assert "old" not in text
    assert "kept: nothing was measured" in text
    assert "**0.25** times the CPU of a bare grpc.aio gateway" in text
    assert "| 64 | Session | 50.0 |" in text
    assert "200 <sub>190–210</sub>" in text
    assert (tmp_path / "performance" / "gateway.svg").exists()
    page.write(measured(), target)
    assert target.read_text() == text


def test_every_region_can_be_written() -> None:
    """Those that there are results of say something, the others nothing."""
    drawn: dict[str, str] = {}
    written = {name: region(measured(), drawn) for name, region in page.REGIONS.items()}
    assert {name for name, text in written.items() if text} == {
        *("machine", "summary", "federated", "paced", "peers", "logged", "fields", "policies"),
    }
    assert "`hive` was left out: not installed\n" in written["peers"]
    assert all(region({}, {}) == "" for region in page.REGIONS.values())
    for svg in drawn.values():
        assert ET.fromstring(svg).tag == f"{SVG}svg"


def test_the_page_has_every_region() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for name in page.REGIONS:
        assert text.count(f"<!-- bench:{name} -->\n") == 1, name
    assert text.count("<!-- /bench -->") == len(page.REGIONS)


def test_tables_for_a_terminal_have_no_pictures() -> None:
    text = page.tables(measured())
    assert "## federated" in text
    assert ".svg" not in text


def test_bars_are_as_long_as_their_numbers() -> None:
    drawn = ET.fromstring(charts.bars("A & B", "µs", {"one": {"a": 10.0, "b": 20.0}, "two": {"a": 40.0}}, "note"))
    titles = [element.text for element in drawn.iter(f"{SVG}title")]
    assert titles == ["A & B"]
    widths = [float(r.attrib["width"]) for r in drawn.iter(f"{SVG}rect") if r.attrib["height"] == "13"]
    assert widths == [pytest.approx(widths[2] / 4, abs=0.1), pytest.approx(widths[2] / 2, abs=0.1), widths[2]]


def test_lines_rise_where_numbers_do() -> None:
    drawn = ET.fromstring(charts.lines("T", "x", "y", {"up": [(1, 1), (10, 5), (100, 50)]}, log_x=True, log_y=True))
    (line,) = drawn.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)


def test_stacks_are_laid_end_to_end() -> None:
    drawn = ET.fromstring(charts.stacks("T", "µs", {"one": {"a": 10.0, "b": 30.0}}))
    first, second = (r.attrib for r in drawn.iter(f"{SVG}rect") if r.attrib["height"] == "22")
    assert float(first["x"]) + float(first["width"]) == pytest.approx(float(second["x"]), abs=0.2)
    assert float(second["width"]) == pytest.approx(3 * float(first["width"]), rel=0.01)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.012"), (0.5, "0.5"), (3.14159, "3.14"), (31.4, "31.4"), (31415.9, "31,416")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert charts.number(value) == text


def test_parts_are_kept_beside_each_other(tmp_path: Path) -> None:
    file = tmp_path / "some" / "results.json"
    results.keep("a", {"x": 1}, file)
    results.keep("b", {"x": 2}, file)
    results.keep("a", {"x": 3}, file)
    found = json.loads(file.read_text())
    assert (found["a"]["x"], found["b"]["x"]) == (3, 2)
    assert found["a"]["machine"]["cores"] >= 1
