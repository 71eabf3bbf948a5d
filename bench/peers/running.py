"""Peers' processes: started, waited for, killed."""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

_START_LIMIT = 60.0
_AGAIN = 0.05
_STOP_LIMIT = 5.0
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "TERM")
"""Begins every command: however we end, nothing is left running."""
HOST = "127.0.0.1"


class PeerMissingError(Exception):
    """A peer is not installed, or does not start; says what to do."""


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


@contextlib.asynccontextmanager
async def running(
    *command: str | Path,
    port: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> AsyncGenerator[int]:
    """Run a process that listens on `port` for as long as the context; gives its pid.

    Raises `PeerMissingError` with its last words where it ends or does not listen in time.
    """
    if shutil.which(str(command[0])) is None:
        raise PeerMissingError(f"there is no {command[0]}")
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *_ENDS_WITH_US,
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | (environment or {}),
            cwd=folder,
        )
    try:
        await _listening(process, port, log)
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_LIMIT):
                    await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


def python(module: str, *arguments: str | Path) -> tuple[str, ...]:
    """Write the command that runs one of our modules."""
    return sys.executable, "-P", "-m", module, *map(str, arguments)


async def _listening(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_LIMIT):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(HOST, port)
                    writer.close()
                    return
                await asyncio.sleep(_AGAIN)
    said = await asyncio.to_thread(log.read_text, errors="replace")
    words = "\n".join(said.splitlines()[-20:])
    raise PeerMissingError(f"it does not listen on {port}; its last words:\n{words}")
