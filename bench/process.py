"""What processes have used, read from the kernel."""

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(*pids: int) -> float:
    """CPU time so far of processes and all their descendants, user and system, all threads.

    Of children that have ended it has what their parents waited for.
    """
    return sum(_cpu_of(each) for pid in pids for each in tree(pid))


def tree(pid: int) -> list[int]:
    """List a process and its descendants that are alive."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        found.append(each)
        waiting += _children(each)
    return found


def resident_mb(*pids: int) -> float:
    """Memory of processes and their descendants that is resident now, in MB (10^6 bytes)."""
    return sum(_resident(each) for pid in pids for each in tree(pid))


def proportional_mb(*pids: int) -> float:
    """Memory as `resident_mb`, but of what several processes share, each has its part: for those that fork."""
    return sum(_proportional(each) for pid in pids for each in tree(pid))


def _children(pid: int) -> Iterable[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:  # it ended meanwhile
            continue
    return found


def _cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # utime, stime, and those of children that were waited for
    return sum(map(int, fields[11:15])) / _TICKS


def _proportional(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    except OSError:
        return 0.0
