"""Tickets that are stolen, altered, made up, or kept too long; gateways that lie; clocks that were set back."""

import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2
from services.kit.authorizations import tickets
from services.kit.authorizations.tickets import Ticket
from services.kit.caller import Caller
from services.kit.config import LimitsSection
from services.kit.context import ContextSigner, request_digest
from services.kit.credentials import signed
from services.kit.credentials.keys import SigningKeys
from services.kit.department import DepartmentNode
from services.kit.errors import Reason
from services.kit.host import Host
from tests.attacks.asking import CUSTOMS, SOURCE, ask, call, refused
from tests.attacks.clocked import Clock
from tests.authorizations.mesh import AML, BROKER, DECLARATIONS, LISTINGS, POLICE, Leave, Supervised, asked, listings
from tests.exchange.mesh import ROOMS
from tests.exchange.records import EXPORTER
from tests.zone import ZONE, now

KIND = DECLARATIONS.record_type
MERCHANT = f"cn.customs_code:{BROKER}"
SECOND = dt.timedelta(seconds=1)
MINUTE = dt.timedelta(minutes=1)


async def listed(mesh: Supervised, leave: Leave, who: str = POLICE, **changes: str) -> Any:
    """Ask the department itself."""
    subject = common_pb2.SubjectId(scheme="cn.customs_code", value=BROKER)
    request = service_pb2.ListCbecListingsRequest(context=leave.context(**changes), subject=subject)
    return await call(mesh, who, f"{CUSTOMS}/ListCbecListings", request, service_pb2.ListCbecListingsResponse)


async def queried(mesh: Supervised, leave: Leave, who: str = POLICE, **changes: str) -> Any:
    """Ask the gateway."""
    request = asked(leave, LISTINGS.record_type, subject=MERCHANT)
    request.context.CopyFrom(leave.context(**changes))
    return await ask(mesh, who, request)


async def order(mesh: Supervised, **changes: Any) -> Leave:
    return await mesh.give(LISTINGS, who=POLICE, subjects=(MERCHANT,), **changes)


async def refusals(mesh: Supervised, leave: Leave, ticket: str) -> set[str]:
    """Show a ticket at both doors; gives why it was refused."""
    doors = (listed(mesh, leave, authorization_ticket=ticket), queried(mesh, leave, authorization_ticket=ticket))
    errors = [await refused(door) for door in doors]
    assert all(ticket not in error.message for error in errors if ticket)
    return {error.reason for error in errors}


# altered


async def test_a_ticket_altered_by_one_character_is_none(supervised: Supervised) -> None:
    leave = await order(supervised)
    for place in range(0, len(leave.ticket), 13):
        letter = "A" if leave.ticket[place] != "A" else "B"
        altered = leave.ticket[:place] + letter + leave.ticket[place + 1 :]
        assert await refusals(supervised, leave, altered) == {Reason.TICKET_INVALID}, place
    header, payload, signature = leave.ticket.split(".")
    # What is no text at all is no context either.
    for other in ("\x00", leave.ticket + "\n"):
        assert await refusals(supervised, leave, other) == {Reason.MALFORMED_REQUEST}
    for other in (f"{header}.{payload}.", f"{header}.{payload}", f".{payload}.{signature}", "x", "a.b.c", "."):
        assert await refusals(supervised, leave, other) == {Reason.TICKET_INVALID}
    for longer in (leave.ticket + "=", " " + leave.ticket, leave.ticket * 2):
        assert await refusals(supervised, leave, longer) == {Reason.TICKET_INVALID}
    assert await supervised.used(leave) == 0
    assert (await listed(supervised, leave)).cbec_listings


# made by the right key, and wrong; made by the wrong key


def ticket(leave: Leave, digest: bytes, **changes: Any) -> Ticket:
    issued = now().replace(microsecond=0)
    made: dict[str, Any] = {
        "ticket_id": str(uuid.uuid4()),
        "issuer": f"spiffe://{ZONE}/supervision",
        "authorization_id": leave.authorization_id,
        "scope_digest": digest,
        "caller": f"spiffe://{ZONE}/{POLICE}",
        "officer": "officer-0123456789abcdef",
        "issued_at": issued,
        "expires_at": issued + 5 * MINUTE,
    }
    return Ticket(**made | changes)


