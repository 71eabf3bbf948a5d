"""From the revocation of an authorization to the last answer under it, on a mesh of five departments under load."""

import asyncio
import datetime as dt
import time
import uuid
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from bench import corpus, zones
from bench.asking.calls import SERVICE as GATEWAY
from bench.asking.job import QUANTILES, quantiles
from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli import sample
from services.cli.authorizations.desk import SERVICE
from services.cli.fleet import Fleet
from services.cli.officer import token_for
from services.cli.rooms import SUPERVISION
from services.kit.client import Client
from services.kit.errors import HutongError
from services.kit.officers.tokens import Role

QUERY = f"{GATEWAY}/Query"
SUPERVISOR = "supervision/aml"
OWNER = "customs/release"
FIELDS = ("declaration_no", "total_value_cny")
ASKERS = 4
"""Loops that ask under each authorization until they are refused."""
LOAD = 16
"""Other queries in flight all the while."""


@dataclass(frozen=True)
class Revocations:
    """How long answers went on after a revocation, in milliseconds from when revoking was asked for."""

    count: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    queries_per_s: float
    """The load beside it."""


@dataclass(frozen=True)
class _Officer:
    """An officer at a system."""

    fleet: Fleet
    client: Client
    system: str
    reference: str
    role: Role

    async def act(self, rpc: str, request: Any, response: type[Message]) -> Any:
        method, zone = f"{SERVICE}/{rpc}", self.fleet.zone
        audience = str(zone.identity(f"{SUPERVISION}/node"))
        request.officer_token = token_for(zone, self.system, self.reference, (self.role,), method, request, audience)
        return await self.client.unary(method, request, response, timeout=10)


async def measure(fleet: Fleet, count: int = 100) -> Revocations:
    """Revoke `count` authorizations, one after the other, each while it is used."""
    load = asyncio.create_task(_load(fleet))
    try:
        lags = [await _once(fleet, number) for number in range(count)]
    finally:
        load.cancel()
        done = await asyncio.gather(load, return_exceptions=True)
    if isinstance(done[0], Exception):
        raise done[0]
    waits = quantiles(lag * 1e3 for lag in lags)
    p50, p99 = (waits[QUANTILES.index(percent)] for percent in (50.0, 99.0))
    return Revocations(count, p50, p99, waits[-1], _Load.rate())


class _Load:
    """How much was asked beside it."""

    queries = 0
    started = 0.0

    @classmethod
    def rate(cls) -> float:
        return cls.queries / (time.perf_counter() - cls.started)


async def _load(fleet: Fleet) -> None:
    client, asked = fleet.client(zones.CALLER), _public(fleet)
    _Load.queries, _Load.started = 0, time.perf_counter()

    async def ask() -> None:
        while True:
            await client.unary(QUERY, asked, federation_pb2.QueryResponse, timeout=10)
            _Load.queries += 1

    await asyncio.gather(*(ask() for _ in range(LOAD)))


async def _once(fleet: Fleet, number: int) -> float:
    exporter = sample.story(fleet.zone.sample).exporter
    supervisor = _Officer(fleet, fleet.client(SUPERVISOR, SUPERVISION), SUPERVISOR, "1", Role.REQUESTER)
    approvers = [
        _Officer(fleet, fleet.client(OWNER, SUPERVISION), OWNER, reference, Role.APPROVER) for reference in ("2", "3")
    ]
    found = await _request(supervisor, exporter.uscc, f"STR-{number}")
    for officer in approvers:
        approve = authorization_pb2.ApproveAuthorizationRequest(
            authorization_id=found.authorization_id, scope_digest=found.scope_digest
        )
        await officer.act("ApproveAuthorization", approve, authorization_pb2.ApproveAuthorizationResponse)
    use = authorization_pb2.UseAuthorizationRequest(authorization_id=found.authorization_id)
    used = await supervisor.act("UseAuthorization", use, authorization_pb2.UseAuthorizationResponse)
    asked = _question(found, used.ticket)
    answered: list[float] = []
    busy = asyncio.Event()
    asking = [
        asyncio.create_task(_until_refused(fleet.client(SUPERVISOR), asked, answered, busy)) for _ in range(ASKERS)
    ]
    await busy.wait()
    revoke = authorization_pb2.RevokeAuthorizationRequest(
        authorization_id=found.authorization_id, reason_code="CASE_CLOSED"
    )
    started = time.perf_counter()
    await approvers[0].act("RevokeAuthorization", revoke, authorization_pb2.RevokeAuthorizationResponse)
    await asyncio.gather(*asking)
    return max(0.0, max(answered) - started)


async def _request(officer: _Officer, uscc: str, case: str) -> authorization_pb2.Authorization:
    now = dt.datetime.now(dt.UTC)
    scope = authorization_pb2.Scope(
        caller=SUPERVISOR,
        purpose="P-AML",
        legal_basis="CN-AML",
        case_ref=case,
        types=[authorization_pb2.ScopedType(record_type="customs.Declaration", fields=FIELDS)],
        subjects=[common_pb2.SubjectId(scheme="cn.uscc", value=uscc)],
        row_quota=1_000_000,
        no_bulk=True,
    )
    scope.not_before.FromDatetime(now)
    scope.not_after.FromDatetime(now + dt.timedelta(days=1))
    request = authorization_pb2.RequestAuthorizationRequest(request_id=str(uuid.uuid4()), scope=scope)
    made = await officer.act("RequestAuthorization", request, authorization_pb2.RequestAuthorizationResponse)
    found: authorization_pb2.Authorization = made.authorization
    return found


def _public(fleet: Fleet) -> federation_pb2.QueryRequest:
    """Ask five departments about the sample's exporter."""
    uscc = sample.story(fleet.zone.sample).exporter.uscc
    return federation_pb2.QueryRequest(
        subject=common_pb2.SubjectId(scheme="cn.uscc", value=uscc),
        selections=[exchange_pb2.Selection(record_type=name) for name in corpus.TYPES],
        context=exchange_pb2.RequestContext(purpose="P-PUBLIC-REG", legal_basis="CN-PUBLIC-REGISTER"),
    )


def _question(found: authorization_pb2.Authorization, ticket: str) -> federation_pb2.QueryRequest:
    scope = found.scope
    return federation_pb2.QueryRequest(
        subject=scope.subjects[0],
        selections=[exchange_pb2.Selection(record_type="customs.Declaration", fields=FIELDS)],
        context=exchange_pb2.RequestContext(
            purpose=scope.purpose,
            legal_basis=scope.legal_basis,
            case_ref=scope.case_ref,
            authorization_id=found.authorization_id,
            authorization_ticket=ticket,
        ),
    )


async def _until_refused(
    client: Client, asked: federation_pb2.QueryRequest, answered: list[float], busy: asyncio.Event
) -> None:
    """Ask again and again; what the department gives last counts, whoever refuses first."""
    while True:
        try:
            response = await client.unary(QUERY, asked, federation_pb2.QueryResponse, timeout=10)
        except HutongError as error:
            if not answered:
                raise
            if error.reason != "AUTHORIZATION_REVOKED":
                raise
            return
        if any(section.records for section in response.sections):
            answered.append(time.perf_counter())
            if len(answered) >= 2 * ASKERS:
                busy.set()
        elif response.sections[0].reason != "AUTHORIZATION_NOT_ACTIVE":
            return
