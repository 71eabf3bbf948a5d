"""`hutong case`: submit, event, show, list and watch, against a running mesh."""

import asyncio
import datetime as dt
import json
import sys
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
import typer

from hutong.api.recognition.v1 import result_service_pb2
from services.cli import approval
from services.cli.cases import certifying
from services.cli.fleet import Fleet
from services.cli.hints import HINTS
from services.kit.client import Client
from services.kit.credentials import results
from services.kit.credentials.keys import PublishedKeys
from services.kit.errors import Reason
from services.kit.records.database import engine
from services.recognition.tables import STATUS
from tests.cli.conftest import run
from tests.cli.office import CUSTOMS, POLICE, QUALITY, REGISTRY, TAX, Office
from tests.recognition.mesh import firm


@pytest.fixture
def office(mesh: Fleet) -> Office:
    return Office(mesh)


@pytest.fixture(scope="module")
def standing(mesh: Fleet) -> str:
    """A case that was accepted, and to which tests add nothing."""
    return Office(mesh).accepted(firm())


def test_a_case_begins_on_the_version_in_force(office: Office) -> None:
    code = firm()
    view = office.read("case", "submit", "FTZ-EST", "--subject", f"cn.uscc:{code}", "--answer", "foreign=true")
    case = view["case"]
    assert (case["procedure_code"], case["procedure_version"]) == ("FTZ-EST", "1.0.0")
    assert (case["subject_uscc"], case["lead_agency"]) == (code, "commerce")
    assert [stage["code"] for stage in view["stages"]][:2] == ["E0", "E1"]
    shown = office.told("case", "show", case["case_id"])
    assert "Name self-declaration 名称自主申报" in shown
    assert "commerce: not begun" in shown
    assert "foreign-investment: waits for E1" in shown
    assert "SUBMIT" in shown


def test_the_same_request_gives_the_same_case(office: Office) -> None:
    code, wish = firm(), str(uuid.uuid4())
    assert office.submit(code, "--id", wish) == office.submit(code, "--id", wish)


def test_an_enterprise_applies_for_itself_and_for_nobody_else(office: Office) -> None:
    code = firm()
    who = office.enterprise(code)
    case_id = office.submit(code, who=who)
    assert case_id in office.told("case", "list", who=who)
    other = ("case", "submit", "FTZ-EST", "--subject", f"cn.uscc:{firm()}")
    assert office.refused(*other, who=who)["reason"] == "SUBJECT_NOT_OWN"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("FTZ-ETS", "--subject", "cn.uscc:91110000600037341L"), "PROCEDURE_UNKNOWN"),
        (("FTZ-EST", "--subject", "cn.uscc:91110000600037341L", "--answer", "forein=true"), "ANSWER_UNKNOWN"),
        (("FTZ-EST", "--subject", "cn.uscc:91110000600037341X"), "SUBJECT_INVALID"),
        (("FTZ-EST",), "SUBJECT_MISSING"),
        (("FTZ-EST", "--subject", "cn.uscc:91110000600037341L", "--id", "1"), "REQUEST_ID_INVALID"),
        (("FTZ-EST", "--subject", "cn.uscc:91110000600037341L", "--mode", "commitment"), "COMMITMENT_MISSING"),
        (("FTZ-EST", "--subject", "cn.uscc:91110000600037341L", "--applied-at", "2999-01-01"), "EVENT_IN_FUTURE"),
        (("FTZ-EST", "--subject", "cn.uscc:91110000600037341L", "--applied-at", "2025-01-01"), "EVENT_TOO_OLD"),
    ],
)
def test_what_is_no_application_says_why(office: Office, arguments: tuple[str, ...], reason: str) -> None:
    assert office.refused("case", "submit", *arguments)["reason"] == reason


def test_a_result_is_signed_where_the_keys_lie_and_verifies(office: Office) -> None:
    code = firm()
    case_id = office.accepted(code)
    office.event(case_id, "E2", "start", who=POLICE)
    says = ("--value", "method=chip", "--value", "twins=false", "--value", "checks:=[1, 2]", "--officer", "P-7")
    how = ("result", "conditional", "--reason", "OBLIGATIONS_ATTACHED")
    appended = office.event(case_id, "E2", *how, *says, who=POLICE)
    ref = appended["event"]["result_ref"]
    text = office.told("result", "get", ref, who=office.enterprise(code)).strip()
    statement = results.verify(text, PublishedKeys.load(office.mesh.zone.keys), at=dt.datetime.now(dt.UTC))
    assert dict(statement.value) == {"method": "chip", "twins": False, "checks": [1, 2]}
    assert (statement.case_id, statement.stage, statement.fact) == (case_id, "E2", "person_verified")
    assert appended["event"]["officer"] == "P-7"
    there = "officer P-7"
    assert there in office.told("case", "show", case_id, who=POLICE)
    assert there not in office.told("case", "show", case_id, who=REGISTRY)


