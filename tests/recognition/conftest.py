"""Cases for each test, and nodes: one for the tests that only use it, and one of one's own, to break."""

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.recognition.desk import Bed, desk

if TYPE_CHECKING:
    from tests.recognition.mesh import Mesh


@pytest.fixture
async def bed(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Bed]:
    """Cases in a SQLite database of their own."""
    async with desk(sqlite_url, tmp_path) as made:
        yield made


@pytest.fixture
async def any_bed(any_url: str, tmp_path: Path) -> AsyncIterator[Bed]:
    """Cases in a database of their own, in each of the engines in turn."""
    async with desk(any_url, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> "AsyncGenerator[Mesh]":
    """A recognition node over mutual TLS, for all tests that break nothing."""
    # Only here: most tests of this folder need no node, nor what it carries.
    from tests.recognition.mesh import running  # noqa: PLC0415

    async with running(tmp_path_factory.mktemp("recognition")) as made:
        yield made


@pytest.fixture
async def own(tmp_path: Path) -> "AsyncGenerator[Mesh]":
    """A recognition node of one's own."""
    from tests.recognition.mesh import running  # noqa: PLC0415

    async with running(tmp_path) as made:
        yield made
