"""The node over mutual TLS: who may call what, whose tokens count, what is answered, and what is logged of it."""

import asyncio
import datetime as dt
import uuid
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.exchange.v1 import exchange_pb2
from services.kit import config
from services.kit.authorizations import tickets
from services.kit.config import StoreSection
from services.kit.credentials.keys import PublishedKeys
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.officers.tokens import Role
from services.supervision.config import SupervisionConfig
from services.supervision.node import SupervisionNode
from tests.supervision.desk import DAY, scope
from tests.supervision.mesh import AML, CUSTOMS, TAX, Mesh, State, refusal
from tests.zone import ZONE, now


async def test_from_request_to_ticket(mesh: Mesh) -> None:
    found = await mesh.request()
    assert found.state == State.AUTHORIZATION_STATE_REQUESTED
    begin = found.scope.not_before.ToDatetime(dt.UTC)
    assert found.scope == scope(AML, begin, nonce=found.scope.nonce)
    once = await mesh.approve(found, AML, "chief")
    assert once.state == State.AUTHORIZATION_STATE_APPROVED_ONCE
    found = await mesh.approve(found)
    assert found.state == State.AUTHORIZATION_STATE_ACTIVE
    assert [event.kind for event in found.events] == ["requested", "approved", "approved"]
    assert all(event.officer.startswith("officer-") and len(event.officer) == 24 for event in found.events)
    used = await mesh.use(found)
    ticket = tickets.read(used.ticket, PublishedKeys.load(mesh.folder / "keys"), now())
    assert ticket.authorization_id == found.authorization_id
    assert ticket.scope_digest == found.scope_digest
    assert ticket.caller == f"spiffe://{ZONE}/{AML}"
    assert ticket.officer == found.events[0].officer
    assert ticket.expires_at == used.expires_at.ToDatetime(dt.UTC)
    assert ticket.expires_at - ticket.issued_at == tickets.LIFETIME
    assert await mesh.reserve(used.ticket, 30) == 70
    assert (await mesh.get(found)).rows_used == 30


async def test_a_ticket_never_lasts_longer_than_the_authorization(mesh: Mesh) -> None:
    found = await mesh.active(lasts=dt.timedelta(minutes=2))
    used = await mesh.use(found)
    assert used.expires_at == found.scope.not_after


async def test_answers_bring_receipts(mesh: Mesh) -> None:
    found = await mesh.request()
    answer = await mesh.call(
        AML, "GetAuthorization", pb.GetAuthorizationRequest(authorization_id=found.authorization_id)
    )
    assert answer.receipt.origin == f"{ZONE}/supervision/node"
    log = mesh.nodes[0].host.log
    assert log is not None
    assert answer.receipt.index < log.size


async def test_tokens_that_are_not_for_this(mesh: Mesh) -> None:
    found = await mesh.request()
    request = pb.ApproveAuthorizationRequest(authorization_id=found.authorization_id, scope_digest=found.scope_digest)
    rpc = "ApproveAuthorization"
    wider = pb.ApproveAuthorizationRequest(authorization_id=found.authorization_id, scope_digest=bytes(32))
    other = await mesh.request()
    elsewhere = pb.ApproveAuthorizationRequest(authorization_id=other.authorization_id, scope_digest=found.scope_digest)
    attempts = {
        "": Reason.OFFICER_MISSING,
        "nonsense": Reason.OFFICER_TOKEN_INVALID,
        # For another node, another act, another content of this act, through another system.
        mesh.token(CUSTOMS, "owner", rpc, request, audience=f"spiffe://{ZONE}/customs/node"): INVALID,
        mesh.token(CUSTOMS, "owner", "RevokeAuthorization", request): INVALID,
        mesh.token(CUSTOMS, "owner", rpc, wider): INVALID,
        mesh.token(CUSTOMS, "owner", rpc, elsewhere): INVALID,
        mesh.token(CUSTOMS, "owner", rpc, request, through="customs/node"): INVALID,
        # Another agency's officer at this agency's system.
        mesh.token(CUSTOMS, "owner", rpc, request, agency="taxation"): Reason.ISSUER_UNKNOWN,
        mesh.token(CUSTOMS, "owner", rpc, request, Role.REQUESTER): Reason.OFFICER_ROLE_MISSING,
        mesh.token(CUSTOMS, "owner", rpc, request, Role.AUDITOR, Role.DATA_OFFICER): Reason.OFFICER_ROLE_MISSING,
    }
    for token, reason in attempts.items():
        request.officer_token = token
        assert (await refusal(mesh.call(CUSTOMS, rpc, request))).reason is reason
    assert (await mesh.get(found)).state == State.AUTHORIZATION_STATE_REQUESTED


INVALID = Reason.OFFICER_TOKEN_INVALID


