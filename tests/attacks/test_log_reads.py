"""Who looked at whose data: for nobody but whom it is about, and nothing of what is under an embargo."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, reads_pb2
from services.kit.caller import Caller
from services.kit.context import ContextSigner, request_digest
from services.kit.errors import Reason
from tests.attacks.asking import REBATE, TAX, ask, refused
from tests.authorizations.mesh import AML, DECLARATIONS, Supervised, asked, declarations, running
from tests.exchange.mesh import question
from tests.exchange.records import EXPORTER, OTHER, RECORDS
from tests.zone import ZONE, now

LIST = "/hutong.api.exchange.v1.FederationService/ListReads"
FETCH = "/hutong.api.exchange.v1.ReadsService/FetchReads"
SELF = {"purpose": "P-SELF", "legal_basis": "CN-RIGHT-TO-KNOW"}
KIND = DECLARATIONS.record_type


def firm(code: str) -> str:
    return f"enterprise/{code.lower()}"


@pytest.fixture(scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Supervised]:
    """Two enterprises, of both of which somebody has read something, and of one under an authorization too."""
    folder: Path = tmp_path_factory.mktemp("watched")
    async with running(folder) as mesh:
        await mesh.load("customs", [*RECORDS["customs"], *declarations(3), *declarations(2, 500, OTHER)])
        for code in (EXPORTER, OTHER, EXPORTER, EXPORTER):
            await ask(mesh, TAX, question(f"cn.uscc:{code}", KIND, **REBATE))
        yield mesh


def subject(code: str, scheme: str = "cn.uscc", as_written: bool = False) -> common_pb2.SubjectId:
    return common_pb2.SubjectId(scheme=scheme, value=code, as_written=as_written)


async def listed(
    mesh: Supervised,
    who: str,
    about: common_pb2.SubjectId,
    size: int = 0,
    token: str = "",
    why: dict[str, str] = SELF,
) -> reads_pb2.ListReadsResponse:
    context = exchange_pb2.RequestContext(**why)
    request = reads_pb2.ListReadsRequest(subject=about, context=context, page_size=size, page_token=token)
    return await mesh.client(who).unary(LIST, request, reads_pb2.ListReadsResponse, timeout=10)


async def fetched(
    mesh: Supervised, who: str, about: common_pb2.SubjectId, token: str = "", word: str = "", said: str = ""
) -> reads_pb2.FetchReadsResponse:
    """Ask customs; with `word` as the gateway that says somebody asks, for a list about `said` where that is given."""
    request = reads_pb2.FetchReadsRequest(subject=about, page_token=token)
    if word:
        agency, _, system = word.partition("/")
        signer, svid = ContextSigner(mesh.zone.identity("gateway/main"), now), mesh.zone.files("gateway/main").load()
        signed = reads_pb2.FetchReadsRequest(subject=subject(said) if said else about, page_token=token)
        caller = Caller(f"spiffe://{ZONE}/{word}", agency, system)
        context = exchange_pb2.RequestContext(**SELF)
        request.delegated.CopyFrom(signer.sign(svid, caller, context, [request_digest(signed)]))
    else:
        request.context.CopyFrom(exchange_pb2.RequestContext(**SELF))
    return await mesh.client(who, "customs").unary(FETCH, request, reads_pb2.FetchReadsResponse, timeout=10)


# another's reads


@pytest.mark.parametrize(
    "who",
    [
        firm(OTHER),
        firm(EXPORTER) + "x",
        firm(EXPORTER)[:-1],
        "enterprise/node",
        "customs/node",
        "customs/release",
        "taxation/refund",
        "supervision/aml",
        "audit/desk",
        f"customs/{EXPORTER.lower()}",
        f"enterprises/{EXPORTER.lower()}",
    ],
)
async def test_nobody_else_is_told_by_any_door(watched: Supervised, who: str) -> None:
    about = subject(EXPORTER)
    for asking in (listed(watched, who, about), fetched(watched, who, about)):
        assert (await refused(asking)).reason in {Reason.READS_NOT_OWN, Reason.CALLER_NOT_LISTED}


@pytest.mark.parametrize(
    "about",
    [
        subject(EXPORTER, "CN.USCC"),
        subject(EXPORTER, "cn.customs_code", as_written=True),
        subject("9999960001", "cn.customs_code"),
        subject(OTHER, as_written=True),
        subject("%", as_written=True),
        subject(f"{EXPORTER} OR 1=1", as_written=True),
        subject(""),
    ],
    ids=["scheme", "other scheme", "its other number", "other", "pattern", "words", "nobody"],
)
async def test_an_enterprise_is_asked_about_under_its_own_code_only(watched: Supervised, about: Any) -> None:
    for asking in (listed(watched, firm(EXPORTER), about), fetched(watched, firm(EXPORTER), about)):
        assert (await refused(asking)).reason in {
            Reason.READS_NOT_OWN,
            Reason.SUBJECT_INVALID,
            Reason.SUBJECT_MISSING,
            Reason.SUBJECT_SCHEME_UNKNOWN,
        }


async def test_each_is_told_of_its_own_and_of_nothing_else(watched: Supervised) -> None:
    mine, theirs = [(await listed(watched, firm(code), subject(code))).reads for code in (EXPORTER, OTHER)]
    assert (len(mine), len(theirs)) == (3, 1)
    assert not {read.index for read in mine} & {read.index for read in theirs}
    # A page of one list opens none of another's.
    token = (await listed(watched, firm(EXPORTER), subject(EXPORTER), size=1)).next_page_token
    error = await refused(listed(watched, firm(OTHER), subject(OTHER), token=token))
    assert error.reason is Reason.PAGE_TOKEN_MISMATCH
    for purpose, basis in (("P-PUBLIC-REG", "CN-PUBLIC-REGISTER"), ("P-AML", "CN-AML")):
        why = {"purpose": purpose, "legal_basis": basis, "case_ref": "C-1"}
        error = await refused(listed(watched, firm(EXPORTER), subject(EXPORTER), why=why))
        assert error.reason in {Reason.NO_PERMIT, Reason.AUTHORIZATION_MISSING, Reason.CASE_MISSING}


async def test_what_a_gateway_may_say_of_whom_it_asks_for(watched: Supervised) -> None:
    """One word is for one list of one enterprise; in nobody's name, or in one that is none, it is told nothing."""
    gateway, mine = "gateway/main", firm(EXPORTER)
    assert len((await fetched(watched, gateway, subject(EXPORTER), word=mine)).reads) == 3
    for about, how, reason in (
        (OTHER, {"word": mine}, Reason.READS_NOT_OWN),
        (OTHER, {"word": firm(OTHER), "said": EXPORTER}, Reason.CONTEXT_INVALID),
        (EXPORTER, {"word": AML}, Reason.READS_NOT_OWN),
        (EXPORTER, {"word": "gateway/main"}, Reason.CONTEXT_INVALID),
        (EXPORTER, {"word": "customs/node"}, Reason.READS_NOT_OWN),
        (EXPORTER, {"word": f"enterprise/{EXPORTER}"}, Reason.CONTEXT_INVALID),
        (EXPORTER, {}, Reason.CONTEXT_MISSING),
    ):
        named: dict[str, str] = how
        assert (await refused(fetched(watched, gateway, subject(about), **named))).reason is reason, named
    # And nobody but a gateway speaks for others at all.
    for who in ("customs/node", "taxation/node", firm(OTHER)):
        error = await refused(fetched(watched, who, subject(EXPORTER), word=mine))
        assert error.reason is Reason.CALLER_NOT_LISTED
    # Each look is logged, with whom it was said to be for and who said so.
    log = watched.host("customs").log
    assert log is not None
    await fetched(watched, gateway, subject(EXPORTER), word=mine)
    entry = (await log.entry(log.size - 1)).entry
    assert (entry.caller, entry.via) == (f"spiffe://{ZONE}/{mine}", f"spiffe://{ZONE}/{gateway}")


