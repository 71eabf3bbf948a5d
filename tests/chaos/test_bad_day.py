"""A bad day, thing after thing, on real processes: each costs what it may and no more, heals, and loses nothing."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.chaos import bed as beds
from tests.chaos import clocks
from tests.chaos.bed import Bed
from tests.chaos.cases import CASES
from tests.chaos.clocks import CLOCK_CASES, Clocked
from tests.chaos.running import Case, run


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bed() -> AsyncGenerator[Bed]:
    async with beds.alone() as made:
        yield made


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
async def test_it_costs_what_it_may_and_nothing_is_lost(bed: Bed, case: Case[Bed]) -> None:
    found = await run(case, bed, bed.client(), bed.logs(), bed.given)
    assert not found.problems
    assert found.proof.answers


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clocked(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Clocked]:
    async with clocks.running(tmp_path_factory.mktemp("clocks")) as made:
        yield made


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CLOCK_CASES])
async def test_a_clock_that_is_wrong_costs_what_it_may(clocked: Clocked, case: Case[Clocked]) -> None:
    found = await run(case, clocked, clocked.client(), clocked.logs(), clocked.given)
    assert not found.problems
    assert found.proof.answers