async def test_a_token_that_comes_again(mesh: Mesh) -> None:
    found = await mesh.active()
    request = pb.UseAuthorizationRequest(authorization_id=found.authorization_id)
    request.officer_token = mesh.token(AML, "req", "UseAuthorization", request)
    await mesh.call(AML, "UseAuthorization", request)
    replayed = await refusal(mesh.call(AML, "UseAuthorization", request))
    assert replayed.reason is Reason.OFFICER_TOKEN_REPLAYED


async def test_every_act_needs_its_role(mesh: Mesh) -> None:
    found = await mesh.request()
    name: dict[str, Any] = {"authorization_id": found.authorization_id}
    acts: list[tuple[str, Any, Role]] = [
        ("RequestAuthorization", pb.RequestAuthorizationRequest(request_id=str(uuid.uuid4())), Role.APPROVER),
        ("ApproveAuthorization", pb.ApproveAuthorizationRequest(**name), Role.REQUESTER),
        ("RejectAuthorization", pb.RejectAuthorizationRequest(reason_code="NO", **name), Role.REQUESTER),
        ("RevokeAuthorization", pb.RevokeAuthorizationRequest(reason_code="NO", **name), Role.AUDITOR),
        ("UseAuthorization", pb.UseAuthorizationRequest(**name), Role.APPROVER),
        ("ReviewAuthorization", pb.ReviewAuthorizationRequest(reason_code="NO", **name), Role.REQUESTER),
    ]
    for rpc, request, role in acts:
        refused = await refusal(mesh.act(AML, "somebody", rpc, request, role))
        assert refused.reason is Reason.OFFICER_ROLE_MISSING


async def test_requests_that_are_none(mesh: Mesh) -> None:
    found = await mesh.request()
    name = found.authorization_id
    cases: list[tuple[str, Any, Reason]] = [
        ("RequestAuthorization", pb.RequestAuthorizationRequest(scope=found.scope), Reason.REQUEST_ID_INVALID),
        ("RequestAuthorization", pb.RequestAuthorizationRequest(request_id="1" * 36), Reason.REQUEST_ID_INVALID),
        ("RejectAuthorization", pb.RejectAuthorizationRequest(authorization_id=name), Reason.REASON_MISSING),
        (
            "RevokeAuthorization",
            pb.RevokeAuthorizationRequest(authorization_id=name, reason_code="she said so"),
            Reason.REASON_MISSING,
        ),
        ("UseAuthorization", pb.UseAuthorizationRequest(authorization_id="' OR 1=1"), Reason.AUTHORIZATION_UNKNOWN),
        ("UseAuthorization", pb.UseAuthorizationRequest(), Reason.AUTHORIZATION_UNKNOWN),
    ]
    for rpc, request, reason in cases:
        assert (await refusal(mesh.act(AML, "req", rpc, request))).reason is reason
    for request in (pb.GetAuthorizationRequest(authorization_id="x" * 100_000), pb.GetAuthorizationRequest()):
        assert (await refusal(mesh.call(AML, "GetAuthorization", request))).reason is Reason.AUTHORIZATION_UNKNOWN
    listing = pb.ListAuthorizationsRequest()
    listing.state = 77  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    assert (await refusal(mesh.call(AML, "ListAuthorizations", listing))).reason is Reason.MALFORMED_REQUEST


async def test_a_scope_that_a_request_hands_in_for_another_system(mesh: Mesh) -> None:
    asked = scope("supervision/other", now())
    request = pb.RequestAuthorizationRequest(request_id=str(uuid.uuid4()), scope=asked)
    assert (await refusal(mesh.act(AML, "req", "RequestAuthorization", request))).reason is Reason.SCOPE_INVALID


async def test_the_same_request_again_over_the_wire(mesh: Mesh) -> None:
    request = pb.RequestAuthorizationRequest(
        request_id=str(uuid.uuid4()), scope=scope(AML, now().replace(microsecond=0))
    )
    first = await mesh.act(AML, "req", "RequestAuthorization", request)
    again = await mesh.call(AML, "RequestAuthorization", request)
    assert again.authorization.authorization_id == first.authorization.authorization_id
    fresh = await mesh.act(AML, "req", "RequestAuthorization", request)
    assert fresh.authorization.authorization_id == first.authorization.authorization_id


async def test_only_nodes_reserve_rows_and_only_with_a_ticket(mesh: Mesh) -> None:
    found = await mesh.active()
    ticket = (await mesh.use(found)).ticket
    for who, text, reason in (
        (CUSTOMS, ticket, Reason.CALLER_NOT_LISTED),
        ("gateway/main", ticket, Reason.CALLER_NOT_LISTED),
        ("taxation/node", ticket, Reason.RECORD_TYPE_NOT_OWNED),
        ("customs/node", ticket[:-5] + "AAAAA", Reason.TICKET_INVALID),
        ("customs/node", "", Reason.TICKET_INVALID),
        ("customs/node", "x" * 100_000, Reason.TICKET_INVALID),
    ):
        assert (await refusal(mesh.reserve(text, 1, who=who))).reason is reason
    for rows, name in ((-1, "r"), (10**13, "r"), (1, "r" * 65), (1, "a b")):
        assert (await refusal(mesh.reserve(ticket, rows, name))).reason is Reason.MALFORMED_REQUEST


