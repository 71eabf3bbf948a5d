"""A mesh of real processes with officers who act: to be killed, stopped, starved of disk, and read in its logs."""

import datetime as dt
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import federation_pb2
from services.cli.fleet import Fleet
from services.cli.rooms import rooms
from services.cli.zone import Zone
from services.kit.client import Client
from services.kit.log import keys, receipts
from services.kit.officers.acts import act_nonce
from services.kit.officers.issuer import Issuer
from services.kit.officers.tokens import Role
from services.kit.records import catalogue
from services.kit.records.store import Draft, RecordStore
from tests import transports
from tests.authorizations.mesh import AML, DECLARATIONS, SERVICE, Leave
from tests.exchange.mesh import question
from tests.exchange.records import EXPORTER
from tests.recording.bed import raw
from tests.zone import now

NODES: Final = ("supervision", "customs", "gateway")
CASE: Final = "CASE-SECRET-7"
REQUESTER, CHIEF, OWNER = "requester-secret", "chief-secret", "owner-secret"

R = TypeVar("R", bound=Message)


def prepared(folder: Path, *, silence: str = "2s") -> Zone:
    """Make a zone whose nodes say all they can, and wait for news of authorizations only so long."""
    zone = Zone.prepare(folder)
    transports.write(zone)
    for name in NODES:
        path = zone.config_file(name)
        text = path.read_text().replace("[authorizations]\n", f'[authorizations]\nsilence = "{silence}"\n')
        path.write_text(f'{text}\n[telemetry]\nlog_level = "debug"\n')
    return zone


async def load(zone: Zone, messages: Iterable[Message]) -> None:
    """Put records into the store of customs."""
    kinds = {kind.message.DESCRIPTOR.full_name: kind for kind in catalogue.load()}
    async with RecordStore(zone.store_url("customs"), rooms()["customs"].catalogue(), now) as store:
        await store.append([Draft(kinds[m.DESCRIPTOR.full_name], m, "test") for m in messages])


class Office:
    """Officers at work on a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.zone = fleet.zone
        self.spoken: list[str] = []
        """Every token and ticket there was: nobody may write one down."""
        self._clients: dict[tuple[str, str], Client] = {}

    def client(self, who: str, node: str = "gateway") -> Client:
        if (who, node) not in self._clients:
            self._clients[who, node] = self.fleet.client(who, node)
        return self._clients[who, node]

    def anew(self) -> None:
        """Open connections anew: those to nodes that were killed take their time to notice."""
        self._clients.clear()

    async def act(self, rpc: str, request: Any, response: type[R], system: str, officer: str) -> R:
        method, audience = f"{SERVICE}/{rpc}", str(self.zone.identity("supervision/node"))
        issuer = Issuer.open(self.zone.officers(system.partition("/")[0]))
        certificate = self.zone.credentials(system).load().chain
        nonce = act_nonce(method, request)
        request.officer_token = issuer.token(officer, tuple(Role), audience, nonce, certificate, now())
        self.spoken.append(request.officer_token)
        return await self.client(system, "supervision").unary(method, request, response, timeout=30)

    async def give(self, quota: int) -> Leave:
        """Have an authorization requested, approved by two others, and used."""
        scope = pb.Scope(
            caller=AML,
            purpose="P-AML",
            legal_basis="CN-AML",
            case_ref=CASE,
            types=[DECLARATIONS],
            subjects=[common_pb2.SubjectId(scheme="cn.uscc", value=EXPORTER)],
            row_quota=quota,
        )
        begin = now().replace(microsecond=0) - dt.timedelta(minutes=1)
        scope.not_before.FromDatetime(begin)
        scope.not_after.FromDatetime(begin + dt.timedelta(hours=1))
        request = pb.RequestAuthorizationRequest(request_id=str(uuid.uuid4()), scope=scope)
        asked = await self.act("RequestAuthorization", request, pb.RequestAuthorizationResponse, AML, REQUESTER)
        made = asked.authorization
        for system, officer in (("customs/release", OWNER), (AML, CHIEF)):
            approve = pb.ApproveAuthorizationRequest(
                authorization_id=made.authorization_id, scope_digest=made.scope_digest
            )
            await self.act("ApproveAuthorization", approve, pb.ApproveAuthorizationResponse, system, officer)
        return Leave(made.authorization_id, made.scope, await self.use(made.authorization_id))

    async def use(self, authorization_id: str) -> str:
        request = pb.UseAuthorizationRequest(authorization_id=authorization_id)
        ticket = (await self.act("UseAuthorization", request, pb.UseAuthorizationResponse, AML, REQUESTER)).ticket
        self.spoken.append(ticket)
        return ticket

    async def revoke(self, leave: Leave) -> None:
        request = pb.RevokeAuthorizationRequest(authorization_id=leave.authorization_id, reason_code="CASE_CLOSED")
        await self.act("RevokeAuthorization", request, pb.RevokeAuthorizationResponse, "customs/release", OWNER)

    async def used(self, leave: Leave) -> int:
        request = pb.GetAuthorizationRequest(authorization_id=leave.authorization_id)
        client = self.client(AML, "supervision")
        answer = await client.unary(f"{SERVICE}/GetAuthorization", request, pb.GetAuthorizationResponse, timeout=30)
        return int(answer.authorization.rows_used)

    async def answered(self, who: str, node: str, method: str, request: Message, response: type[R]) -> tuple[R, Any]:
        """Call; gives the answer, and it with its receipt as it came."""
        came = await raw(self.client(who, node), method, request)
        return response.FromString(came), receipts.split(came, response)

    def key(self, node: str) -> Any:
        """The published key of a node's log."""
        identity = self.fleet.nodes[node].identity
        return keys.find(self.zone.keys, f"{self.zone.name}/{identity}")

    def log_url(self, node: str) -> str:
        section = self.zone.node(node).log
        assert section is not None
        return section.read_url(self.zone.config_file(node).parent)


def rebate() -> federation_pb2.QueryRequest:
    """A question that needs no authorization."""
    stated = {"case_ref": CASE, "on_behalf_of": "BEHALF-SECRET"}
    why = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE", **stated}
    return question(f"cn.uscc:{EXPORTER}", "customs.Declaration:declaration_no,trader_uscc", **why)
