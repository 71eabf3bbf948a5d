"""An enterprise is told who read its records: its own, of every agency, and under an embargo only afterwards."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from google.protobuf.message import Message

from gateway.reads import AllReads
from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import declaration_pb2, service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, reads_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.caller import Caller
from services.kit.context import ContextSigner
from services.kit.errors import HutongError, InvalidArgument, Reason
from services.kit.host import Host
from services.kit.identity import Identity
from services.kit.log.openings import Draft
from services.kit.policy import loader
from services.kit.policy.engine import PolicyEngine
from services.kit.records import catalogue
from services.kit.records.pages import PageTokens
from services.kit.rpc import Call, bind
from tests.attacks import clocked
from tests.attacks.clocked import Clock
from tests.exchange.mesh import QUERY, Mesh, question, running
from tests.exchange.records import CLEARED, EXPORTER, OTHER, RECORDS, code, declaration
from tests.policy.support import LAW, SECRET
from tests.recording.bed import everything, log_of, raw
from tests.zone import ZONE, Zone, now

LIST = "/hutong.api.exchange.v1.FederationService/ListReads"
FETCH = "/hutong.api.exchange.v1.ReadsService/FetchReads"
CUSTOMS = "/hutong.api.customs.v1.CustomsService/"
SELF = exchange_pb2.RequestContext(purpose="P-SELF", legal_basis="CN-RIGHT-TO-KNOW")
REBATE = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}
AEO = {"purpose": "P-AEO", "legal_basis": "CN-CUSTOMS-CREDIT", "case_ref": "AEO-1"}
PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
THEIRS = "999920260000000009"


def who(firm: str) -> str:
    return f"enterprise/{firm.lower()}"


def subject(firm: str) -> common_pb2.SubjectId:
    return common_pb2.SubjectId(scheme="cn.uscc", value=firm)


async def listed(mesh: Mesh, firm: str = EXPORTER, size: int = 0, token: str = "") -> reads_pb2.ListReadsResponse:
    request = reads_pb2.ListReadsRequest(subject=subject(firm), context=SELF, page_size=size, page_token=token)
    return await mesh.client(who(firm)).unary(LIST, request, reads_pb2.ListReadsResponse, timeout=10)


async def fetched(mesh: Mesh, size: int = 0, token: str = "") -> reads_pb2.FetchReadsResponse:
    request = reads_pb2.FetchReadsRequest(subject=subject(EXPORTER), context=SELF, page_size=size, page_token=token)
    return await mesh.client(who(EXPORTER), "customs").unary(FETCH, request, reads_pb2.FetchReadsResponse, timeout=10)


async def ask(mesh: Mesh, *selections: str, caller: str = "taxation/refund", **context: str) -> None:
    asked = question(f"cn.uscc:{EXPORTER}", *selections, **(context or REBATE))
    await mesh.client(caller).unary(QUERY, asked, federation_pb2.QueryResponse, timeout=10)


async def refused(mesh: Mesh, caller: str, method: str, request: Message, node: str = "gateway") -> HutongError:
    with pytest.raises(HutongError) as found:
        await raw(mesh.client(caller, node), method, request)
    return found.value


@pytest.fixture
async def own(tmp_path: Path) -> AsyncGenerator[Mesh]:
    async with running(tmp_path, "customs", "taxation") as mesh:
        for agency in mesh.departments:
            await mesh.load(agency, RECORDS[agency])
        await mesh.load("customs", [declaration(THEIRS, OTHER, declaration_pb2.DECLARATION_STATUS_CLEARED)])
        yield mesh


async def test_an_enterprise_is_told_who_read_what_and_why(own: Mesh) -> None:
    await ask(own, "customs.Declaration:declaration_no,overseas_party_name")
    (read,) = (await listed(own)).reads
    assert (read.caller, read.purpose, read.legal_basis) == ("taxation/refund", *REBATE.values())
    assert (read.owner, read.outcome, read.origin) == ("customs", log_pb2.OUTCOME_ANSWERED, f"{ZONE}/customs/node")
    (fields,) = read.fields
    assert (fields.record_type, fields.rows) == ("customs.Declaration", 1)
    assert list(fields.paths) == ["declaration_no", "overseas_party_name~initials"]
    entry = (await log_of(own.departments["customs"].host).entry(read.index)).entry
    assert entry.time == read.time


async def test_looks_that_found_nothing_or_were_refused_are_no_reads(own: Mesh) -> None:
    await ask(own, "customs.Declaration", purpose="P-RISK", legal_basis="CN-CUSTOMS-RISK")
    nobody = question(f"cn.uscc:{code('MA000009')}", "customs.Declaration", **REBATE)
    await raw(own.client("taxation/refund"), QUERY, nobody)
    await refused(own, "taxation/refund", QUERY, question(f"cn.uscc:{EXPORTER}", "customs.Nothing", **REBATE))
    empty = await listed(own)
    assert not empty.reads
    assert not empty.missing
    assert not empty.next_page_token
    # Nor are looks at the list, though they are logged.
    assert not (await listed(own)).reads
    assert [entry.rpc for entry in await everything(own.departments["customs"].host)][-1] == FETCH


async def test_a_read_by_key_or_by_list_is_told_to_whose_record_it_was(own: Mesh) -> None:
    context = exchange_pb2.RequestContext(**REBATE)
    client = own.client("taxation/refund", "customs")
    await raw(
        client,
        f"{CUSTOMS}GetDeclaration",
        service_pb2.GetDeclarationRequest(name=f"declarations/{CLEARED}", context=context, fields=["declaration_no"]),
    )
    (found,) = (await listed(own)).reads
    assert found.caller == "taxation/refund"
    assert not (await listed(own, OTHER)).reads
    await raw(client, f"{CUSTOMS}ListDeclarations", service_pb2.ListDeclarationsRequest(context=context))
    assert len((await listed(own)).reads) == 2
    (theirs,) = (await listed(own, OTHER)).reads
    # Two records were given; this enterprise is told of the one that is its own.
    assert [fields.rows for fields in theirs.fields] == [1]


async def test_nobody_else_is_told(own: Mesh) -> None:
    await ask(own, "customs.Declaration")
    mine = reads_pb2.ListReadsRequest(subject=subject(EXPORTER), context=SELF)
    direct = reads_pb2.FetchReadsRequest(subject=subject(EXPORTER), context=SELF)
    assert (await refused(own, who(OTHER), LIST, mine)).reason is Reason.READS_NOT_OWN
    assert (await refused(own, who(OTHER), FETCH, direct, "customs")).reason is Reason.READS_NOT_OWN
    assert (await refused(own, "customs/release", LIST, mine)).reason is Reason.CALLER_NOT_LISTED
    assert (await refused(own, "customs/release", FETCH, direct, "customs")).reason is Reason.CALLER_NOT_LISTED
    assert (await refused(own, "gateway/main", FETCH, direct, "customs")).reason is Reason.CONTEXT_MISSING
    wrong = reads_pb2.ListReadsRequest(subject=subject(EXPORTER), context=exchange_pb2.RequestContext(**PUBLIC))
    assert (await refused(own, who(EXPORTER), LIST, wrong)).reason is Reason.NO_PERMIT
    assert not (await listed(own, OTHER)).reads
    assert len((await listed(own)).reads) == 1


async def test_pages_of_all_agencies_come_newest_first_each_read_once(own: Mesh) -> None:
    for number in range(7):
        await ask(own, "customs.Declaration")
        if number % 3 == 0:
            await ask(own, "taxation.TaxpayerStatus", caller="customs/release", **AEO)
    whole = list((await listed(own)).reads)
    assert [read.owner for read in reversed(whole)] == [
        *("customs", "taxation", "customs", "customs"),
        *("customs", "taxation", "customs", "customs", "customs", "taxation"),
    ]
    times = [read.time.ToDatetime() for read in whole]
    assert times == sorted(times, reverse=True)
    found: list[reads_pb2.Read] = []
    token = ""
    while True:
        page = await listed(own, size=2, token=token)
        found += page.reads
        # What is read meanwhile belongs before the first page, and moves no later one.
        await ask(own, "customs.Declaration")
        if not (token := page.next_page_token):
            break
        assert len(page.reads) == 2
    assert found == whole


async def test_a_page_token_is_good_for_its_own_list_only(own: Mesh) -> None:
    for _ in range(3):
        await ask(own, "customs.Declaration")
    token = (await listed(own, size=1)).next_page_token
    foreign = reads_pb2.ListReadsRequest(subject=subject(OTHER), context=SELF, page_token=token)
    assert (await refused(own, who(OTHER), LIST, foreign)).reason is Reason.PAGE_TOKEN_MISMATCH
    broken = reads_pb2.ListReadsRequest(subject=subject(EXPORTER), context=SELF, page_token=f"{token}A")
    assert (await refused(own, who(EXPORTER), LIST, broken)).reason is Reason.PAGE_TOKEN_INVALID


async def test_an_agency_that_is_away_is_named(own: Mesh) -> None:
    await ask(own, "customs.Declaration")
    await own.departments.pop("taxation").stop()
    page = await listed(own)
    assert list(page.missing) == ["taxation"]
    assert [read.owner for read in page.reads] == ["customs"]


async def test_erased_reads_are_told_no_more(own: Mesh) -> None:
    await ask(own, "customs.Declaration")
    context = exchange_pb2.RequestContext(**REBATE)
    listing = service_pb2.ListDeclarationsRequest(context=context)
    await raw(own.client("taxation/refund", "customs"), f"{CUSTOMS}ListDeclarations", listing)
    await log_of(own.departments["customs"].host).erase("cn.uscc", EXPORTER)
    assert not (await listed(own)).reads
    # What another was committed to beside it cannot be told apart any more: that it was read can.
    (theirs,) = (await listed(own, OTHER)).reads
    assert not theirs.fields


async def put(host: Host, purpose: str) -> None:
    """Log a read as a node does, for a purpose that takes more than this test has to be answered."""
    entry = log_pb2.LogEntry(
        rpc="/x.Y/Z", caller=f"spiffe://{ZONE}/supervision/aml", purpose=purpose, outcome=log_pb2.OUTCOME_ANSWERED
    )
    given = entry.disclosures.add(record_type="customs.Declaration", rows=1)
    given.named.add(commitment=0, rows=1)
    await log_of(host).append(Draft(entry, (("cn.uscc", EXPORTER),)))


@pytest.mark.parametrize("purpose", ["P-AML", "P-CRIMINAL"])
async def test_an_embargo_hides_reads_until_it_ends(tmp_path: Path, purpose: str) -> None:
    clock = Clock()
    async with clocked.department(tmp_path, clock) as mesh:
        host = mesh.departments["customs"].host
        clock.ahead = -dt.timedelta(days=365) + dt.timedelta(minutes=2)
        await put(host, purpose)
        await put(host, "P-REBATE")
        await put(host, purpose)
        clock.ahead = dt.timedelta()
        hidden = await fetched(mesh)
        assert [read.purpose for read in hidden.reads] == ["P-REBATE"]
        # Not even that there is more is told, though two are there.
        assert not (await fetched(mesh, size=1)).next_page_token
        clock.ahead = dt.timedelta(minutes=3)
        shown = await fetched(mesh)
        assert [read.purpose for read in shown.reads] == [purpose, "P-REBATE", purpose]
        first = await fetched(mesh, size=1)
        second = await fetched(mesh, size=2, token=first.next_page_token)
        assert [*first.reads, *second.reads] == list(shown.reads)
        assert not second.next_page_token


async def test_long_lists_are_gone_through_whatever_is_hidden_between(tmp_path: Path) -> None:
    async with clocked.department(tmp_path, Clock()) as mesh:
        host = mesh.departments["customs"].host
        await put(host, "P-REBATE")
        for _ in range(250):
            await put(host, "P-AML")
        await put(host, "P-PUBLIC-REG")
        assert [read.purpose for read in (await fetched(mesh)).reads] == ["P-PUBLIC-REG", "P-REBATE"]
        page = await fetched(mesh, size=1)
        assert [r.purpose for r in (await fetched(mesh, size=1, token=page.next_page_token)).reads] == ["P-REBATE"]


async def test_where_one_agency_refuses_the_list_the_others_are_asked_no_further(tmp_path: Path) -> None:
    zone, reached, ended = Zone(tmp_path), asyncio.Event(), asyncio.Event()

    class Listing:
        """Never answers who asks first, and refuses the token of whoever comes next."""

        async def fetch_reads(self, _: reads_pb2.FetchReadsRequest, __: Call) -> reads_pb2.FetchReadsResponse:
            if reached.is_set():
                raise InvalidArgument(Reason.PAGE_TOKEN_INVALID, "it has another secret by now")
            reached.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError("unreachable")

    caller = Caller(f"spiffe://{ZONE}/{who(EXPORTER)}", *who(EXPORTER).split("/"))
    engine = PolicyEngine(loader.parse({}, catalogue.load(), LAW), catalogue.load(), LAW, SECRET, now)
    signer = ContextSigner(zone.identity("gateway/main"), now)
    identity = Identity(zone.files("gateway/main"))
    described = reads_pb2.DESCRIPTOR.services_by_name["ReadsService"]
    access = f"{described.full_name}: {{FetchReads: ['gateway/*']}}"
    async with zone.serving(bind(described, Listing()), access) as host, zone.client(host, "gateway/main") as client:
        # One node in the place of both agencies.
        both = AllReads({"customs": client, "taxation": client}, identity, signer, engine, PageTokens(SECRET))
        request = reads_pb2.ListReadsRequest(subject=subject(EXPORTER), context=SELF)
        with pytest.raises(InvalidArgument) as caught:
            await both.list(request, Call(LIST, caller, b"", None), 60)
        assert caught.value.reason is Reason.PAGE_TOKEN_INVALID
        async with asyncio.timeout(5):
            await ended.wait()