def reserved(office: Office, agency: str) -> int:
    """How many entries of status lists an agency has."""
    made = engine(office.mesh.zone.store_url("recognition"), writer=False)
    with made.connect() as connection:
        found = connection.execute(sa.select(sa.func.count()).where(STATUS.c.issuer == agency)).scalar_one()
    made.dispose()
    return found


def test_a_result_that_is_refused_uses_up_no_further_entries(office: Office) -> None:
    case_id = office.accepted(firm())
    before = reserved(office, "publicsecurity")
    for _ in range(3):
        assert office.refused("case", "event", case_id, "E2", "result", "pass", who=POLICE)["hint"]
    assert reserved(office, "publicsecurity") == before + 1
    first = office.passes(case_id, "E2", who=POLICE)
    # Another one gets an entry of its own.
    office.told("result", "revoke", first, "--reason", "ISSUED_IN_ERROR", who=POLICE)
    again = office.event(case_id, "E2", "result", "pass", who=POLICE)["event"]["result_ref"]
    assert again != first


def test_an_entry_that_somebody_else_has_reserved_is_left_to_it(office: Office) -> None:
    """References can be worked out by whoever takes part in a case."""
    case_id = office.accepted(firm())
    office.event(case_id, "E2", "start", who=POLICE)
    view = office.read("case", "show", case_id, who=POLICE)
    last = max(int(event["sequence"]) for event in view["events"] if event.get("stage_code") == "E2")
    ref = certifying.reference("publicsecurity", case_id, "E2", last)

    async def squat(client: Client) -> None:
        request = result_service_pb2.ReserveStatusRequest(result_ref=ref)
        method = f"{approval.RESULTS}/ReserveStatus"
        await client.unary(method, request, result_service_pb2.ReserveStatusResponse, timeout=10)

    approval.way(office.folder, CUSTOMS, "").run(squat)
    taken = office.event(case_id, "E2", "result", "pass", who=POLICE)["event"]["result_ref"]
    assert taken != ref


def test_an_event_sent_twice_happens_once(office: Office) -> None:
    case_id, same = office.submit(firm()), ("--id", str(uuid.uuid4()))
    office.event(case_id, "E0", "result", "pass")
    first = office.told("case", "event", case_id, "E1", "start", *same)
    assert first == "event 3 E1 START; the case is at version 3\n"
    assert office.told("case", "event", case_id, "E1", "start", *same).endswith("(recorded before)\n")
    other = office.refused("case", "event", case_id, "E1", "supplement-request", "--reason", "MATERIAL_MISSING", *same)
    assert other["reason"] == "EVENT_ID_REUSED"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("strat",), "did you mean 'start'"),
        (("recognise",), "there is no event 'recognise'"),
        (("result",), "say which result: one of pass, fail, conditional"),
        (("result", "pas"), "did you mean 'pass'"),
        (("suspend", "--pause", "lunch"), "there is no pause 'lunch'"),
        (("result", "pass", "--value", "method"), "--value takes NAME=VALUE"),
        (("result", "pass", "--value", "n:=1,"), "takes JSON"),
    ],
)
def test_what_is_no_event_is_a_wrong_call(
    office: Office, standing: str, arguments: tuple[str, ...], words: str
) -> None:
    ran = office("case", "event", standing, "E2", *arguments, who=POLICE)
    assert ran.exit_code == 2
    plain = " ".join(line.strip("│ ") for line in ran.stderr.splitlines())
    assert words in plain


