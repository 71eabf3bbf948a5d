"""Reading on after the end: through whatever stands open, by whatever was kept, wherever the end was not heard."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.caller import Caller
from services.kit.config import LimitsSection
from services.kit.context import ContextSigner, request_digest
from services.kit.errors import HutongError, Reason
from tests.attacks.asking import CUSTOMS, SOURCE, ask, call, refused, watch
from tests.authorizations.mesh import (
    BROKER,
    LISTINGS,
    POLICE,
    SERVICE,
    Leave,
    Supervised,
    asked,
    listings,
    registry,
)
from tests.exchange.mesh import EXPLAIN, STREAM
from tests.exchange.records import RECORDS
from tests.zone import ZONE, now

KIND = LISTINGS.record_type
MERCHANT = f"cn.customs_code:{BROKER}"
SUBJECT = common_pb2.SubjectId(scheme="cn.customs_code", value=BROKER)
REVOKED = pb.AUTHORIZATION_STATE_REVOKED


async def query(mesh: Supervised, leave: Leave, token: str = "") -> exchange_pb2.Section:
    request = asked(leave, KIND, subject=MERCHANT, page_size=1)
    request.selections[0].page_token = token
    (section,) = await ask(mesh, POLICE, request)
    if section.reason:
        # What the department refuses comes as its section.
        raise HutongError(Reason(section.reason), "the department gives nothing")
    return section


async def explained(mesh: Supervised, leave: Leave) -> Any:
    request = federation_pb2.ExplainRequest(query=asked(leave, KIND, subject=MERCHANT))
    return await mesh.client(POLICE).unary(EXPLAIN, request, federation_pb2.ExplainResponse, timeout=10)


def streamed(mesh: Supervised, leave: Leave, **how: Any) -> AsyncIterator[federation_pb2.StreamQueryResponse]:
    query = asked(leave, KIND, subject=MERCHANT, page_size=1)
    request = federation_pb2.StreamQueryRequest(query=query, **how)
    return mesh.client(POLICE).stream(STREAM, request, federation_pb2.StreamQueryResponse, timeout=30)


def delegated(mesh: Supervised, request: Any, leave: Leave) -> Any:
    """Have the gateway's own key say that the rightful system asks."""
    agency, _, system = POLICE.partition("/")
    signer = ContextSigner(mesh.zone.identity("gateway/main"), now)
    caller = Caller(f"spiffe://{ZONE}/{POLICE}", agency, system)
    svid = mesh.zone.files("gateway/main").load()
    request.delegated.CopyFrom(signer.sign(svid, caller, leave.context(), [request_digest(request)]))
    return request


def fetch(**selection: Any) -> record_source_pb2.FetchRequest:
    selected = exchange_pb2.Selection(record_type=KIND, **selection)
    return record_source_pb2.FetchRequest(subject=SUBJECT, selections=[selected])


async def fetched(mesh: Supervised, request: record_source_pb2.FetchRequest) -> Any:
    answer = await call(mesh, "gateway/main", f"{SOURCE}/Fetch", request, record_source_pb2.FetchResponse)
    if answer.sections[0].reason:
        raise HutongError(Reason(answer.sections[0].reason), "the department gives nothing")
    return answer


async def listed(mesh: Supervised, leave: Leave, token: str = "") -> service_pb2.ListCbecListingsResponse:
    request = service_pb2.ListCbecListingsRequest(
        context=leave.context(), subject=SUBJECT, page_size=1, page_token=token
    )
    return await call(mesh, POLICE, f"{CUSTOMS}/ListCbecListings", request, service_pb2.ListCbecListingsResponse)


async def got(mesh: Supervised, leave: Leave) -> service_pb2.GetCbecListingResponse:
    request = service_pb2.GetCbecListingRequest(name=f"cbecListings/I{BROKER}0", context=leave.context())
    return await call(mesh, POLICE, f"{CUSTOMS}/GetCbecListing", request, service_pb2.GetCbecListingResponse)


def opened(mesh: Supervised, leave: Leave, **how: Any) -> AsyncIterator[record_source_pb2.WatchResponse]:
    return watch(mesh, POLICE, KIND, context=leave.context(), **how)


async def reserved(mesh: Supervised, leave: Leave) -> Any:
    request = pb.ReserveRowsRequest(reservation_id="r-1", ticket=leave.ticket, rows=1, record_type=KIND)
    client = mesh.client("customs/node", "supervision")
    return await client.unary(f"{SERVICE}/ReserveRows", request, pb.ReserveRowsResponse, timeout=10)


async def last(stream: AsyncIterator[Any], most: int) -> Any:
    """Take what was on its way, so much at most, until the stream is cut."""
    for _ in range(most):
        await anext(stream)
    raise AssertionError("the stream goes on")


