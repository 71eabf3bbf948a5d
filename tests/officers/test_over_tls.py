"""The whole way: a request over mutual TLS, whose officer is known by token and whose system by certificate."""

from pathlib import Path

import pytest
from google.protobuf.message import Message

from hutong.api.authorization.v1 import authorization_pb2
from services.kit.client import Client
from services.kit.clock import system_clock
from services.kit.errors import HutongError, Reason
from services.kit.officers.acts import act_nonce
from services.kit.officers.seen import MemorySeen
from services.kit.officers.tokens import Role
from services.kit.officers.verifier import Officers
from services.kit.rpc import Call, Rpc, Shape
from tests.officers.bed import CUSTOMS, METHOD, PSEUDONYMS, TAXATION, Bed
from tests.zone import ZONE

Request = authorization_pb2.ApproveAuthorizationRequest
Response = authorization_pb2.ApproveAuthorizationResponse
SERVER = f"spiffe://{ZONE}/customs/node"
ACCESS = """
hutong.api.authorization.v1.AuthorizationService:
  ApproveAuthorization: ["*/*"]
"""


class Desk:
    """Takes approvals, and notes who gave them."""

    def __init__(self, officers: Officers) -> None:
        self.officers = officers
        self.approved: list[str] = []

    async def approve(self, request: Request, call: Call) -> Message:
        officer = await self.officers.verify(request.officer_token, call.method, request, call, Role.APPROVER)
        self.approved.append(officer.reference)
        response: Message = Response()
        return response


async def said(client: Client, request: Request) -> Reason | None:
    try:
        await client.unary(METHOD, request, Response, timeout=10)
    except HutongError as error:
        return error.reason
    return None


async def test_an_officer_acts_once_through_a_system_of_their_own(tmp_path: Path) -> None:
    bed = Bed.make(tmp_path)
    bed.clock.now = system_clock()
    known = {agency: bed.section(agency) for agency in bed.issuers}
    desk = Desk(Officers(known, SERVER, bed.clock, MemorySeen(bed.clock), PSEUDONYMS))
    approve = Rpc(METHOD, METHOD[1:].partition("/")[0], "ApproveAuthorization", Shape.UNARY, Request, desk.approve)
    request = Request(authorization_id="a-1", scope_digest=b"\x01" * 32)
    async with (
        bed.zone.serving([approve], ACCESS) as host,
        bed.zone.client(host, CUSTOMS) as own,
        bed.zone.client(host, TAXATION) as other,
        bed.zone.client(host, "customs/other") as sibling,
    ):
        assert await said(own, request) is Reason.OFFICER_MISSING
        request.officer_token = bed.issuers["customs"].token(
            "o-17", [Role.APPROVER], SERVER, act_nonce(METHOD, request), bed.certificate(CUSTOMS), bed.clock()
        )
        assert await said(other, request) is Reason.ISSUER_UNKNOWN
        assert await said(sibling, request) is Reason.OFFICER_TOKEN_INVALID
        assert await said(own, Request(authorization_id="a-2", officer_token=request.officer_token)) is (
            Reason.OFFICER_TOKEN_INVALID
        )
        assert await said(own, request) is None
        assert await said(own, request) is Reason.OFFICER_TOKEN_REPLAYED
    assert desk.approved == ["customs:o-17"]


@pytest.mark.parametrize("renewed", [False, True])
async def test_a_renewed_certificate_needs_a_new_token(tmp_path: Path, renewed: bool) -> None:
    bed = Bed.make(tmp_path)
    bed.clock.now = system_clock()
    officers, token = bed.officers(), bed.token()
    if renewed:
        bed.zone.authority.renew(bed.zone.identity(CUSTOMS), system_clock())
    assert await bed.refusal(token, officers) is (Reason.OFFICER_TOKEN_INVALID if renewed else None)
