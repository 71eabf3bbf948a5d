"""Event logs: what a system recorded of its cases, as XES or as a table, plain or gzip, in one form.

A log is read whole before anything is done with it, since a table may tell of a case anywhere, and a file that was cut
must leave nothing behind. What makes the log itself doubtful refuses all of it: a file that was cut, is damaged or too
large, is neither XES nor a table with the columns needed, has a document type, or times that nobody can place. What is
wrong with one case leaves out that case. A table that was cut between two lines, or in the last cell of one, cannot be
told from a shorter one: it has no mark at its end.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapters import logcsv, xes
from adapters.logged import Gathered, LogColumns, LoggedCase, LoggedEvent, WrongCase, refused
from adapters.logstream import Limits, LogStream, Show

__all__ = ["Limits", "Log", "LogColumns", "LoggedCase", "LoggedEvent", "WrongCase", "read"]

XES: Final = "XES"
CSV: Final = "CSV"


@dataclass(frozen=True, slots=True)
class Log:
    """A log that was read."""

    name: str
    form: str
    """`XES` or `CSV`."""
    cases: tuple[LoggedCase | WrongCase, ...]

    @property
    def events(self) -> int:
        """How many events its good cases have."""
        return sum(len(case.events) for case in self.cases if isinstance(case, LoggedCase))


_USUAL: Final = LogColumns()


def read(path: Path, columns: LogColumns = _USUAL, limits: Limits | None = None, show: Show | None = None) -> Log:
    """Read a log; `show` is told how far it is.

    Raises `InvalidArgument` LOG_INVALID, naming line and case where they are known.
    """
    agreed = limits or Limits()
    with LogStream(path, agreed) as peek:
        head = peek.read(64) or b""
    if not head:
        raise refused(path.name, "it is empty")
    form = xes if _is_xml(head) else logcsv
    with LogStream(path, agreed, show) as stream:
        cases = tuple(_told_once(form.read(stream, columns, agreed)))
    if not cases:
        raise refused(path.name, "there is no case in it")
    return Log(path.name, XES if form is xes else CSV, cases)


def _is_xml(head: bytes) -> bool:
    # Without its mark, and without the zeros of an encoding in two bytes.
    return head.lstrip(b"\xef\xbb\xbf\xff\xfe").replace(b"\x00", b"").lstrip().startswith(b"<")


def _told_once(gathered: Iterable[Gathered]) -> Iterable[LoggedCase | WrongCase]:
    """Leave out cases that a log tells of twice, as two cases: nobody knows which is the case."""
    found: dict[str, Gathered] = {}
    for case in gathered:
        first = found.setdefault(case.case_id or f"\n{len(found)}", case)
        if first is not case:
            first.spoil(f"the case stands in lines {first.line} and {case.line}", case.line)
    return (case.done() for case in found.values())
