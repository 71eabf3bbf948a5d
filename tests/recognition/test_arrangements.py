"""Arrangements: files that are checked, and who accepts what under them."""

import contextlib
import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import FailedPrecondition, Reason
from services.kit.jurisdiction import pack
from services.recognition import arrangement_files, claims
from services.recognition.agencies import ALL, Agencies
from services.recognition.arrangements import Arrangement, Arrangements
from services.recognition.events import Assurance
from services.recognition.procedures import Procedures
from tests.recognition.desk import DEMO, EXPRESS, START
from tests.recognition.register import procedures_of

AGENCIES = Agencies.load()
SHIPPED = Procedures.load()

GOOD: dict[str, Any] = {
    "code": "EXAMPLE",
    "version": "1.0.0",
    "title": "Example",
    "local_title": "示例",
    "recognisers": ["customs"],
    "fact": "registered",
    "issuers": ["commerce"],
    "assurance": "SUBSTANTIVE",
    "effective_from": "2024-01-01T00:00:00+08:00",
    "basis": "CN-ADMIN-LICENSING",
    "mark": "design",
}


def write(folder: Path, name: str = "example@1.0.0.yaml", **changed: Any) -> Path:
    folder.mkdir(exist_ok=True)
    said = {k: v for k, v in (GOOD | changed).items() if v is not None}
    (folder / name).write_text(yaml.safe_dump(said, allow_unicode=True), encoding="utf-8")
    return folder


def load(folder: Path | None = None, procedures: Procedures = SHIPPED) -> Arrangements:
    return Arrangements.load(folder, agencies=AGENCIES, procedures=procedures, jurisdiction=pack.load("cn"))


def refusal(folder: Path) -> str:
    with pytest.raises(FailedPrecondition) as caught:
        load(folder)
    assert caught.value.reason is Reason.ARRANGEMENT_INVALID
    return caught.value.message


# Files.


def test_what_is_shipped_passes_every_check() -> None:
    shipped = {a.code: a for a in load()}
    assert len(shipped) == len(list(arrangement_files.SHIPPED.glob("*.yaml")))
    person = shipped["PERSON-VERIFIED"]
    assert (person.assurance, person.max_age, person.issuers) == (Assurance.SUBSTANTIVE, "P90D", ("publicsecurity",))
    assert shipped["TAX-STANDING"].condition == claims.read("arrears = false")
    SHIPPED.check_demands(load())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"recognisers": ["custom"]}, "there is no agency 'custom'; did you mean 'customs'?"),
        ({"issuers": ["all"]}, "there is no agency 'all'"),
        ({"recognisers": []}, "recognisers"),
        ({"fact": "registred"}, "no stage of a procedure proves 'registred'; did you mean 'registered'?"),
        ({"issuers": ["taxation"]}, "taxation proves registered in no stage"),
        ({"assurance": "THOROUGH"}, "assurance"),
        ({"assurance": None}, "assurance"),
        ({"max_age": "90 days"}, "max_age"),
        ({"max_age": "P0D"}, "max_age"),
        ({"condition": "level >"}, "condition"),
        ({"condition": "level > 1 AND a = 2 OR b = 3"}, "parentheses"),
        ({"condition": "exec('x') = 1"}, "condition"),
        ({"stages": {"FTZ": ["E4"]}}, "there is no procedure 'FTZ'"),
        ({"stages": {"FTZ-EST": ["E99"]}}, "FTZ-EST has no stage 'E99'"),
        ({"stages": {"FTZ-EST": ["E5b"]}}, "E5b is taxation's"),
        ({"stages": {"FOOD-IMP": ["F8"]}}, "F8 neither proves nor requires registered"),
        ({"valid_until": "2023-01-01T00:00:00+08:00"}, "it ends before it begins"),
        ({"effective_from": "2024-01-01T00:00:00"}, "effective_from"),
        ({"basis": "CN-ADMIN"}, "there is no legal basis 'CN-ADMIN'"),
        ({"mark": "heard"}, "mark"),
        ({"version": "1.0"}, "version"),
        ({"code": "example"}, "code"),
        ({"secret": 1}, "secret"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    assert told in refusal(write(tmp_path / "own", **changed))


def test_every_mistake_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "own", fact="registred", basis="NOWHERE")
    write(folder, "other@1.0.0.yaml")
    (folder / "third@1.0.0.yaml").write_text("code: [", encoding="utf-8")
    (folder / "fourth@1.0.0.yaml").write_text("code: A\ncode: B\n", encoding="utf-8")
    (folder / "fifth@1.0.0.yaml").write_bytes(b"\xff\xfe")
    (folder / "sixth@1.0.0.yaml").write_text("#" * (arrangement_files.MAX_TEXT + 1), encoding="utf-8")
    told = refusal(folder)
    for part in (
        "registred",
        "NOWHERE",
        "must be named example@1.0.0.yaml",
        "third",
        "stands twice",
        "fifth",
        "larger",
    ):
        assert part in told


