"""`hutong policy`, as the executable has it: it knows the rooms' policies and scenarios by itself."""

import json
from pathlib import Path

import pytest

from services.cli.rooms import policies
from tests.cli.conftest import run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rooms bring is found from any folder."""
    monkeypatch.chdir(tmp_path)


def test_check_knows_every_owner_of_records() -> None:
    result = run("policy", "check", "--json")
    assert result.exit_code == 0, result.stderr
    assert set(json.loads(result.stdout)["agencies"]) == set(policies())


@pytest.mark.parametrize("agency", sorted(policies()))
def test_a_rooms_scenarios_come_out_and_touch_every_policy(agency: str) -> None:
    result = run("policy", "test", agency, "--json")
    assert result.exit_code == 0, result.stdout
    (file,) = json.loads(result.stdout)["files"]
    assert file["scenarios"]
    assert file["policies_without_scenario"] == []


def test_show_tells_the_policies_of_a_type_and_what_one_caller_gets() -> None:
    assert "R07" in run("policy", "show", "customs.Declaration").stdout
    caller = ("--as", "taxation/refund", "--purpose", "P-REBATE", "--basis", "CN-VAT-REBATE", "--json")
    decided = {row["field"]: row for row in json.loads(run("policy", "show", "customs.Declaration", *caller).stdout)}
    assert decided["total_value_cny"]["decision"] == "clear"
    assert decided["gross_wt_kg"]["reason"] == "NO_PERMIT"


def test_a_policy_that_names_another_agencys_record_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "customs-foreign.cedar"
    foreign.write_text(
        '@id("x") @basis("CN-VAT-REBATE") @until("2099-01-01T00:00:00Z")\n'
        'permit (principal, action, resource in Hutong::RecordType::"taxation.VatFiling");\n'
    )
    result = run("policy", "check", foreign, "--json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert problem["reason"] == "POLICY_FOREIGN_RECORD"


def test_an_unknown_room_names_the_nearest() -> None:
    result = run("policy", "test", "custums")
    assert result.exit_code == 2
    assert "'customs'" in result.stderr
