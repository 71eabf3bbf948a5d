"""Jurisdiction packs: the one that comes with the product, and what is refused."""

import datetime as dt
import re
from pathlib import Path

import pytest

from services.kit import jurisdiction
from services.kit.errors import FailedPrecondition, Reason
from services.kit.jurisdiction import Mark

GOOD = """
id: xx
version: "1"
title: A place
utc_offset: "-03:30"
purposes: {P-A: {title: a, local_title: a}}
bases: {XX-A: {title: a, local_title: a, instrument: a law, mark: design}}
"""


def test_the_pack_of_china() -> None:
    pack = jurisdiction.load("cn")
    assert len(pack.purposes) == 26
    assert all(re.fullmatch(r"P-[A-Z-]+", code) for code in pack.purposes)
    assert all(code.startswith("CN-") for code in pack.bases)
    rules = sorted(rule for basis in pack.bases.values() for rule in basis.rules)
    assert rules == [f"R{n:02}" for n in range(1, 30)]
    # Nothing claims an article before a lawyer has looked it up.
    assert not any(basis.article for basis in pack.bases.values())
    assert {basis.mark for basis in pack.bases.values()} == set(Mark)
    assert pack.purposes["P-AML"].needs_case
    assert not pack.purposes["P-REBATE"].needs_case


def test_today_is_the_places_own_day(tmp_path: Path) -> None:
    path = tmp_path / "xx.yaml"
    path.write_text(GOOD, encoding="utf-8")
    pack = jurisdiction.read(path)
    assert pack.today(dt.datetime(2026, 1, 1, 3, 29, tzinfo=dt.UTC)) == dt.date(2025, 12, 31)
    assert pack.today(dt.datetime(2026, 1, 1, 3, 30, tzinfo=dt.UTC)) == dt.date(2026, 1, 1)


def test_an_unknown_pack_names_the_known_ones() -> None:
    with pytest.raises(FailedPrecondition, match="cn") as caught:
        jurisdiction.load("../cn")
    assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("P-A", "p-a", "capitals"),
        ("mark: design", "mark: certain", "mark"),
        ("title: A place", "titel: A place", "titel"),
        ('"-03:30"', '"3 hours"', "utc_offset"),
        ("purposes: {P-A: {title: a, local_title: a}}", "purposes: {}", "purposes"),
        ("id: xx", "id: xx\nid: yy", "stands twice"),
        ("id: xx", "id: [", "xx.yaml"),
    ],
)
def test_packs_that_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "xx.yaml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(FailedPrecondition, match=says):
        jurisdiction.read(path)
    with pytest.raises(FailedPrecondition):
        jurisdiction.read(tmp_path / "none.yaml")
