"""A supervision node in this process, over real mutual TLS, with officers of agencies who act through their systems."""

import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final, cast

from google.protobuf.message import Message

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.cli.rooms import policies
from services.kit.client import Client
from services.kit.clock import Clock
from services.kit.config import IssuerSection, PolicySection, StoreSection
from services.kit.credentials.keys import SigningKeys
from services.kit.errors import HutongError
from services.kit.host import Host
from services.kit.officers.acts import act_nonce
from services.kit.officers.issuer import Issuer, officers_uri
from services.kit.officers.tokens import Role
from services.supervision.config import SupervisionConfig
from services.supervision.node import SupervisionNode
from tests.supervision.desk import SECRET, scope
from tests.zone import ZONE, Zone, now

SERVICE: Final = "/hutong.api.authorization.v1.AuthorizationService/"
AML: Final = "supervision/aml"
CUSTOMS: Final = "customs/release"
TAX: Final = "taxation/refund"
AGENCIES: Final = ("supervision", "customs", "taxation", "audit")
HEARTBEAT: Final = dt.timedelta(milliseconds=100)
"""Shorter than nodes need, for tests that wait for some."""

State = pb.AuthorizationState


class Mesh:
    """A supervision node over a zone of its own; a second replica where a test starts one."""

    def __init__(self, folder: Path) -> None:
        self.zone = Zone(folder)
        self.folder = folder
        self.url = f"sqlite+aiosqlite:///{folder}/supervision.db"
        self.signing = SigningKeys.create(folder / "signing", f"spiffe://{ZONE}/supervision", now() - dt.timedelta(1))
        self.signing.publish(folder / "keys")
        self.issuers = {agency: self._issuer(agency) for agency in AGENCIES}
        self.secret = folder / "secret"
        self.secret.write_bytes(SECRET)
        self.secret.chmod(0o600)
        self.changes: dict[str, Any] = {}
        """What a test has otherwise in the config."""
        self.clock: Clock = now
        self.nodes: list[SupervisionNode] = []
        self._clients: dict[tuple[str, int], Client] = {}

    def _issuer(self, agency: str) -> Issuer:
        made = Issuer.create(self.folder / "issuers" / agency, officers_uri(ZONE, agency), now())
        made.publish(self.folder / "officers" / f"{agency}.jwks.json")
        return made

    def config(self, listen: str = "127.0.0.1:0") -> SupervisionConfig:
        path = "supervision/node"
        made = SupervisionConfig(
            node=self.zone.node(path).model_copy(update={"listen": listen}),
            tls=self.zone.tls(path),
            log=self.zone.log(path),
            officers={
                agency: IssuerSection(issuer=issuer.uri, jwks=self.folder / "officers" / f"{agency}.jwks.json")
                for agency, issuer in self.issuers.items()
            },
            store=StoreSection(url=self.url, migrate=True),
            policy=PolicySection(files=[*policies().values()]),
            secret=self.secret,
            signing=self.folder / "signing",
            keys=self.folder / "keys",
            auditors=["audit/desk"],
            heartbeat=HEARTBEAT,
        )
        return made.model_copy(update=self.changes)

    async def start(self, listen: str = "127.0.0.1:0") -> SupervisionNode:
        """Start a replica of the node; all have one store and one log."""
        config = self.config(listen)
        node = SupervisionNode(config, self.url, Host(config, clock=self.clock))
        await node.start()
        self.nodes.append(node)
        return node

    async def stop(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        for node in self.nodes:
            await node.stop()
        self.nodes.clear()

    def client(self, who: str, replica: int = 0) -> Client:
        """Call the node as `agency/system`."""
        if (who, replica) not in self._clients:
            host = self.nodes[replica].host
            self._clients[who, replica] = Client(host.address, host.identity, self.zone.files(who))
        return self._clients[who, replica]

    def token(
        self,
        who: str,
        officer: str,
        rpc: str,
        request: Message,
        *roles: Role,
        agency: str = "",
        audience: str = "",
        through: str = "",
    ) -> str:
        """A token of an officer for an act, through a system."""
        wanted = roles or tuple(Role)
        path = through or who
        node = audience or f"spiffe://{ZONE}/supervision/node"
        certificate = self.zone.files(path).load().chain
        issuer = self.issuers[agency or who.partition("/")[0]]
        return issuer.token(officer, wanted, node, act_nonce(SERVICE + rpc, request), certificate, self.clock())

    async def call(self, who: str, rpc: str, request: Message, replica: int = 0, timeout: float = 10) -> Any:
        response = getattr(pb, f"{rpc}Response")
        return await self.client(who, replica).unary(SERVICE + rpc, request, response, timeout=timeout)

    async def act(self, who: str, officer: str, rpc: str, request: Any, *roles: Role, replica: int = 0) -> Any:
        """Do something as an officer."""
        request.officer_token = self.token(who, officer, rpc, request, *roles)
        return await self.call(who, rpc, request, replica)

    async def request(self, who: str = AML, officer: str = "req", **changes: Any) -> pb.Authorization:
        asked = scope(who, changes.pop("begin", self.clock().replace(microsecond=0)), **changes)
        request = pb.RequestAuthorizationRequest(request_id=str(uuid.uuid4()), scope=asked)
        answer: pb.RequestAuthorizationResponse = await self.act(who, officer, "RequestAuthorization", request)
        return answer.authorization

    async def approve(
        self, found: pb.Authorization, who: str = CUSTOMS, officer: str = "owner", replica: int = 0
    ) -> pb.Authorization:
        request = pb.ApproveAuthorizationRequest(
            authorization_id=found.authorization_id, scope_digest=found.scope_digest
        )
        answer: pb.ApproveAuthorizationResponse = await self.act(
            who, officer, "ApproveAuthorization", request, replica=replica
        )
        return answer.authorization

    async def active(self, who: str = AML, **changes: Any) -> pb.Authorization:
        """One that is in force."""
        found = await self.request(who, **changes)
        await self.approve(found, who, "chief")
        return await self.approve(found)

    async def revoke(
        self, found: pb.Authorization, who: str = CUSTOMS, officer: str = "owner", replica: int = 0
    ) -> pb.Authorization:
        request = pb.RevokeAuthorizationRequest(authorization_id=found.authorization_id, reason_code="CASE_CLOSED")
        answer: pb.RevokeAuthorizationResponse = await self.act(
            who, officer, "RevokeAuthorization", request, replica=replica
        )
        return answer.authorization

    async def use(self, found: pb.Authorization, who: str = AML, officer: str = "req") -> Any:
        request = pb.UseAuthorizationRequest(authorization_id=found.authorization_id)
        return await self.act(who, officer, "UseAuthorization", request)

    async def get(self, found: pb.Authorization, who: str = AML, replica: int = 0) -> pb.Authorization:
        request = pb.GetAuthorizationRequest(authorization_id=found.authorization_id)
        answer: pb.GetAuthorizationResponse = await self.call(who, "GetAuthorization", request, replica)
        return answer.authorization

    async def reserve(self, ticket: str, rows: int, name: str = "", who: str = "customs/node", replica: int = 0) -> int:
        request = pb.ReserveRowsRequest(
            reservation_id=name or str(uuid.uuid4()), ticket=ticket, rows=rows, record_type="customs.Declaration"
        )
        return int((await self.call(who, "ReserveRows", request, replica, timeout=60)).left)

    def follow(self, who: str, replica: int = 0) -> AsyncGenerator[pb.FollowAuthorizationsResponse]:
        request, response = pb.FollowAuthorizationsRequest(), pb.FollowAuthorizationsResponse
        stream = self.client(who, replica).stream(f"{SERVICE}FollowAuthorizations", request, response, timeout=60)
        return cast("AsyncGenerator[pb.FollowAuthorizationsResponse]", stream)


async def refusal(done: Any) -> HutongError:
    """Do what has to be refused; gives how."""
    try:
        await done
    except HutongError as error:
        return error
    raise AssertionError("it was not refused")


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[Mesh]:
    mesh = Mesh(folder)
    try:
        await mesh.start()
        yield mesh
    finally:
        await mesh.stop()
