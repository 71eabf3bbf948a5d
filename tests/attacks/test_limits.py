"""One caller against everybody's memory and time: what is asked has a size, and nothing that is kept grows with it."""

import tracemalloc
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from certs.tls import channel_credentials, server_name
from gateway.plan import Planner
from hutong.api.customs.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.caller import Caller
from services.kit.context import ContextSigner
from services.kit.doors import MAX_FIELDS, MAX_FILTERS, MAX_SELECTION, MAX_SELECTIONS
from services.kit.errors import Reason
from services.kit.policy.mask import ReadMask
from services.kit.records import catalogue
from tests.attacks.asking import (
    DECLARATION,
    REBATE,
    SUBJECT,
    TAX,
    ask,
    get,
    listed,
    refused,
    watch,
    why,
)
from tests.exchange.mesh import QUERY, Mesh, question
from tests.zone import ZONE, now

MEGABYTE = 1024 * 1024
UNKNOWN = b"\xfa\x7f"
"""A length-delimited field of number 2047, which no message of ours has; a length and content follow."""


def unknown(size: int) -> bytes:
    content = exchange_pb2.SignedContext(signature=b"x" * size).SerializeToString()
    return UNKNOWN + content[1:]


def asked(**how: Any) -> federation_pb2.QueryRequest:
    request = question(SUBJECT, **REBATE)
    request.selections.add(record_type="customs.Declaration", **how)
    return request


async def test_names_that_go_on_for_ever_are_refused_in_few_words(mesh: Mesh) -> None:
    """The refusal repeats what was asked only in part: a longer one would be lost on its way back."""
    long = "a" * (MAX_SELECTION - 1000)
    for request, reason in (
        (question(SUBJECT, long, **REBATE), Reason.RECORD_TYPE_UNKNOWN),
        (asked(fields=[long]), Reason.FIELD_UNKNOWN),
        (asked(filter="a" * 5000), Reason.FILTER_INVALID),
        (question(f"{long}:1", "customs.Declaration", **REBATE), Reason.SUBJECT_SCHEME_UNKNOWN),
        (question(f"cn.uscc:{long}", "customs.Declaration", **REBATE), Reason.SUBJECT_INVALID),
        (question(SUBJECT, "customs.Declaration", purpose=long, legal_basis="x"), Reason.MALFORMED_REQUEST),
        (question(SUBJECT, "customs.Declaration", case_ref=long, **REBATE), Reason.MALFORMED_REQUEST),
        (question(SUBJECT, "customs.Declaration", on_behalf_of="王\n小明", **REBATE), Reason.MALFORMED_REQUEST),
    ):
        error = await refused(ask(mesh, TAX, request))
        assert error.reason is reason
        assert len(error.message) < 1000
    for name, reason in (
        (f"declarations/{'9' * 20_000}", Reason.NAME_INVALID),
        ("declarations/9999\x0020260000000001", Reason.NAME_INVALID),
        (f"declarations/{'9' * 100_000}", Reason.MALFORMED_REQUEST),
    ):
        assert (await refused(get(mesh, TAX, name, context=why(**REBATE)))).reason is reason


TOO_MUCH: list[tuple[dict[str, Any], Reason]] = [
    ({"fields": ["declaration_no"] * (MAX_FIELDS + 1)}, Reason.MALFORMED_REQUEST),
    ({"page_token": "A" * MAX_SELECTION}, Reason.MALFORMED_REQUEST),
    ({"page_token": "A" * 5000}, Reason.PAGE_TOKEN_INVALID),
    ({"filter": "ie_flag = 'E' " + "AND ie_flag = 'E' " * 100}, Reason.FILTER_INVALID),
    ({"filter": "(" * 2000 + "ie_flag = 'E'" + ")" * 2000}, Reason.FILTER_INVALID),
    ({"filter": "NOT " * 900 + "ie_flag = 'E'"}, Reason.FILTER_INVALID),
    ({"filter": "ie_flag IN (" + ", ".join(["'E'"] * 500) + ")"}, Reason.FILTER_INVALID),
    ({"filter": "ie_flag = '" + "'" * 3000}, Reason.FILTER_INVALID),
]


@pytest.mark.parametrize(("how", "reason"), TOO_MUCH, ids=[str(n) for n in range(len(TOO_MUCH))])
async def test_what_is_asked_has_a_size_at_every_door(mesh: Mesh, how: dict[str, Any], reason: Reason) -> None:
    assert (await refused(ask(mesh, TAX, asked(**how)))).reason is reason
    assert (await refused(listed(mesh, TAX, context=why(**REBATE), **how))).reason is reason
    if "page_token" not in how:
        stream = watch(mesh, TAX, "customs.Declaration", context=why(**REBATE), **how)
        assert (await refused(anext(stream))).reason is reason
    if "fields" in how:
        assert (await refused(get(mesh, TAX, DECLARATION, context=why(**REBATE), **how))).reason is reason


async def test_filters_have_a_size_together(mesh: Mesh) -> None:
    """Each parses in ten milliseconds at most; thirty-two of them would take everybody's time."""
    text = " AND ".join(f"declared_at != '2026-01-01T00:00:{n:02d}Z'" for n in range(60))
    kinds = [k.name for k in catalogue.load()][:MAX_SELECTIONS]
    request = question(SUBJECT, *kinds, **REBATE)
    for selection in request.selections:
        selection.filter = text
    assert len(text) * len(kinds) > MAX_FILTERS
    error = await refused(ask(mesh, TAX, request))
    assert (error.reason, str(MAX_FILTERS) in error.message) == (Reason.FILTER_INVALID, True)


