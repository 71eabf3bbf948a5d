"""What the node's log holds of acts: who, why, under which authorization, by which officer; also of refusals."""

import uuid

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.errors import Reason
from services.kit.officers.acts import act_nonce
from services.kit.officers.tokens import Role
from tests.supervision.mesh import AML, CUSTOMS, TAX, Mesh, refusal
from tests.zone import ZONE


async def last(mesh: Mesh) -> tuple[log_pb2.LogEntry, log_pb2.Opening]:
    """The last entry, and what it commits to."""
    log = mesh.nodes[0].host.log
    assert log is not None
    index = log.size - 1
    opening = await log.opening(index)
    return (await log.entry(index)).entry, opening or log_pb2.Opening()


async def test_an_act_and_its_refusal(own: Mesh) -> None:
    found = await own.request()
    entry, opening = await last(own)
    assert entry.rpc.endswith("/RequestAuthorization")
    assert (entry.caller, entry.outcome) == (f"spiffe://{ZONE}/{AML}", log_pb2.OUTCOME_ANSWERED)
    assert (entry.purpose, entry.legal_basis) == ("P-AML", "CN-AML")
    assert opening.case_ref == "STR-2026-7"
    assert entry.authorization_id == found.authorization_id
    assert entry.scope_digest == found.scope_digest
    assert entry.officer == found.events[0].officer
    await own.approve(found, AML, "chief")
    entry, _ = await last(own)
    assert entry.officer not in {"", found.events[0].officer}
    assert (await refusal(own.approve(found, AML, "chief"))).reason is Reason.APPROVER_NOT_ALLOWED
    refused, opening = await last(own)
    assert (refused.outcome, refused.reason) == (log_pb2.OUTCOME_REFUSED, Reason.APPROVER_NOT_ALLOWED)
    assert (refused.authorization_id, refused.officer) == (found.authorization_id, entry.officer)
    assert opening.case_ref == "STR-2026-7"


async def test_who_must_not_see_it_leaves_no_more_than_that_they_asked(own: Mesh) -> None:
    found = await own.request()
    request = pb.GetAuthorizationRequest(authorization_id=found.authorization_id)
    await refusal(own.call(TAX, "GetAuthorization", request))
    entry, opening = await last(own)
    assert (entry.outcome, entry.reason) == (log_pb2.OUTCOME_REFUSED, Reason.AUTHORIZATION_UNKNOWN)
    assert (entry.caller, entry.purpose, opening.case_ref) == (f"spiffe://{ZONE}/{TAX}", "", "")
    assert entry.authorization_id == found.authorization_id
    await own.call(CUSTOMS, "GetAuthorization", request)
    entry, _ = await last(own)
    assert (entry.outcome, entry.authorization_id) == (log_pb2.OUTCOME_ANSWERED, found.authorization_id)
    assert entry.officer == ""


async def test_an_officer_who_is_refused_is_logged_too(own: Mesh) -> None:
    """Also where nothing is known of the authorization, or there is none yet."""
    found = await own.request(officer="req")
    requester = found.events[0].officer
    assert (await refusal(own.request(officer="req", purpose="P-NONE"))).reason is Reason.PURPOSE_UNKNOWN
    entry, _ = await last(own)
    assert (entry.outcome, entry.reason) == (log_pb2.OUTCOME_REFUSED, Reason.PURPOSE_UNKNOWN)
    assert (entry.officer, entry.authorization_id) == (requester, "")
    none = pb.UseAuthorizationRequest(authorization_id=str(uuid.uuid4()))
    assert (await refusal(own.act(AML, "req", "UseAuthorization", none))).reason is Reason.AUTHORIZATION_UNKNOWN
    entry, _ = await last(own)
    assert (entry.officer, entry.authorization_id) == (requester, none.authorization_id)
    use = pb.UseAuthorizationRequest(authorization_id=found.authorization_id)
    role = await refusal(own.act(AML, "req", "UseAuthorization", use, Role.AUDITOR))
    assert role.reason is Reason.OFFICER_ROLE_MISSING
    entry, _ = await last(own)
    assert (entry.officer, entry.authorization_id) == (requester, found.authorization_id)
    use.officer_token = ""
    assert (await refusal(own.call(AML, "UseAuthorization", use))).reason is Reason.OFFICER_MISSING
    entry, _ = await last(own)
    assert (entry.officer, entry.authorization_id) == ("", found.authorization_id)


async def test_who_samples_decisions_goes_by_the_same_name(own: Mesh) -> None:
    found = await own.request(officer="req")
    asked = log_service_pb2.SampleDecisionsRequest()
    method = "/hutong.api.log.v1.LogService/SampleDecisions"
    asked.officer_token = own.issuers["supervision"].token(
        "req",
        (Role.AUDITOR,),
        f"spiffe://{ZONE}/supervision/node",
        act_nonce(method, asked),
        own.zone.files(AML).load().chain,
        own.clock(),
    )
    await own.client(AML).unary(method, asked, log_service_pb2.SampleDecisionsResponse, timeout=10)
    entry, _ = await last(own)
    assert (entry.rpc, entry.officer) == (method, found.events[0].officer)
