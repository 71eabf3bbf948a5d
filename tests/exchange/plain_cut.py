"""The gateway's cut as plainly as it can be said: every field that is not granted is cleared, one after the other."""

from typing import Any

from google.protobuf.message import DecodeError

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import Reason, Unavailable
from services.kit.policy.mask import ReadMask
from services.kit.reader import type_url
from services.kit.records.pages import MAX_SIZE

_REFUSED = exchange_pb2.VERDICT_REFUSED
_OK = exchange_pb2.SECTION_STATUS_OK
_PARTIAL = exchange_pb2.SECTION_STATUS_PARTIAL
_STATUSES = frozenset(exchange_pb2.SectionStatus.values()) - {exchange_pb2.SECTION_STATUS_UNSPECIFIED}
_REASONS = frozenset(("", *Reason))
_DENIED = exchange_pb2.SECTION_STATUS_DENIED


def recut(answer: exchange_pb2.Section, mask: ReadMask) -> bytes:
    """Cut a department's section, in place, by the gateway's mask, and put both decisions together.

    Returns the section serialized: what it is joined from was serialized before. Raises `Unavailable`
    DEPARTMENT_FAILED where what came back is no answer to what was asked.
    """
    # Around the records as well as in them: what this version does not know, nobody has decided.
    answer.DiscardUnknownFields()
    if len(answer.records) > MAX_SIZE:
        raise _no_answer(f"{len(answer.records)} records on a page")
    if answer.status not in _STATUSES or answer.reason not in _REASONS:
        raise _no_answer("a status or reason that there is not")
    answer.record_type, answer.agency = mask.record_type.name, mask.record_type.owner
    if answer.policy_version == mask.version:
        del answer.decisions[:]
        _trim(answer, mask, None)
        if answer.status == _OK:
            # It was asked only for what may be given; the caller asked for more.
            answer.status = mask.status
        return answer.SerializeToString() + mask.decided
    decisions, allowed = _agree(answer, mask)
    del answer.decisions[:]
    answer.decisions.extend(decisions)
    if not allowed or answer.status == _DENIED:
        answer.status = _DENIED
        answer.reason = answer.reason or Reason.NO_PERMIT
        answer.next_page_token = ""
        del answer.records[:]
        return answer.SerializeToString()
    _trim(answer, mask, allowed)
    if answer.status == _OK and len(allowed) < len(decisions):
        answer.status = _PARTIAL
    return answer.SerializeToString()


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


def _trim(answer: exchange_pb2.Section, mask: ReadMask, allowed: frozenset[str] | None) -> None:
    """Parse, clear, write again; what was right already stays as it came, digest and all."""
    for record in answer.records:
        if record.type_url != type_url(mask.record_type):
            raise _no_answer("a record of another type")
        try:
            cut: Any = mask.record_type.message.FromString(record.value)
        except DecodeError:
            raise _no_answer("a record that cannot be read") from None
        digest = cut.envelope.digest
        mask.clearer(allowed)(cut)
        written = cut.SerializeToString()
        if cut.HasField("envelope"):
            cut.envelope.digest = digest
        if cut.SerializeToString() != record.value:
            record.value = written


def _no_answer(why: str) -> Unavailable:
    return Unavailable(Reason.DEPARTMENT_FAILED, f"the department sent {why}")
