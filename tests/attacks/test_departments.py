"""A hostile department: whatever it sends costs its own section, and takes nothing of others' with it."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs]

from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import declaration_pb2, operator_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from tests.attacks.asking import PUBLIC, SUBJECT, UNAVAILABLE, ask
from tests.attacks.imposter import Imposter, instead_of
from tests.exchange.mesh import STREAM, Mesh, question, records, running
from tests.exchange.records import EXPORTER, RECORDS
from tests.exchange.standin import raw

OK = exchange_pb2.SECTION_STATUS_OK
OPERATOR = "type.googleapis.com/hutong.api.customs.v1.Operator"
ASKED = question(SUBJECT, "customs.Operator:uscc,credit_level", "taxation.TaxpayerStatus:uscc", **PUBLIC)
WHO = "quality/lab"

Request = record_source_pb2.FetchRequest
Response = record_source_pb2.FetchResponse
Section = exchange_pb2.Section


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    async with running(tmp_path_factory.mktemp("mesh"), "taxation") as mesh:
        mesh.policy("customs")
        await mesh.load("taxation", RECORDS["taxation"])
        yield mesh


@pytest.fixture(scope="module")
async def imposter(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Imposter]:
    async with instead_of(mesh, "customs", tmp_path_factory.mktemp("imposter")) as imposter:
        yield imposter


def section(request: Request, *values: Message | bytes, url: str = OPERATOR, **more: object) -> Section:
    """A section that claims to rest on the gateway's own policy, so that the gateway looks no further."""
    told = {"status": OK, "policy_version": request.known_policy_version} | more
    found = Section(record_type="customs.Operator", agency="customs", **told)  # type: ignore[arg-type]  # pyright: ignore
    for value in values:
        found.records.add(type_url=url, value=value if isinstance(value, bytes) else value.SerializeToString())
    return found


async def answered(mesh: Mesh) -> list[Section]:
    """Ask customs and taxation at once; taxation's section must come whatever customs does."""
    sections = await ask(mesh, WHO, ASKED)
    assert [s.agency for s in sections] == ["customs", "taxation"]
    assert (sections[1].status, len(sections[1].records)) == (OK, 1)
    return sections


def everything() -> operator_pb2.Operator:
    found = operator_pb2.Operator(
        customs_code="secret-code",
        uscc=EXPORTER,
        aeo_code="secret-aeo",
        mra_partners=["secret-partner"],
        envelope=common_pb2.Envelope(key="secret-key", source_system="x"),
    )
    found.envelope.MergeFromString(b"\xfa\x3f\x06secret")
    found.MergeFromString(b"\xfa\x3f\x06secret")
    return found


async def test_content_beyond_the_mask_is_cut_though_the_policies_are_the_same(mesh: Mesh, imposter: Imposter) -> None:
    imposter.answer = lambda r: Response(sections=[section(r, everything())])
    (first, _) = await answered(mesh)
    assert records(first)[0].uscc == EXPORTER
    assert b"secret" not in first.SerializeToString()


async def test_decisions_that_claim_more_are_not_believed(mesh: Mesh, imposter: Imposter) -> None:
    """With another policy version the gateway compares; a field it refuses stays refused, whatever is claimed."""
    claims = [
        exchange_pb2.FieldDecision(field=name, verdict=exchange_pb2.VERDICT_CLEAR, reason="PERMITTED")
        for name in ("uscc", "credit_level", "aeo_code", "customs_code", "mra_partners", "no_such_field")
    ]
    for version in ("another", ""):
        imposter.answer = lambda r, v=version: Response(  # type: ignore[misc]
            sections=[section(r, everything(), policy_version=v, decisions=claims)]
        )
        (first, _) = await answered(mesh)
        assert b"secret" not in first.SerializeToString()
        assert {d.field for d in first.decisions} == {"uscc", "credit_level"}


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("type.googleapis.com/hutong.api.customs.v1.Declaration", declaration_pb2.Declaration(declaration_no="secret")),
        ("type.googleapis.com/hutong.api.taxation.v1.TaxpayerStatus", common_pb2.SubjectId(value="secret")),
        ("", everything()),
        ("evil.example/hutong.api.customs.v1.Operator", everything()),
    ],
)
async def test_records_of_another_type_are_dropped(mesh: Mesh, imposter: Imposter, url: str, value: Message) -> None:
    imposter.answer = lambda r: Response(sections=[section(r, everything()), section(r, value, url=url)][1:])
    (first, _) = await answered(mesh)
    assert first.status == UNAVAILABLE
    assert not first.records
    assert b"secret" not in first.SerializeToString()


