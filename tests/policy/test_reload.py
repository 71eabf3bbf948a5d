"""Policy files that change under a running engine."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from services.kit.policy.engine import PolicyEngine
from services.kit.policy.loader import PolicyRefused
from services.kit.policy.reload import PolicyFiles
from tests.policy.specimen import catalogue
from tests.policy.support import LAW, SECRET, TAX, TYPE, SetClock, context, permit


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    path.unlink()


class Told(logging.Handler):
    """Lets a test wait until the reloader says something."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._loop.call_soon_threadsafe(self._heard.put_nowait, record.getMessage())

    async def wait(self) -> str:
        async with asyncio.timeout(10):
            return await self._heard.get()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "museum.cedar"
    write(path, permit("p", ["code"]))
    return path


def started(path: Path) -> tuple[PolicyFiles, PolicyEngine]:
    files = PolicyFiles([path], catalogue(), LAW)
    return files, PolicyEngine(files.policies, catalogue(), LAW, SECRET, SetClock())


def given(engine: PolicyEngine) -> set[str]:
    return set(engine.mask(TAX, context(), TYPE).grants)


def test_files_that_do_not_pass_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused):
        PolicyFiles([tmp_path / "museum.cedar"], catalogue(), LAW)


async def test_a_change_counts_at_the_next_look(path: Path) -> None:
    files, engine = started(path)
    assert not await files.poll(engine)
    write(path, permit("p", ["colour"]))
    assert given(engine) == {"code"}
    assert await files.poll(engine)
    assert given(engine) == {"colour"}
    assert files.policies is engine.policies
    assert not await files.poll(engine)
    # The same size and, likely, the same tick of the file system's clock.
    write(path, permit("p", ["weight"]))
    assert await files.poll(engine)
    assert given(engine) == {"weight"}
    write(path, "// said otherwise\n" + permit("p", ["weight"]))
    assert not await files.poll(engine)
    assert (files.reloads, files.failures) == (2, 0)


async def test_a_file_that_is_being_written_is_left_for_the_next_look(path: Path) -> None:
    """Cut where it would pass, and without what the rest of it forbids."""
    both = permit("p", ["code"]) + permit("q", ["colour"])
    writing = [both]
    files = PolicyFiles([path], catalogue(), LAW, lambda _: write(path, writing.pop()) if writing else None)
    engine = PolicyEngine(files.policies, catalogue(), LAW, SECRET, SetClock())
    write(path, permit("q", ["colour"]))
    assert not await files.poll(engine)
    assert given(engine) == {"code"}
    assert await files.poll(engine)
    assert given(engine) == {"code", "colour"}


async def test_a_file_that_could_not_be_read_once_is_read_again(path: Path) -> None:
    """It says what it said before, or what it was to say: neither is taken for what does not pass."""
    text = permit("q", ["colour"])
    steps: list[Callable[[], object]] = [lambda: write(path, text), path.unlink]

    def pause(_: float) -> None:
        if steps:
            steps.pop()()

    files = PolicyFiles([path], catalogue(), LAW, pause)
    engine = PolicyEngine(files.policies, catalogue(), LAW, SECRET, SetClock())
    write(path, text)
    for _ in range(2):
        assert not await files.poll(engine)
        assert not files.refused
    assert await files.poll(engine)
    assert given(engine) == {"colour"}


async def test_a_broken_file_changes_nothing_and_is_told_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files, engine = started(path)
    version, mask = engine.version, engine.mask(TAX, context(), TYPE)
    for text in (permit("p", basis=""), "permit (", permit("p", ["nothing"])):
        write(path, text)
        with caplog.at_level(logging.ERROR):
            assert not await files.poll(engine)
            assert not await files.poll(engine)
        assert files.last_error is not None
        assert engine.version == version
        assert engine.mask(TAX, context(), TYPE) is mask
        assert files.refused
    assert files.failures == len(caplog.records) == 3
    remove(path)
    assert not await files.poll(engine)
    assert "cannot be read" in str(files.last_error)
    write(path, permit("p", ["code"]))
    assert not await files.poll(engine)
    assert files.last_error is None
    assert not files.refused
    write(path, permit("p", ["colour"]))
    assert await files.poll(engine)
    assert given(engine) == {"colour"}


async def test_whoever_looks_while_somebody_does_waits_for_what_comes_of_it(path: Path) -> None:
    files, engine = started(path)
    write(path, "".join(permit(f"p{number}", ["colour"]) for number in range(50)))  # so that a look takes some time
    looks = [asyncio.ensure_future(files.poll(engine)) for _ in range(20)]
    for look in asyncio.as_completed(looks):
        await look
        assert given(engine) == {"colour"}
    assert sum(look.result() for look in looks) == 1


def test_reload_by_hand_says_what_is_wrong(path: Path) -> None:
    files, engine = started(path)
    write(path, permit("p", basis=""))
    with pytest.raises(PolicyRefused, match="add @basis") as caught:
        files.reload(engine)
    assert files.last_error is caught.value
    write(path, permit("p", ["colour"]))
    assert files.reload(engine) is engine.policies
    assert given(engine) == {"colour"}


async def test_watching_goes_on_until_it_is_stopped(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files, engine = started(path)
    told = Told()
    logger = logging.getLogger("services.kit.policy.reload")
    logger.addHandler(told)
    stop = files.watch(engine, 0.001)
    try:
        with caplog.at_level(logging.INFO):
            write(path, "permit (")
            assert "do not pass" in await told.wait()
            write(path, permit("p", ["colour"]))
            while await told.wait() != "Policies changed":
                pass
        assert given(engine) == {"colour"}
    finally:
        await stop()
        await stop()
        logger.removeHandler(told)
    write(path, permit("p", ["weight"]))
    assert given(engine) == {"colour"}
