"""The real sources through `hutong load` into stores: counts checked by hand; a second load changes nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.cli.filling import REAL
from services.cli.zone import Zone
from tests.cli.conftest import run

COUNTS: Mapping[str, tuple[int, int, Mapping[str, int]]] = {
    "cn_registry_2019": (6099, 6098, {"VALUE_INVALID": 1}),
    "cn_registry_2018": (2000, 2000, {}),
    "wco_dms": (389, 121, {"NOT_A_DECLARATION": 265, "MALFORMED_XML": 1, "KEY_MISSING": 1}),
    "mx_sat_69b": (4505, 4505, {}),
    "eu_rasff": (1807, 1807, {}),
    "ofac_sdn": (7379, 7379, {}),
    "nz_stolen_vehicles": (3635, 3620, {"DUPLICATE_KEY": 13}),
}
"""Rows read, records made of them, and what went to quarantine; the rest are rows that say the same as one before."""


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    return Zone.prepare(tmp_path_factory.mktemp("real") / "zone")


SOURCES = [(agency, path, mapping) for agency, sources in REAL.items() for path, mapping in sources.items()]


def load(zone: Zone, agency: str, mapping: str, source: Path) -> dict[str, Any]:
    result = run("load", agency, "--mapping", mapping, source, "--dir", zone.folder, "--json")
    assert result.exit_code == 0, result.stdout
    counts: dict[str, Any] = json.loads(result.stdout)
    assert counts["read"] == counts["loaded"] + counts["unchanged"] + counts["quarantined"]
    assert sum(counts["reasons"].values()) == counts["quarantined"]
    return counts


@pytest.mark.parametrize(("agency", "path", "mapping"), SOURCES, ids=[mapping for _, _, mapping in SOURCES])
def test_counts(zone: Zone, shared_data: Path, agency: str, path: str, mapping: str) -> None:
    read, loaded, reasons = COUNTS[mapping]
    quarantined = sum(reasons.values())
    first = load(zone, agency, mapping, shared_data / path)
    assert (first["read"], first["loaded"], first["reasons"]) == (read, loaded, reasons)
    assert (first["unchanged"], first["quarantined"]) == (read - loaded - quarantined, quarantined)
    again = load(zone, agency, mapping, shared_data / path)
    assert (again["read"], again["loaded"], again["reasons"]) == (read, 0, reasons)
    assert (again["unchanged"], again["quarantined"]) == (read - quarantined, quarantined)


def test_the_shifted_row_is_in_quarantine_with_its_line_and_bytes(zone: Zone, shared_data: Path) -> None:
    source = shared_data / "commerce" / "cn_enterprise_2019_fujian.csv"
    load(zone, "commerce", "cn_registry_2019", source)
    listed = run("quarantine", "list", "commerce", "--dir", zone.folder, "--json").stdout
    (entry,) = json.loads(listed)["entries"]
    assert (entry["position"], entry["reason"]) == ("4397", "VALUE_INVALID")
    assert bytes.fromhex(entry["original_hex"]) == source.read_bytes().splitlines(keepends=True)[4396]
