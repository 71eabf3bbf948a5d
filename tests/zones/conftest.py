"""One world for the tests that only ask."""

from collections.abc import AsyncGenerator

import pytest

from tests.zones.world import World, world


@pytest.fixture(scope="session")
async def zones(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    async with world(tmp_path_factory.mktemp("zones")) as made:
        yield made
