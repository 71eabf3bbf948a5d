"""A zone folder whose customs node has decided and logged, without a mesh running; and hosts that serve its logs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from google.protobuf import json_format

from hutong.api.exchange.v1 import record_source_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from hutong.api.log.v1 import log_pb2
from services.cli.zone import Zone
from services.kit import jurisdiction
from services.kit.caller import Caller
from services.kit.clock import system_clock
from services.kit.errors import InvalidArgument, Reason
from services.kit.host import Host
from services.kit.log import receipts
from services.kit.log.nodelog import NodeLog
from services.kit.log.recording import Recording
from services.kit.policy import loader
from services.kit.policy.engine import PolicyEngine
from services.kit.records import catalogue
from services.kit.rpc import Call, Rpc, Shape
from tests.cli.conftest import Ran, run

FETCH = Rpc(
    method="/hutong.api.exchange.v1.RecordSourceService/Fetch",
    service="hutong.api.exchange.v1.RecordSourceService",
    name="Fetch",
    shape=Shape.UNARY,
    request=record_source_pb2.FetchRequest,
    handler=lambda: None,
    receipt=receipts.number_of(record_source_pb2.FetchResponse.DESCRIPTOR),
)
REBATE = RequestContext(purpose="P-REBATE", legal_basis="CN-VAT-REBATE")
PUBLIC = RequestContext(purpose="P-PUBLIC-REG", legal_basis="CN-PUBLIC-REGISTER", on_behalf_of="desk-4")
AEO = RequestContext(purpose="P-AEO", legal_basis="CN-CUSTOMS-CREDIT", case_ref="AEO-2026-7")
SUBJECT = "cn.uscc", "91350211M000100Y46"


def log_of(zone: Zone, node: str = "customs") -> NodeLog:
    config = zone.node(node)
    assert config.log is not None
    return NodeLog.of(config.log, config.node, config.log.read_url(Path()), system_clock)


async def fill(zone: Zone, count: int, node: str = "customs") -> list[log_pb2.Receipt]:
    """Decide by the zone's policy as customs does, and log it; gives the receipts."""
    log, law = log_of(zone, node), jurisdiction.load("cn")
    policies = loader.load([zone.policy("customs")], catalogue.load(), law)
    engine = PolicyEngine(policies, catalogue.load(), law, bytes(32), system_clock)
    await log.open()
    try:
        recording = Recording(log)
        recording.jurisdiction(law)
        recording.policies(policies)
        found = [asyncio.create_task(ask(recording, zone, engine, number)) for number in range(count)]
        return list(await asyncio.gather(*found))
    finally:
        await log.close()


async def ask(recording: Recording, zone: Zone, engine: PolicyEngine, number: int) -> log_pb2.Receipt:
    path = ("taxation/refund", "commerce/registry", "taxation/aeo")[number % 3]
    context = (REBATE, PUBLIC, AEO)[number % 3]
    caller = Caller.of(zone.identity(path))
    call = Call(FETCH.method, caller, b"", None)
    call.facts.asked(caller, context, SUBJECT)
    call.facts.disclosed(engine.mask(caller, context, catalogue.load().get("customs.Declaration")), 1)
    if number % 10 == 9:
        wrong = Call(FETCH.method, caller, b"", None)
        wrong.facts.stated(RequestContext(purpose="P-NOTHING"))
        await recording.refused(wrong, FETCH, InvalidArgument(Reason.PURPOSE_UNKNOWN, "no"))
    answer = await recording.answered(call, FETCH, b"an answer")
    return record_source_pb2.FetchResponse.FromString(answer).receipt


def as_answer(receipt: log_pb2.Receipt, to: Path) -> Path:
    """Save a receipt as an answer has it with --json."""
    made = json_format.MessageToDict(receipt, preserving_proto_field_name=True)
    to.write_text(json.dumps({"query_id": "q", "sections": [], "receipt": made}), encoding="utf-8")
    return to


@asynccontextmanager
async def _host(zone: Zone, node: str) -> AsyncGenerator[Host]:
    host = Host(zone.node(node))
    await host.start([], [])
    try:
        yield host
    finally:
        await host.stop()


@contextlib.contextmanager
def serving(zone: Zone, *nodes: str) -> Generator[None]:
    """Serve logs of nodes, each as its config says, while commands run: in another thread, which has its own loop."""
    started, done = Event(), Event()
    failed: list[BaseException] = []

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for node in nodes:
                await stack.enter_async_context(_host(zone, node))
            started.set()
            await asyncio.to_thread(done.wait)

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            started.set()

    thread = Thread(target=work, name="serving")
    thread.start()
    try:
        started.wait()
        if not failed:
            yield
    finally:
        done.set()
        thread.join()
        if failed:
            raise failed[0]


def told(*arguments: str | Path, code: int = 0) -> Any:
    """Run a command with --json, and read what it says."""
    ran = run(*arguments, "--json")
    assert ran.exit_code == code, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


def reason(*arguments: str | Path) -> str:
    """Run a command that fails; gives the reason."""
    error: dict[str, str] = told(*arguments, code=1)["error"]
    return error["reason"]


__all__ = ["Ran", "run"]
