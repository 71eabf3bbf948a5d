"""Attacks on enforcement: reading on after the end, through whatever is kept, open, or reached directly."""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import declaration_pb2, service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.caller import Caller
from services.kit.config import LimitsSection
from services.kit.context import ContextSigner, request_digest
from services.kit.errors import HutongError, Reason
from tests.attacks.asking import ask, call, refused, watch
from tests.authorizations.mesh import (
    AML,
    BROKER,
    DECLARATIONS,
    INVOICES,
    LISTINGS,
    POLICE,
    Leave,
    Supervised,
    asked,
    declarations,
    invoices,
    listings,
    loaded,
    registry,
    running,
    under,
)
from tests.exchange.mesh import STREAM, records
from tests.exchange.records import EXPORTER, OTHER, RECORDS
from tests.exchange.standin import stuck
from tests.recording.bed import newest
from tests.zone import ZONE, now

DENIED, UNAVAILABLE = exchange_pb2.SECTION_STATUS_DENIED, exchange_pb2.SECTION_STATUS_UNAVAILABLE
REVOKED = pb.AUTHORIZATION_STATE_REVOKED
KIND = "customs.Declaration"
LISTING = "customs.CbecListing"
TYPED = "/hutong.api.customs.v1.CustomsService"
FETCH = "/hutong.api.exchange.v1.RecordSourceService/Fetch"
MERCHANT = f"cn.customs_code:{BROKER}"


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Supervised]:
    """A mesh for tests that end nothing but what is their own, and change no record."""
    async with loaded(tmp_path_factory.mktemp("shared")) as mesh:
        yield mesh


async def ended(mesh: Supervised, leave: Leave) -> None:
    """Revoke an authorization, and wait until every node has heard."""
    await mesh.revoke(leave)
    await mesh.heard(leave.authorization_id, REVOKED, leave.scope.types)


async def list_listings(
    mesh: Supervised, who: str, context: exchange_pb2.RequestContext, subject: str = BROKER
) -> service_pb2.ListCbecListingsResponse:
    request = service_pb2.ListCbecListingsRequest(context=context)
    if subject:
        request.subject.CopyFrom(common_pb2.SubjectId(scheme="cn.customs_code", value=subject))
    return await call(mesh, who, f"{TYPED}/ListCbecListings", request, service_pb2.ListCbecListingsResponse)


async def get_listing(
    mesh: Supervised, who: str, context: exchange_pb2.RequestContext, key: str
) -> service_pb2.GetCbecListingResponse:
    request = service_pb2.GetCbecListingRequest(name=f"cbecListings/{key}", context=context)
    return await call(mesh, who, f"{TYPED}/GetCbecListing", request, service_pb2.GetCbecListingResponse)


async def test_a_plan_and_masks_that_were_kept_end_with_the_authorization(shared: Supervised) -> None:
    leave = await shared.give(DECLARATIONS)
    request = asked(leave, KIND)
    for _ in range(3):
        (section,) = await ask(shared, AML, request)
        assert records(section)
    await ended(shared, leave)
    assert (await refused(ask(shared, AML, request))).reason is Reason.AUTHORIZATION_REVOKED
    # Nor does another ticket help, were there one: the service gives none.
    assert (await refused(shared.use(leave.authorization_id))).reason is Reason.AUTHORIZATION_REVOKED


async def test_one_authorization_never_answers_for_another(shared: Supervised) -> None:
    small = await shared.give(under(DECLARATIONS, 'declaration_no = "999920260000000101"'))
    large = await shared.give(DECLARATIONS)
    for leave, rows in ((large, 7), (small, 1), (large, 7), (small, 1)):
        (section,) = await ask(shared, AML, asked(leave, KIND))
        assert len(records(section)) == rows


async def test_a_department_reached_directly_checks_for_itself(shared: Supervised) -> None:
    leave = await shared.give(LISTINGS, who=POLICE, subjects=(MERCHANT,))
    assert len((await list_listings(shared, POLICE, leave.context())).cbec_listings) == 5
    assert await shared.used(leave) == 5
    without = leave.context()
    without.ClearField("authorization_id")
    for who, context, reason in (
        (POLICE, without, Reason.AUTHORIZATION_MISSING),
        (POLICE, leave.context(authorization_ticket=""), Reason.TICKET_INVALID),
        (POLICE, leave.context(case_ref="OTHER"), Reason.AUTHORIZATION_SCOPE),
        ("publicsecurity/other", leave.context(), Reason.AUTHORIZATION_NOT_YOURS),
        ("taxation/refund", leave.context(), Reason.AUTHORIZATION_NOT_YOURS),
    ):
        assert (await refused(list_listings(shared, who, context))).reason is reason
    for subject in ("9999960002", ""):
        error = await refused(list_listings(shared, POLICE, leave.context(), subject))
        assert error.reason is Reason.AUTHORIZATION_SCOPE
    await ended(shared, leave)
    error = await refused(list_listings(shared, POLICE, leave.context()))
    assert error.reason is Reason.AUTHORIZATION_REVOKED
    assert await shared.used(leave) == 5


