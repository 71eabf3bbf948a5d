"""Fixtures that every part of the tests may need."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# First of ours: the floor under TLS must stand before gRPC is loaded, whichever test is run.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]
from services.kit.config import Transport
from tests import databases, transports
from tests.databases import Postgres

REPOSITORY = Path(__file__).resolve().parents[1]

# A busy machine is no reason to fail, and a failure says how to see it again: its seed, and the example as a blob.
settings.register_profile("unhurried", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
# What was green stays green until somebody changes something: the gate draws the same examples every time. New ones
# are looked for with `make fuzz`.
settings.register_profile("gate", settings.get_profile("unhurried"), derandomize=True)
settings.register_profile("fuzz", settings.get_profile("unhurried"), max_examples=1000)
settings.load_profile("gate")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that run any tests over another transport."""
    what = "what carries calls to and from the nodes of the tests"
    parser.addoption("--transport", choices=transports.NAMES, default=transports.chosen(), help=what)
    what = "what carries the calls of clients that belong to no node; as --transport where it is not given"
    parser.addoption("--clients", choices=transports.NAMES, help=what)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the transport before anything is connected."""
    nodes: Transport = config.getoption("--transport")  # pyright: ignore[reportAssignmentType]
    clients: Transport | None = config.getoption("--clients")
    transports.use(nodes, clients or nodes)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data; tests that read it run where it is there, and say so where it is not."""
    folder = Path(os.environ.get("HUTONG_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data here: {folder} is no folder (set HUTONG_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real PostgreSQL server, one for the whole run; tests make databases of their own in it."""
    # Not under pytest's folder: as root the server runs as another user, and every pytest run closes that folder to it.
    with (
        tempfile.TemporaryDirectory(prefix="hutong-pg-", ignore_cleanup_errors=True) as folder,
        databases.postgres(Path(folder) / "data") as server,
    ):
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of a SQLite database that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    with postgres_server.fresh() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def any_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database, in each of the engines in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
