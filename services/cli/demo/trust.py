"""Steps about identity: who may not even ask."""

import asyncio
import datetime as dt
import stat
import time

import grpc
import grpc.aio

from certs.authority import Authority
from certs.register import RevocationReason
from certs.spiffe import SpiffeId, server_name
from certs.svid import SvidFiles
from hutong.api.exchange.v1 import federation_pb2, record_source_pb2
from services.cli import question
from services.cli.demo.narrator import Narrator
from services.cli.demo.stage import REGISTER, Stage
from services.cli.query import SERVICE
from services.cli.zone import GATEWAY_SYSTEM, OPERATOR, Zone
from services.kit.client import Client
from services.kit.errors import HutongError

_FETCH = "/hutong.api.exchange.v1.RecordSourceService/Fetch"
_SELECT = ["commerce.Enterprise:name"]
_NOTICED = 5.0
"""Seconds in which a revocation must be noticed; a second is usual."""


def identities(narrator: Narrator, zone: Zone) -> None:
    """Tell of the zone that was prepared."""
    narrator.step("A zone with its own authority")
    authority = Authority.open(zone.certificates.folder)
    issued = authority.current()
    narrator.say(f"Zone {zone.name}: every system has a certificate for AGENCY/SYSTEM, for a day.")
    narrator.show(
        ("SPIFFE id", "Until"),
        ((str(identity), f"{entry.not_after:%Y-%m-%d %H:%M}Z") for identity, entry in sorted(issued.items())),
    )
    lives = {entry.ttl for entry in issued.values()}
    narrator.check(lives == {dt.timedelta(hours=24)}, f"{len(issued)} identities, 24 hours each", lives)
    keys = [*zone.folder.rglob("*.private-key.pem"), *zone.folder.rglob("*.key"), *zone.folder.rglob("secret")]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in keys}
    narrator.check(modes == {0o600}, f"{len(keys)} keys and secrets, readable by their owner only", modes)


async def strangers(stage: Stage) -> None:
    """Come without a certificate, with another authority's, with a revoked one, and through the wrong door."""
    narrator = stage.narrator
    narrator.step("No certificate, somebody else's certificate, a revoked one")
    code = await _without_certificate(stage)
    narrator.check(code is grpc.StatusCode.UNAVAILABLE, "without a certificate the handshake fails", code)
    narrator.check(
        await _of_another_zone(stage), "a certificate of another authority, same name in it: handshake fails"
    )
    await _revoked(stage)
    await _wrong_door(stage)


def _request(stage: Stage) -> federation_pb2.QueryRequest:
    return question.request([REGISTER.purpose], REGISTER.basis, stage.exporter.text, _SELECT)


async def _without_certificate(stage: Stage) -> grpc.StatusCode | None:
    roots = stage.zone.certificates.bundle.read_bytes()
    name = server_name(stage.zone.identity(GATEWAY_SYSTEM))
    options = [("grpc.ssl_target_name_override", name)]
    credentials = grpc.ssl_channel_credentials(roots)
    async with grpc.aio.secure_channel(stage.fleet.address("gateway"), credentials, options) as channel:
        query = channel.unary_unary(
            f"{SERVICE}/Query",
            request_serializer=federation_pb2.QueryRequest.SerializeToString,
            response_deserializer=federation_pb2.QueryResponse.FromString,
        )
        try:
            await query(_request(stage), timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return None


async def _of_another_zone(stage: Stage) -> bool:
    """Present a certificate that says the same, under other roots."""
    folder = stage.zone.folder / "elsewhere"
    now = dt.datetime.now(dt.UTC)
    elsewhere = Authority.create(folder, stage.zone.name, now)
    elsewhere.issue(stage.zone.identity(REGISTER.caller), now)
    own = elsewhere.layout.svid(stage.zone.identity(REGISTER.caller))
    reason = await _reason(stage, SvidFiles(own.certificate, own.key, stage.zone.certificates.bundle))
    return reason == "DEPARTMENT_UNREACHABLE"


async def _revoked(stage: Stage) -> None:
    narrator, zone = stage.narrator, stage.zone
    authority = Authority.open(zone.certificates.folder)
    former = zone.identity("taxation/former")
    entry = authority.issue(former, dt.datetime.now(dt.UTC))
    files = zone.credentials("taxation/former")
    client = _client(stage, files)
    try:
        narrator.check(await _refusal(stage, client) == "", "a new system's certificate works")
        authority.revoke((entry.serial,), RevocationReason.KEY_COMPROMISE, dt.datetime.now(dt.UTC))
        started = time.monotonic()
        reason = ""
        async with asyncio.timeout(_NOTICED):
            while not reason:
                reason = await _refusal(stage, client)
        took = time.monotonic() - started
    finally:
        await client.close()
    narrator.check(
        reason == "CERTIFICATE_REVOKED",
        f"revoked, it is refused {took:.1f} s later, on the connection that was open already",
        reason,
    )


async def _wrong_door(stage: Stage) -> None:
    """Go past the gateway: a department's exchange door is for gateways, and a node's owner is no caller."""
    narrator = stage.narrator
    direct = stage.fleet.client(REGISTER.caller, "customs")
    fetch = record_source_pb2.FetchRequest()
    try:
        await direct.unary(_FETCH, fetch, record_source_pb2.FetchResponse, timeout=5)
        reason = ""
    except HutongError as error:
        reason = error.reason
    narrator.check(reason == "CALLER_NOT_LISTED", "a caller cannot go to a department past the gateway", reason)
    reason = await _reason(stage, stage.zone.credentials(OPERATOR))
    narrator.check(reason == "CALLER_NOT_LISTED", "who runs the machines may not ask about records", reason)


def _client(stage: Stage, files: SvidFiles) -> Client:
    gateway: SpiffeId = stage.zone.identity(GATEWAY_SYSTEM)
    return Client(stage.fleet.address("gateway"), gateway, files)


async def _reason(stage: Stage, files: SvidFiles) -> str:
    client = _client(stage, files)
    try:
        return await _refusal(stage, client)
    finally:
        await client.close()


async def _refusal(stage: Stage, client: Client) -> str:
    try:
        await client.unary(f"{SERVICE}/Query", _request(stage), federation_pb2.QueryResponse, timeout=5)
    except HutongError as error:
        return error.reason
    return ""