def by_hand(keys: SigningKeys, made: Ticket) -> str:
    """Sign a ticket with the key that is active now, whatever it says."""
    key, begin = keys.active(now()), now()
    payload = dict(signed.read(tickets.sign(keys, replace(made, issued_at=begin)), typ=tickets.TYPE).payload)
    payload["iat"] = int(made.issued_at.timestamp())
    return signed.sign({"typ": tickets.TYPE, "kid": key.kid}, payload, key.key)


async def digest_of(mesh: Supervised, leave: Leave) -> bytes:
    standing = mesh.enforcers("customs")["customs"].service
    assert standing is not None
    known = standing.registry.find(leave.authorization_id)
    assert known is not None
    return known.scope.digest


async def test_tickets_that_do_not_fit(supervised: Supervised) -> None:
    """However good the signature: a ticket is for one system, one scope as it was approved, and a few minutes."""
    mesh = supervised
    keys = SigningKeys.open(mesh.folder / "signing")
    leave, other = await order(mesh), await order(mesh)
    digest, issued = await digest_of(mesh, leave), now().replace(microsecond=0)
    for changes, reason in (
        ({"caller": f"spiffe://{ZONE}/publicsecurity/other"}, Reason.AUTHORIZATION_NOT_YOURS),
        ({"caller": f"spiffe://other.example/{POLICE}"}, Reason.AUTHORIZATION_NOT_YOURS),
        ({"caller": POLICE}, Reason.AUTHORIZATION_NOT_YOURS),
        ({"scope_digest": bytes(32)}, Reason.AUTHORIZATION_CHANGED),
        ({"scope_digest": await digest_of(mesh, other)}, Reason.AUTHORIZATION_CHANGED),
        ({"authorization_id": other.authorization_id}, Reason.TICKET_INVALID),
        ({"issuer": f"spiffe://{ZONE}/customs"}, Reason.TICKET_INVALID),
        ({"issuer": "spiffe://other.example/supervision"}, Reason.TICKET_INVALID),
        # From before its key was.
        ({"issued_at": issued - 999 * MINUTE, "expires_at": issued - 995 * MINUTE}, Reason.TICKET_INVALID),
        ({"expires_at": issued + 6 * MINUTE}, Reason.TICKET_INVALID),
        ({"issued_at": issued + 2 * MINUTE, "expires_at": issued + 3 * MINUTE}, Reason.TICKET_INVALID),
        ({"expires_at": issued - SECOND}, Reason.TICKET_INVALID),
    ):
        made: dict[str, Any] = changes
        assert await refusals(mesh, leave, by_hand(keys, ticket(leave, digest, **made))) == {reason}
    # As good a one as the service would have made is one.
    assert (await listed(mesh, leave, authorization_ticket=tickets.sign(keys, ticket(leave, digest)))).cbec_listings


async def test_tickets_that_somebody_else_signed(supervised: Supervised, tmp_path: Path) -> None:
    mesh = supervised
    leave = await order(mesh)
    made = ticket(leave, await digest_of(mesh, leave))
    right = SigningKeys.open(mesh.folder / "signing")
    # A department whose own signing keys are published beside the service's; and somebody who publishes nothing.
    customs = SigningKeys.create(tmp_path / "customs", f"spiffe://{ZONE}/customs", now() - MINUTE)
    customs.publish(mesh.folder / "keys")
    for issuer in (f"spiffe://{ZONE}/customs", f"spiffe://{ZONE}/supervision"):
        forged = tickets.sign(customs, ticket(leave, made.scope_digest, issuer=issuer))
        assert await refusals(mesh, leave, forged) == {Reason.TICKET_INVALID}
    stranger = SigningKeys.create(tmp_path / "s", f"spiffe://{ZONE}/supervision", now() - MINUTE).active(now())
    true = right.active(now())
    payload = signed.read(tickets.sign(right, made), typ=tickets.TYPE).payload
    for header, key in (
        ({"typ": tickets.TYPE, "kid": true.kid}, stranger.key),
        ({"typ": tickets.TYPE, "kid": stranger.kid}, stranger.key),
        ({"typ": "JWT", "kid": true.kid}, true.key),
        ({"typ": "hutong-authorization-event+jwt", "kid": true.kid}, true.key),
        ({"typ": tickets.TYPE, "kid": true.kid, "jku": "https://evil.example"}, true.key),
        ({"typ": tickets.TYPE, "kid": "../supervision"}, true.key),
    ):
        assert await refusals(mesh, leave, signed.sign(header, payload, key)) == {Reason.TICKET_INVALID}
    # Nor is anything else that the service has signed a ticket: an event of the very authorization, say.
    get = pb.GetAuthorizationRequest(authorization_id=leave.authorization_id)
    method = "/hutong.api.authorization.v1.AuthorizationService/GetAuthorization"
    client = mesh.client(POLICE, "supervision")
    events = (await client.unary(method, get, pb.GetAuthorizationResponse, timeout=10)).authorization.events
    assert events
    for event in events:
        assert await refusals(mesh, leave, event.signature) == {Reason.TICKET_INVALID}
    assert await mesh.used(leave) == 0