def test_a_fact_from_outside_cases_is_said_to_be_so(tmp_path: Path) -> None:
    found = load(write(tmp_path / "own", fact="halal_certified", issuers=["laboratory"], outside=True))
    assert [a.label for a in found.accepting("customs", "halal_certified", START)] == ["EXAMPLE@1.0.0"]


def test_a_file_of_a_zone_takes_the_place_of_a_shipped_one(tmp_path: Path) -> None:
    folder = write(tmp_path / "own", "registered@1.0.0.yaml", code="REGISTERED", recognisers=["customs"], max_age="P1D")
    (found,) = load(folder).accepting("customs", "registered", START)
    assert (found.label, found.max_age) == ("REGISTERED@1.0.0", "P1D")


# Who accepts what.


def labels(found: Arrangements, recogniser: str, fact: str, at: dt.datetime = START, **where: str) -> list[str]:
    return [a.label for a in found.accepting(recogniser, fact, at, **where)]


def test_what_a_procedure_says_counts_without_a_file() -> None:
    found = load()
    assert labels(found, "commerce", "importer_filed") == ["FOOD-IMP@1.0.0"]
    assert labels(found, "laboratory", "registered") == ["FTZ-EST@1.0.0"]
    assert labels(found, "laboratory", "importer_filed") == []
    assert labels(found, "customs", "nothing_of_the_kind") == []
    assert labels(found, "customs", "importer_filed", dt.datetime(2020, 1, 1, tzinfo=dt.UTC)) == []


def test_a_file_wins_over_a_procedure_also_when_it_has_ended(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "own",
        recognisers=["bank"],
        fact="tax_registered",
        issuers=["taxation"],
        valid_until="2026-10-01T00:00:00+08:00",
    )
    found = load(folder)
    end = dt.datetime(2026, 9, 30, 16, tzinfo=dt.UTC)
    assert labels(found, "bank", "tax_registered", end - dt.timedelta(seconds=1)) == ["EXAMPLE@1.0.0"]
    assert labels(found, "bank", "tax_registered", end) == []
    assert labels(found, "customs", "tax_registered", end) == ["FTZ-EST@1.0.0"]
    before = dt.datetime(2023, 12, 31, 15, 59, tzinfo=dt.UTC)
    assert labels(found, "bank", "tax_registered", before) == []


def test_a_newer_version_takes_the_place_of_an_older_one_on_its_day(tmp_path: Path) -> None:
    folder = write(tmp_path / "own", fact="tax_registered", issuers=["taxation"])
    write(
        folder,
        "example@2.0.0.yaml",
        version="2.0.0",
        fact="tax_registered",
        issuers=["taxation"],
        effective_from="2026-10-01T00:00:00+08:00",
        max_age="P30D",
    )
    found, day = load(folder), dt.datetime(2026, 9, 30, 16, tzinfo=dt.UTC)
    assert labels(found, "customs", "tax_registered", day - dt.timedelta(microseconds=1)) == ["EXAMPLE@1.0.0"]
    assert labels(found, "customs", "tax_registered", day) == ["EXAMPLE@2.0.0"]


def test_one_for_certain_stages_leaves_others_as_the_procedure_says(tmp_path: Path) -> None:
    folder = write(tmp_path / "own", recognisers=["laboratory", "quality"], stages={"FOOD-IMP": ["F1"]})
    (folder / "registered@1.0.0.yaml").write_text(
        (arrangement_files.SHIPPED / "registered@1.0.0.yaml").read_text(encoding="utf-8").replace("quality, ", ""),
        encoding="utf-8",
    )
    found = load(folder)
    assert labels(found, "quality", "registered", procedure="FOOD-IMP", stage="F1") == ["EXAMPLE@1.0.0"]
    assert labels(found, "quality", "registered", procedure="FOOD-IMP", stage="F4") == ["FTZ-EST@1.0.0"]
    assert labels(found, "quality", "registered") == ["FTZ-EST@1.0.0"]


