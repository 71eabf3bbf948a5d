"""`hutong query` under an authorization: its ticket, several subjects, every page."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli import sample
from services.cli.fleet import Fleet
from services.cli.main import app
from services.cli.sample import Subject
from tests.cli.authorized import AML, ANALYST, DECLARATION, WHY, Desks
from tests.cli.conftest import Ran, run

NUMBER = ("--select", "customs.Declaration:declaration_no")


class Looking:
    """Looks at two enterprises under one authorization."""

    def __init__(self, desks: Desks, first: Subject, second: Subject) -> None:
        self.desks = desks
        self.first, self.second = first.text, second.text
        self.id = desks.active("--subject", self.first, "--subject", self.second, "--rows", "500")

    def __call__(self, *arguments: str | Path, who: str = AML) -> Ran:
        return run("query", "--dir", self.desks.folder, "--as", who, "--authorization", self.id, *WHY, *arguments)

    def lines(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """Ask for a stream; gives what machines read of it."""
        ran = self(*arguments, "--officer", ANALYST, "--json")
        assert ran.exit_code == 0, ran.stdout + ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def used(self) -> int:
        return int(self.desks.read("show", self.id, who=AML).get("rows_used", 0))


@pytest.fixture(scope="module")
def looking(mesh: Fleet) -> Looking:
    story = sample.story(mesh.zone.sample)
    return Looking(Desks(mesh), story.exporter, story.barred)


def test_an_officer_asks(looking: Looking) -> None:
    select = ("--select", f"{DECLARATION},lines.hs10")
    ran = looking("--subject", looking.first, *select, "--officer", ANALYST)
    assert ran.exit_code == 0, ran.stderr
    assert "refused NO_PERMIT: gross_wt_kg" in ran.stdout
    assert "refused AUTHORIZATION_SCOPE: lines.hs10" in ran.stdout
    assert "hutong authorization show" in ran.stdout


def test_a_ticket_from_a_file_or_from_standard_input(looking: Looking, tmp_path: Path) -> None:
    ticket = looking.desks.told("use", looking.id, who=AML, officer=ANALYST)
    (tmp_path / "ticket").write_text(ticket)
    assert looking("--subject", looking.first, *NUMBER, "--ticket", tmp_path / "ticket").exit_code == 0
    arguments = ["query", "--dir", str(looking.desks.folder), "--as", AML, "--authorization", looking.id, *WHY]
    piped = CliRunner().invoke(app, [*arguments, "--subject", looking.first, *NUMBER, "--ticket", "-"], input=ticket)
    assert piped.exit_code == 0, piped.stderr
    assert "customs.Declaration" in piped.stdout


def test_another_system_with_the_same_ticket(looking: Looking, tmp_path: Path) -> None:
    (tmp_path / "ticket").write_text(looking.desks.told("use", looking.id, who=AML, officer=ANALYST))
    asked = ("--subject", looking.first, *NUMBER, "--ticket", tmp_path / "ticket")
    refused = looking(*asked, who="publicsecurity/investigation")
    assert refused.exit_code == 1
    assert "AUTHORIZATION_NOT_YOURS" in refused.stderr


def test_every_page_by_itself(looking: Looking) -> None:
    before = looking.used()
    lines = looking.lines("--subject", looking.first, *NUMBER, "--all-pages", "--page-size", "3")
    assert len(lines) > 2
    numbers = [record["declaration_no"] for line in lines for record in line["section"].get("records", [])]
    assert len(numbers) == len(set(numbers)) == looking.used() - before
    assert "next_page_token" not in lines[-1]["section"]
    assert len({line["query_id"] for line in lines}) == 1
    assert all(line["receipt"]["leaf_hash"] for line in lines)


def test_several_subjects_one_after_the_other(looking: Looking) -> None:
    both = ("--subject", looking.first, "--subject", looking.second)
    lines = looking.lines(*both, *NUMBER)
    abouts = [f"{line['subject']['scheme']}:{line['subject']['value']}" for line in lines]
    assert abouts == [looking.first, looking.second]
    shown = looking(*both, *NUMBER, "--officer", ANALYST).stdout
    assert looking.first in shown
    assert looking.second in shown


def test_somebody_who_is_no_part_of_the_case(looking: Looking, mesh: Fleet) -> None:
    other = sample.story(mesh.zone.sample).food_importer.text
    ran = looking("--subject", other, *NUMBER, "--officer", ANALYST, "--json")
    assert ran.exit_code in (1, 3)
    assert "AUTHORIZATION_SCOPE" in ran.stdout


def test_another_case_than_the_approved_one(looking: Looking) -> None:
    ran = looking("--case", "STR-2026-8", "--subject", looking.first, *NUMBER, "--officer", ANALYST, "--json")
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["error"]["reason"] == "AUTHORIZATION_SCOPE"


def test_without_an_authorization(looking: Looking) -> None:
    asked = ("--dir", looking.desks.folder, "--as", AML, *WHY, "--subject", looking.first, *NUMBER)
    refused = run("query", *asked)
    assert refused.exit_code == 1
    assert "AUTHORIZATION_MISSING" in refused.stderr
    assert run("query", *asked, "--officer", ANALYST).exit_code == 2
    unused = run("query", *asked, "--authorization", looking.id)
    assert unused.exit_code == 1
    assert "TICKET_INVALID" in unused.stderr


def test_what_ends_while_it_is_used_says_so(looking: Looking) -> None:
    desks = looking.desks
    spent = desks.active("--subject", looking.first, "--rows", "1")
    asked = ("query", "--dir", desks.folder, "--as", AML, "--authorization", spent, *WHY)
    more = (*NUMBER, "--subject", looking.first, "--officer", ANALYST, "--json")
    found = run(*asked, *more, "--page-size", "2")
    assert found.exit_code == 3, found.stdout
    (section,) = json.loads(found.stdout)["sections"]
    assert section["reason"] == "AUTHORIZATION_EXHAUSTED"
    assert run(*asked, *more, "--page-size", "1").exit_code == 0
    over = run(*asked, *more, "--page-size", "1")
    assert over.exit_code == 1
    assert json.loads(over.stdout)["error"]["reason"] == "AUTHORIZATION_EXHAUSTED"
