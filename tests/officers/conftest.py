"""A node and the officers it knows."""

from pathlib import Path

import pytest

from tests.officers.bed import Bed


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    """Two agencies with identity providers of their own."""
    return Bed.make(tmp_path)


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    """The same for many examples, none of which changes anything."""
    return Bed.make(tmp_path_factory.mktemp("officers"))
