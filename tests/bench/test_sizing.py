"""The page on sizes: its tables are written from results, and its arithmetic is right and uses what they say."""

import re
from pathlib import Path

import pytest

from bench import results, sizing
from bench.asking.job import QUANTILES

TEXT = sizing.PAGE.read_text(encoding="utf-8")
_REGION = re.compile(r"<!-- bench:\w+ -->\n(.*?)<!-- /bench -->", re.DOTALL)
_PRODUCT = re.compile(r"([\d,]+)( million)? × ([\d,]+) (µs|B) = ([\d.]+)(?: (MB|GB))?")
_UNITS = {"": 1e6, "MB": 1e6, "GB": 1e9}
"""A product of microseconds is in seconds a second, that is in cores."""


def _plain(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_page_has_every_region_and_each_says_something() -> None:
    for name in sizing.REGIONS:
        assert TEXT.count(f"<!-- bench:{name} -->\n") == 1, name
    tables = _REGION.findall(TEXT)
    assert len(tables) == len(sizing.REGIONS)
    assert all(table.strip() for table in tables)


def test_the_arithmetic_is_right_and_of_what_was_measured() -> None:
    measured = set(re.findall(r"[\d,.]+", "".join(_REGION.findall(TEXT))))
    products = _PRODUCT.findall(TEXT)
    assert len(products) >= 15
    for count, million, each, kind, said, unit in products:
        assert each in measured, f"{each} {kind} is in no table"
        found = _plain(count) * (1e6 if million else 1) * _plain(each) / _UNITS[unit]
        last_place = 10.0 ** -len(said.partition(".")[2])
        assert found == pytest.approx(float(said), abs=last_place / 2 + 1e-9), f"{count}{million} × {each} {kind}"


def test_tables_are_written_of_results(tmp_path: Path) -> None:
    """And stay where there are none."""
    sides = {"gateway_us": 200.0, "departments_us": 500.0, "p50_ms": 5.0, "p99_ms": 9.0}
    figures = {name: {"median": value} for name, value in sides.items()}
    sizes = {"sqlite, 1 in flight": 800.0, "sqlite, 64 in flight": 700.0}
    waits = [float(place) for place in range(len(QUANTILES))]
    pace = {"per_second": 1000.0, "gateway_us": 400.0, "departments_us": 1000.0, "quantiles_ms": waits}
    found = {
        "sessions": {"open": [{"sessions": 1000, "resident_before_mb": 140.0, "resident_mb": 230.0, "paced": [pace]}]},
        "peers": {
            "loads": [{"side": "session", "in_flight": 16, "figures": figures}],
            "machine": results.machine(),
        },
        "storage": {
            "entries": {"gateway": sizes, "customs": sizes},
            "records": {"customs.Operator": {"body": 96.0, "sqlite": 580.0}},
        },
    }
    page = tmp_path / "sizing.md"
    regions = (f"<!-- bench:{name} -->\nkept\n<!-- /bench -->\n" for name in sizing.REGIONS)
    page.write_text("# Mine\n" + "".join(regions))
    sizing.write(found, page)
    text = page.read_text()
    assert "| 16 | by session | 200 | 100 | 5,000 | 10,000 | 5.00 | 9.00 |" in text
    assert "| 1,000 a second | 1,000 | 400 | 200 | 2,500 | 5,000 |" in text
    assert "open sessions (measured with 1,000) | 90.0 |" in text
    assert "| department's log, an entry (a question, one record given) | 800 | 700 |" in text
    assert "| customs.Operator | 96.0 | 580 |" in text
    assert "kept" not in text
    sizing.write({}, page)
    assert page.read_text() == text
