"""The gateway's own cut: what a department sent is cut again before it goes on.

The department has decided by its own policy, which may be newer or older than the gateway's. Where both say yes in the
same way, the value goes on; in every other case the stricter word stands:

- a field the gateway does not grant is cleared, whatever the department sent;
- a field the department refused stays refused, under the department's reason;
- a field they would give in different forms, or under different row conditions, is cleared, since the gateway cannot
  make the one form out of the other.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import Reason, Unavailable
from services.kit.policy.mask import ReadMask
from services.kit.reader import type_url
from services.kit.records.pages import MAX_SIZE

_REFUSED: Final = exchange_pb2.VERDICT_REFUSED
_OK: Final = exchange_pb2.SECTION_STATUS_OK
_PARTIAL: Final = exchange_pb2.SECTION_STATUS_PARTIAL
_STATUSES: Final = frozenset(exchange_pb2.SectionStatus.values()) - {exchange_pb2.SECTION_STATUS_UNSPECIFIED}
_REASONS: Final = frozenset(("", *Reason))
_DENIED: Final = exchange_pb2.SECTION_STATUS_DENIED

Trim = Callable[[bytes], bytes]
"""Clears a serialized record; gives the very bytes that went in where there was nothing to clear."""


class Cut:
    """Cuts the sections of one part of a question; made once for all its answers."""

    __slots__ = ("_agency", "_decided", "_mask", "_name", "_read", "_status", "_trim", "_url", "_version")

    def __init__(self, mask: ReadMask) -> None:
        kind = mask.record_type
        self._mask = mask
        self._name, self._agency, self._url = kind.name, kind.owner, type_url(kind)
        self._version, self._status, self._decided = mask.version, mask.status, mask.decided
        self._trim = mask.trimmer()
        self._read = kind.message.FromString

    def __call__(self, answer: exchange_pb2.Section) -> tuple[bytes, int]:
        """Cut a department's section, in place, by the gateway's mask, and put both decisions together.

        Returns the section serialized, and how many records are in it. Raises `Unavailable` DEPARTMENT_FAILED where
        what came back is no answer to what was asked.
        """
        # Around the records as well as in them: what this version does not know, nobody has decided.
        answer.DiscardUnknownFields()
        records: Any = answer.records
        rows = len(records)
        if rows > MAX_SIZE:
            raise _no_answer(f"{rows} records on a page")
        status = answer.status
        if status not in _STATUSES or answer.reason not in _REASONS:
            raise _no_answer("a status or reason that there is not")
        answer.record_type = self._name
        answer.agency = self._agency
        if answer.policy_version != self._version:
            return self._agreed(answer)
        answer.ClearField("decisions")
        if rows:
            self._trim_all(records, rows, self._trim)
        if status == _OK:
            # It was asked only for what may be given; the caller asked for more.
            answer.status = self._status
        return answer.SerializeToString() + self._decided, rows

    def _agreed(self, answer: exchange_pb2.Section) -> tuple[bytes, int]:
        """Cut what was decided by another version of the policies."""
        decisions, allowed = _agree(answer, self._mask)
        del answer.decisions[:]
        answer.decisions.extend(decisions)
        if not allowed or answer.status == _DENIED:
            answer.status = _DENIED
            answer.reason = answer.reason or Reason.NO_PERMIT
            answer.next_page_token = ""
            del answer.records[:]
            return answer.SerializeToString(), 0
        rows = len(answer.records)
        self._trim_all(answer.records, rows, self._mask.trimmer(allowed))
        if answer.status == _OK and len(allowed) < len(decisions):
            answer.status = _PARTIAL
        return answer.SerializeToString(), rows

    def _trim_all(self, records: Any, rows: int, trim: Trim) -> None:
        """Clear what is not granted; what was right already goes on as it came."""
        # By number: that the end is reached costs an iteration as much as an element.
        for number in range(rows):
            record = records[number]
            if record.type_url != self._url:
                raise _no_answer("a record of another type")
            value = record.value
            try:
                cut = trim(value)
                if cut is not value:
                    # Trimming reads no more than what is given; where the rest cannot be read, it is no record.
                    self._read(value)
                    record.value = cut
            except DecodeError:
                raise _no_answer("a record that cannot be read") from None


def _agree(answer: exchange_pb2.Section, mask: ReadMask) -> tuple[list[exchange_pb2.FieldDecision], frozenset[str]]:
    """Merge both sides' decisions; gives the fields that both give in the same way."""
    theirs = {decision.field: decision for decision in answer.decisions}
    allowed: set[str] = set()
    merged: list[exchange_pb2.FieldDecision] = []
    for own in mask.decisions:
        their = theirs.get(own.field)
        if own.verdict == _REFUSED:
            merged.append(own)
        elif their is not None and their.verdict == _REFUSED:
            merged.append(their)
        elif their is None or (their.transform, sorted(their.conditions)) != (own.transform, sorted(own.conditions)):
            merged.append(
                exchange_pb2.FieldDecision(field=own.field, verdict=_REFUSED, reason=Reason.POLICY_VERSIONS_DIFFER)
            )
        else:
            merged.append(own)
            allowed.add(own.field)
    return merged, frozenset(allowed)


def _no_answer(why: str) -> Unavailable:
    return Unavailable(Reason.DEPARTMENT_FAILED, f"the department sent {why}")
