"""`hutong procedure`: checked with every mistake told, and shown as text, JSON and SVG."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from tests.cli.conftest import run
from tests.recognition.files import Words, changed, small


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes with the product is found from any folder."""
    monkeypatch.chdir(tmp_path)


def write(folder: Path, words: Words) -> Path:
    file = folder / f"{words['code'].lower()}@{words['version']}.yaml"
    file.write_text(yaml.safe_dump(words, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return file


def test_check_knows_what_comes_with_the_product() -> None:
    result = run("procedure", "check")
    assert result.exit_code == 0, result.stderr
    assert "FTZ-EST@1.0.0: 11 stages, 7 agencies" in result.stdout


def test_check_passes_a_file_that_would_load(tmp_path: Path) -> None:
    result = run("procedure", "check", write(tmp_path, small()), "--json")
    assert result.exit_code == 0, result.stdout
    (procedure,) = json.loads(result.stdout)["procedures"]
    assert procedure["procedure"] == "SMALL@1.2.3"
    assert procedure["lead"] == "commerce"


def test_check_tells_every_mistake_by_stage(tmp_path: Path) -> None:
    words = changed("B", agency="nobody")
    words["stages"]["D"]["requires"] = [{"fact": "tax_ok", "assurance": "ON_SITE"}]
    file = write(tmp_path, words)
    result = run("procedure", "check", file, "--json")
    assert result.exit_code == 1
    problems = json.loads(result.stdout)["problems"]
    assert [(problem["reason"], problem["stage"]) for problem in problems] == [
        ("PROCEDURE_INVALID", "B"),
        ("PROCEDURE_INVALID", "D"),
    ]
    result = run("procedure", "check", file)
    assert result.exit_code == 1
    assert "B: the agency 'nobody' is unknown" in result.stderr
    assert "refused: 2 mistakes" in result.stderr


def test_check_names_a_cycle(tmp_path: Path) -> None:
    result = run("procedure", "check", write(tmp_path, changed("A", after=["D"])))
    assert result.exit_code == 1
    assert "PROCEDURE_CYCLE" in result.stderr
    assert "A -> B -> D -> A" in result.stderr


def test_check_looks_for_demanded_facts_in_all_that_is_known(tmp_path: Path) -> None:
    wants = changed("D", requires=[{"fact": "tax_ok"}, {"fact": "site_ok"}])
    result = run("procedure", "check", write(tmp_path, wants))
    assert result.exit_code == 1
    assert "D: requires: nobody proves 'site_ok'" in result.stderr
    proves = changed(code="OTHER")
    proves["stages"]["B"]["proves"] = {"fact": "site_ok", "assurance": "AUTO"}
    proves["stages"]["D"]["requires"] = []
    other = tmp_path / "beside"
    other.mkdir()
    write(other, proves)
    assert run("procedure", "check", write(tmp_path, wants), "--procedures", other).exit_code == 0
    # A procedure of the product proves it: FTZ-EST.
    wants["stages"]["D"]["requires"] = [{"fact": "registered", "assurance": "SUBSTANTIVE"}]
    assert run("procedure", "check", write(tmp_path, wants)).exit_code == 0


def test_a_file_takes_the_place_of_the_products_own_of_the_same_name(tmp_path: Path) -> None:
    result = run("procedure", "check", write(tmp_path, changed(code="FTZ-EST", version="1.0.0")))
    # Then nobody proves what other procedures and arrangements rely on.
    assert result.exit_code == 1
    assert "no stage of a procedure proves 'registered'" in result.stderr


def test_show_lists_what_there_is() -> None:
    result = run("procedure", "show", "--json")
    listed = {procedure["procedure"] for procedure in json.loads(result.stdout)["procedures"]}
    assert {"FTZ-EST@1.0.0", "FOOD-IMP@1.0.0", "AEO-CERT@1.0.0", "VAT-REFUND@1.0.0"} <= listed
    assert "自贸区企业设立" in run("procedure", "show").stdout


@pytest.mark.parametrize("name", ["FTZ-EST", "ftz-est", "FTZ-EST@1.0.0", "ftz-est@1.0.0"])
def test_show_draws_a_procedure(name: str) -> None:
    result = run("procedure", "show", name)
    assert result.exit_code == 0, result.stderr
    assert "├─┬─┬─┬─╮" in result.stdout
    assert "法定代表人身份核验" in result.stdout
    assert "asks foreign" in result.stdout
    assert "person_verified" in result.stdout


def test_show_gives_everything_to_machines() -> None:
    said = json.loads(run("procedure", "show", "VAT-REFUND", "--json").stdout)
    assert said["questions"]["refund_class"]["values"] == ["1", "2", "3", "4"]
    stages = {stage["code"]: stage for stage in said["stages"]}
    assert stages["V6"]["limits_by"] == {
        "refund_class": {"1": "5 working days", "2": "10 working days", "3": "15 working days", "4": "20 working days"}
    }
    assert stages["V5"]["when_result"] == {"V4a": ["CONDITIONAL"]}


def test_show_writes_svg_to_a_file_or_to_standard_output(tmp_path: Path) -> None:
    result = run("procedure", "show", "FOOD-IMP", "--svg", tmp_path / "food.svg")
    assert result.exit_code == 0, result.stderr
    written = (tmp_path / "food.svg").read_text(encoding="utf-8")
    assert ET.fromstring(written).tag.endswith("svg")
    assert run("procedure", "show", "FOOD-IMP", "--svg", "-").stdout == written


def test_show_takes_a_file(tmp_path: Path) -> None:
    assert "小型流程" in run("procedure", "show", write(tmp_path, small())).stdout


def test_an_unknown_procedure_names_the_nearest() -> None:
    result = run("procedure", "show", "FTZ-ETS", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["reason"] == "PROCEDURE_UNKNOWN"
    assert "did you mean 'FTZ-EST'?" in error["message"]
