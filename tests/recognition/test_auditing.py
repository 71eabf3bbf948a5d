"""R26: auditors get what happened in the cases of those whom an authorization names, and nothing of anybody else's."""

import datetime as dt
import uuid
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from hutong.api.recognition.v1 import case_service_pb2
from services.kit.config import LimitsSection
from services.kit.errors import Reason
from tests.attacks.asking import refused
from tests.authorizations.mesh import HOUR, Leave, Supervised, registry
from tests.exchange.mesh import QUERY, question, records
from tests.recognition.mesh import CASES, QUALITY, TAX, Mesh, firm
from tests.recording.bed import everything
from tests.zone import now

AUDITOR = "audit/desk"
PLAN = "AP-2026-2"
EVENTS = "recognition.StageEvent"
FIELDS = ("case_id", "stage_code", "agency", "stage_event", "event_time", "officer_pseud", "officer")
OPEN = f"{EVENTS}:case_id,stage_code,agency,stage_event,event_time"
TERMS = {"purpose": "P-AUDIT", "legal_basis": "CN-AUDIT", "case_ref": PLAN}
OK, NOTHING = exchange_pb2.SECTION_STATUS_OK, exchange_pb2.SECTION_STATUS_NO_RECORD
DENIED = exchange_pb2.SECTION_STATUS_DENIED


@dataclass(frozen=True)
class Zone:
    """A recognition node and a gateway that hear a supervision node."""

    mesh: Mesh
    supervised: Supervised

    async def give(self, subjects: Iterable[str], who: str = AUDITOR, **changes: Any) -> Leave:
        """Have an authorization for an audit requested, approved by its owner and another, heard of, and used."""
        opened = pb.ScopedType(record_type=EVENTS, fields=FIELDS, condition=changes.pop("condition", ""))
        given: dict[str, Any] = TERMS | {"caller": who, "types": [opened], "row_quota": 100} | changes
        scope = pb.Scope(**given)
        scope.subjects.extend(question(f"cn.uscc:{subject}").subject for subject in subjects)
        begin = now().replace(microsecond=0) - dt.timedelta(minutes=1)
        scope.not_before.FromDatetime(begin)
        scope.not_after.FromDatetime(begin + HOUR)
        act = self.supervised.act
        request = pb.RequestAuthorizationRequest(request_id=str(uuid.uuid4()), scope=scope)
        made = (await act("RequestAuthorization", request, pb.RequestAuthorizationResponse, who, "req")).authorization
        for system in ("recognition/desk", who):
            approve = pb.ApproveAuthorizationRequest(
                authorization_id=made.authorization_id, scope_digest=made.scope_digest
            )
            await act("ApproveAuthorization", approve, pb.ApproveAuthorizationResponse, system, "chief")
        await self.heard(made.authorization_id, pb.AUTHORIZATION_STATE_ACTIVE)
        return Leave(made.authorization_id, made.scope, await self.supervised.use(made.authorization_id, who))

    async def revoke(self, leave: Leave) -> None:
        request = pb.RevokeAuthorizationRequest(authorization_id=leave.authorization_id, reason_code="PLAN_CLOSED")
        act = self.supervised.act
        await act("RevokeAuthorization", request, pb.RevokeAuthorizationResponse, "recognition/desk", "chief")
        await self.heard(leave.authorization_id, pb.AUTHORIZATION_STATE_REVOKED)

    async def heard(self, name: str, state: int) -> None:
        assert self.mesh.node is not None
        assert self.mesh.gateway is not None
        for enforcer in (self.mesh.node.enforcer, self.mesh.gateway.enforcer):
            known = registry(enforcer)
            while (standing := known.find(name)) is None or standing.state != state:
                await known.change(30)

    async def ask(
        self, subject: str, *selections: str, who: str = AUDITOR, **context: str
    ) -> tuple[exchange_pb2.Section, ...]:
        request = question(f"cn.uscc:{subject}", *(selections or (OPEN,)), **context)
        client = self.mesh.client(who, "gateway")
        return tuple((await client.unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)).sections)


@pytest.fixture(scope="module")
async def zone(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Zone]:
    folder = tmp_path_factory.mktemp("auditing")
    mesh = Mesh(_made(folder / "mesh"))
    supervised = Supervised(_made(folder / "supervised"), dt.timedelta(seconds=10), LimitsSection())
    supervised.zone = mesh.zone
    try:
        await supervised.start_supervision("customs")
        mesh.authorizations = supervised.authorizations
        await mesh.start()
        await mesh.start_gateway()
        yield Zone(mesh, supervised)
    finally:
        await mesh.stop()
        await supervised.stop()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_without_an_authorization_an_auditor_has_no_case(zone: Zone) -> None:
    subject = firm()
    await zone.mesh.accepted(subject)
    for asked in (subject, firm()):
        (section,) = await zone.ask(asked, **TERMS)
        assert (section.status, len(section.records)) == (NOTHING, 0)


