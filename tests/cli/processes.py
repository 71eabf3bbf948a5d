"""Processes of ours, found by what is on their command line: to see that none is left."""

import time
from pathlib import Path


def mentioning(text: str) -> list[int]:
    """List the running processes (not zombies) whose command line names something."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it ended while we looked
        if text.encode() in command:
            found.append(int(entry.name))
    return found


def gone(text: str, within: float = 20) -> bool:
    """Wait until no process mentions something; whoever was asked to end needs its moment."""
    end = time.monotonic() + within
    while mentioning(text):
        if time.monotonic() > end:
            return False
    return True
