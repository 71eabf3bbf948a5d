"""The scenario runner: what it accepts, and that a wrong expectation is told."""

from pathlib import Path

import pytest

from services.kit.errors import FailedPrecondition
from services.kit.policy import scenarios
from services.kit.policy.scenarios import Scenarios
from tests.policy.specimen import catalogue
from tests.policy.support import LAW, forbid, parse, permit

POLICIES = parse(
    permit("p", ["code", "lines.goods"], rows="count > 1"),
    permit("q", ["phone"], transform="last4"),
    forbid("f", ["place"]),
)
BASE = {"name": "n", "who": "taxation/refund", "purpose": "P-REBATE", "basis": "CN-VAT-REBATE"}


def problems(expect: dict[str, object], select: str = "museum.Specimen:code,phone,colour", **more: object) -> list[str]:
    found = Scenarios.model_validate(
        {"at": "2026-06-01T00:00:00Z", "scenarios": [{**BASE, "select": [select], "expect": expect, **more}]}
    )
    (outcome,) = scenarios.run(found, POLICIES, catalogue(), LAW)
    return list(outcome.problems)


def test_what_comes_out_as_expected() -> None:
    assert not problems({"clear": ["code"], "transformed": {"phone": "last4"}, "refused": {"colour": "NO_PERMIT"}})
    assert not problems({"clear": ["museum.Specimen.code"], "transformed": {"phone": "last4"}, "rows": ["count > 1"]})
    assert not problems({"clear": ["lines.goods"]}, "museum.Specimen:lines,place")
    assert not problems({"error": "PURPOSE_SEVERAL"}, purpose="P-REBATE,P-RISK")
    assert not problems({"error": "FIELD_UNKNOWN"}, "museum.Specimen:nothing")
    assert not problems({}, at="2029-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        ({"clear": ["code"]}, "phone: expected refused, came out transformed by last4 (by q)"),
        ({"clear": ["code", "phone"]}, "phone: expected clear, came out transformed by last4"),
        (
            {"clear": ["code", "colour"], "transformed": {"phone": "last4"}},
            "colour: expected clear, came out refused: NO_PERMIT",
        ),
        ({"clear": ["code"], "transformed": {"phone": "initials"}}, "expected transformed by initials"),
        (
            {"clear": ["code"], "transformed": {"phone": "last4"}, "refused": {"colour": "FORBIDDEN"}},
            "expected refused: FORBIDDEN",
        ),
        ({"clear": ["code"], "transformed": {"phone": "last4"}, "rows": []}, "rows: expected none, came out count > 1"),
        ({"clear": ["count"]}, "'count' is not selected"),
        ({"clear": ["code"], "transformed": {"phone": "last4"}, "error": "PURPOSE_UNKNOWN"}, "was answered"),
    ],
)
def test_a_wrong_expectation_is_told(expect: dict[str, object], says: str) -> None:
    assert any(says in problem for problem in problems(expect))


def test_an_error_that_was_not_expected_is_told() -> None:
    assert problems({}, purpose="P-X") == ["PURPOSE_UNKNOWN: there is no purpose 'P-X'"]
    assert problems({"error": "BASIS_MISSING"}, basis="CN-X")[0].startswith("BASIS_UNKNOWN")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("at: 2026-06-01T00:00:00Z", "scenarios"),
        ("scenarios: []\nat: 2026-06-01T00:00:00Z", "scenarios"),
        ("scenarios: [{name: n}]\nat: 2026-06-01T00:00:00", "at: "),
        ("at: 2026-06-01T00:00:00Z\nscenarios: [{name: n, who: taxation, select: [x], expect: {}}]", "who"),
        ("at: 2026-06-01T00:00:00Z\nscenarios: [{name: n, who: a/b, select: [x], expects: {}}]", "expects"),
        ("at: 2026-06-01T00:00:00Z\nscenarios: [{name: n, who: a/b, select: [x], expect: {error: NO}}]", "error"),
        ("at: 1\nat: 2", "stands twice"),
        ("a: [", "scenarios.yaml"),
        ("a: !!python/object/apply:os.getcwd []", "scenarios.yaml"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "scenarios.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FailedPrecondition, match=says):
        scenarios.read(path)
    with pytest.raises(FailedPrecondition):
        scenarios.read(tmp_path / "absent.yaml")
