"""One mesh with supervision for tests that only ask; tests that break or revoke what others use make their own."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.authorizations.mesh import Supervised, declarations, invoices, listings, loaded, running
from tests.exchange.records import OTHER, RECORDS


@pytest.fixture(scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Supervised]:
    async with running(tmp_path_factory.mktemp("supervised")) as mesh:
        await mesh.load("customs", [*RECORDS["customs"], *declarations(45), *listings(5)])
        await mesh.load("customs", [*declarations(3, 500, OTHER), *listings(3, "9999960002")])
        await mesh.load("taxation", [*invoices(30), *invoices(2, OTHER)])
        yield mesh


@pytest.fixture
async def own(tmp_path: Path) -> AsyncGenerator[Supervised]:
    """A mesh of one's own, to break."""
    async with loaded(tmp_path) as mesh:
        yield mesh
