"""Records and sections put together the plain way, message by message: what bytes are compared with."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import Reason
from services.kit.log import named as names
from services.kit.log.facts import Subject
from services.kit.policy.mask import ReadMask
from services.kit.reader import Reading
from services.kit.records.source import StoredRecord


def cut(mask: ReadMask, record: StoredRecord, named: dict[Subject, int]) -> Message:
    """Make the record a caller gets: body and envelope, cut by the mask for the truths of this row."""
    message: Any = mask.record_type.message.FromString(record.body)
    names.count(mask.record_type, message, named)
    envelope = message.envelope
    envelope.key = record.key
    envelope.version = record.version
    envelope.supersedes = record.version - 1
    if record.fact_time is not None:
        envelope.fact_time.FromDatetime(record.fact_time)
    envelope.recorded_at.FromDatetime(record.recorded_at)
    envelope.source_system = record.source_system
    envelope.state = record.state
    mask.cutter(record.truth)(message)
    found: Message = message
    return found


def section(reading: Reading, found: Iterable[Message], known_policy: str) -> exchange_pb2.Section:
    """Write a reading as a section, of these records."""
    mask = reading.mask
    section = mask.section()
    if known_policy == mask.version:
        del section.decisions[:]
    section.as_of.FromDatetime(reading.as_of)
    section.next_page_token = reading.next_page_token
    if not mask.grants:
        return section
    if reading.unreadable:
        section.reason = Reason.ROWS_UNREADABLE
    if not reading.records:
        nothing = exchange_pb2.SECTION_STATUS_NO_RECORD
        section.status = exchange_pb2.SECTION_STATUS_UNAVAILABLE if reading.unreadable else nothing
    elif reading.withheld or reading.unreadable:
        section.status = exchange_pb2.SECTION_STATUS_PARTIAL
    for message in found:
        section.records.add().Pack(message)
    return section
