"""Decisions out of a node's log: who may have them, all of them or as drawn, page by page, on both databases."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hutong.api.log.v1 import log_service_pb2
from services.kit.audit import evidence, sampling
from services.kit.audit.archive import Archive
from services.kit.audit.findings import Verdict
from services.kit.audit.following import follow
from services.kit.audit.recompute import Recomputer
from services.kit.client import Client
from services.kit.clock import system_clock
from services.kit.config import IssuerSection, NodeConfig
from services.kit.errors import HutongError, InvalidArgument, PermissionDenied, Reason, Unauthenticated
from services.kit.host import Host
from services.kit.log import decisions, keys
from services.kit.log.nodelog import NodeLog
from services.kit.log.recording import Recording
from services.kit.officers.acts import act_nonce
from services.kit.officers.issuer import Issuer
from services.kit.officers.pseudonyms import Pseudonyms
from services.kit.officers.tokens import Role
from services.kit.rpc import Call
from tests.audit.bed import FETCH, SIGNER
from tests.policy.specimen import catalogue
from tests.policy.support import LAW, NOW, TAX, TYPE, SetClock, context, engine, permit
from tests.zone import Zone

METHOD = "/hutong.api.log.v1.LogService/SampleDecisions"
SECRET = bytes(range(32))
SEED = b"a seed of the auditor's"
Request = log_service_pb2.SampleDecisionsRequest
Response = log_service_pb2.SampleDecisionsResponse


async def record(log: NodeLog, count: int, clock: SetClock | None = None, start: int = 0) -> None:
    """Decide and log, with a mask of its own for each of four selections; one minute each on a clock."""
    office = engine(permit("code", ("code", "holder", "phone", "count")), clock=SetClock())
    recording = Recording(log)
    recording.jurisdiction(LAW)
    recording.policies(office.policies)
    paths = [leaf.path for leaf in TYPE.leaves][:4]
    for number in range(start, start + count):
        call = Call(FETCH.method, TAX, b"", None)
        call.facts.asked(TAX, context(case_ref=f"C-{number}"), ("uscc", f"S{number}"))
        call.facts.disclosed(office.mask(TAX, context(), TYPE).restrict(paths[: 1 + number % 4]), 1)
        await recording.answered(call, FETCH, b"an answer")
        if clock:
            clock.now += dt.timedelta(minutes=1)


@pytest.fixture
async def log(any_url: str) -> AsyncIterator[NodeLog]:
    made = NodeLog(any_url, SIGNER, SetClock(), migrate=True)
    await made.open()
    yield made
    await made.close()


async def pages(log: NodeLog, request: Request) -> list[Response]:
    found = [await decisions.page(log, request)]
    while found[-1].next_page_token:
        request.page_token = found[-1].next_page_token
        found.append(await decisions.page(log, request))
    request.page_token = ""
    return found


def indexes(found: list[Response]) -> list[int]:
    return [decision.index for page in found for decision in page.decisions]


def verdicts(found: list[Response]) -> set[Verdict]:
    checkpoint = evidence.checked(found[0], [SIGNER.verifier]).checkpoint
    archive = Archive(catalogue())
    for page in found:
        archive.add(page.texts)
    recomputer = Recomputer(archive)
    return {recomputer.recompute(each, checkpoint).verdict for page in found for each in page.decisions}


async def test_all_of_them_page_by_page(log: NodeLog) -> None:
    await record(log, 20)
    request = Request(page_size=7)
    found = await pages(log, request)
    assert indexes(found) == list(range(log.size))
    assert {len(page.decisions) for page in found[:-1]} == {7}
    assert verdicts(found) == {Verdict.SAME}
    follow(request, found, evidence.checked(found[0], [SIGNER.verifier]).checkpoint)


async def test_pages_stay_in_the_tree_of_the_first(log: NodeLog) -> None:
    await record(log, 10)
    size, request = log.size, Request(page_size=4)
    first = await decisions.page(log, request)
    await record(log, 10, start=10)
    request.page_token = first.next_page_token
    found = [first, *(await pages(log, request))]
    assert indexes(found) == list(range(size))
    assert len({page.checkpoint for page in found}) == 1
    assert verdicts(found) == {Verdict.SAME}


async def test_a_draw_is_the_seeds(log: NodeLog) -> None:
    await record(log, 40)
    request = Request(draw=15, seed=SEED, page_size=6)
    found = await pages(log, request)
    entries = await log.entries(0, log.size)
    drawn = sampling.sample(SEED, 0, log.size, 15, lambda index: not entries[index].entry.HasField("mask"))
    assert indexes(found) == list(drawn)
    assert verdicts(found) == {Verdict.SAME}
    checkpoint = evidence.checked(found[0], [SIGNER.verifier]).checkpoint
    follow(request, found, checkpoint)
    again = await pages(log, Request(draw=15, seed=SEED, page_size=200))
    assert indexes(again) == indexes(found)
    other = await pages(log, Request(draw=15, seed=SEED[::-1], page_size=200))
    assert indexes(other) != indexes(found)
    with pytest.raises(HutongError):
        follow(Request(draw=15, seed=SEED), other, checkpoint)


async def test_a_draw_of_more_than_there_is_takes_all(log: NodeLog) -> None:
    await record(log, 5)
    found = await pages(log, Request(draw=1000, seed=SEED))
    assert sorted(indexes(found)) == list(range(log.size))


async def test_a_time(any_url: str) -> None:
    clock = SetClock()
    log = NodeLog(any_url, SIGNER, clock, migrate=True)
    await log.open()
    try:
        await record(log, 20, clock)
        request = Request(page_size=200)
        request.since.FromDatetime(NOW + dt.timedelta(minutes=5))
        request.until.FromDatetime(NOW + dt.timedelta(minutes=9))
        found = await pages(log, request)
        times = [evidence.read_entry(d.entry).time.ToDatetime(dt.UTC) for d in found[0].decisions]
        assert times == [NOW + dt.timedelta(minutes=minute) for minute in (5, 6, 7, 8)]
        assert (found[0].start, found[0].end) == (indexes(found)[0], indexes(found)[-1] + 1)
        assert verdicts(found) == {Verdict.SAME}
        request.until.FromDatetime(NOW)
        assert not indexes(await pages(log, request))
    finally:
        await log.close()


async def test_an_erased_opening_is_not_there(log: NodeLog) -> None:
    await record(log, 5)
    await log.erase("uscc", "S2")
    found = await pages(log, Request())
    opened = [d.index for page in found for d in page.decisions if d.HasField("opening")]
    assert len(opened) == 4


async def test_an_empty_log(log: NodeLog) -> None:
    (page,) = await pages(log, Request(draw=5, seed=SEED))
    assert not page.ListFields()


WRONG = [
    (Request(page_size=-1), Reason.PAGE_SIZE_INVALID),
    (Request(draw=-1), Reason.MALFORMED_REQUEST),
    (Request(draw=sampling.MAX_DRAW + 1, seed=SEED), Reason.MALFORMED_REQUEST),
    (Request(draw=1, seed=b"short"), Reason.MALFORMED_REQUEST),
    (Request(draw=1, seed=bytes(65)), Reason.MALFORMED_REQUEST),
    (Request(seed=bytes(65)), Reason.MALFORMED_REQUEST),
    (Request(page_token="!"), Reason.PAGE_TOKEN_INVALID),
    (Request(page_token="x" * 5000), Reason.PAGE_TOKEN_INVALID),
    (Request(page_token="AAAAAAAAAAAAAAAAAAAAAFsxLDAsMSwwLDBd"), Reason.PAGE_TOKEN_MISMATCH),
    (Request(page_token="AAAAAAAAAAAAAAAAAAAAAFsxLDAsMSwwXQ"), Reason.PAGE_TOKEN_INVALID),
    (Request(page_token="AAAAAAAAAAAAAAAAAAAAAFs5OTk5LDAsMSwwLDBd"), Reason.PAGE_TOKEN_INVALID),
]


async def test_what_cannot_be_asked(log: NodeLog) -> None:
    await record(log, 3)
    for request, reason in WRONG:
        with pytest.raises(InvalidArgument) as refused:
            await decisions.page(log, request)
        assert refused.value.reason is reason, request


async def test_what_is_no_moment(log: NodeLog) -> None:
    request = Request()
    request.since.seconds = 2**62
    with pytest.raises(InvalidArgument) as refused:
        await decisions.page(log, request)
    assert refused.value.reason is Reason.MALFORMED_REQUEST


async def test_a_token_of_another_question(log: NodeLog) -> None:
    await record(log, 10)
    token = (await decisions.page(log, Request(page_size=3))).next_page_token
    for other in (Request(draw=4, seed=SEED), Request(seed=SEED)):
        other.page_token = token
        with pytest.raises(InvalidArgument) as refused:
            await decisions.page(log, other)
        assert refused.value.reason is Reason.PAGE_TOKEN_MISMATCH


async def test_a_page_has_an_end_in_bytes_too(log: NodeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(log, 10)
    monkeypatch.setattr(decisions, "PAGE_BYTES", 1)
    found = await pages(log, Request(page_size=200))
    assert {len(page.decisions) for page in found} == {1}
    assert indexes(found) == list(range(log.size))


class Node:
    """A node whose log auditors may ask for, and identity providers of three agencies."""

    def __init__(self, folder: Path) -> None:
        self.zone = Zone(folder / "z")
        self.issuers: dict[str, Issuer] = {}
        sections: dict[str, IssuerSection] = {}
        for agency in ("customs", "audit", "taxation"):
            uri = f"https://officers.{agency}.example"
            self.issuers[agency] = Issuer.create(folder / agency, uri, system_clock())
            jwks = self.issuers[agency].publish(folder / f"{agency}.jwks.json")
            sections[agency] = IssuerSection(issuer=uri, jwks=jwks)
        self.section = self.zone.log("customs/node")
        self.host = Host(
            NodeConfig(
                node=self.zone.node("customs/node"),
                tls=self.zone.tls("customs/node"),
                log=self.section,
                officers=sections,
            )
        )

    def token(self, request: Request, path: str, *roles: Role, issuer: str = "") -> str:
        agency = path.partition("/")[0]
        return self.issuers[issuer or agency].token(
            "o-1",
            roles,
            str(self.zone.identity("customs/node")),
            act_nonce(METHOD, request),
            self.zone.files(path).load().chain,
            system_clock(),
        )

    async def ask(self, path: str, *roles: Role, issuer: str = "", request: Request | None = None) -> Response:
        asked = Request() if request is None else request
        asked.officer_token = self.token(asked, path, *roles, issuer=issuer)
        return await self.send(path, asked)

    async def send(self, path: str, asked: Request) -> Response:
        async with self.zone.client(self.host, path) as client:
            return await call(client, asked)


async def call(client: Client, asked: Request) -> Response:
    return await client.unary(METHOD, asked, Response, timeout=10)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    await made.host.open_log(SECRET)
    await made.host.start([], [])
    assert made.host.log is not None
    await record(made.host.log, 5)
    yield made
    await made.host.stop()


async def test_auditors_of_any_agency_and_the_nodes_own_data_officers(node: Node) -> None:
    for path, role in (("audit/desk", Role.AUDITOR), ("taxation/desk", Role.AUDITOR), ("customs/d", Role.DATA_OFFICER)):
        page = await node.ask(path, role)
        assert page.decisions
        assert page.HasField("receipt")
    for path, role in (("taxation/desk", Role.DATA_OFFICER), ("audit/desk", Role.APPROVER)):
        with pytest.raises(PermissionDenied) as refused:
            await node.ask(path, role)
        assert refused.value.reason is Reason.OFFICER_ROLE_MISSING
    with pytest.raises(PermissionDenied) as refused:
        await node.ask("taxation/desk", Role.AUDITOR, issuer="audit")
    assert refused.value.reason is Reason.ISSUER_UNKNOWN


async def test_a_token_is_for_one_page(node: Node) -> None:
    asked = Request(page_size=2)
    page = await node.ask("audit/desk", Role.AUDITOR, request=asked)
    with pytest.raises(Unauthenticated) as refused:
        await node.send("audit/desk", asked)
    assert refused.value.reason is Reason.OFFICER_TOKEN_REPLAYED
    asked.page_token = page.next_page_token
    with pytest.raises(Unauthenticated) as refused:
        await node.send("audit/desk", asked)
    assert refused.value.reason is Reason.OFFICER_TOKEN_INVALID
    assert (await node.ask("audit/desk", Role.AUDITOR, request=asked)).decisions


async def test_looking_is_logged_as_well_and_so_is_being_refused(node: Node) -> None:
    log = node.host.log
    assert log is not None
    page = await node.ask("audit/desk", Role.AUDITOR)
    with pytest.raises(PermissionDenied):
        await node.ask("audit/desk", Role.APPROVER)
    with pytest.raises(Unauthenticated):
        await node.send("audit/desk", Request())
    *_, looked, other, refused = [entry.entry for entry in await log.entries(0, 200)]
    assert (looked.rpc, looked.caller, looked.reason) == (METHOD, "spiffe://zone.example/audit/desk", "")
    assert (refused.rpc, refused.reason) == (METHOD, "OFFICER_MISSING")
    assert page.receipt.index == log.size - 3
    # Who looked is told by a pseudonym, whatever the roles; of somebody without a token nothing is known.
    assert looked.officer == other.officer == Pseudonyms(SECRET).of("audit", "o-1")
    assert (other.reason, refused.officer) == ("OFFICER_ROLE_MISSING", "")


async def test_what_a_node_gives_is_recomputed_with_its_published_key(node: Node) -> None:
    request = Request(draw=5, seed=SEED)
    found = [await node.ask("audit/desk", Role.AUDITOR, request=request)]
    key = keys.find(node.section.keys, "zone.example/customs/node")
    signed = evidence.checked(found[0], [key])
    follow(request, found, signed.checkpoint)
    archive = Archive(catalogue())
    archive.add(found[0].texts)
    recomputer = Recomputer(archive)
    came = {recomputer.recompute(each, signed.checkpoint).verdict for each in found[0].decisions}
    assert came == {Verdict.SAME}


async def test_many_auditors_at_once(node: Node) -> None:
    answers = await asyncio.gather(*(node.ask("audit/desk", Role.AUDITOR) for _ in range(8)))
    assert len({answer.receipt.index for answer in answers}) == 8
