"""One mesh for each file of attacks that only ask; those that break or change things make their own."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.authorizations import mesh as supervising
from tests.exchange.mesh import Mesh, running
from tests.exchange.records import OTHER, RECORDS
from tests.recognition import mesh as approving


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    async with running(tmp_path_factory.mktemp("mesh"), "customs", "quality", "taxation") as mesh:
        for agency in mesh.departments:
            await mesh.load(agency, RECORDS[agency])
        yield mesh


@pytest.fixture
async def own(tmp_path: Path) -> AsyncGenerator[Mesh]:
    """A mesh of one's own, to break."""
    async with running(tmp_path, "customs", "taxation") as mesh:
        for agency in mesh.departments:
            await mesh.load(agency, RECORDS[agency])
        yield mesh


@pytest.fixture(scope="module")
async def approvals(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[approving.Mesh]:
    """A recognition node with those who call it, for attacks that break nothing."""
    async with approving.running(tmp_path_factory.mktemp("approvals")) as made:
        yield made


@pytest.fixture
async def own_approvals(tmp_path: Path) -> AsyncGenerator[approving.Mesh]:
    """A recognition node of one's own, to break."""
    async with approving.running(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
async def supervised(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[supervising.Supervised]:
    """A mesh with supervision, for attacks that break nothing; whoever revokes revokes an authorization of its own."""
    async with supervising.running(tmp_path_factory.mktemp("supervised")) as made:
        await made.load("customs", [*RECORDS["customs"], *supervising.declarations(8), *supervising.listings(5)])
        await made.load("customs", [*supervising.declarations(3, 500, OTHER), *supervising.listings(3, "9999960002")])
        await made.load("taxation", [*RECORDS["taxation"], *supervising.invoices(6), *supervising.invoices(2, OTHER)])
        yield made


@pytest.fixture
async def own_supervised(tmp_path: Path) -> AsyncGenerator[supervising.Supervised]:
    """A mesh with supervision of one's own, to break."""
    async with supervising.running(tmp_path) as made:
        await made.load("customs", [*RECORDS["customs"], *supervising.declarations(4)])
        await made.load("taxation", supervising.invoices(4))
        yield made