async def test_a_record_by_its_key_is_given_where_it_is_about_a_subject(own: Supervised) -> None:
    await own.load("customs", listings(1, "9999960002"))
    leave = await own.give(LISTINGS, who=POLICE, subjects=(MERCHANT,))
    found = await get_listing(own, POLICE, leave.context(), f"I{BROKER}0")
    assert found.cbec_listing.payment_no == "PAY0"
    others = await refused(get_listing(own, POLICE, leave.context(), "I99999600020"))
    absent = await refused(get_listing(own, POLICE, leave.context(), "nothing"))
    assert others.reason is absent.reason is Reason.RECORD_NOT_FOUND
    assert await own.used(leave) == 1


async def test_a_gateway_that_lies_about_the_caller_gets_nowhere(shared: Supervised) -> None:
    """Its word is good, its signature too: and the ticket names somebody else."""
    leave = await shared.give(DECLARATIONS)
    gateway = shared.zone.identity("gateway/main")
    signer, svid = ContextSigner(gateway, now), shared.zone.files("gateway/main").load()

    async def fetched(caller: str, **changes: str) -> record_source_pb2.FetchResponse:
        request = record_source_pb2.FetchRequest(
            subject=common_pb2.SubjectId(scheme="cn.uscc", value=EXPORTER),
            selections=[exchange_pb2.Selection(record_type=KIND)],
        )
        agency, _, system = caller.partition("/")
        word = signer.sign(
            svid,
            Caller(f"spiffe://{ZONE}/{caller}", agency, system),
            leave.context(**changes),
            [request_digest(request)],
        )
        request.delegated.CopyFrom(word)
        client = shared.client("gateway/main", "customs")
        return await client.unary(FETCH, request, record_source_pb2.FetchResponse, timeout=10)

    assert (await fetched(AML)).sections[0].records
    for caller in ("supervision/other", POLICE, "customs/release"):
        assert (await refused(fetched(caller))).reason is Reason.AUTHORIZATION_NOT_YOURS
    for changes, reason in (
        ({"authorization_ticket": ""}, Reason.TICKET_INVALID),
        ({"authorization_ticket": leave.ticket[:-4] + "AAAA"}, Reason.TICKET_INVALID),
        ({"authorization_id": "made-up"}, Reason.TICKET_INVALID),
        ({"purpose": "P-CRIMINAL"}, Reason.AUTHORIZATION_SCOPE),
        ({"authorization_id": "", "authorization_ticket": ""}, Reason.AUTHORIZATION_MISSING),
    ):
        assert (await refused(fetched(AML, **changes))).reason is reason


async def test_revocation_cuts_an_open_watch(own: Supervised) -> None:
    leave = await own.give(LISTINGS, who=POLICE, subjects=(MERCHANT,))
    stream = watch(own, POLICE, LISTING, context=leave.context(), from_start=True)
    first = await anext(stream)
    assert len(first.records) == 5
    assert await own.used(leave) == 5
    # What is about others is nobody's business here: the next that comes is about the merchant again.
    await own.load("customs", [*listings(3, "9999960002"), *listings(1, first=50)])
    assert len((await anext(stream)).records) == 1
    await own.revoke(leave)
    # Idle: nothing comes any more but the end.
    assert (await refused(anext(stream))).reason is Reason.AUTHORIZATION_REVOKED
    again = watch(own, POLICE, LISTING, context=leave.context(), resume_token=first.resume_token)
    assert (await refused(anext(again))).reason is Reason.AUTHORIZATION_REVOKED


