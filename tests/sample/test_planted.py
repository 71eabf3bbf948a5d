"""Indicators find what was planted in a sample zone, all of it, and nothing else."""

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from services.cli.sample import Setting, write
from services.kit import identifiers
from services.kit.identifiers import Verdict
from tests.sample import indicators
from tests.sample.conftest import Sample
from tests.sample.facts import Facts

FINDERS: Mapping[str, tuple[str, str, Callable[[Facts], set[str]]]] = {
    # what is found, compared with the keys planted for an indicator and a record type; "" compares subjects
    "I04": ("I04", "customs.Declaration", indicators.i04),
    "I05": ("I05", "customs.Manifest", indicators.i05),
    "I06": ("I06", "customs.Declaration", indicators.i06),
    "I08": ("I08", "customs.Declaration", indicators.i08),
    "I10 invoices": ("I10", "taxation.ExportRebateClaim", indicators.i10_invoices),
    "I10 bills": ("double-bill", "customs.Declaration", indicators.i10_bills),
    "I11": ("I11", "customs.Declaration", indicators.i11),
    "I12": ("I12", "customs.Declaration", indicators.i12),
    "I13": ("I13", "customs.Declaration", indicators.i13),
    "I14": ("I14", "", indicators.i14),
    "I15": ("I15", "", indicators.i15),
    "I16": ("I16", "", indicators.i16),
    "I17": ("I17", "taxation.ExportRebateClaim", indicators.i17),
    "I18": ("I18", "taxation.ExportRebateClaim", indicators.i18),
    "I19": ("I19", "", indicators.i19),
    "I22": ("I22", "commerce.Enterprise", indicators.i22),
    "I23": ("I23", "commerce.RegistrationChange", indicators.i23),
    "I24": ("I24", "customs.Declaration", indicators.i24),
    "I25": ("I25", "customs.CbecListing", indicators.i25),
    "I26": ("I26", "customs.CbecListing", indicators.i26),
    "I28": ("I28", "quality.InspectionLot", indicators.i28),
    "I29": ("I29", "quality.Certificate", indicators.i29),
    "I30": ("I30", "quality.TraceEvent", indicators.i30),
    "I31": ("I31", "customs.Declaration", indicators.i31),
    "I32": ("I32", "publicsecurity.Vehicle", indicators.i32),
}


@pytest.fixture(scope="session")
def facts(zone: Sample) -> Facts:
    return Facts(zone)


def _found_and_planted(zone: Sample, facts: Facts, name: str) -> tuple[set[str], set[str]]:
    wanted, record_type, find = FINDERS[name]
    oddities = [o for o in zone.manifest["oddities"] if wanted in (o["indicator"], o["name"])]
    if record_type:
        planted = {key for oddity in oddities for key in oddity["records"].get(record_type, ())}
    else:
        planted = {text.removeprefix("cn.uscc:") for oddity in oddities for text in oddity["subjects"]}
    return find(facts), planted


@pytest.mark.parametrize("name", FINDERS)
def test_an_indicator_finds_what_was_planted_for_it_and_nothing_else(zone: Sample, facts: Facts, name: str) -> None:
    found, planted = _found_and_planted(zone, facts, name)
    assert planted
    assert found == planted


@pytest.mark.parametrize(
    "setting",
    [Setting(11, 250, dt.date(2025, 1, 30)), Setting(12, 420, dt.date(2028, 2, 29))],
    ids=lambda s: f"{s.seed}-{s.enterprises}-{s.today}",
)
def test_indicators_find_the_same_in_another_zone(tmp_path: Path, setting: Setting) -> None:
    other = Sample(tmp_path / "zone", write(tmp_path / "zone", setting))
    facts = Facts(other)
    for name in FINDERS:
        found, planted = _found_and_planted(other, facts, name)
        assert found == planted, name


def test_every_planted_indicator_is_looked_for(zone: Sample) -> None:
    assert {o["indicator"] for o in zone.manifest["oddities"]} - {"DATA"} == {name[:3] for name in FINDERS}


def test_one_container_number_fails_its_check_digit(zone: Sample) -> None:
    found = {
        d.declaration_no
        for d in zone.of("customs.Declaration")
        for c in d.containers
        if identifiers.check("iso6346", c.container_no).verdict is not Verdict.OK
    }
    (bad,) = [o for o in zone.manifest["oddities"] if o["name"] == "bad-container"]
    assert found == set(bad["records"]["customs.Declaration"])


def test_one_exporter_deals_with_a_party_on_the_watch_list(zone: Sample) -> None:
    watched = {entry.name for entry in zone.of("publicsecurity.WatchlistEntry")}
    found = {d.declaration_no for d in zone.of("customs.Declaration") if d.overseas_party_name in watched}
    (hit,) = [o for o in zone.manifest["oddities"] if o["name"] == "watch-hit"]
    assert found == set(hit["records"]["customs.Declaration"])