async def test_what_happened_is_given_of_whom_it_names(zone: Zone) -> None:
    subject, other = firm(), firm()
    case_id = await zone.mesh.accepted(subject)
    await zone.mesh.accepted(other)
    leave = await zone.give([subject])
    (section,) = await zone.ask(subject, EVENTS, **leave.why)
    found = records(section)
    assert {event.case_id for event in found} == {case_id}
    assert {(event.stage_code, event.agency) for event in found} >= {("E0", "commerce"), ("E1", "commerce")}
    assert all(event.stage_event and event.HasField("event_time") for event in found)
    # Officers as pseudonyms only, and nothing that the policy does not name, were it in the scope or not.
    assert {event.officer for event in found} == {""}
    (stand_in,) = {event.officer_pseud for event in found} - {""}
    assert "W-7" not in stand_in
    assert not any(event.subject_uscc or event.result_ref or event.HasField("recorded_at") for event in found)
    assert await zone.supervised.used(leave) == len(found)
    assert zone.mesh.node is not None
    entry = [e for e in await everything(zone.mesh.node.host) if e.authorization_id == leave.authorization_id][-1]
    assert (entry.purpose, entry.disclosures[0].rows, len(entry.disclosures[0].named)) == ("P-AUDIT", len(found), 1)
    # Of others it opens nothing, whether or not they have cases.
    for asked in (other, firm()):
        assert (await refused(zone.ask(asked, **leave.why))).reason is Reason.AUTHORIZATION_SCOPE


async def test_cases_and_results_are_not_an_auditors(zone: Zone) -> None:
    subject = firm()
    await zone.mesh.accepted(subject)
    leave = await zone.give([subject])
    for section in await zone.ask(subject, "recognition.Case", "recognition.StageResult", **leave.why):
        assert (section.status, len(section.records)) == (DENIED, 0)
    request = case_service_pb2.ListCasesRequest(context=leave.context())
    listing = zone.mesh.client(AUDITOR).unary(
        f"{CASES}ListCases", request, case_service_pb2.ListCasesResponse, timeout=10
    )
    assert (await refused(listing)).reason is Reason.CALLER_NOT_LISTED


async def test_a_period_bounds_it(zone: Zone) -> None:
    subject = firm()
    await zone.mesh.accepted(subject)
    later = (now() + HOUR).isoformat()
    for condition, status in ((f'event_time < "{later}"', OK), (f'event_time > "{later}"', NOTHING)):
        leave = await zone.give([subject], condition=condition)
        (section,) = await zone.ask(subject, **leave.why)
        assert section.status == status
    # A condition alone names nobody: an auditor has no more of a case than before.
    leave = await zone.give([], condition=f'event_time < "{later}"')
    (section,) = await zone.ask(subject, **leave.why)
    assert section.status == NOTHING


async def test_the_quota_and_the_revocation_end_it(zone: Zone) -> None:
    subject = firm()
    await zone.mesh.accepted(subject)
    few = await zone.give([subject], row_quota=1)
    (section,) = await zone.ask(subject, **few.why)
    assert (section.status, section.reason, len(section.records)) == (DENIED, Reason.AUTHORIZATION_EXHAUSTED, 0)
    leave = await zone.give([subject])
    (section,) = await zone.ask(subject, **leave.why)
    assert section.status == OK
    await zone.revoke(leave)
    assert (await refused(zone.ask(subject, **leave.why))).reason is Reason.AUTHORIZATION_REVOKED


async def test_another_plan_or_another_system_has_no_use_of_it(zone: Zone) -> None:
    subject = firm()
    await zone.mesh.accepted(subject)
    leave = await zone.give([subject])
    changed = leave.why | {"case_ref": "AP-2026-3"}
    assert (await refused(zone.ask(subject, **changed))).reason is Reason.AUTHORIZATION_SCOPE
    reason = (await refused(zone.ask(subject, who="audit/other", **leave.why))).reason
    assert reason is Reason.AUTHORIZATION_NOT_YOURS


async def test_to_who_takes_part_in_cases_it_opens_no_others(zone: Zone) -> None:
    """An agency's own reach stays what it was, and an authorization takes away from it."""
    subject = firm()
    await zone.mesh.accepted(subject)
    terms = {"purpose": "P-APPROVAL", "legal_basis": "CN-ADMIN-LICENSING"}
    for who, status in ((TAX, OK), (QUALITY, NOTHING)):
        leave = await zone.give([subject], who=who, **terms)
        (section,) = await zone.ask(subject, who=who, **leave.why)
        assert section.status == status