@pytest.mark.parametrize(
    ("who", "arguments", "reason"),
    [
        (CUSTOMS, ("E2", "start"), "EVENT_WRONG_AGENCY"),
        (POLICE, ("E22", "start"), "STAGE_UNKNOWN"),
        (POLICE, ("E5a", "start"), "STAGE_NOT_READY"),
        ("foreign-investment/desk", ("E3", "start"), "STAGE_NOT_APPLICABLE"),
        (POLICE, ("E2", "result", "fail", "--reason", "CONDITIONS_NOT_MET"), "EVENT_NOT_ALLOWED"),
        (POLICE, ("E2", "start", "--at", "2999-01-01"), "EVENT_IN_FUTURE"),
        (POLICE, ("E2", "start", "--at", "2020-01-01"), "EVENT_TOO_OLD"),
        (POLICE, ("E2", "start", "--expect", "1"), "VERSION_CONFLICT"),
        (POLICE, ("E2", "start", "--id", "1"), "EVENT_ID_INVALID"),
        (POLICE, ("E2", "suspend", "--pause", "hearing", "--reason", "FORCE_MAJEURE"), "PAUSE_NOT_ALLOWED"),
        (REGISTRY, ("E4", "extend", "--extend", "9", "--reason", "COMPLEX_CASE"), "EXTENSION_NOT_ALLOWED"),
        (REGISTRY, ("-", "withdraw"), "REASON_MISSING"),
        (REGISTRY, ("-", "withdraw", "--reason", "APPLICANT_WITHDRAW"), "REASON_UNKNOWN"),
        (REGISTRY, ("E4", "withdraw", "--reason", "BRANCH_NOT_NEEDED"), "EVENT_NOT_ALLOWED"),
        (QUALITY, ("E2", "start"), "CASE_NOT_FOUND"),
    ],
)
def test_what_a_case_does_not_take_says_why(
    office: Office, standing: str, who: str, arguments: tuple[str, ...], reason: str
) -> None:
    if who.startswith("foreign"):
        run("certs", "issue", who, "--dir", office.folder / "certs")
    assert office.refused("case", "event", standing, *arguments, who=who)["reason"] == reason


def test_an_event_before_what_it_follows_on(office: Office) -> None:
    case_id = office.accepted(firm())
    yesterday = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).isoformat()
    error = office.refused("case", "event", case_id, "E2", "start", "--at", yesterday, who=POLICE)
    assert error["reason"] == "EVENT_OUT_OF_ORDER"


def test_a_closed_case_takes_nothing(office: Office) -> None:
    case_id = office.submit(firm())
    office.event(case_id, "-", "withdraw", "--reason", "APPLICANT_WITHDREW")
    assert office.refused("case", "event", case_id, "E0", "result", "pass")["reason"] == "CASE_CLOSED"


def test_who_would_examine_what_is_recognised_is_told_whose_result_stands(office: Office) -> None:
    code = firm()
    first = office.accepted(code)
    ref = office.passes(first, "E2", who=POLICE)
    second = office.submit(code)
    office.passes(second, "E1")
    ran = office("case", "event", second, "E2", "start", who=POLICE)
    assert ran.exit_code == 1
    assert f"E2 is satisfied: publicsecurity has proven it (result {ref})" in ran.stderr
    assert "recognised under PERSON-VERIFIED@1.0.0" in ran.stderr
    shown = office.told("case", "show", second)
    assert "publicsecurity: recognised from publicsecurity under PERSON-VERIFIED@1.0.0" in shown
    office.event(second, "E2", "refuse-recognition", "--reason", "SUBJECT_CHANGED", who=POLICE)
    assert office.event(second, "E2", "start", who=POLICE)["event"]["stage_code"] == "E2"


def test_the_same_examination_is_not_opened_twice_unawares(office: Office) -> None:
    code = firm()
    first, second = office.accepted(code), office.submit(code)
    office.passes(second, "E1")
    office.event(first, "E2", "start", who=POLICE)
    error = office.refused("case", "event", second, "E2", "start", who=POLICE)
    assert error["reason"] == "EXAMINATION_OPEN"
    assert error["metadata"]["case_id"] == first
    despite = ("--despite", error["metadata"]["despite"])
    assert office.refused("case", "event", second, "E2", "start", *despite, who=POLICE)["reason"] == "REASON_MISSING"
    office.event(second, "E2", "start", *despite, "--reason", "RISK_SIGNAL", who=POLICE)