async def test_one_revocation_shuts_every_door(supervised: Supervised) -> None:
    mesh = supervised
    leave = await mesh.give(LISTINGS, who=POLICE, subjects=(MERCHANT,))
    # Everything is warm, and some of it open: plans, masks, tickets, pages, tokens, streams.
    page, listing = await query(mesh, leave), await listed(mesh, leave)
    direct = await fetched(mesh, delegated(mesh, fetch(page_size=1), leave))
    resume = await anext(opened(mesh, leave, from_start=True))
    watching = opened(mesh, leave)
    await anext(watching)
    slow = streamed(mesh, leave, all_pages=True, subjects=[SUBJECT] * 400)
    assert (await anext(slow)).section.records
    await asyncio.gather(explained(mesh, leave), got(mesh, leave), reserved(mesh, leave))
    token, before = direct.sections[0].next_page_token, delegated(mesh, fetch(), leave)
    await mesh.revoke(leave)
    await mesh.heard(leave.authorization_id, REVOKED, leave.scope.types)
    used = await mesh.used(leave)
    doors: dict[str, Callable[[], Awaitable[Any]]] = {
        "the same question": lambda: query(mesh, leave),
        "the next page": lambda: query(mesh, leave, page.next_page_token),
        "what would be decided": lambda: explained(mesh, leave),
        "a stream": lambda: anext(streamed(mesh, leave)),
        "a list": lambda: listed(mesh, leave),
        "the next page of a list": lambda: listed(mesh, leave, listing.next_page_token),
        "a record": lambda: got(mesh, leave),
        "the gateway's own word": lambda: fetched(mesh, delegated(mesh, fetch(), leave)),
        "its word for the next page": lambda: fetched(
            mesh, delegated(mesh, fetch(page_size=1, page_token=token), leave)
        ),
        "its word for what was known then": lambda: fetched(mesh, delegated(mesh, as_of(fetch()), leave)),
        "its word from before": lambda: fetched(mesh, before),
        "a watch": lambda: anext(opened(mesh, leave, from_start=True)),
        "a watch gone on with": lambda: anext(opened(mesh, leave, resume_token=resume.resume_token)),
        "a watch that is open": lambda: last(watching, 2),
        "a stream that is open": lambda: last(slow, 300),
        "rows off the quota": lambda: reserved(mesh, leave),
        "another ticket": lambda: mesh.use(leave.authorization_id, POLICE),
    }
    for name, door in doors.items():
        assert (await refused(door())).reason is Reason.AUTHORIZATION_REVOKED, name
    assert await mesh.used(leave) == used


def as_of(request: record_source_pb2.FetchRequest) -> record_source_pb2.FetchRequest:
    request.as_of.FromDatetime(now() - dt.timedelta(seconds=30))
    return request


def next_page(token: str) -> record_source_pb2.FetchRequest:
    return fetch(page_size=1, page_token=token)


async def test_nothing_that_was_revoked_is_logged_as_given(supervised: Supervised) -> None:
    """The refusal is in the log of whoever refused, under the authorization's name, with no row."""
    leave = await supervised.give(LISTINGS, who=POLICE, subjects=(MERCHANT,))
    await supervised.revoke(leave)
    await supervised.heard(leave.authorization_id, REVOKED, leave.scope.types)
    await refused(listed(supervised, leave))
    await refused(query(supervised, leave))
    for node in ("customs", "gateway"):
        log = supervised.host(node).log
        assert log is not None
        entry = (await log.entry(log.size - 1)).entry
        assert (entry.reason, entry.authorization_id) == (Reason.AUTHORIZATION_REVOKED, leave.authorization_id)
        assert not any(given.rows for given in entry.disclosures)
        assert not entry.answer_digest


# where the end is not heard


class Cut:
    """A line to a node that somebody can cut, with nobody hearing of it: nothing comes through, nothing is closed."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.through = asyncio.Event()
        self.through.set()
        self.address = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._ends.append(writer)
        host, _, port = self.target.rpartition(":")
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(host, int(port))
            self._ends.append(back)
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.through.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncGenerator["Cut"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        try:
            yield self
        finally:
            server.close()
            self.through.set()
            for end in self._ends:
                end.transport.abort()
            await asyncio.gather(*self._tasks)


async def test_a_department_that_was_cut_off_refuses_and_heals(tmp_path: Path) -> None:
    """Revoked meanwhile: the gateway hears of it, the department does not, and is asked directly."""
    mesh = Supervised(tmp_path, dt.timedelta(milliseconds=900), LimitsSection())
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(mesh.stop)
        await mesh.start_supervision("customs")
        assert mesh.supervision is not None
        line = await stack.enter_async_context(Cut(mesh.supervision.host.address).listening())
        straight = mesh.authorizations
        assert straight is not None
        mesh.authorizations = straight.model_copy(update={"target": line.address})
        await mesh.start("customs")
        mesh.authorizations = straight
        await mesh.start_gateway()
        await mesh.load("customs", [*RECORDS["customs"], *listings(5)])
        leave = await mesh.give(LISTINGS, who=POLICE, subjects=(MERCHANT,))
        watching = opened(mesh, leave, from_start=True)
        await anext(watching)
        used = await mesh.used(leave)
        line.through.clear()
        await mesh.revoke(leave)
        known = registry(mesh.enforcers("customs")["customs"])
        standing = known.find(leave.authorization_id)
        assert standing is not None
        assert standing.state == pb.AUTHORIZATION_STATE_ACTIVE
        # It does not know; and so little does it know that it gives nothing, open streams included.
        word = delegated(mesh, fetch(), leave)
        for asking in (last(watching, 1), listed(mesh, leave), got(mesh, leave), fetched(mesh, word)):
            assert (await refused(asking)).reason is Reason.AUTHORIZATION_STATE_UNKNOWN
        line.through.set()
        while (standing := known.find(leave.authorization_id)) and standing.state == pb.AUTHORIZATION_STATE_ACTIVE:
            await known.change(30)
        # Who was away hears what is in force, and not why something no longer is.
        assert (await refused(listed(mesh, leave))).reason is Reason.AUTHORIZATION_NOT_ACTIVE
        assert await mesh.used(leave) == used
