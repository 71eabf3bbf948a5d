"""`hutong catalogue`: from the contracts alone."""

import json

from typer.testing import CliRunner

from services.cli.main import app
from services.kit.records import catalogue

runner = CliRunner()


def test_lists_every_type_with_its_owner() -> None:
    result = runner.invoke(app, ["catalogue", "--json"])
    assert result.exit_code == 0
    listed = json.loads(result.stdout)["record_types"]
    assert [kind["name"] for kind in listed] == [kind.name for kind in catalogue.load()]


def test_lists_one_agency() -> None:
    result = runner.invoke(app, ["catalogue", "quality", "--json"])
    assert {kind["owner"] for kind in json.loads(result.stdout)["record_types"]} == {"quality"}


def test_describes_a_type_for_machines_and_people() -> None:
    described = json.loads(runner.invoke(app, ["catalogue", "customs.Declaration", "--json"]).stdout)
    number = next(field for field in described["fields"] if field["path"] == "declaration_no")
    assert number["key"]
    assert number["subject"] == "cn.declaration_no"
    shown = runner.invoke(app, ["catalogue", "customs.Declaration"]).stdout
    for text in ("declaration_no", "conditional", "WCO D014", "进出口货物报关单"):
        assert text in shown


def test_an_unknown_type_names_the_nearest() -> None:
    result = runner.invoke(app, ["catalogue", "customs.Declaratoin"])
    assert result.exit_code == 1
    assert "error: RECORD_TYPE_UNKNOWN" in result.stderr
    assert "'customs.Declaration'" in result.stderr
    assert "hutong catalogue" in result.stderr
    assert result.stdout == ""


def test_errors_are_json_for_machines() -> None:
    result = runner.invoke(app, ["catalogue", "customs.Declaratoin", "--json"])
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["reason"] == "RECORD_TYPE_UNKNOWN"
    assert error["metadata"] == {"record_type": "customs.Declaratoin"}
    assert "customs.Declaration" in error["message"]
