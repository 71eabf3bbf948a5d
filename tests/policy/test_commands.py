"""`hutong policy` as people and machines run it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.kit.policy import commands
from tests.policy.test_rooms import ROOMS, SERVICES

FILES = {room: SERVICES / room / "policy" / f"{room}.cedar" for room in ROOMS}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "default_policies", lambda: FILES)


def run(*args: str) -> Result:
    return CliRunner().invoke(commands.app, list(args))


def as_json(result: Result) -> Any:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


def test_check_of_all_known_files_passes() -> None:
    result = run("check")
    assert result.exit_code == 0
    assert "ok: 6 files" in result.stdout
    found = as_json(run("check", "--json"))
    assert found["ok"]
    assert set(found["agencies"]) == set(ROOMS)


def test_check_tells_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "customs.cedar"
    path.write_text(FILES["customs"].read_text().replace('@basis("CN-VAT-REBATE")\n', ""), encoding="utf-8")
    result = run("check", str(path))
    assert result.exit_code == 1
    assert result.stderr.count("POLICY_WITHOUT_BASIS") == 3
    assert "customs.cedar:22:1: R07: a permit names its legal basis: add @basis" in result.stderr
    found = as_json(run("check", str(path), "--json"))
    assert [p["policy"] for p in found["problems"]] == ["R07", "R07-party", "R07-events"]
    assert run("check", "--room", str(tmp_path)).exit_code == 1


def test_test_runs_the_scenarios_of_rooms_and_files(tmp_path: Path) -> None:
    result = run("test")
    assert result.exit_code == 0
    assert "ok: 75 of 75 scenarios" in result.stdout
    assert "R07: tax sees a cleared export" in run("test", "customs").stdout
    for name in ("customs.cedar", "scenarios.yaml"):
        text = (SERVICES / "customs" / "policy" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace('@transform("initials")', ""), encoding="utf-8")
    result = run("test", str(tmp_path))
    assert result.exit_code == 1
    assert "overseas_party_name: expected transformed by initials, came out clear (by R07-party)" in result.stdout
    found = as_json(run("test", str(tmp_path / "scenarios.yaml"), "--json"))
    assert not found["ok"]
    assert [s["name"] for s in found["files"][0]["scenarios"] if not s["ok"]] == [
        "R07: tax sees a cleared export for a refund, the buyer by initials"
    ]


def test_test_names_policies_that_no_scenario_touches(tmp_path: Path) -> None:
    for name in ("quality.cedar", "scenarios.yaml"):
        (tmp_path / name).write_bytes((SERVICES / "quality" / "policy" / name).read_bytes())
    extra = FILES["quality"].read_text(encoding="utf-8").partition("// R14")[2].partition("\n@id")[2]
    text = (
        f"@id{extra}".replace('"R14"', '"R14-other"').replace('"R14-deny"', '"R14-more"').replace("P-ECERT", "P-STAT")
    )
    (tmp_path / "quality-extra.cedar").write_text(text, encoding="utf-8")
    result = run("test", str(tmp_path))
    assert result.exit_code == 0
    assert "no scenario touches R14-more, R14-other" in result.stdout


def test_show_of_all_policies() -> None:
    found = as_json(run("show", "--json"))
    assert {"policy", "agency", "effect", "title", "basis", "until", "in force"} == set(found[0])
    assert "R07" in [row["policy"] for row in found]
    assert "Export refund" in run("show").stdout


def test_show_of_a_record_type_has_every_field_with_its_rules() -> None:
    found = as_json(run("show", "customs.Declaration", "--json"))
    rows = {(row["field"], row["policy"]): row for row in found}
    assert rows["overseas_party_name", "R07-party"]["effect"] == "initials"
    assert rows["lines.unit_price", "R11-deny"]["effect"] == "FORBID"
    assert rows["contract_no", ""]["effect"] == "closed"
    party = rows["declaration_no", "R07"]
    assert (party["who"], party["purpose"], party["basis"]) == ("taxation", "P-REBATE", "CN-VAT-REBATE")
    assert party["rows"] == "ie_flag = 'E' AND decl_status = 'CLEARED'"
    only = as_json(run("show", "customs.Declaration", "--purpose", "P-INSPECT", "--json"))
    assert {row["policy"] for row in only} == {"", "R11", "R11-value", "R11-deny"}
    table = run("show", "commerce.Enterprise").stdout
    assert "R02-phone" in table
    assert "by condition" not in table
    assert "by condition" in run("show", "commerce.Branch").stdout


def test_show_decides_for_a_caller() -> None:
    args = ("customs.Declaration", "--as", "taxation/refund", "--purpose", "P-REBATE", "--basis", "CN-VAT-REBATE")
    rows = {row["field"]: row for row in as_json(run("show", *args, "--json"))}
    assert rows["overseas_party_name"]["decision"] == "initials"
    assert rows["contract_no"]["reason"] == "NO_PERMIT"
    assert rows["declaration_no"]["until"] == "2027-12-31T15:59:59Z"
    case = ("--case", "C-1")
    args = (
        "publicsecurity.RestrictionAnswer",
        "--as",
        "customs/aeo",
        "--purpose",
        "P-AEO",
        "--basis",
        "CN-CUSTOMS-CREDIT",
    )
    assert "clear" not in str(as_json(run("show", *args, "--json")))
    assert "clear" in str(as_json(run("show", *args, *case, "--json")))


@pytest.mark.parametrize(
    "args",
    [
        ("test", "custom"),
        ("show", "--as", "taxation/refund"),
        ("show", "customs.Declaration", "--as", "taxation", "--purpose", "P-REBATE", "--basis", "CN-VAT-REBATE"),
        ("shwo",),
    ],
)
def test_wrong_calls_end_with_2(args: tuple[str, ...]) -> None:
    assert run(*args).exit_code == 2


@pytest.mark.parametrize("args", [("check",), ("test",), ("show",)])
def test_without_known_rooms_files_must_be_named(args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "default_policies", dict)
    assert run(*args).exit_code == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("show", "customs.Declarations"), "customs.Declaration"),
        (("show", "customs.Declaration", "--purpose", "P-REBAT"), "P-REBATE"),
        (("check", "--room", "/nowhere"), "no policy file"),
        (("check", "--jurisdiction", "xx"), "jurisdiction pack"),
    ],
)
def test_what_does_not_exist_is_told_with_a_reason(args: tuple[str, ...], says: str) -> None:
    result = run(*args)
    assert result.exit_code == 1
    assert says in str(result.exception)