def test_all_never_means_the_issuer_itself() -> None:
    (found,) = load().accepting("commerce", "registered", START)
    assert found.recognisers == (ALL,)
    assert found.takes("taxation", "commerce")
    assert not found.takes("commerce", "commerce")
    assert not found.takes("taxation", "customs")
    (own,) = load().accepting("publicsecurity", "person_verified", START)
    assert own.takes("publicsecurity", "publicsecurity")


def test_who_is_told_of_a_new_result() -> None:
    found = load()
    assert found.recognisers("publicsecurity", "person_verified", START) == ("bank", "commerce", "customs", "taxation")
    assert "taxation" not in found.recognisers("commerce", "case_accepted", START)
    taking_part = ["commerce", "taxation", "applicant"]
    assert found.recognisers("commerce", "case_accepted", START, taking_part) == ("taxation",)
    assert found.recognisers("taxation", "refund_paid", START) == ()
    assert found.recognisers("treasury", "refund_paid", START) == ("taxation",)


def test_the_version_of_a_procedure_in_force_counts() -> None:
    newer = EXPRESS.replace("version: 1.0.0", "version: 2.0.0")
    newer = newer.replace("2024-01-01T00:00:00+08:00", "2026-10-01T00:00:00+08:00").replace(
        "    recognised_by: [publicsecurity, taxation]\n", "    recognised_by: [quality]\n"
    )
    found = load(None, procedures_of(EXPRESS, newer, DEMO))
    derived = {START: ["EXPRESS@1.0.0"], START + dt.timedelta(days=30): ["EXPRESS@2.0.0"]}
    for at, wanted in derived.items():
        every = {label for agency in ("taxation", "quality") for label in labels(found, agency, "person_verified", at)}
        assert [label for label in every if label.startswith("EXPRESS")] == wanted


def test_age() -> None:
    made = Arrangement("A", "1.0.0", "", "", ("customs",), "f", ("commerce",), Assurance.AUTO, START, max_age="P90D")
    issued = START - dt.timedelta(days=90)
    assert made.fresh(issued, START)
    assert not made.fresh(issued - dt.timedelta(seconds=1), START)


# Conditions.


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("level >= 2", {"level": 2}, True),
        ("level >= 2", {"level": 1.5}, False),
        ("level = 0.1", {"level": 0.1}, True),
        ("level >= 2", {}, False),
        ("NOT level >= 2", {}, False),
        ("NOT level >= 2", {"level": 1}, True),
        ("level >= 2", {"level": "3"}, False),
        ("level >= 2", {"level": True}, False),
        ("level >= 2", {"level": None}, False),
        ("level > -1", {"level": 0}, True),
        ("arrears = false", {"arrears": False}, True),
        ("arrears = false", {"arrears": 0}, False),
        ("arrears != false", {"arrears": True}, True),
        ("grade IN ('A', 'B')", {"grade": "B"}, True),
        ("grade IN ('A', 'B')", {"grade": "C"}, False),
        ("grade = \"A\" OR grade = 'M'", {"grade": "M"}, True),
        ("a = 1 AND b = 2", {"a": 1}, False),
        ("a = 1 OR b = 2", {"a": 1}, True),
        ("a = 1 AND (b = 2 OR c = 3)", {"a": 1, "c": 3}, True),
        ("site.kind = 'plant'", {"site": {"kind": "plant"}}, True),
        ("site.kind = 'plant'", {"site": "plant"}, False),
        ("day >= '2026-01-01'", {"day": "2026-02-01"}, True),
        ("tags = 'x'", {"tags": ["x"]}, False),
    ],
)
def test_conditions_are_asked_of_what_is_disclosed(text: str, value: dict[str, Any], holds: bool) -> None:
    assert claims.read(text).holds(value) is holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "level",
        "level = other",
        "1 = 1",
        "level = NULL",
        "level IS NULL",
        "level = :now",
        "level IN ()",
        "level BETWEEN 1 AND 2",
        "f(level) = 1",
        "a = 1; b = 2",
        "arrears < true",
        "a = 1 AND b = 2 OR c = 3",
        "level = 1234567890123456789012",
        "level = 1e5",
        "a.b.c.d.e.f.g.h.i = 1",
        "SELECT 1",
        "level = 1 -- all",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        claims.read(text)


def test_a_condition_names_its_claims() -> None:
    found = claims.read("a = 1 AND NOT (site.kind = 'x' OR a > 3)")
    assert found.claims == {"a", "site.kind"}
    assert found == claims.read("a = 1 AND NOT (site.kind = 'x' OR a > 3)")


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        claims.read(text).holds({"a": 1})
