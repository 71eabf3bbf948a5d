"""Officers in the story: people who act through a system of their agency, with a token made for each act."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import federation_pb2
from services.cli import question
from services.cli.authorizations.desk import SERVICE
from services.cli.demo.stage import Asker, Stage
from services.cli.officer import token_for
from services.cli.query import SERVICE as FEDERATION
from services.cli.rooms import SUPERVISION
from services.kit.officers.tokens import Role

R = TypeVar("R", bound=Message)

AML = Asker("supervision/aml", "P-AML", "CN-AML")
CASE = "STR-2026-0117"

_WAIT = 10.0
_DAYS = 14


@dataclass(frozen=True, slots=True)
class Officer:
    """Somebody who acts."""

    stage: Stage
    system: str
    """The system they act through: `agency/system`."""
    reference: str
    """What their agency calls them; never a name."""

    def sign(self, rpc: str, request: Message, role: Role) -> str:
        """Have a token made for one act: this rpc, with this request, at the supervision service."""
        audience = self.stage.fleet.nodes[SUPERVISION].identity
        return token_for(self.stage.zone, self.system, self.reference, (role,), f"{SERVICE}/{rpc}", request, audience)

    async def request(self, scope: pb.Scope) -> pb.Authorization:
        """Ask for an authorization."""
        request = pb.RequestAuthorizationRequest(request_id=str(uuid.uuid4()), scope=scope)
        request.officer_token = self.sign("RequestAuthorization", request, Role.REQUESTER)
        return (await self.call("RequestAuthorization", request, pb.RequestAuthorizationResponse)).authorization

    def approval(self, authorization: pb.Authorization, digest: bytes = b"") -> pb.ApproveAuthorizationRequest:
        """Sign an approval, of another scope where a digest is given; it is not handed in yet."""
        request = pb.ApproveAuthorizationRequest(
            authorization_id=authorization.authorization_id, scope_digest=digest or authorization.scope_digest
        )
        request.officer_token = self.sign("ApproveAuthorization", request, Role.APPROVER)
        return request

    async def hand_in(self, request: pb.ApproveAuthorizationRequest) -> pb.Authorization:
        """Hand an approval in."""
        return (await self.call("ApproveAuthorization", request, pb.ApproveAuthorizationResponse)).authorization

    async def approve(self, authorization: pb.Authorization, digest: bytes = b"") -> pb.Authorization:
        """Approve an authorization."""
        return await self.hand_in(self.approval(authorization, digest))

    async def revoke(self, authorization: pb.Authorization, reason: str) -> pb.Authorization:
        """Revoke one, as an approver."""
        request = pb.RevokeAuthorizationRequest(authorization_id=authorization.authorization_id, reason_code=reason)
        request.officer_token = self.sign("RevokeAuthorization", request, Role.APPROVER)
        return (await self.call("RevokeAuthorization", request, pb.RevokeAuthorizationResponse)).authorization

    async def use(self, authorization: pb.Authorization) -> str:
        """Get a ticket."""
        request = pb.UseAuthorizationRequest(authorization_id=authorization.authorization_id)
        request.officer_token = self.sign("UseAuthorization", request, Role.REQUESTER)
        return (await self.call("UseAuthorization", request, pb.UseAuthorizationResponse)).ticket

    async def get(self, authorization: pb.Authorization) -> pb.Authorization:
        """Look at one, with its history."""
        request = pb.GetAuthorizationRequest(authorization_id=authorization.authorization_id)
        return (await self.call("GetAuthorization", request, pb.GetAuthorizationResponse)).authorization

    async def explain(self, authorization: pb.Authorization) -> pb.ExplainAuthorizationResponse:
        """See what one would open."""
        request = pb.ExplainAuthorizationRequest(authorization_id=authorization.authorization_id)
        return await self.call("ExplainAuthorization", request, pb.ExplainAuthorizationResponse)

    async def call(self, rpc: str, request: Message, response: type[R]) -> R:
        """Make one call to the supervision service; raises the `HutongError` that it is answered with."""
        client = self.stage.client(self.system, SUPERVISION)
        return await client.unary(f"{SERVICE}/{rpc}", request, response, timeout=_WAIT)


@dataclass(frozen=True, slots=True)
class Looking:
    """A system that asks under an authorization."""

    stage: Stage
    authorization_id: str
    ticket: str
    caller: str = AML.caller

    def question(
        self, selects: Sequence[str], subject: str = "", filters: Sequence[str] = (), *, page_size: int = 0
    ) -> federation_pb2.QueryRequest:
        """Make a question."""
        made = question.request(
            [AML.purpose], AML.basis, subject, selects, filters, page_size=page_size, case=CASE,
            authorization=self.authorization_id,
        )  # fmt: skip
        made.context.authorization_ticket = self.ticket
        return made

    async def ask(
        self, selects: Sequence[str], subject: str = "", filters: Sequence[str] = (), *, page_size: int = 0
    ) -> federation_pb2.QueryResponse:
        """Ask the gateway; raises the `HutongError` it answered with."""
        made = self.question(selects, subject, filters, page_size=page_size)
        client = self.stage.client(self.caller)
        return await client.unary(f"{FEDERATION}/Query", made, federation_pb2.QueryResponse, timeout=_WAIT)


def scope(selects: Sequence[str], subjects: Sequence[str], rows: int, *, condition: str = "") -> pb.Scope:
    """Write what an authorization is to open: from now on, for a fortnight, for the one system that asks.

    `condition` holds for every record type; without subjects it is what bounds the question.
    """
    begin = dt.datetime.now(dt.UTC).replace(microsecond=0)
    made = pb.Scope(
        caller=AML.caller,
        purpose=AML.purpose,
        legal_basis=AML.basis,
        case_ref=CASE,
        types=[
            pb.ScopedType(record_type=name, fields=fields, condition=condition)
            for name, fields in map(question.selection, selects)
        ],
        subjects=[subject_id(text) for text in subjects],
        row_quota=rows,
        no_bulk=bool(subjects),
    )
    made.not_before.FromDatetime(begin)
    made.not_after.FromDatetime(begin + dt.timedelta(days=_DAYS))
    return made


def subject_id(text: str) -> common_pb2.SubjectId:
    """Read `scheme:value`."""
    scheme, _, value = text.partition(":")
    return common_pb2.SubjectId(scheme=scheme, value=value)


def state(authorization: pb.Authorization) -> str:
    """Write where an authorization stands."""
    return pb.AuthorizationState.Name(authorization.state).removeprefix("AUTHORIZATION_STATE_")
