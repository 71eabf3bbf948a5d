"""A recognition node in this process, over real mutual TLS, with agencies and enterprises that call it."""

import contextlib
import datetime as dt
import secrets
import uuid
from collections.abc import AsyncGenerator, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from gateway.config import DepartmentSection, GatewayConfig
from gateway.node import GatewayNode
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.recognition.v1 import case_pb2, case_service_pb2, result_service_pb2
from services.cli.rooms import policies, rooms
from services.kit import check_digits
from services.kit.client import Client
from services.kit.config import (
    AuthorizationsSection,
    DepartmentConfig,
    EventsSection,
    NatsSection,
    PolicySection,
    StoreSection,
    TelemetrySection,
)
from services.kit.credentials import results
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.results import Statement
from services.kit.department import DepartmentNode
from services.recognition.codec import timestamp
from services.recognition.config import RecognitionConfig
from services.recognition.node import RecognitionNode
from services.recognition.procedure import Fact
from services.recognition.procedures import Procedures
from tests.zone import ZONE, Zone, now

CASES = "/hutong.api.recognition.v1.CaseService/"
RESULTS = "/hutong.api.recognition.v1.ResultService/"
TASKS = "/hutong.api.recognition.v1.TaskService/"

APPROVAL = exchange_pb2.RequestContext(purpose="P-APPROVAL", legal_basis="CN-ADMIN-LICENSING")
SELF = exchange_pb2.RequestContext(purpose="P-SELF", legal_basis="CN-RIGHT-TO-KNOW")

FIRM = "91110000600037341L"
"""An enterprise that stands for any."""

REGISTRY = "commerce/registry"
POLICE = "publicsecurity/permits"
TAX = "taxation/refund"
CUSTOMS = "customs/release"
QUALITY = "quality/lab"
"""Systems that take part in an establishment, the last one excepted."""

SIGNERS = ("commerce", "publicsecurity", "taxation", "customs", "quality")
SECRET = b"0123456789abcdef0123456789abcdef"

Kind = case_pb2.StageEventKind
PASS = case_pb2.RESULT_CODE_PASS


def enterprise(code: str = FIRM) -> str:
    """Write who an enterprise is."""
    return f"enterprise/{code.lower()}"


def firm() -> str:
    """Make up an enterprise that nobody has heard of yet."""
    own = "MA1" + "".join(secrets.choice(check_digits.USCC_ALPHABET) for _ in range(5))
    first = f"91310000{own}{check_digits.org_code(own)}"
    return first + check_digits.uscc(first)


def fresh() -> str:
    """Make up an id."""
    return str(uuid.uuid4())


@cache
def _facts() -> Mapping[str, Fact]:
    stages = (stage for procedure in Procedures.load() for stage in procedure.stages.values())
    return {stage.proves.code: stage.proves for stage in stages if stage.proves}


def _until(fact: str, start: dt.datetime) -> dt.datetime | None:
    """Say until when a fact holds, as the procedure that comes with the product has it."""
    return _facts()[fact].until(start) if fact in _facts() else None


def context_of(who: str) -> exchange_pb2.RequestContext:
    """Why this caller asks, where a test does not say otherwise."""
    return SELF if who.startswith("enterprise/") else APPROVAL