async def test_supervision_watches_under_an_authorization_alone(own: Supervised) -> None:
    """The access list lets it in, and nothing more: policy and authorization decide, and a revocation ends it."""
    leave = await own.give(DECLARATIONS)
    for changes, reason in (
        ({"authorization_id": "", "authorization_ticket": ""}, Reason.AUTHORIZATION_MISSING),
        ({"authorization_ticket": ""}, Reason.TICKET_INVALID),
        # Another purpose, for which the policy asks for none: nothing of this is open for it.
        (
            {
                "purpose": "P-RISK",
                "legal_basis": "CN-CUSTOMS-RISK",
                "authorization_id": "",
                "authorization_ticket": "",
            },
            Reason.NO_PERMIT,
        ),
    ):
        stream = watch(own, AML, KIND, context=leave.context(**changes), from_start=True)
        assert (await refused(anext(stream))).reason is reason
    # Another system of supervision's has no use of it.
    stream = watch(own, "supervision/monitor", KIND, context=leave.context(), from_start=True)
    assert (await refused(anext(stream))).reason is Reason.AUTHORIZATION_NOT_YOURS
    # What the scope does not open of the owner's other types stays shut.
    stream = watch(own, AML, LISTING, context=leave.context(), from_start=True)
    assert (await refused(anext(stream))).reason is Reason.AUTHORIZATION_SCOPE
    stream = watch(own, AML, KIND, context=leave.context(), from_start=True)
    first = await anext(stream)
    found = [declaration_pb2.Declaration() for _ in first.records]
    assert all(record.Unpack(made) for record, made in zip(first.records, found, strict=True))
    assert {made.trader_uscc for made in found} == {EXPORTER}
    assert await own.used(leave) == len(found)
    # Of others it hears nothing.
    await own.load("customs", [*declarations(2, 700, OTHER), *declarations(1, 800)])
    assert len((await anext(stream)).records) == 1
    await own.revoke(leave)
    assert (await refused(anext(stream))).reason is Reason.AUTHORIZATION_REVOKED
    again = watch(own, AML, KIND, context=leave.context(), resume_token=first.resume_token)
    assert (await refused(anext(again))).reason is Reason.AUTHORIZATION_REVOKED


async def test_a_watch_stops_where_the_quota_does(own: Supervised) -> None:
    leave = await own.give(LISTINGS, who=POLICE, subjects=(MERCHANT,), row_quota=7)
    stream = watch(own, POLICE, LISTING, context=leave.context(), from_start=True)
    assert len((await anext(stream)).records) == 5
    await own.load("customs", listings(3, first=50))
    assert (await refused(anext(stream))).reason is Reason.AUTHORIZATION_EXHAUSTED
    assert await own.used(leave) == 5


async def test_no_bulk_follows_no_changes(shared: Supervised) -> None:
    leave = await shared.give(LISTINGS, who=POLICE, subjects=(MERCHANT,), no_bulk=True)
    stream = watch(shared, POLICE, LISTING, context=leave.context(), from_start=True)
    assert (await refused(anext(stream))).reason is Reason.AUTHORIZATION_SCOPE


def streaming(mesh: Supervised, request: federation_pb2.StreamQueryRequest) -> AsyncIterator[exchange_pb2.Section]:
    stream = mesh.client(AML).stream(STREAM, request, federation_pb2.StreamQueryResponse, timeout=30)

    async def sections() -> AsyncIterator[exchange_pb2.Section]:
        async for response in stream:
            yield response.section

    return sections()


async def test_revocation_cuts_an_open_answer(own: Supervised) -> None:
    """One department has answered, the other takes its time: what it would say is not wanted any more."""
    async with stuck(own, "customs") as reached:
        leave = await own.give(DECLARATIONS, INVOICES)
        request = federation_pb2.StreamQueryRequest(query=asked(leave, KIND, "taxation.InvoiceSummary"))
        stream = streaming(own, request)
        assert (await anext(stream)).record_type == "taxation.InvoiceSummary"
        await reached.wait()
        await own.revoke(leave)
        assert (await refused(anext(stream))).reason is Reason.AUTHORIZATION_REVOKED


async def test_revocation_ends_a_question_that_still_waits(own: Supervised) -> None:
    async with stuck(own, "customs") as reached:
        leave = await own.give(DECLARATIONS)
        waiting = asyncio.ensure_future(refused(ask(own, AML, asked(leave, KIND))))
        await reached.wait()
        await own.revoke(leave)
        assert (await waiting).reason is Reason.AUTHORIZATION_REVOKED


async def test_revocation_ends_page_after_page(shared: Supervised) -> None:
    leave = await shared.give(DECLARATIONS, INVOICES)
    request = federation_pb2.StreamQueryRequest(query=asked(leave, KIND, page_size=1), all_pages=True)
    stream = streaming(shared, request)
    assert len((await anext(stream)).records) == 1
    await ended(shared, leave)
    with pytest.raises(HutongError) as cut:
        # At most what was on its way already.
        for _ in range(7):
            await anext(stream)
    assert cut.value.reason is Reason.AUTHORIZATION_REVOKED


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncGenerator[Supervised]:
    """A mesh where nothing takes too long, however busy the machine is: rows that come too late count as disclosed."""
    limits, silence = LimitsSection(deadline=dt.timedelta(minutes=2)), dt.timedelta(minutes=1)
    async with running(tmp_path, limits=limits, silence=silence) as mesh:
        await mesh.load("customs", declarations(7))
        await mesh.load("taxation", invoices(7))
        yield mesh