@pytest.mark.parametrize("count", [0, 2, 40])
async def test_another_number_of_sections_than_asked_is_no_answer(mesh: Mesh, imposter: Imposter, count: int) -> None:
    imposter.answer = lambda r: Response(sections=[section(r, everything())] * count)
    (first, _) = await answered(mesh)
    assert (first.status, len(first.records)) == (UNAVAILABLE, 0)


async def test_a_section_in_the_name_of_another_agency_is_still_its_own(mesh: Mesh, imposter: Imposter) -> None:
    def another(request: Request) -> Response:
        told = section(request, everything())
        told.agency, told.record_type = "taxation", "taxation.TaxpayerStatus"
        return Response(sections=[told])

    imposter.answer = another
    (first, _) = await answered(mesh)
    assert (first.agency, first.record_type) == ("customs", "customs.Operator")


async def test_moments_and_statuses_that_do_not_exist_hurt_nobody(mesh: Mesh, imposter: Imposter) -> None:
    def strange(request: Request) -> Response:
        told = section(request, everything(), status=99)
        told.as_of.seconds = 10**18
        return Response(sections=[told])

    imposter.answer = strange
    await answered(mesh)


async def test_it_hears_only_what_may_be_given(mesh: Mesh, imposter: Imposter) -> None:
    """It is asked for no field that the caller may not have, and told nothing of the other departments' part."""
    imposter.answer = lambda r: Response(sections=[section(r)])
    imposter.heard.clear()
    await ask(mesh, WHO, question(SUBJECT, "customs.Operator", "taxation.TaxpayerStatus", **PUBLIC))
    (heard,) = imposter.heard
    assert [s.record_type for s in heard.selections] == ["customs.Operator"]
    assert "uscc" in heard.selections[0].fields
    assert "next_review" not in heard.selections[0].fields
    assert b"taxation" not in heard.SerializeToString()


@pytest.mark.parametrize("value", [b"\xff\xff\xff", b"\x12\x02\xff\xff", b"\x0a"])
async def test_a_record_that_cannot_be_parsed_costs_its_own_section(
    mesh: Mesh, imposter: Imposter, value: bytes
) -> None:
    imposter.answer = lambda r: Response(sections=[section(r, value)])
    (first, _) = await answered(mesh)
    assert (first.status, len(first.records)) == (UNAVAILABLE, 0)


@pytest.mark.parametrize("place", ["section", "any", "decision"])
async def test_unknown_fields_around_the_records_are_cut_too(mesh: Mesh, imposter: Imposter, place: str) -> None:
    """What a newer department adds to a section is no more decided than what it adds to a record."""

    def smuggling(request: Request) -> Response:
        told = section(request, operator_pb2.Operator(uscc=EXPORTER), policy_version="another")
        told.decisions.add(field="uscc", verdict=exchange_pb2.VERDICT_REFUSED, reason="NO_PERMIT")
        told.decisions.add(field="credit_level", verdict=exchange_pb2.VERDICT_CLEAR, reason="PERMITTED")
        where: dict[str, Message] = {"section": told, "any": told.records[0], "decision": told.decisions[0]}
        where[place].MergeFromString(b"\xfa\x3f\x06secret")
        return Response(sections=[told])

    def equal(request: Request) -> Response:
        told = section(request, operator_pb2.Operator(uscc=EXPORTER))
        told.records[0].MergeFromString(b"\xfa\x3f\x06secret")
        return Response(sections=[told])

    imposter.answer = equal if place == "any" else smuggling
    (first, _) = await answered(mesh)
    assert b"secret" not in first.SerializeToString()