# stolen


async def test_a_ticket_is_of_no_use_to_who_saw_it(supervised: Supervised) -> None:
    """Departments and gateways see tickets, colleagues may: none of them can ask under it."""
    mesh = supervised
    leave = await order(mesh)
    for thief in ("publicsecurity/other", "publicsecurity/node", "taxation/node", "supervision/node", AML):
        for door in (listed(mesh, leave, thief), queried(mesh, leave, thief)):
            assert (await refused(door)).reason in {Reason.AUTHORIZATION_NOT_YOURS, Reason.CALLER_NOT_LISTED}
    for thief in ("gateway/main", "customs/node"):
        assert (await refused(queried(mesh, leave, thief))).reason in {
            Reason.AUTHORIZATION_NOT_YOURS,
            Reason.CALLER_NOT_LISTED,
        }
    assert await mesh.used(leave) == 0


async def test_no_trace_names_a_ticket_or_whom_it_is_about(supervised: Supervised) -> None:
    """Neither the spans of a question under one, nor the errors of one that is refused."""
    mesh = supervised
    leave = await order(mesh)
    mesh.zone.spans.clear()
    assert await queried(mesh, leave)
    assert (await listed(mesh, leave)).cbec_listings
    error = await refused(listed(mesh, leave, case_ref="STR-2026-8"))
    told = [error.message, *error.metadata.values()]
    spans = mesh.zone.spans.get_finished_spans()
    assert len(spans) > 4
    told += [f"{span.name} {span.attributes} {[(e.name, e.attributes) for e in span.events]}" for span in spans]
    secrets = {BROKER, leave.scope.case_ref, *leave.ticket.split(".")[1:]}
    assert [text for text in told if any(secret in text for secret in secrets)] == []


# a gateway that lies


async def lied(mesh: Supervised, caller: str, context: exchange_pb2.RequestContext, **how: Any) -> Any:
    """Have the gateway's own key say who asks and why, and ask the department."""
    subject = common_pb2.SubjectId(scheme="cn.uscc", value=how.get("subject", EXPORTER))
    selection = exchange_pb2.Selection(record_type=KIND, fields=how.get("fields", []))
    request = record_source_pb2.FetchRequest(subject=subject, selections=[selection])
    agency, _, system = caller.partition("/")
    signer, svid = ContextSigner(mesh.zone.identity("gateway/main"), now), mesh.zone.files("gateway/main").load()
    caller_ = Caller(f"spiffe://{ZONE}/{caller}", agency, system)
    request.delegated.CopyFrom(signer.sign(svid, caller_, context, [request_digest(request)]))
    answer = await call(mesh, "gateway/main", f"{SOURCE}/Fetch", request, record_source_pb2.FetchResponse)
    return answer.sections[0]