def test_without_a_zone_folder_the_signed_result_comes_along(office: Office, standing: str, tmp_path: Path) -> None:
    zone = office.mesh.zone
    files = zone.credentials(TAX)
    way = (
        "--dir", tmp_path, "--address", office.mesh.address("recognition"), "--cert", files.certificate,
        "--key", files.key, "--bundle", zone.certificates.bundle,
    )  # fmt: skip
    shown = run("case", "show", standing, *way, "--json")
    assert shown.exit_code == 0, shown.stderr
    case_id = office.accepted(firm())
    office.passes(case_id, "E2", who=POLICE)
    office.passes(case_id, "E4")
    assert run("case", "event", case_id, "E5b", "start", *way).exit_code == 0
    bare = run("case", "event", case_id, "E5b", "result", "pass", *way, "--json")
    assert json.loads(bare.stdout)["error"]["reason"] == "RESULT_MISSING"


def test_lists_hold_what_one_takes_part_in(office: Office, standing: str) -> None:
    other = office.submit(firm())
    listed = office.read("case", "list", "--procedure", "FTZ-EST", "--status", "accepted", "--page-size", "200")
    ids = [view["case"]["case_id"] for view in listed["cases"]]
    assert standing in ids
    assert other not in ids
    first = office.read("case", "list", "--page-size", "1")
    second = office.read("case", "list", "--page-size", "1", "--page-token", first["next_page_token"])
    assert first["cases"][0]["case"]["case_id"] == other != second["cases"][0]["case"]["case_id"]
    assert other in office.told("case", "list", "--page-size", "1")
    assert (
        office.told("case", "list", "--procedure", "FTZ-EST", who=QUALITY) == f"{QUALITY} takes part in no such case.\n"
    )


def test_lists_ask_for_subject_status_and_light(office: Office) -> None:
    code = firm()
    case_id = office.submit(code)
    (view,) = office.read("case", "list", "--subject", f"cn.uscc:{code}")["cases"]
    assert view["case"]["case_id"] == case_id
    assert "cases" not in office.read("case", "list", "--subject", f"cn.uscc:{code}", "--light", "red")
    assert office("case", "list", "--light", "blue").exit_code == 2
    assert office("case", "list", "--status", "acepted").exit_code == 2


def test_a_watch_ends_with_its_case_and_goes_on_where_one_was(office: Office) -> None:
    case_id = office.submit(firm())
    office.event(case_id, "E0", "result", "pass")
    office.event(case_id, "-", "withdraw", "--reason", "OPENED_IN_ERROR")
    lines = office.told("case", "watch", case_id).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["1", "2", "3"]
    assert "E0" in lines[1]
    assert lines[2].endswith("WITHDRAW by commerce OPENED_IN_ERROR")
    offsets = {line.split("  ")[1].rpartition("+")[2] for line in lines}
    assert len(offsets) == 1  # one time zone, whatever the first events know of it
    streamed = [
        json.loads(line) for line in office.told("case", "watch", case_id, "--after", "2", "--json").splitlines()
    ]
    assert [response["version"] for response in streamed] == ["3"]


async def test_a_watch_survives_a_restart_of_the_service(office: Office, mesh: Fleet) -> None:
    def acted(*arguments: str) -> None:
        office.event(case_id, *arguments)

    case_id = await asyncio.to_thread(office.submit, firm())
    watching = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "services.cli.main", "case", "watch", case_id),
        *("--dir", str(office.folder), "--as", REGISTRY, "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert watching.stdout is not None
    seen = [json.loads(await watching.stdout.readline())]
    await mesh.restart("recognition")
    await asyncio.to_thread(acted, "E0", "result", "pass")
    await asyncio.to_thread(acted, "-", "withdraw", "--reason", "OPENED_IN_ERROR")
    seen += [json.loads(line) for line in (await watching.stdout.read()).splitlines()]
    assert await watching.wait() == 0
    assert [response["event"]["sequence"] for response in seen] == ["1", "2", "3"]


def test_every_refusal_of_recognition_says_what_to_do_next() -> None:
    names = list(Reason.__members__)
    mute = [name for name in names[names.index("PROCEDURE_INVALID") :] if name not in HINTS]
    assert not mute


def test_values_are_texts_unless_said_otherwise() -> None:
    says = ["a=1", "b=true", "c:=1", 'd:={"e": [null]}', "f="]
    assert approval.claims(says) == {"a": "1", "b": True, "c": 1, "d": {"e": [None]}, "f": ""}
    with pytest.raises(typer.BadParameter):
        approval.claims(["a=1", "a=2"])
