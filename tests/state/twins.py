"""Two replicas of recognition, supervision, customs and the gateway, each a process, on one PostgreSQL server."""

import contextlib
import datetime as dt
import itertools
import shutil
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import Message

from bench import corpus, zones
from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.exchange.v1 import event_pb2, exchange_pb2, federation_pb2
from hutong.api.recognition.v1 import case_service_pb2
from services.cli.demo import recognition
from services.cli.fleet import Fleet
from services.cli.query import SERVICE
from services.cli.rooms import GATEWAY, RECOGNITION, SUPERVISION
from services.cli.zone import Zone
from services.kit.client import Client
from services.kit.errors import Unavailable
from tests.chaos.asking import WHY, question
from tests.cli.authorized import AML, ANALYST, Desks
from tests.databases import Postgres
from tests.exchange.records import EXPORTER

CUSTOMS: Final = "customs"
NODES: Final = (RECOGNITION, SUPERVISION, CUSTOMS, GATEWAY)
_SUPERVISION: Final = "/hutong.api.authorization.v1.AuthorizationService"
_AGO: Final = dt.timedelta(days=28)


@dataclass
class Twins:
    """The replicas, and how many calls each has answered."""

    first: Fleet
    second: Fleet
    answered: Counter[tuple[Fleet, str]] = field(default_factory=Counter[tuple[Fleet, str]])
    """By replica and node."""
    _clients: dict[tuple[Fleet, str, str], Client] = field(default_factory=dict[tuple[Fleet, str, str], Client])
    _turn: int = 0

    async def call(self, who: str, node: str, method: str, request: Message, response: type[Any]) -> Any:
        """Ask the replicas in turn, the other one where one is gone."""
        self._turn += 1
        order = (self.first, self.second) if self._turn % 2 else (self.second, self.first)
        for fleet in order:
            with contextlib.suppress(Unavailable):
                answer = await self._client(fleet, who, node).unary(method, request, response, timeout=10)
                self.answered[fleet, node] += 1
                return answer
        raise AssertionError(f"neither replica of {node} answers")

    def busy(self, calls: int) -> bool:
        """Tell whether the first replicas have answered so many calls, and the gateway of them some."""
        by_node = {node: self.answered[self.first, node] for node in NODES}
        return sum(by_node.values()) >= calls and by_node[GATEWAY] > 0

    def _client(self, fleet: Fleet, who: str, node: str) -> Client:
        key = (fleet, who, node)
        if key not in self._clients:
            self._clients[key] = fleet.client(who, node)
        return self._clients[key]

    async def submit(self, number: int) -> str:
        """Begin a case of an enterprise that was applied for so long ago that reminders are due; gives its id."""
        request = case_service_pb2.SubmitCaseRequest(request_id=str(uuid.uuid4()), procedure_code="AEO-CERT")
        request.subject.scheme, request.subject.value = corpus.SCHEME, corpus.code(number)
        request.applied_at.FromDatetime(dt.datetime.now(dt.UTC) - _AGO)
        method = "/hutong.api.recognition.v1.CaseService/SubmitCase"
        answer = await self.call("customs/release", RECOGNITION, method, request, case_service_pb2.SubmitCaseResponse)
        return str(answer.view.case.case_id)

    async def reserve(self, ticket: str) -> int:
        """Take a row off the quota that a ticket is for; gives what is left."""
        request = authorization_pb2.ReserveRowsRequest(
            reservation_id=str(uuid.uuid4()), ticket=ticket, rows=1, record_type="customs.Declaration"
        )
        response = authorization_pb2.ReserveRowsResponse
        return int(
            (await self.call("customs/node", SUPERVISION, f"{_SUPERVISION}/ReserveRows", request, response)).left
        )

    async def look(self, authorization: str) -> None:
        """Look into the inbox of customs, and at an authorization: their logs have an entry of each."""
        method = "/hutong.api.exchange.v1.InboxService/ListInboxEvents"
        request, response = event_pb2.ListInboxEventsRequest(), event_pb2.ListInboxEventsResponse
        await self.call("customs/release", CUSTOMS, method, request, response)
        wanted = authorization_pb2.GetAuthorizationRequest(authorization_id=authorization)
        found = authorization_pb2.GetAuthorizationResponse
        await self.call("customs/release", SUPERVISION, f"{_SUPERVISION}/GetAuthorization", wanted, found)

    async def query(self, number: int) -> None:
        """Ask customs about an enterprise, through the gateway."""
        request = federation_pb2.QueryRequest(
            subject=question(number).subject,
            selections=[exchange_pb2.Selection(record_type="customs.Declaration")],
            context=WHY,
        )
        await self.call("taxation/refund", GATEWAY, f"{SERVICE}/Query", request, federation_pb2.QueryResponse)

    def ticket(self, rows: int) -> tuple[str, str]:
        """Bring an authorization into force; gives its id and a ticket for it."""
        desks = Desks(self.second)
        made = desks.active("--subject", f"{corpus.SCHEME}:{EXPORTER}", "--rows", str(rows))
        return made, desks.told("use", made, who=AML, officer=ANALYST).strip()

    async def kill(self) -> None:
        """End every process of the first replicas at once."""
        for node in NODES:
            await self.first.kill(node)


@contextlib.contextmanager
def prepared(folder: Path, server: Postgres) -> Generator[tuple[Zone, Zone]]:
    """Make a zone and its copy: the same nodes with the same databases at other addresses."""
    zone = Zone.prepare(folder / "zone")
    # The same identities, keys and secrets; configs of its own, at ports of their own.
    shutil.copytree(zone.folder, folder / "copy", ignore=shutil.ignore_patterns("node.toml"))
    both = zone, Zone.prepare(folder / "copy")
    with contextlib.ExitStack() as stack:
        for each in both:
            recognition.prepare(each)
        for node, table in itertools.product(NODES, ("store", "log")):
            if (node, table) == (GATEWAY, "store"):
                continue
            url = stack.enter_context(server.fresh())
            for each in both:
                zones.configure(each, node, table, {"url": url})
        yield both


@contextlib.asynccontextmanager
async def running(zone: Zone, copy: Zone) -> AsyncGenerator[Twins]:
    """Run both."""
    async with Fleet(zone, nodes=NODES) as first, Fleet(copy, nodes=NODES) as second:
        yield Twins(first, second)