async def test_quota_over_the_wire(mesh: Mesh) -> None:
    """A few hundred calls at once, over real connections."""
    found = await mesh.active(row_quota=200)
    ticket = (await mesh.use(found)).ticket
    calls = [mesh.reserve(ticket, 1) for _ in range(300)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 200
    refused = [outcome for outcome in outcomes if isinstance(outcome, HutongError)]
    assert {error.reason for error in refused} == {Reason.AUTHORIZATION_EXHAUSTED}
    done = await mesh.get(found)
    assert (done.rows_used, done.state) == (200, State.AUTHORIZATION_STATE_EXHAUSTED)
    assert [event.kind for event in done.events][-2:] == ["used", "exhausted"]


async def test_who_sees_what(mesh: Mesh) -> None:
    found = await mesh.request()
    for who in (AML, CUSTOMS, "supervision/other", "customs/node", "audit/desk"):
        assert (await mesh.get(found, who)).scope_digest == found.scope_digest
    # Unknown is what it is to everybody else: also to an auditor's agency's other systems.
    for who in (TAX, "commerce/registry", "audit/other"):
        for rpc in ("GetAuthorization", "ExplainAuthorization"):
            request = getattr(pb, f"{rpc}Request")(authorization_id=found.authorization_id)
            refused = await refusal(mesh.call(who, rpc, request))
            assert refused.reason is Reason.AUTHORIZATION_UNKNOWN
            assert "NOT_FOUND" in refused.code
    assert (await refusal(mesh.get(found, "enterprise/91110000600037341l"))).reason is Reason.CALLER_NOT_LISTED


async def test_listing_pages_are_the_callers_own(own: Mesh) -> None:
    made = [await own.request() for _ in range(5)]
    other = await own.request("customs/anti", "someone")
    active = await own.approve(await own.approve(made[2], AML, "chief"))
    names = [found.authorization_id for found in made]

    async def listed(who: str, size: int, **more: Any) -> list[list[str]]:
        pages: list[list[str]] = []
        token = ""
        while True:
            request = pb.ListAuthorizationsRequest(page_size=size, page_token=token, **more)
            answer = await own.call(who, "ListAuthorizations", request)
            assert not any(found.events for found in answer.authorizations)
            pages.append([found.authorization_id for found in answer.authorizations])
            token = answer.next_page_token
            if not token:
                return pages

    assert await listed(AML, 2) == [names[:2:-1], names[2:0:-1], names[:1]]
    assert [*chain(*await listed(CUSTOMS, 4))] == [other.authorization_id, *reversed(names)]
    assert [*chain(*await listed(TAX, 0))] == []
    assert [*chain(*await listed("audit/desk", 200))] == [other.authorization_id, *reversed(names)]
    in_force = State.AUTHORIZATION_STATE_ACTIVE
    assert [*chain(*await listed(AML, 1, state=in_force))] == [active.authorization_id]
    first = await own.call(AML, "ListAuthorizations", pb.ListAuthorizationsRequest(page_size=2))
    token = first.next_page_token
    for who, request in (
        (CUSTOMS, pb.ListAuthorizationsRequest(page_token=token)),
        ("supervision/other", pb.ListAuthorizationsRequest(page_token=token)),
        (AML, pb.ListAuthorizationsRequest(page_token=token, state=in_force)),
    ):
        refused = await refusal(own.call(who, "ListAuthorizations", request))
        assert refused.reason is Reason.PAGE_TOKEN_MISMATCH
    refused = await refusal(own.call(AML, "ListAuthorizations", pb.ListAuthorizationsRequest(page_token="x")))
    assert refused.reason is Reason.PAGE_TOKEN_INVALID
    refused = await refusal(own.call(AML, "ListAuthorizations", pb.ListAuthorizationsRequest(page_size=-1)))
    assert refused.reason is Reason.PAGE_SIZE_INVALID


async def test_an_approver_sees_field_by_field_what_would_open(mesh: Mesh) -> None:
    types = [
        pb.ScopedType(record_type="customs.Declaration", fields=["declaration_no", "total_value_cny", "lines"]),
        pb.ScopedType(record_type="taxation.TaxpayerStatus", fields=["arrears_amt"]),
    ]
    found = await mesh.request(types=types)
    request = pb.ExplainAuthorizationRequest(authorization_id=found.authorization_id)
    for who in (CUSTOMS, TAX, AML):
        answer = await mesh.call(who, "ExplainAuthorization", request)
        assert answer.scope_digest == found.scope_digest
        declaration, status = answer.sections
        assert (declaration.record_type, status.record_type) == ("customs.Declaration", "taxation.TaxpayerStatus")
        assert not declaration.records
        assert {d.field.partition(".")[0] for d in declaration.decisions} == {
            "declaration_no",
            "total_value_cny",
            "lines",
        }
        assert [d.field for d in status.decisions] == ["arrears_amt"]
        # What the owner does not permit stays refused, whatever is approved.
        assert status.status == exchange_pb2.SECTION_STATUS_DENIED
        assert declaration.policy_version
        given = {d.field for d in declaration.decisions if d.verdict == exchange_pb2.VERDICT_CLEAR}
        assert {"declaration_no", "total_value_cny"} <= given


async def test_a_config_that_says_nothing_of_emergencies_knows_none(mesh: Mesh) -> None:
    error = await refusal(mesh.request(emergency=True, lasts=dt.timedelta(hours=1)))
    assert error.reason is Reason.EMERGENCY_NOT_ALLOWED


async def test_an_emergency_says_by_when_it_has_to_be_reviewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = Mesh(tmp_path)
    mesh.changes = {"break_glass": True, "review_within": DAY}
    try:
        await mesh.start()
        found = await mesh.request(emergency=True, lasts=dt.timedelta(hours=1))
        assert not found.HasField("review_due")
        found = await mesh.approve(found)
        assert found.state == State.AUTHORIZATION_STATE_ACTIVE
        assert found.review_due.ToDatetime(dt.UTC) == found.events[-1].at.ToDatetime(dt.UTC) + DAY
        await mesh.use(found)
        warned = [r for r in caplog.records if r.levelname == "WARNING" and "emergency" in r.message]
        assert len(warned) == 3
        assert not any("owner" in str(vars(r)) or "'req'" in str(vars(r)) for r in warned)
        request = pb.ReviewAuthorizationRequest(authorization_id=found.authorization_id, reason_code="JUSTIFIED")
        done = await mesh.act("audit/desk", "auditor", "ReviewAuthorization", request, Role.AUDITOR)
        assert not done.authorization.HasField("review_due")
        assert done.authorization.events[-1].reason_code == "JUSTIFIED"
    finally:
        await mesh.stop()


async def started(mesh: Mesh, **changes: Any) -> Reason:
    mesh.changes = changes
    try:
        await mesh.start()
    except HutongError as error:
        return error.reason
    finally:
        await mesh.stop()
    raise AssertionError("it started")


async def test_a_config_that_does_not_stand_stops_the_start(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert await started(mesh, keys=tmp_path / "none") is Reason.CONFIG_FILE_MISSING
    assert await started(mesh, signing=empty) is Reason.CONFIG_FILE_MISSING
    assert await started(mesh, keys=empty) is Reason.KEY_INVALID
    assert await started(mesh, secret=tmp_path / "none") is Reason.CONFIG_INVALID
    assert await started(mesh, store=StoreSection(url=mesh.url)) is Reason.STORE_NOT_MIGRATED
    assert await started(mesh, log=None) is Reason.CONFIG_INVALID
    mesh.signing.rotate(now() - DAY / 2)
    assert await started(mesh) is Reason.KEY_UNKNOWN


def test_somebody_elses_config_is_refused(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    path = "customs/node"
    other = mesh.config().model_copy(update={"node": mesh.zone.node(path), "tls": mesh.zone.tls(path)})
    with pytest.raises(FailedPrecondition, match="customs's, not supervision's"):
        SupervisionNode(other, mesh.url, mesh.zone.frame(other))


def test_a_config_file(tmp_path: Path) -> None:
    text = """
secret = "secret"
keys = "../keys"
signing = "signing"
break_glass = true
[node]
zone = "zone.example"
agency = "supervision"
listen = "127.0.0.1:1"
[tls]
certificate = "c"
key = "k"
bundle = "b"
revoked = "r"
[store]
url = "sqlite+aiosqlite:///supervision.db"
[policy]
files = ["../policy/customs.cedar"]
[officers.customs]
issuer = "https://officers.customs.zone.example"
jwks = "../officers/customs.jwks.json"
"""
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    read = config.read(path, SupervisionConfig)
    assert (read.owner_approval, read.break_glass, read.auditors) == (True, True, [])
    assert (read.approval_within, read.longest, read.review_within) == (3 * DAY, 90 * DAY, 3 * DAY)
    assert read.heartbeat == dt.timedelta(milliseconds=300)
    for wrong in ('longest = "0s"', "brake_glass = true", 'heartbeat = "0ms"'):
        path.write_text(text.replace("break_glass = true", wrong), encoding="utf-8")
        with pytest.raises(FailedPrecondition):
            config.read(path, SupervisionConfig)
