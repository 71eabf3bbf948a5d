"""`hutong tasks`, against a running mesh."""

from dataclasses import dataclass

import pytest

from services.cli.fleet import Fleet
from tests.cli.conftest import run
from tests.cli.office import CUSTOMS, POLICE, QUALITY, REGISTRY, TAX, Office
from tests.recognition.mesh import firm


@dataclass(frozen=True)
class Revoked:
    """A case in which a result was revoked that others have built on."""

    office: Office
    case_id: str
    ref: str

    def open(self, who: str) -> dict[str, str]:
        """List an agency's open tasks of the case, by stage."""
        found = self.office.read("tasks", "--case", self.case_id, who=who).get("tasks", [])
        return {task["stage_code"]: task["task_id"] for task in found}

    def dispose(self, who: str, task: str, what: str, reason: str) -> str:
        return self.office.told("tasks", "dispose", task, what, "--reason", reason, who=who)


@pytest.fixture
def revoked(mesh: Fleet) -> Revoked:
    office, code = Office(mesh), firm()
    first = office.accepted(code)
    ref = office.passes(first, "E2", who=POLICE)
    case_id = office.submit(code)
    office.passes(case_id, "E1")
    office.passes(case_id, "E4")
    office.passes(case_id, "E5b", who=TAX)
    office.event(case_id, "E5c", "start", who=CUSTOMS)
    answer = office.told("result", "revoke", ref, "--reason", "ISSUED_IN_ERROR", who=POLICE)
    assert answer == f"{ref}: REVOKED; 3 tasks raised\n"
    return Revoked(office, case_id, ref)


def test_whoever_built_on_a_revoked_result_has_a_task(revoked: Revoked) -> None:
    assert [set(revoked.open(who)) for who in (POLICE, REGISTRY, TAX, CUSTOMS)] == [{"E2"}, {"E4"}, {"E5b"}, set()]
    shown = revoked.office.told("tasks", "--case", revoked.case_id, who=TAX)
    assert revoked.open(TAX)["E5b"] in shown
    assert "RESULT_REVOKED: ISSUED_IN_ERROR" in shown
    assert shown == revoked.office.told("tasks", "list", "--case", revoked.case_id, who=TAX)
    assert revoked.office.told("tasks", "--case", revoked.case_id, who=CUSTOMS) == "customs has no open tasks.\n"


def test_a_decision_waits_until_the_recogniser_has_looked(revoked: Revoked) -> None:
    office, decide = revoked.office, ("case", "event", revoked.case_id, "E5c", "result", "pass")
    assert office.refused(*decide, who=CUSTOMS)["reason"] == "RECOGNISED_RESULT_INVALID"
    task = revoked.open(POLICE)["E2"]
    assert revoked.dispose(POLICE, task, "upheld", "DECISION_STANDS") == f"{task}: UPHELD\n"
    office.told(*decide, who=CUSTOMS)
    assert not revoked.open(POLICE)
    assert "UPHELD" in office.told("tasks", "--all", "--case", revoked.case_id, who=POLICE)


def test_to_examine_anew_gives_the_stage_back(revoked: Revoked) -> None:
    task = revoked.open(POLICE)["E2"]
    assert revoked.dispose(POLICE, task, "reexamined", "EXAMINED_ANEW") == f"{task}: REEXAMINED\n"
    assert revoked.office.stage(revoked.case_id, "E2")["status"] == "STAGE_STATUS_READY"
    fresh = revoked.office.passes(revoked.case_id, "E2", who=POLICE)
    assert fresh != revoked.ref
    revoked.office.event(revoked.case_id, "E5c", "result", "pass", who=CUSTOMS)


def test_to_examine_anew_what_is_closed_gives_nothing_back_and_says_so(revoked: Revoked) -> None:
    revoked.office.event(revoked.case_id, "-", "withdraw", "--reason", "APPLICANT_WITHDREW")
    task = revoked.open(POLICE)["E2"]
    said = revoked.dispose(POLICE, task, "reexamined", "EXAMINED_ANEW")
    assert said.startswith(f"{task}: REEXAMINED\nits case is closed, and stays as it is")
    assert not revoked.open(POLICE)
    assert revoked.office.stage(revoked.case_id, "E2")["status"] == "STAGE_STATUS_RECOGNISED"


def test_a_task_is_its_owners_to_dispose_of_once(revoked: Revoked) -> None:
    office, task = revoked.office, revoked.open(TAX)["E5b"]
    upheld = ("tasks", "dispose", task, "upheld", "--reason", "DECISION_STANDS")
    assert office.refused(*upheld, who=REGISTRY)["reason"] == "TASK_NOT_FOUND"
    assert office.refused("tasks", "dispose", task, "upheld", who=TAX)["reason"] == "REASON_MISSING"
    wrong = ("tasks", "dispose", task, "done", "--reason", "DECISION_STANDS")
    assert office.refused(*wrong, who=TAX)["reason"] == "DISPOSITION_INVALID"
    disposed = office.read(*upheld, "--officer", "T-9", who=TAX)
    assert (disposed["disposition"], disposed["officer"]) == ("DISPOSITION_UPHELD", "T-9")
    assert office.refused(*upheld[:3], "not-affected", *upheld[4:], who=TAX)["reason"] == "TASK_DISPOSED"


def test_pages(revoked: Revoked) -> None:
    first = revoked.office.read("tasks", "--page-size", "1", who=TAX)
    if "next_page_token" in first:
        second = revoked.office.read("tasks", "--page-size", "1", "--page-token", first["next_page_token"], who=TAX)
        assert first["tasks"] != second["tasks"]
    assert len(first["tasks"]) == 1


def test_wrong_calls(mesh: Fleet) -> None:
    office = Office(mesh)
    assert office("tasks", "dispose", "1", "ignored", who=TAX).exit_code == 2
    assert run("tasks", "--dir", office.folder).exit_code == 2
    assert office.refused("tasks", who=office.enterprise())["reason"] == "CALLER_NOT_LISTED"
    assert office.told("tasks", who=QUALITY) == "quality has no open tasks.\n"