class Mesh:
    """A recognition node over a zone of its own; departments and a gateway where a test starts them."""

    def __init__(self, folder: Path) -> None:
        self.zone = Zone(folder)
        self.folder = folder
        self.url = f"sqlite+aiosqlite:///{folder}/cases.db"
        self.keys = {agency: self._sign(agency) for agency in (*SIGNERS, "recognition")}
        self.policy = folder / "recognition.cedar"
        self.policy.write_bytes(policies()["recognition"].read_bytes())
        self.secret = folder / "secret"
        self.secret.write_bytes(SECRET)
        self.secret.chmod(0o600)
        self.changes: dict[str, Any] = {}
        """What a test has otherwise in the config."""
        self.authorizations: AuthorizationsSection | None = None
        """The service that keeps authorizations, where the mesh has one."""
        self.nats: NatsSection | None = None
        """The broker that departments are told over, where the mesh has one."""
        self.telemetry = TelemetrySection()
        self.node: RecognitionNode | None = None
        self.gateway: GatewayNode | None = None
        self.departments: dict[str, DepartmentNode] = {}
        self._clients: dict[str, Client] = {}

    def _sign(self, agency: str) -> SigningKeys:
        keys = SigningKeys.create(self.folder / agency / "signing", f"spiffe://{ZONE}/{agency}", now())
        keys.publish(self.folder / "keys")
        return keys

    def config(self, listen: str = "127.0.0.1:0") -> RecognitionConfig:
        path = "recognition/node"
        made = RecognitionConfig(
            node=self.zone.node(path).model_copy(update={"listen": listen}),
            tls=self.zone.tls(path),
            log=self.zone.log(path),
            store=StoreSection(url=self.url, migrate=True),
            policy=PolicySection(files=[self.policy], reload=dt.timedelta(milliseconds=50)),
            secret=self.secret,
            keys=self.folder / "keys",
            signing=self.folder / "recognition" / "signing",
            authorizations=self.authorizations,
            telemetry=self.telemetry,
        )
        return made.model_copy(update=self.changes)

    async def start(self, listen: str = "127.0.0.1:0") -> RecognitionNode:
        config = self.config(listen)
        self.node = RecognitionNode(config, self.url, self.zone.frame(config))
        await self.node.start()
        return self.node

    async def restart(self) -> RecognitionNode:
        """Stop the node, and start it again where it was."""
        assert self.node is not None
        address = self.node.host.address
        for name in [name for name in self._clients if name.endswith(">recognition")]:
            await self._clients.pop(name).close()
        await self.node.stop()
        return await self.start(address)

    async def start_department(self, agency: str) -> DepartmentNode:
        """Start a department that follows this node's events."""
        assert self.node is not None
        room = rooms()[agency]
        path = f"{agency}/node"
        url = f"sqlite+aiosqlite:///{self.folder}/{agency}.db"
        carrier: Literal["grpc", "nats"] = "nats" if self.nats else "grpc"
        config = DepartmentConfig(
            node=self.zone.node(path),
            tls=self.zone.tls(path),
            log=self.zone.log(path),
            store=StoreSection(url=url, migrate=True),
            policy=PolicySection(files=[room.policy]),
            secret=self.secret,
            events={"recognition": EventsSection(target=self.node.host.address, carrier=carrier)},
            nats=self.nats,
            telemetry=self.telemetry,
        )
        node = DepartmentNode(room, config, url, self.zone.frame(config))
        await node.start()
        self.departments[agency] = node
        return node

    async def stop_department(self, agency: str) -> None:
        """Stop a department; it may be started again, on the store that it had."""
        for name in [name for name in self._clients if name.endswith(f">{agency}")]:
            await self._clients.pop(name).close()
        await self.departments.pop(agency).stop()

    async def start_gateway(self) -> GatewayNode:
        assert self.node is not None
        targets = {"recognition": self.node.host.address}
        targets |= {agency: node.host.address for agency, node in self.departments.items()}
        files = [self.policy, *(rooms()[agency].policy for agency in self.departments)]
        config = GatewayConfig(
            node=self.zone.node("gateway/main"),
            tls=self.zone.tls("gateway/main"),
            log=self.zone.log("gateway/main"),
            departments={agency: DepartmentSection(target=target) for agency, target in targets.items()},
            policy=PolicySection(files=files, reload=dt.timedelta(milliseconds=50)),
            secret=self.secret,
            authorizations=self.authorizations,
        )
        self.gateway = GatewayNode(config, self.zone.frame(config))
        await self.gateway.start()
        return self.gateway

    def client(self, who: str, node: str = "recognition") -> Client:
        """Call a node as `agency/system`."""
        name = f"{who}>{node}"
        if name not in self._clients:
            to = {"recognition": self.node, "gateway": self.gateway}.get(node) or self.departments.get(node)
            assert to is not None
            self._clients[name] = Client(to.host.address, to.host.identity, self.zone.files(who))
        return self._clients[name]

    async def stop(self) -> None:
        for client in self._clients.values():
            await client.close()
        for node in (self.gateway, *self.departments.values(), self.node):
            if node is not None:
                await node.stop()

    # What callers do, in few words.

    async def submit(
        self,
        who: str = REGISTRY,
        subject: str = FIRM,
        procedure: str = "FTZ-EST",
        answers: Mapping[str, str] | None = None,
        request_id: str = "",
        applied_at: dt.datetime | None = None,
    ) -> case_service_pb2.CaseView:
        request = case_service_pb2.SubmitCaseRequest(
            request_id=request_id or fresh(),
            procedure_code=procedure,
            subject=common_pb2.SubjectId(scheme="cn.uscc", value=subject),
            answers=answers or {},
            applied_at=timestamp(applied_at),
        )
        method = f"{CASES}SubmitCase"
        answer = await self.client(who).unary(method, request, case_service_pb2.SubmitCaseResponse, timeout=10)
        return answer.view

    async def event(
        self, who: str, case_id: str, stage: str, kind: str, *, traceparent: str = "", **more: Any
    ) -> case_service_pb2.AppendStageEventResponse:
        """Append an event: `event("customs/release", case, "E5c", "START")`."""
        given: dict[str, Any] = {"stage_event_id": fresh()} | more
        request = case_service_pb2.AppendStageEventRequest(
            case_id=case_id,
            stage_code=stage,
            stage_event=Kind.Value(f"STAGE_EVENT_KIND_{kind}"),
            **given,
        )
        method = f"{CASES}AppendStageEvent"
        answer = case_service_pb2.AppendStageEventResponse
        return await self.client(who).unary(method, request, answer, timeout=10, traceparent=traceparent)

    async def credential(
        self, who: str, fact: str, *, subject: str = FIRM, case_id: str = "", stage: str = "", **more: Any
    ) -> str:
        """Reserve an entry and sign a result, as an agency does."""
        agency = who.partition("/")[0]
        ref = fresh()
        reserve = result_service_pb2.ReserveStatusRequest(result_ref=ref)
        method = f"{RESULTS}ReserveStatus"
        entry = await self.client(who).unary(method, reserve, result_service_pb2.ReserveStatusResponse, timeout=10)
        moment = now()
        said: dict[str, Any] = {"assurance": "SUBSTANTIVE", "value": {"answer": "yes"}} | more
        said.setdefault("valid_until", _until(fact, moment))
        statement = Statement(
            ref=ref,
            issuer=agency,
            scheme="cn.uscc",
            subject=subject,
            fact=fact,
            issued_at=moment,
            valid_from=moment,
            case_id=case_id,
            stage=stage,
            status_uri=entry.uri,
            status_index=entry.index,
            **said,
        )
        return results.issue(statement, self.keys[agency])

    async def register(self, who: str, fact: str, **more: Any) -> Any:
        """Issue a result outside any case; gives it as registered."""
        request = result_service_pb2.RegisterResultRequest(credential=await self.credential(who, fact, **more))
        method = f"{RESULTS}RegisterResult"
        answer = await self.client(who).unary(method, request, result_service_pb2.RegisterResultResponse, timeout=10)
        return answer.result

    async def passed(
        self, who: str, case_id: str, stage: str, fact: str = "", *, start: bool = True, **more: Any
    ) -> case_service_pb2.AppendStageEventResponse:
        """Do a stage: open it, and pass it with a signed result where it proves a fact."""
        subject = more.pop("subject", FIRM)
        if start:
            await self.event(who, case_id, stage, "START", **more)
        signed = await self.credential(who, fact, subject=subject, case_id=case_id, stage=stage) if fact else ""
        return await self.event(who, case_id, stage, "RESULT", result_code=PASS, credential=signed, **more)

    async def accepted(self, subject: str = FIRM, **more: Any) -> str:
        """Begin an establishment and bring it to where agencies work side by side; gives the case's id."""
        case_id = (await self.submit(subject=subject, **more)).case.case_id
        await self.passed(REGISTRY, case_id, "E0", "name_reserved", start=False, subject=subject)
        await self.passed(REGISTRY, case_id, "E1", "case_accepted", subject=subject, officer="W-7")
        return case_id

    async def closed(self, case_id: str, subject: str, recognised: Collection[str] = ()) -> None:
        """Bring an establishment that was accepted to its end; `recognised` are stages that nobody has to do."""
        stages = [
            (POLICE, "E2", "person_verified"),
            (REGISTRY, "E4", "registered"),
            (POLICE, "E5a", "seal_registered"),
            (TAX, "E5b", "tax_registered"),
            (CUSTOMS, "E5c", "customs_code"),
            ("social-insurance/desk", "E5d", ""),
        ]
        for who, stage, fact in stages:
            if stage not in recognised:
                await self.passed(who, case_id, stage, fact, subject=subject)
        await self.event("bank/core", case_id, "E5e", "WITHDRAW", reason_code="BRANCH_NOT_NEEDED")
        await self.passed(REGISTRY, case_id, "E6", "pack_delivered", subject=subject)

    async def get(self, who: str, case_id: str, **context: str) -> case_service_pb2.CaseView:
        stated = exchange_pb2.RequestContext(**context) if context else context_of(who)
        request = case_service_pb2.GetCaseRequest(case_id=case_id, context=stated)
        answer = await self.client(who).unary(f"{CASES}GetCase", request, case_service_pb2.GetCaseResponse, timeout=10)
        return answer.view

    async def progress(self, who: str, case_id: str) -> case_service_pb2.GetProgressResponse:
        request = case_service_pb2.GetProgressRequest(case_id=case_id, context=context_of(who))
        method = f"{CASES}GetProgress"
        return await self.client(who).unary(method, request, case_service_pb2.GetProgressResponse, timeout=10)

    async def list(self, who: str, **more: Any) -> case_service_pb2.ListCasesResponse:
        request = case_service_pb2.ListCasesRequest(context=context_of(who), **more)
        method = f"{CASES}ListCases"
        return await self.client(who).unary(method, request, case_service_pb2.ListCasesResponse, timeout=10)

    def watch(self, who: str, case_id: str, after: int = 0) -> AsyncGenerator[case_service_pb2.WatchCaseResponse]:
        request = case_service_pb2.WatchCaseRequest(case_id=case_id, context=context_of(who), after=after)
        method = f"{CASES}WatchCase"
        stream = self.client(who).stream(method, request, case_service_pb2.WatchCaseResponse, timeout=30)
        return cast("AsyncGenerator[case_service_pb2.WatchCaseResponse]", stream)

    async def events(
        self, who: str, case_id: str, after: int = 0
    ) -> AsyncGenerator[case_service_pb2.WatchCaseResponse]:
        """Watch a case for its events alone: that the watch lives may be said at any time between them."""
        async with contextlib.aclosing(self.watch(who, case_id, after)) as watch:
            async for response in watch:
                if response.HasField("event"):
                    yield response


async def coming(watch: AsyncGenerator[case_service_pb2.WatchCaseResponse]) -> case_service_pb2.WatchCaseResponse:
    """Wait for the next event of a watch, however often it says that it lives before that."""
    while not (response := await anext(watch)).HasField("event"):
        pass
    return response


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[Mesh]:
    mesh = Mesh(folder)
    try:
        await mesh.start()
        yield mesh
    finally:
        await mesh.stop()
