"""What an audit says of one entry of a log."""

from dataclasses import dataclass
from enum import StrEnum

from hutong.api.log.v1 import log_pb2


class Verdict(StrEnum):
    """How an entry came out."""

    SAME = "SAME"
    """What was decided follows from the policy in force, and everything that says so is proven."""
    DIFFERS = "DIFFERS"
    """Something else follows from the policy in force."""
    BROKEN = "BROKEN"
    """The evidence contradicts itself: a proof, an opening or a text is not what the log says it is."""
    ERASED = "ERASED"
    """The policy looks at something that was erased, or the scope was: nobody can tell any more."""
    NOT_RECOMPUTABLE = "NOT_RECOMPUTABLE"
    """Nothing was decided, or what it takes is not there."""

    @property
    def good(self) -> bool:
        """Whether there is nothing to complain of."""
        return self not in (Verdict.DIFFERS, Verdict.BROKEN)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that should have been decided otherwise."""

    record_type: str
    field: str
    logged: str
    follows: str
    """What follows from the policy."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of recomputing one entry."""

    index: int
    verdict: Verdict
    why: str
    """For people; empty where there is nothing to add."""
    entry: log_pb2.LogEntry
    """The entry; empty where it cannot be read."""
    differences: tuple[Difference, ...] = ()
    fields: int = 0
    """Decisions on fields that were compared."""
