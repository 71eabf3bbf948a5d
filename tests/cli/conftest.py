"""One mesh for the tests of the command line: a zone folder with a small sample in its stores, and its nodes."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from services.cli import filling, sample
from services.cli.demo import recognition
from services.cli.fleet import Fleet
from services.cli.main import app
from services.cli.sample import Subject
from services.cli.zone import Zone


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


@contextmanager
def own_logging() -> Generator[None]:
    """What a command sets up for its own process must not go on in the next test's."""
    root = logging.getLogger()
    handlers, before = list(root.handlers), _levels()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for name in _levels():
            logging.getLogger(name).setLevel(before.get(name, logging.NOTSET))


def _levels() -> dict[str, int]:
    root = logging.getLogger()
    named = {name: each.level for name, each in root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    return {"": root.level, **named}


def run(*arguments: str | Path) -> Ran:
    """Run `hutong` in this process, as a shell would."""
    with own_logging():
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def filled_zone(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    """A zone whose stores hold a small synthetic zone; its cases take events of the last two months."""
    zone = Zone.prepare(tmp_path_factory.mktemp("cli") / "zone")
    recognition.prepare(zone)
    sample.write(zone.sample, sample.Setting(enterprises=80))
    asyncio.run(filling.load_all(zone, filling.sample_sources(zone.sample)))
    return zone


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh(filled_zone: Zone) -> AsyncGenerator[Fleet]:
    """The zone's nodes, running."""
    async with Fleet(filled_zone) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def exporter(filled_zone: Zone) -> Subject:
    """An exporter that all five agencies know."""
    return sample.story(filled_zone.sample).exporter


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    """A zone of its own, with empty stores."""
    return Zone.prepare(tmp_path / "zone")
