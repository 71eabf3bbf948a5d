"""A mesh for these tests, with what its agencies know of an exporter."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.exchange.mesh import Mesh, running
from tests.exchange.records import RECORDS


@pytest.fixture(scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    async with running(tmp_path_factory.mktemp("recording"), "customs", "taxation") as mesh:
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
