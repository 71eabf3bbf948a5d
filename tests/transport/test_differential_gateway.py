"""Questions, whole and mutilated, to two meshes that differ in their transport alone: the answers are the same.

Bytes go in as they are: what cannot be parsed, what parses into something else, and what is a question all the same,
all the way through gateway, signed context, departments and back.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hutong.api.exchange.v1 import federation_pb2
from services.kit.client import Client
from services.kit.config import Transport
from services.kit.errors import HutongError
from tests import transports
from tests.exchange.mesh import QUERY, Mesh, question
from tests.exchange.records import EXPORTER, OTHER, RECORDS

MORE: Final = 10 if settings.get_current_profile_name() == "fuzz" else 1
WHO: Final = "taxation/refund"
REBATE: Final = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}
AGENCIES: Final = ("customs", "taxation")
TYPES: Final = ("customs.Declaration", "customs.Declaration:declaration_no", "taxation.TaxpayerStatus", "quality.None")
Answer = federation_pb2.QueryResponse
Meshes = dict[Transport, tuple[Mesh, Client]]


@pytest.fixture(scope="module")
async def meshes(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Meshes]:
    found: Meshes = {}
    urls: dict[str, str] = {}
    async with contextlib.AsyncExitStack() as stack:
        for name in transports.NAMES:
            mesh = Mesh(tmp_path_factory.mktemp(name))
            stack.push_async_callback(mesh.stop)
            # All read the same stores: records say when they were stored.
            mesh.urls = urls
            with transports.using(name):
                for agency in AGENCIES:
                    await mesh.start(agency)
                await mesh.start_gateway()
            if not found:
                urls = {agency: mesh.url(agency) for agency in AGENCIES}
                for agency in AGENCIES:
                    await mesh.load(agency, RECORDS[agency])
            assert mesh.gateway is not None
            host = mesh.gateway.host
            client = Client(host.address, host.identity, mesh.zone.files(WHO), transport=name)
            stack.push_async_callback(client.close)
            found[name] = (mesh, client)
        yield found


def written(value: str, kinds: list[str], why: dict[str, str]) -> bytes:
    return question(f"cn.uscc:{value}", *kinds, **why).SerializeToString()


QUESTIONS: Final = st.builds(
    written,
    st.sampled_from([EXPORTER, OTHER]),
    st.lists(st.sampled_from(TYPES), min_size=1, max_size=3),
    st.sampled_from([REBATE, REBATE, {"purpose": "P-REBATE"}, {}]),
)


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a question, with up to three changes made to them."""
    raw = draw(QUESTIONS)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        end = draw(st.integers(at, min(len(raw), at + 12)))
        change = draw(st.sampled_from(["set", "cut", "more", "twice", "end"]))
        if change == "set":
            raw = raw[:at] + bytes(draw(st.integers(0, 255)) for _ in raw[at:end]) + raw[end:]
        elif change == "cut":
            raw = raw[:at] + raw[end:]
        elif change == "more":
            raw = raw[:at] + draw(st.binary(max_size=12)) + raw[at:]
        elif change == "twice":
            raw = raw[:at] + raw[at:end] * 2 + raw[end:]
        else:
            raw = raw[:at]
    return raw


async def asked(client: Client, raw: bytes) -> tuple[str, str, str, dict[str, str], bytes]:
    """Ask; gives whatever came that is not of this one call alone."""
    try:
        answer = await client.unary(QUERY, raw, Answer, timeout=10)
    except HutongError as error:
        named = {name: _plain(value) for name, value in error.metadata.items()}
        return error.code, error.reason, _plain(error.message), named, b""
    assert answer.receipt.ByteSize()
    assert answer.query_id
    answer.ClearField("receipt")
    answer.ClearField("query_id")
    for section in answer.sections:
        # When the department knew it, and a token that only its node can read.
        section.ClearField("as_of")
        section.next_page_token = "a token" if section.next_page_token else ""
    return "OK", "", "", {}, answer.SerializeToString(deterministic=True)


def _plain(text: str) -> str:
    return re.sub("[0-9a-f]{32}", "ID", text)


@settings(max_examples=60 * MORE)
@given(raws=st.lists(mutilated(), min_size=1, max_size=4))
async def test_the_same_question_gets_the_same_answer(meshes: Meshes, raws: list[bytes]) -> None:
    """Those of one example are asked at the same time."""
    for raw, *answers in zip(
        raws,
        *[await asyncio.gather(*(asked(client, raw) for raw in raws)) for _, client in meshes.values()],
        strict=True,
    ):
        assert answers[0] == answers[1], raw