@pytest.mark.parametrize("place", ["context", "selection"])
async def test_unknown_fields_do_not_ride_along(mesh: Mesh, place: str) -> None:
    """They would be kept with the plan, and signed, and sent on."""
    request = asked()
    where: Message = request.context if place == "context" else request.selections[0]
    where.MergeFromString(unknown(100_000))
    assert (await refused(ask(mesh, TAX, request))).reason is Reason.MALFORMED_REQUEST


def planner(mesh: Mesh) -> Planner:
    """A planner of our own over the gateway's engine, so that what it keeps can be measured."""
    assert mesh.gateway is not None
    signer = ContextSigner(mesh.gateway.host.identity, now)
    return Planner(catalogue.load(), mesh.gateway.engine, signer, now)


async def test_plans_that_are_kept_do_not_grow_with_what_was_asked(mesh: Mesh) -> None:
    """A thousand questions, each with another page token of thirty kilobytes: nobody asks them twice."""
    plans, caller = planner(mesh), Caller(f"spiffe://{ZONE}/{TAX}", "taxation", "refund")
    plans.decide(asked(), caller)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(300):
            plans.decide(asked(page_token=f"{number:05d}{'A' * 30_000}"), caller)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 2 * MEGABYTE


async def test_masks_that_are_kept_do_not_grow_with_what_was_asked(mesh: Mesh) -> None:
    """Every selection of fields is a mask of its own; a caller may make up as many as it likes."""
    assert mesh.gateway is not None
    kind = catalogue.load().get("customs.Declaration")
    caller = Caller(f"spiffe://{ZONE}/{TAX}", "taxation", "refund")
    mask: ReadMask = mesh.gateway.engine.mask(caller, why(**REBATE), kind)
    paths = [leaf.path for leaf in kind.leaves]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, 400):
            chosen = [path for bit, path in enumerate(paths[:9]) if number >> bit & 1]
            mask.restrict(chosen * 1000).section()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 2 * MEGABYTE


async def test_a_mask_is_the_same_however_often_a_field_is_named(mesh: Mesh) -> None:
    assert mesh.gateway is not None
    kind = catalogue.load().get("customs.Declaration")
    mask = mesh.gateway.engine.mask(Caller(f"spiffe://{ZONE}/{TAX}", "taxation", "refund"), why(**REBATE), kind)
    assert mask.restrict(["declaration_no"] * 50) is mask.restrict(["declaration_no"])


async def test_a_request_that_swells_when_unpacked_is_refused(mesh: Mesh) -> None:
    """Fifty megabytes of zeros come as fifty kilobytes."""
    assert mesh.gateway is not None
    host = mesh.gateway.host
    options = [("grpc.ssl_target_name_override", server_name(host.identity)), ("grpc.use_local_subchannel_pool", 1)]
    credentials = channel_credentials(mesh.zone.files(TAX))
    async with grpc.aio.secure_channel(
        host.address, credentials, options=options, compression=grpc.Compression.Gzip
    ) as channel:
        query: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(QUERY)
        for size in (300_000, 50_000_000):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await query(bytes(size), timeout=10)
            # One transport unpacks no more than it takes, the other nothing at all.
            assert caught.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED)


async def test_metrics_name_neither_callers_nor_subjects_nor_what_they_made_up(own: Mesh) -> None:
    """Labels are rpcs, codes and reasons, of which there is an end."""
    assert own.gateway is not None
    reasons: set[Reason] = set()
    for number in range(20):
        request = question(SUBJECT, f"customs.T{number}", case_ref=f"CASE-{number}", **REBATE)
        reasons.add((await refused(ask(own, TAX, request))).reason)
        method = f"/made.up.Service{number}/Rpc"
        await refused(own.client(TAX).unary(method, request, federation_pb2.QueryResponse, timeout=5))
    assert reasons == {Reason.RECORD_TYPE_UNKNOWN}
    families = list(own.gateway.host.telemetry.registry.collect())
    labels = {name: value for f in families for s in f.samples for name, value in s.labels.items()}
    # Departments are those of the config, whoever asks for what; caches and databases are what they are.
    ours = {"le", "department", "cache", "database"}
    assert set(labels) <= {"rpc", "code", "reason"} | ours
    values = {value for f in families for s in f.samples for name, value in s.labels.items() if name not in ours}
    assert not [v for v in values if "made" in v or "CASE" in v or "9199" in v or "taxation" in v]
    assert len(values) < 10


async def test_traces_name_no_subject(own: Mesh) -> None:
    own.zone.spans.clear()
    request = question(SUBJECT, "customs.Declaration", case_ref="CASE-SECRET", **REBATE)
    request.selections[0].filter = "declaration_no = '999920260000000001'"
    await ask(own, TAX, request)
    await refused(get(own, TAX, "declarations/999920260000000002", context=why(**REBATE)))
    told = "".join(span.to_json() for span in own.zone.spans.get_finished_spans())
    assert told
    assert not [secret for secret in ("9199", "99992026", "CASE-SECRET") if secret in told]


def test_the_request_of_a_typed_service_is_a_selection() -> None:
    """The size of both is checked in one place."""
    names = {f.name for f in exchange_pb2.Selection.DESCRIPTOR.fields} - {"record_type", "zone"}
    assert names <= {f.name for f in service_pb2.ListDeclarationsRequest.DESCRIPTOR.fields}


def test_no_likeness_is_looked_for_in_a_name_of_endless_length() -> None:
    """Looking takes time that grows with the name."""
    known = catalogue.load().get("customs.Declaration").fields
    assert catalogue.nearest("declaration_n", known)
    assert catalogue.nearest("declaration_no" * 100, known) == ""
