"""One mesh for the tests that only ask; tests that break or change things make their own."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.exchange.mesh import Mesh, running
from tests.exchange.records import RECORDS


@pytest.fixture(scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    async with running(tmp_path_factory.mktemp("mesh")) as mesh:
        for agency, messages in RECORDS.items():
            await mesh.load(agency, messages)
        yield mesh


@pytest.fixture
async def own(tmp_path: Path) -> AsyncGenerator[Mesh]:
    """A mesh of one's own, to break: customs and taxation only."""
    async with running(tmp_path, "customs", "taxation") as mesh:
        for agency in mesh.departments:
            await mesh.load(agency, RECORDS[agency])
        yield mesh