async def test_a_gateway_that_drops_or_swaps_the_authorization(supervised: Supervised) -> None:
    """It has everybody's tickets, and everybody's word is its own: what it gets is what the ticket's owner would."""
    mesh = supervised
    leave, theirs = await mesh.give(DECLARATIONS), await order(mesh)
    bare = leave.context()
    bare.ClearField("authorization_id")
    bare.ClearField("authorization_ticket")
    for caller, context, reason in (
        (AML, bare, Reason.AUTHORIZATION_MISSING),
        (AML, leave.context(authorization_ticket=""), Reason.TICKET_INVALID),
        (AML, leave.context(authorization_id=""), Reason.AUTHORIZATION_MISSING),
        (AML, leave.context(authorization_ticket=theirs.ticket), Reason.TICKET_INVALID),
        (AML, theirs.context(), Reason.AUTHORIZATION_NOT_YOURS),
        (POLICE, leave.context(), Reason.AUTHORIZATION_NOT_YOURS),
        (AML, leave.context(case_ref="STR-2026-8"), Reason.AUTHORIZATION_SCOPE),
        ("supervision/AML", leave.context(), Reason.CONTEXT_INVALID),
        ("supervision/node", leave.context(), Reason.AUTHORIZATION_NOT_YOURS),
    ):
        assert (await refused(lied(mesh, caller, context))).reason is reason
    error = await refused(lied(mesh, AML, leave.context(), subject="91990000MA0000022H"))
    assert error.reason in {Reason.AUTHORIZATION_SCOPE, Reason.SUBJECT_INVALID}
    section = await lied(mesh, AML, leave.context(), fields=["overseas_party_name", "declaration_no"])
    for record in section.records:
        declared = service_pb2.GetDeclarationResponse().declaration
        assert record.Unpack(declared)
        assert declared.declaration_no
        assert not declared.overseas_party_name
    # It is taken off the quota, and the department's log says through whom it was asked.
    assert await mesh.used(leave) == len(section.records) > 0
    log = mesh.host("customs").log
    assert log is not None
    entry = (await log.entry(log.size - 1)).entry
    assert (entry.caller, entry.via) == (f"spiffe://{ZONE}/{AML}", f"spiffe://{ZONE}/gateway/main")
    assert entry.authorization_id == leave.authorization_id


async def test_another_purpose_does_not_do_instead(supervised: Supervised) -> None:
    """A gateway that leaves the authorization out, with a purpose that needs none: what that one gives, and no more."""
    for purpose, basis in (("P-RISK", "CN-CUSTOMS-RISK"), ("P-REBATE", "CN-VAT-REBATE")):
        context = exchange_pb2.RequestContext(purpose=purpose, legal_basis=basis, case_ref="STR-2026-7")
        section = await lied(supervised, AML, context)
        assert (section.status, section.reason) == (exchange_pb2.SECTION_STATUS_DENIED, Reason.NO_PERMIT)
        assert not section.records


# clocks


@contextlib.asynccontextmanager
async def by_a_clock(folder: Path, clock: Clock) -> AsyncGenerator[Supervised]:
    """A mesh whose customs has a clock of the test's."""
    mesh = Supervised(folder, dt.timedelta(seconds=3), LimitsSection())
    try:
        await mesh.start_supervision("customs")
        config = mesh.config("customs", "127.0.0.1:0")
        node = DepartmentNode(ROOMS["customs"], config, mesh.url("customs"), Host(config, clock=clock))
        mesh.departments["customs"] = node
        await node.start()
        await mesh.start_gateway()
        await mesh.load("customs", listings(3))
        yield mesh
    finally:
        await mesh.stop()


async def test_a_clock_set_back_brings_nothing_back_to_life(tmp_path: Path) -> None:
    """Neither an authorization nor a ticket, by little or by much; and a clock that runs ahead gives nothing either."""
    clock = Clock()
    async with by_a_clock(tmp_path, clock) as mesh:
        # It began a minute ago.
        leave = await order(mesh, lasts=MINUTE + 2 * SECOND)
        assert (await listed(mesh, leave)).cbec_listings
        for ahead in (-dt.timedelta(minutes=10), -dt.timedelta(days=400), dt.timedelta(hours=2)):
            clock.ahead = ahead
            assert (await refused(listed(mesh, leave))).reason in {
                Reason.CLOCK_SET_BACK,
                Reason.AUTHORIZATION_STATE_UNKNOWN,
                Reason.TICKET_EXPIRED,
                Reason.IDENTITY_INVALID,
            }
        clock.ahead = dt.timedelta()
        await mesh.heard(leave.authorization_id, pb.AUTHORIZATION_STATE_EXPIRED, leave.scope.types)
        # The ticket has ended with it.
        assert (await refused(listed(mesh, leave))).reason is Reason.TICKET_EXPIRED
        for seconds, reasons in (
            (-1, {Reason.TICKET_EXPIRED}),
            (-4, {Reason.TICKET_EXPIRED}),
            (-30, {Reason.CLOCK_SET_BACK}),
            (-600, {Reason.CLOCK_SET_BACK, Reason.IDENTITY_INVALID}),
        ):
            clock.ahead = seconds * SECOND
            assert (await refused(listed(mesh, leave))).reason in reasons, seconds
