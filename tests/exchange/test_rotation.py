"""Certificates of every node and of the caller are renewed while questions keep coming: no call fails, no section."""

import asyncio
import contextlib

import pytest

from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit import identity
from tests.exchange.mesh import QUERY, Mesh, question
from tests.exchange.records import EXPORTER
from tests.zone import now

ASKED = question(
    f"cn.uscc:{EXPORTER}",
    "customs.Operator:uscc",
    "taxation.TaxpayerStatus:uscc",
    purpose="P-PUBLIC-REG",
    legal_basis="CN-PUBLIC-REGISTER",
)
EVERYONE = ("gateway/main", "customs/node", "taxation/node", "quality/lab")
ROTATIONS = 4


async def test_no_call_fails_while_everybody_is_renewed(own: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_LOOK_EVERY", 0.0)  # look at every call: the more changes, the more chances to fail
    done = asyncio.Event()
    answers = 0

    async def keep_asking() -> None:
        nonlocal answers
        while not done.is_set():
            answer = await own.client("quality/lab").unary(QUERY, ASKED, federation_pb2.QueryResponse, timeout=10)
            assert [s.status for s in answer.sections] == [exchange_pb2.SECTION_STATUS_OK] * 2
            answers += 1

    async def renew() -> None:
        for _ in range(ROTATIONS):
            for who in EVERYONE:
                before = answers
                own.zone.authority.renew(own.zone.identity(who), now())
                while answers < before + 20:
                    await own.client("quality/lab").unary(QUERY, ASKED, federation_pb2.QueryResponse, timeout=10)
        done.set()

    async with asyncio.timeout(60):
        asking = [asyncio.ensure_future(keep_asking()) for _ in range(4)]
        with contextlib.suppress(asyncio.CancelledError):
            await renew()
        await asyncio.gather(*asking)
    assert answers >= ROTATIONS * len(EVERYONE) * 20
