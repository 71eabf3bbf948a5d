"""Agencies with keys, and a credential that one of them issued."""

from pathlib import Path

import pytest

from services.kit.credentials import results
from services.kit.credentials.keys import PublishedKeys
from tests.credentials.making import Agencies, statement


@pytest.fixture
def agencies(tmp_path: Path) -> Agencies:
    """Two agencies, and the service that signs status lists."""
    return Agencies.found(tmp_path, "publicsecurity", "customs", "recognition")


@pytest.fixture
def published(agencies: Agencies) -> PublishedKeys:
    """What they have published."""
    return agencies.published


@pytest.fixture
def credential(agencies: Agencies) -> str:
    """A credential of public security, with every disclosure."""
    return results.issue(statement(), agencies.signing["publicsecurity"])


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Agencies:
    """Agencies for many examples, none of which changes anything."""
    return Agencies.found(tmp_path_factory.mktemp("one"), "publicsecurity", "customs")
