"""`hutong reads`: who looked at an enterprise's records, as the enterprise sees it."""

import asyncio
import json
from typing import Any

import pytest

from services.cli.fleet import Fleet
from services.cli.sample import Subject
from services.cli.zone import Zone
from tests.cli.authorized import AML, ANALYST, WHY, Desks
from tests.cli.conftest import Ran, run
from tests.cli.office import Office

DECLARATION = ("--select", "customs.Declaration:declaration_no,overseas_party_name")


class Firm:
    """An enterprise of the mesh that others look at."""

    def __init__(self, mesh: Fleet, subject: Subject) -> None:
        self.folder = mesh.zone.folder
        self.subject = subject.text
        self.name = Office(mesh).enterprise(subject.uscc)

    def __call__(self, *arguments: str, who: str = "") -> Ran:
        return run("reads", "--dir", self.folder, "--as", who or self.name, *arguments)

    def reads(self, *arguments: str) -> dict[str, Any]:
        ran = self(*arguments, "--json")
        assert ran.exit_code == 0, ran.stdout + ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def refund(self, *arguments: str) -> None:
        """Let the tax agency look at it."""
        why = ("--as", "taxation/refund", "--purpose", "P-REBATE", "--basis", "CN-VAT-REBATE")
        ran = run("query", "--dir", self.folder, *why, "--subject", self.subject, *DECLARATION, *arguments)
        assert ran.exit_code == 0, ran.stderr


@pytest.fixture(scope="module")
def firm(mesh: Fleet, exporter: Subject) -> Firm:
    return Firm(mesh, exporter)


def test_a_look_is_told_with_all_there_is_to_it(firm: Firm) -> None:
    firm.refund("--page-size", "2")
    (newest, *_) = firm.reads()["reads"]
    assert (newest["caller"], newest["purpose"], newest["owner"]) == ("taxation/refund", "P-REBATE", "customs")
    (fields,) = newest["fields"]
    assert fields["record_type"] == "customs.Declaration"
    assert set(fields["paths"]) == {"declaration_no", "overseas_party_name~initials"}
    assert 1 <= int(fields["rows"]) <= 2
    assert newest["origin"] == "ftz.example/customs/node"
    shown = firm().stdout
    for text in ("taxation/refund", "P-REBATE", "CN-VAT-REBATE", "initials", "customs/node"):
        assert text in shown


def test_a_look_under_an_embargo_is_not_told(mesh: Fleet, firm: Firm) -> None:
    firm.refund()
    before = firm.reads("--page-size", "200")["reads"]
    desks = Desks(mesh)
    name = desks.active("--subject", firm.subject)
    select = ("--select", "customs.Declaration:declaration_no")
    asked = ("--authorization", name, "--as", AML, "--officer", ANALYST, *WHY, "--subject", firm.subject, *select)
    assert run("query", "--dir", firm.folder, *asked).exit_code == 0
    assert firm.reads("--page-size", "200")["reads"] == before


def test_lists_go_on_where_they_ended(firm: Firm) -> None:
    for _ in range(3):
        firm.refund()
    first = firm.reads("--page-size", "2")
    assert "more: --page-token" in firm("--page-size", "2").stdout
    second = firm.reads("--page-size", "2", "--page-token", first["next_page_token"])
    places = [(read["origin"], read["index"]) for page in (first, second) for read in page["reads"]]
    assert len(set(places)) == len(places) >= 3
    times = [read["time"] for page in (first, second) for read in page["reads"]]
    assert times == sorted(times, reverse=True)


def test_nobody_is_told_of_another(firm: Firm, mesh: Fleet) -> None:
    other = Office(mesh).enterprise()
    refused = firm("--subject", firm.subject, "--json", who=other)
    assert refused.exit_code == 1
    error = json.loads(refused.stdout)["error"]
    assert error["reason"] == "READS_NOT_OWN"
    assert error["hint"]
    assert "Nobody has looked" in firm(who=other).stdout
    agency = firm("--subject", firm.subject, who="taxation/refund")
    assert agency.exit_code == 1
    assert "CALLER_NOT_LISTED" in agency.stderr


def test_an_agency_that_gives_no_answer_is_named(zone: Zone) -> None:
    def listed(alone: Fleet) -> None:
        name = Office(alone).enterprise()
        asked = ("reads", "--dir", zone.folder, "--as", name)
        assert "taxation" in json.loads(run(*asked, "--json").stdout)["missing"]
        shown = run(*asked)
        assert shown.exit_code == 0, shown.stderr
        assert "no answer from" in shown.stdout
        assert "customs" not in shown.stdout

    async def some() -> None:
        async with Fleet(zone, nodes=("gateway", "customs")) as alone:
            await asyncio.to_thread(listed, alone)

    asyncio.run(some())
