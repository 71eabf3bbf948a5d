"""The gateway's own cut: what a department sent is cut again before it goes on.

The department has decided by its own policy, which may be newer or older than the gateway's. Where both say yes in the
same way, the value goes on; in every other case the stricter word stands:

- a field the gateway does not grant is cleared, whatever the department sent;
- a field the department refused stays refused, under the department's reason;
- a field they would give in different forms, or under different row conditions, is cleared, since the gateway cannot
  make the one form out of the other.
"""

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import Reason
from services.kit.policy.mask import ReadMask
from services.kit.reader import type_url

_REFUSED = exchange_pb2.VERDICT_REFUSED
_GIVEN = (exchange_pb2.SECTION_STATUS_OK, exchange_pb2.SECTION_STATUS_PARTIAL)


def recut(answer: exchange_pb2.Section, mask: ReadMask) -> exchange_pb2.Section:
    """Cut a department's section by the gateway's mask and merge both decisions."""
    section = mask.section()
    allowed = None if answer.policy_version == mask.version else _agree(section, answer)
    section.as_of.CopyFrom(answer.as_of)
    section.next_page_token = answer.next_page_token
    section.policy_version = answer.policy_version
    if answer.status == exchange_pb2.SECTION_STATUS_DENIED or allowed == frozenset():
        section.status = exchange_pb2.SECTION_STATUS_DENIED
        section.reason = answer.reason or Reason.NO_PERMIT
        section.next_page_token = ""
        return section
    if answer.status not in _GIVEN:
        section.status = answer.status
        section.reason = answer.reason
        return section
    if answer.status == exchange_pb2.SECTION_STATUS_PARTIAL or (allowed and len(allowed) < len(section.decisions)):
        section.status = exchange_pb2.SECTION_STATUS_PARTIAL
    _cut_records(section, answer, mask, allowed)
    return section


def _agree(section: exchange_pb2.Section, answer: exchange_pb2.Section) -> frozenset[str]:
    """Merge the department's decisions into the section's; returns the fields both give in the same way."""
    theirs = {decision.field: decision for decision in answer.decisions}
    allowed: set[str] = set()
    for own in section.decisions:
        if own.verdict == _REFUSED:
            continue
        their = theirs.get(own.field)
        if their is not None and their.verdict == _REFUSED:
            own.CopyFrom(their)
        elif their is None or (their.transform, sorted(their.conditions)) != (own.transform, sorted(own.conditions)):
            refused = exchange_pb2.FieldDecision(
                field=own.field, verdict=_REFUSED, reason=Reason.POLICY_VERSIONS_DIFFER
            )
            own.CopyFrom(refused)
        else:
            allowed.add(own.field)
    return frozenset(allowed)


def _cut_records(
    section: exchange_pb2.Section, answer: exchange_pb2.Section, mask: ReadMask, allowed: frozenset[str] | None
) -> None:
    """Parse, clear, write again; a record that is not of the type asked for is dropped whole."""
    trim = mask.trimmer(allowed)
    url = type_url(mask.record_type)
    for record in answer.records:
        if record.type_url == url:
            section.records.add(type_url=url, value=trim(record.value))