async def test_more_records_than_asked_for_are_no_answer(mesh: Mesh, imposter: Imposter) -> None:
    """A page has 200 records at most; 150,000 empty ones keep the gateway busy for everybody else's time."""
    imposter.answer = lambda r: Response(sections=[section(r, *[b""] * 150_000)])
    (first, _) = await answered(mesh)
    assert (first.status, len(first.records)) == (UNAVAILABLE, 0)


def refusing(*details: Message) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    status = status_pb2.Status(code=3, message="no", details=[_any(d) for d in details])
    return grpc.StatusCode.INVALID_ARGUMENT, "no", (("grpc-status-details-bin", status.SerializeToString()),)


def _any(message: Message) -> Any:
    if isinstance(message, Any):
        return message
    packed = Any()
    packed.Pack(message)
    return packed


@pytest.mark.parametrize(
    "reply",
    [
        (grpc.StatusCode.INTERNAL, "no", (("grpc-status-details-bin", b"\xff\xff"),)),
        refusing(Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")),
        refusing(Any(type_url="nonsense", value=b"\xff\xff")),
        (grpc.StatusCode.UNKNOWN, "x" * 4000, ()),
    ],
)
async def test_a_refusal_that_cannot_be_read_costs_its_own_section(
    mesh: Mesh, reply: tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]
) -> None:
    async with raw(mesh, "customs", reply):
        (first, _) = await answered(mesh)
        assert first.status == UNAVAILABLE
        assert "x" * 100 not in first.reason


async def test_an_answer_that_cannot_be_read_costs_its_own_section(mesh: Mesh) -> None:
    async with raw(mesh, "customs", b"\xff\xff\xff"):
        (first, _) = await answered(mesh)
        assert first.status == UNAVAILABLE


async def test_a_huge_answer_costs_its_own_section(mesh: Mesh, tmp_path: Path) -> None:
    async with instead_of(mesh, "customs", tmp_path) as imposter:
        imposter.answer = lambda r: Response(sections=[section(r, next_page_token="x" * 17_000_000)])
        (first, _) = await answered(mesh)
        assert (first.status, first.next_page_token) == (UNAVAILABLE, "")


async def test_two_large_answers_do_not_take_the_third_with_them(mesh: Mesh, tmp_path: Path) -> None:
    mesh.policy("quality")
    large: Callable[[Request], Response] = lambda r: Response(  # noqa: E731
        sections=[Section(status=OK, policy_version=r.known_policy_version, reason="x" * 15_000_000)]
    )
    async with instead_of(mesh, "customs", tmp_path) as one, instead_of(mesh, "quality", tmp_path) as two:
        one.answer = two.answer = large
        await mesh.replace_gateway(customs=one.address, quality=two.address)
        selections = ("customs.Operator:uscc", "quality.TraceEvent:expiry_date", "taxation.TaxpayerStatus:uscc")
        sections = await ask(mesh, WHO, question(SUBJECT, *selections, **PUBLIC))
        assert (sections[2].status, len(sections[2].records)) == (OK, 1)


async def test_a_stream_goes_on_past_a_department_that_answers_nonsense(mesh: Mesh, tmp_path: Path) -> None:
    async with instead_of(mesh, "customs", tmp_path) as imposter:
        imposter.answer = lambda r: Response(sections=[section(r)] * 3)
        stream = mesh.client(WHO).stream(
            STREAM,
            federation_pb2.StreamQueryRequest(query=ASKED),
            federation_pb2.StreamQueryResponse,
            timeout=10,
        )
        statuses = {m.section.agency: m.section.status async for m in stream}
    assert statuses == {"customs": UNAVAILABLE, "taxation": OK}
