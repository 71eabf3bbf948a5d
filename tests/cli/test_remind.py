"""`hutong remind`, against a running mesh."""

import pytest

from services.cli.fleet import Fleet
from tests.cli.office import POLICE, REGISTRY, Office
from tests.recognition.mesh import firm


@pytest.fixture
def office(mesh: Fleet) -> Office:
    return Office(mesh)


def test_an_agency_sees_which_office_was_reminded_and_once_a_day_is_all(office: Office) -> None:
    case_id = office.accepted(firm())
    assert office.told("remind", case_id, "E2") == "E2: reminded publicsecurity-window\n"
    again = office.refused("remind", case_id, "E2")
    assert again["reason"] == "REMINDED_ALREADY"
    assert office.told("remind", case_id, "E2", who=POLICE) == "E2: reminded publicsecurity-window\n"
    assert "reminders sent: 2" in office.told("progress", case_id)


def test_an_enterprise_reminds_whoever_holds_its_case(office: Office) -> None:
    code = firm()
    who = office.enterprise(code)
    case_id = office.accepted(code)
    assert office.told("remind", case_id, who=who) == "E2: reminded the agency that holds it\n"
    assert office.refused("remind", office.accepted(firm()), who=who)["reason"] == "CASE_NOT_FOUND"


def test_the_same_request_reminds_once(office: Office) -> None:
    case_id = office.accepted(firm())
    same = ("remind", case_id, "E2", "--id", "6f1f0c1e-6a1e-4b53-9d5c-0d6a3a2b7f10")
    assert office.read(*same)["events"] == office.read(*same)["events"]


@pytest.mark.parametrize(("stage", "reason"), [("E5c", "STAGE_NOT_READY"), ("E99", "STAGE_UNKNOWN")])
def test_whom_nobody_can_be_reminded_of(office: Office, stage: str, reason: str) -> None:
    assert office.refused("remind", office.accepted(firm()), stage)["reason"] == reason


def test_of_a_closed_case_nobody_is_reminded(office: Office) -> None:
    case_id = office.submit(firm())
    office.event(case_id, "-", "withdraw", "--reason", "OPENED_IN_ERROR", who=REGISTRY)
    assert office.refused("remind", case_id)["reason"] == "CASE_CLOSED"
