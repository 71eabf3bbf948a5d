"""The handful of subjects that the demo tells its story with, and where in the zone to find them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from services.cli.sample.firms import Firm
from services.cli.sample.publicsecurity import person_token
from services.cli.sample.zone import Zone
from services.kit.errors import FailedPrecondition, Reason

MANIFEST = "manifest.json"
_ROLES = {
    "exporter": "exporter",
    "barred": "barred-listed",
    "food_importer": "failed-lots",
    "dg_trader": "dg-permitted",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """One firm of the story."""

    uscc: str
    customs_code: str
    name: str
    person_token: str
    """Token of its legal representative."""
    keys: Mapping[str, tuple[str, ...]]
    """Keys of records worth looking at, by record type."""

    @property
    def text(self) -> str:
        """The subject as a query takes it."""
        return f"cn.uscc:{self.uscc}"

    def key(self, record_type: str) -> str:
        """Get the first record worth looking at of a type."""
        return self.keys[record_type][0]


@dataclass(frozen=True, slots=True)
class Story:
    """Who the story is about."""

    exporter: Subject
    """In order, and known to all five agencies."""
    barred: Subject
    """Listed for serious unlawfulness, and still declaring."""
    food_importer: Subject
    """Two of its lots failed."""
    dg_trader: Subject
    """Has a permit for its dangerous goods."""


def document(zone: Zone) -> dict[str, object]:
    """Write the story for the manifest."""
    return {name: _subject(zone, zone.firms.part(part)) for name, part in _ROLES.items()}


def _subject(zone: Zone, firm: Firm) -> dict[str, object]:
    shipments = zone.of(firm.part)
    last = max((s for s in shipments if s.times.status == "CLEARED"), key=lambda s: s.times.declared)
    keys: dict[str, list[str]] = {"customs.Declaration": [last.number], "commerce.Enterprise": [firm.uscc]}
    keys["taxation.VatFiling"] = [f"{firm.uscc}~{zone.setting.periods[-1]}"]
    if firm.customs_code:
        keys["customs.Operator"] = [firm.customs_code]
    for oddity in zone.ledger:
        if oddity.name == firm.part:
            keys |= {record: list(found) for record, found in oddity.records.items()}
    failed = [s.number for s in shipments if s.times.verdict == "FAIL"]
    if failed:
        keys["customs.Declaration"] = failed
    un_no = last.lines[0].good.un_no
    if un_no:
        keys["publicsecurity.HazchemPermit"] = [f"SHP-{firm.index:05d}-{un_no}"]
    return {
        "uscc": firm.uscc,
        "customs_code": firm.customs_code,
        "name": firm.name,
        "person_token": person_token(zone, firm),
        "keys": dict(sorted(keys.items())),
    }


def manifest(out: Path) -> dict[str, Any]:
    """Read the manifest of a sample zone; raises `FailedPrecondition` SAMPLE_MISSING where there is none."""
    try:
        found: object = json.loads((out / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or cast("dict[str, Any]", found).get("synthetic") is not True:
        raise FailedPrecondition(Reason.SAMPLE_MISSING, f"{out} holds no sample zone; make one with `hutong sample`")
    return cast("dict[str, Any]", found)


def story(out: Path) -> Story:
    """Read who the story is about from a sample zone; raises like `manifest`."""
    found: Mapping[str, Mapping[str, Any]] = manifest(out)["story"]
    return Story(**{name: _read(found[name]) for name in _ROLES})


def _read(found: Mapping[str, Any]) -> Subject:
    keys = {record: tuple(keys) for record, keys in found["keys"].items()}
    return Subject(found["uscc"], found["customs_code"], found["name"], found["person_token"], keys)
