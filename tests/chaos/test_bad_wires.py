"""A bad day for wires, below TCP: what befalls them costs what it may and no more, heals, and loses nothing."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.chaos import bed as beds
from tests.chaos.bed import Bed
from tests.chaos.cases import WIRE_CASES
from tests.chaos.running import Case, run


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bed() -> AsyncGenerator[Bed]:
    async with beds.alone(wired=True) as made:
        yield made


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in WIRE_CASES])
async def test_it_costs_what_it_may_and_nothing_is_lost(bed: Bed, case: Case[Bed]) -> None:
    if why := case.cannot(bed):
        pytest.skip(why)
    found = await run(case, bed, bed.client(), bed.logs(), bed.given)
    assert not found.problems
    assert found.proof.answers