@pytest.mark.parametrize("quota", [1, 120])
async def test_the_quota_is_exact_whoever_asks_at_once(patient: Supervised, quota: int) -> None:
    """Two hundred questions over two departments, of one to seven rows each."""
    leave = await patient.give(DECLARATIONS, INVOICES, row_quota=quota)
    orders = ([KIND, INVOICES.record_type], [INVOICES.record_type, KIND], [KIND], [INVOICES.record_type])
    requests = [asked(leave, *orders[n % 4], page_size=1 + n % 7) for n in range(200)]
    given = 0
    reasons: set[str] = set()
    asking = (ask(patient, AML, request, timeout=120) for request in requests)
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(answer, HutongError):
            reasons.add(answer.reason)
            continue
        assert isinstance(answer, list)
        given += sum(len(section.records) for section in answer)
        reasons |= {section.reason for section in answer if not section.records}
    assert given == await patient.used(leave) == quota
    assert reasons == {Reason.AUTHORIZATION_EXHAUSTED}


async def test_a_rate_holds_back_without_ending_anything(shared: Supervised) -> None:
    leave = await shared.give(DECLARATIONS, rows_per_minute=5)
    (first,) = await ask(shared, AML, asked(leave, KIND, page_size=5))
    assert len(first.records) == 5
    (second,) = await ask(shared, AML, asked(leave, KIND, page_size=1))
    assert (second.status, second.reason, len(second.records)) == (DENIED, Reason.AUTHORIZATION_RATE, 0)
    assert not second.next_page_token


async def test_where_rows_cannot_be_counted_none_leave(own: Supervised) -> None:
    leave = await own.give(DECLARATIONS)
    assert own.supervision is not None
    await own.supervision.stop()
    own.supervision = None
    (section,) = await ask(own, AML, asked(leave, KIND))
    assert (section.status, section.reason) == (UNAVAILABLE, Reason.AUTHORIZATION_STATE_UNKNOWN)
    assert not section.records


async def test_a_node_that_hears_nothing_ends_everything(tmp_path: Path) -> None:
    """Also an open watch, at a department that is reached directly."""
    async with running(tmp_path, silence=dt.timedelta(milliseconds=900)) as mesh:
        await mesh.load("customs", [*RECORDS["customs"], *listings(5)])
        leave = await mesh.give(LISTINGS, who=POLICE, subjects=(MERCHANT,))
        stream = watch(mesh, POLICE, LISTING, context=leave.context(), from_start=True)
        assert len((await anext(stream)).records) == 5
        assert mesh.supervision is not None
        address = mesh.supervision.host.address
        await mesh.supervision.stop()
        mesh.supervision = None
        assert (await refused(anext(stream))).reason is Reason.AUTHORIZATION_STATE_UNKNOWN
        error = await refused(list_listings(mesh, POLICE, leave.context()))
        assert error.reason is Reason.AUTHORIZATION_STATE_UNKNOWN
        # Who is heard again is believed again, with all that became of it meanwhile.
        await mesh.start_supervision("customs", "taxation", listen=address)
        known = registry(mesh.enforcers("customs")["customs"])
        while known.silent_for > 0.9:
            await known.change(1)
        assert len((await list_listings(mesh, POLICE, leave.context())).cbec_listings) == 5


async def test_a_list_of_subjects_stops_where_the_quota_does(shared: Supervised) -> None:
    leave = await shared.give(DECLARATIONS, row_quota=7)
    twice = [common_pb2.SubjectId(scheme="cn.uscc", value=EXPORTER)] * 2
    stream = streaming(shared, federation_pb2.StreamQueryRequest(query=asked(leave, KIND, subject=""), subjects=twice))
    assert len((await anext(stream)).records) == 7
    try:
        section = await anext(stream)
        reason, rows = section.reason, len(section.records)
    except HutongError as error:
        # The gateway may have heard by now, or not yet: then the department refuses.
        reason, rows = error.reason, 0
    assert (reason, rows) == (Reason.AUTHORIZATION_EXHAUSTED, 0)


async def test_an_emergency_opens_only_what_policies_say_of_emergencies(shared: Supervised) -> None:
    loud = await shared.give(DECLARATIONS, emergency=True)
    (section,) = await ask(shared, AML, asked(loud, KIND))
    assert (section.status, section.reason) == (DENIED, Reason.NO_PERMIT)
    order = await shared.give(LISTINGS, who=POLICE, subjects=(MERCHANT,), emergency=True)
    assert (await list_listings(shared, POLICE, order.context())).cbec_listings
    # Louder: whoever looks at a log sees which answers were given in an emergency.
    entry = await newest(shared.host("customs"))
    assert (entry.emergency, entry.authorization_id) == (True, order.authorization_id)
    assert (await newest(shared.host("gateway"))).emergency
    calm = await shared.give(LISTINGS, who=POLICE, subjects=(MERCHANT,))
    await list_listings(shared, POLICE, calm.context())
    assert not (await newest(shared.host("customs"))).emergency