# under an embargo


async def everything_told(mesh: Supervised, via_gateway: bool) -> tuple[list[bytes], list[tuple[int, str]]]:
    """Go through all pages of every size; gives the reads, and how many stood on each page with its token."""
    told: list[bytes] = []
    shapes: list[tuple[int, str]] = []
    about = subject(EXPORTER)
    for size in (1, 2, 3, 200):
        token = ""
        while True:
            if via_gateway:
                page = await listed(mesh, firm(EXPORTER), about, size, token)
                assert not page.missing
                reads, token = list(page.reads), page.next_page_token
            else:
                request = reads_pb2.FetchReadsRequest(
                    subject=about, page_size=size, page_token=token, context=exchange_pb2.RequestContext(**SELF)
                )
                client = mesh.client(firm(EXPORTER), "customs")
                answer = await client.unary(FETCH, request, reads_pb2.FetchReadsResponse, timeout=10)
                reads, token = list(answer.reads), answer.next_page_token
            told += [read.SerializeToString(deterministic=True) for read in reads]
            shapes.append((len(reads), token))
            if not token:
                break
    return told, shapes


@pytest.mark.parametrize("via_gateway", [True, False], ids=["all agencies", "customs"])
async def test_an_embargoed_look_changes_nothing_that_can_be_seen(watched: Supervised, via_gateway: bool) -> None:
    """Not the reads, not how many, not the pages, not one character of a token."""
    mesh = watched
    before = await everything_told(mesh, via_gateway)
    assert len(before[0]) >= 12
    leave = await mesh.give(DECLARATIONS)
    for size in (0, 1):
        (section,) = await ask(mesh, AML, asked(leave, KIND, page_size=size))
        assert section.records
    # Refusals leave no trace for the enterprise either.
    await refused(ask(mesh, AML, asked(leave, "taxation.VatFiling", KIND, subject=f"cn.uscc:{OTHER}")))
    assert await everything_told(mesh, via_gateway) == before
    log = mesh.host("customs").log
    assert log is not None
    # They are in the log, and in what finds them by subject: hidden, and not lost.
    purposes = [(await log.entry(index)).entry.purpose for index in await log.find_subject("cn.uscc", EXPORTER)]
    assert purposes.count("P-AML") >= 2
    # A gateway that lies is not told of them either.
    reads = (await fetched(mesh, "gateway/main", subject(EXPORTER), word=firm(EXPORTER))).reads
    assert {read.purpose for read in reads} == {"P-REBATE"}
