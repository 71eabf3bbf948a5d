"""Speaking for others: a gateway's signed word is good for that gateway, over its own connection, and nobody else."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from certs.svid import SvidFiles
from certs.tls import channel_credentials, server_name
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.client import Client
from services.kit.context import ContextSigner, request_digest
from services.kit.errors import HutongError, PermissionDenied, Reason, Unauthenticated, Unavailable
from tests.attacks.asking import DENIED, PUBLIC, REBATE, SOURCE, SUBJECT, TAX, ask, call, one, refused, watch, why
from tests.attacks.imposter import instead_of
from tests.exchange.mesh import QUERY, Mesh, question, records, running
from tests.exchange.records import CLEARED, OTHER, RECORDS
from tests.zone import ZONE, Zone, now

ASKED = question(SUBJECT, "customs.Declaration:declaration_no", **REBATE)
Request = record_source_pb2.FetchRequest


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    async with running(tmp_path_factory.mktemp("mesh"), "customs", "taxation") as mesh:
        await mesh.load("customs", RECORDS["customs"])
        yield mesh


@pytest.fixture(scope="module")
async def stolen(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """What the gateway sends to customs for the tax agency, caught on the way by one who stands in for customs."""
    async with instead_of(mesh, "customs", tmp_path_factory.mktemp("thief")) as thief:
        await ask(mesh, TAX, ASKED)
        (caught,) = thief.heard
    await mesh.replace_gateway()
    return caught


async def fetch(mesh: Mesh, who: str, request: Request) -> exchange_pb2.Section:
    answer = await call(mesh, who, f"{SOURCE}/Fetch", request, record_source_pb2.FetchResponse)
    return answer.sections[0]


async def test_the_thief_has_the_true_thing(mesh: Mesh, stolen: Request) -> None:
    """Sent again by the gateway itself, unchanged and in time, it stands: so what follows fails for its own reason."""
    section = await fetch(mesh, "gateway/main", stolen)
    assert section.records


@pytest.mark.parametrize("who", ["taxation/node", TAX, "customs/node", "operator/admin"])
async def test_a_department_cannot_use_a_context_that_it_was_sent(mesh: Mesh, stolen: Request, who: str) -> None:
    error = await refused(fetch(mesh, who, stolen))
    assert (type(error), error.reason) == (PermissionDenied, Reason.CALLER_NOT_LISTED)


async def test_nor_can_another_gateway_that_may_fetch(mesh: Mesh, stolen: Request) -> None:
    """The access list lets every system called gateway in; only the configured one may speak for others."""
    error = await refused(fetch(mesh, "gateway/spare", stolen))
    assert (type(error), error.reason) == (PermissionDenied, Reason.CALLER_NOT_LISTED)
    alone = Request()
    alone.CopyFrom(stolen)
    alone.ClearField("delegated")
    alone.context.CopyFrom(why(**REBATE))
    assert (await fetch(mesh, "gateway/spare", alone)).status == DENIED


async def test_nor_at_the_door_where_agencies_watch(mesh: Mesh, stolen: Request) -> None:
    stream = watch(mesh, "taxation/other", "customs.Declaration", delegated=stolen.delegated, context=why(**REBATE))
    error = await refused(anext(stream))
    assert (type(error), error.reason) == (PermissionDenied, Reason.CALLER_NOT_LISTED)


def another_type(request: Request) -> None:
    request.selections[0].record_type = "customs.Penalty"


def more_fields(request: Request) -> None:
    request.selections[0].fields.append("total_value_cny")


def all_fields(request: Request) -> None:
    del request.selections[0].fields[:]


def another_selection(request: Request) -> None:
    request.selections.add(record_type="customs.Operator")


def a_filter(request: Request) -> None:
    request.selections[0].filter = "ie_flag = 'E'"


def unknown_field(request: Request) -> None:
    request.MergeFromString(b"\xfa\x3f\x01x")


def no_signature(request: Request) -> None:
    request.delegated.signature = b""


def short_signature(request: Request) -> None:
    request.delegated.signature = request.delegated.signature[:-1]


def another_caller(request: Request) -> None:
    context = exchange_pb2.ExchangeContext.FromString(request.delegated.payload)
    context.caller = f"spiffe://{ZONE}/supervision/chief"
    request.delegated.payload = context.SerializeToString()


def longer(request: Request) -> None:
    # A second value for a field, after the first: the last one would win.
    later = exchange_pb2.ExchangeContext(caller=f"spiffe://{ZONE}/supervision/chief")
    request.delegated.payload += later.SerializeToString()


@pytest.mark.parametrize(
    "change",
    [
        another_type,
        more_fields,
        all_fields,
        another_selection,
        a_filter,
        unknown_field,
        no_signature,
        short_signature,
        another_caller,
        longer,
    ],
)
async def test_a_context_covers_what_it_was_signed_for_and_no_more(
    mesh: Mesh, stolen: Request, change: Callable[[Request], None]
) -> None:
    altered = Request()
    altered.CopyFrom(stolen)
    change(altered)
    error = await refused(fetch(mesh, "gateway/main", altered))
    assert (type(error), error.reason) == (Unauthenticated, Reason.CONTEXT_INVALID)


@pytest.mark.parametrize(
    "who",
    [
        "spiffe://other.example/taxation/refund",
        f"spiffe://{ZONE}/gateway/main",
        f"spiffe://{ZONE}/taxation",
        f"spiffe://{ZONE}/taxation/refund/",
        f"spiffe://{ZONE}/taxation/refund/more",
        f"spiffe://{ZONE}/*/*",
        f"spiffe://{ZONE}.evil/taxation/refund",
        f"SPIFFE://{ZONE}/taxation/refund",
        "taxation/refund",
        "",
    ],
)
async def test_even_a_gateway_speaks_for_systems_of_its_zone_only(mesh: Mesh, stolen: Request, who: str) -> None:
    svid = mesh.zone.files("gateway/main").load()
    signer = ContextSigner(mesh.zone.identity("gateway/main"), now)
    context = exchange_pb2.ExchangeContext.FromString(stolen.delegated.payload)
    context.caller = who
    altered = Request()
    altered.CopyFrom(stolen)
    altered.delegated.CopyFrom(signer.seal(svid, context))
    error = await refused(fetch(mesh, "gateway/main", altered))
    assert (type(error), error.reason) == (Unauthenticated, Reason.CONTEXT_INVALID)


async def test_a_system_cannot_sign_as_if_it_were_the_gateway(mesh: Mesh) -> None:
    """It has a certificate of the zone, and signs a context that names the true gateway, with its own key."""
    request = record_source_pb2.WatchRequest(selection=exchange_pb2.Selection(record_type="customs.Declaration"))
    svid = mesh.zone.files("quality/lab").load()
    signer = ContextSigner(mesh.zone.identity("gateway/main"), now)
    context = exchange_pb2.ExchangeContext(
        caller=f"spiffe://{ZONE}/{TAX}",
        request=why(**REBATE),
        gateway=f"spiffe://{ZONE}/gateway/main",
        request_digests=[request_digest(request)],
    )
    context.issued_at.FromDatetime(now())
    context.expires_at.FromDatetime(now())
    signed = signer.seal(svid, context)
    stream = watch(mesh, "quality/lab", "customs.Declaration", delegated=signed)
    error = await refused(anext(stream))
    assert (type(error), error.reason) == (PermissionDenied, Reason.CALLER_NOT_LISTED)


async def test_a_gateway_with_a_renewed_certificate_cannot_use_its_former_word(mesh: Mesh, stolen: Request) -> None:
    """The word belongs to the key of the connection that it comes over."""
    mesh.zone.authority.renew(mesh.zone.identity("gateway/main"), now())
    node = mesh.departments["customs"].host
    fresh = Client(node.address, node.identity, mesh.zone.files("gateway/main"))
    try:
        method, response = f"{SOURCE}/Fetch", record_source_pb2.FetchResponse
        error = await refused(fresh.unary(method, stolen, response, timeout=5))
    finally:
        await fresh.close()
    assert error.reason is Reason.CONTEXT_INVALID


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[[str], SvidFiles]:
    """Identities of another zone with the same name: another authority, the same words."""
    zone = Zone(tmp_path)
    return zone.files


@pytest.mark.parametrize("node", ["customs", "gateway"])
async def test_a_gateway_of_another_authority_is_nobody(
    mesh: Mesh, foreign: Callable[[str], SvidFiles], stolen: Request, node: str
) -> None:
    assert mesh.gateway is not None
    host = mesh.gateway.host if node == "gateway" else mesh.departments[node].host
    trusting = foreign("gateway/main")
    own = mesh.zone.files("operator/admin")
    # It trusts the right roots, so that the server's certificate is no obstacle; its own is of another root.
    client = Client(host.address, host.identity, SvidFiles(trusting.certificate, trusting.key, own.bundle))
    method, request = (QUERY, ASKED) if node == "gateway" else (f"{SOURCE}/Fetch", stolen)
    response = federation_pb2.QueryResponse if node == "gateway" else record_source_pb2.FetchResponse
    try:
        error: HutongError = await refused(client.unary(method, request, response, timeout=5))
    finally:
        await client.close()
    assert isinstance(error, Unavailable)


async def test_two_callers_that_ask_the_same_get_their_own_answers(mesh: Mesh) -> None:
    """Plans, masks and statements are kept between questions; none may serve another caller, purpose or case."""
    asked = "customs.Declaration:declaration_no,total_value_cny"
    for _ in range(3):
        tax = await one(mesh, TAX, asked, **REBATE)
        assert records(tax)[0].declaration_no == CLEARED
        for who, context in (("commerce/registry", REBATE), ("quality/lab", REBATE), (TAX, PUBLIC)):
            other = await one(mesh, who, asked, **context)
            assert (other.status, len(other.records)) == (DENIED, 0)
        elsewhere = await one(mesh, TAX, asked, subject=f"cn.uscc:{OTHER}", **REBATE)
        assert not elsewhere.records


async def test_words_beside_the_request_change_nobody(mesh: Mesh) -> None:
    """Headers are not identities."""
    node = mesh.gateway.host if mesh.gateway else None
    assert node is not None
    credentials = channel_credentials(mesh.zone.files("quality/lab"))
    options = [
        ("grpc.ssl_target_name_override", server_name(node.identity)),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    said = f"spiffe://{ZONE}/{TAX}"
    headers = tuple(
        (name, said)
        for name in (
            "x-forwarded-client-cert",
            "caller",
            "x-spiffe-id",
            "authorization",
            "x-hutong-caller",
            "forwarded",
        )
    )
    async with grpc.aio.secure_channel(node.address, credentials, options=options) as channel:
        query: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(QUERY)
        raw = await query(ASKED.SerializeToString(), metadata=headers, timeout=5)
    answer = federation_pb2.QueryResponse.FromString(raw)
    assert [s.status for s in answer.sections] == [DENIED]
