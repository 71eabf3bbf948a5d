"""Authorizations for each test, and nodes: one for the tests that only use it, and one of one's own, to break."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.supervision.desk import Desk, desk

if TYPE_CHECKING:
    from tests.supervision.mesh import Mesh


@pytest.fixture(name="desk")
async def sqlite_desk(sqlite_url: str, tmp_path: Path) -> AsyncGenerator[Desk]:
    """Authorizations in a SQLite database of their own."""
    async with desk(sqlite_url, tmp_path) as made:
        yield made


@pytest.fixture
async def any_desk(any_url: str, tmp_path: Path) -> AsyncGenerator[Desk]:
    """Authorizations in a database of their own, in each of the engines in turn."""
    async with desk(any_url, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> "AsyncGenerator[Mesh]":
    """A supervision node over mutual TLS, for all tests that break nothing."""
    # Only here: most tests of this folder need no node, nor what it carries.
    from tests.supervision.mesh import running  # noqa: PLC0415

    async with running(tmp_path_factory.mktemp("supervision")) as made:
        yield made


@pytest.fixture
async def own(tmp_path: Path) -> "AsyncGenerator[Mesh]":
    """A supervision node of one's own."""
    from tests.supervision.mesh import running  # noqa: PLC0415

    async with running(tmp_path) as made:
        yield made
