"""Processes that are killed at any moment, and what they said until then.

Each is forked from a server that has imported all there is to import: starting an interpreter takes longer than most of
them live.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Final, TextIO

_FORKING: Final = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    [
        "__main__",
        "tests.log.appending",
        "tests.recognition.ticking",
        "tests.records.loading",
        "tests.supervision.acting",
    ]
)

KILLED: Final = -9
"""How one ends that was killed."""


class Killable:
    """A process that runs a function whose standard output is heard here."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        """`function` is a module's own, and what it is given can be pickled."""
        hearing, speaking = _FORKING.Pipe(duplex=False)
        self._process = _FORKING.Process(target=_run, args=(speaking, function, arguments))
        self._process.start()
        speaking.close()
        self._said: TextIO = os.fdopen(os.dup(hearing.fileno()), encoding="utf-8")
        hearing.close()

    def said(self) -> Iterator[str]:
        """Give lines as they are said; the last one has no end where the blow fell in the middle of it."""
        return iter(self._said)

    def kill(self) -> None:
        """Kill it without any warning."""
        self._process.kill()

    def ended(self) -> list[str]:
        """Wait until it ends, or is dead; gives what it has said by then and nobody has heard yet."""
        rest = list(self._said)
        self._said.close()
        self._process.join()
        return rest

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.exitcode


def _run(speaking: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    os.dup2(speaking.fileno(), 1)
    function(*arguments)
