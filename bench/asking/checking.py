"""Whether an answer is right, field by field: against the record that the corpus makes of the same number."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from bench import corpus
from bench.peers import contract
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.records import catalogue
from services.kit.records.catalogue import ENVELOPE

Given = Mapping[str, Sequence[str]]


class WrongAnswerError(Exception):
    """An answer is not what the corpus says."""


@lru_cache(maxsize=200_000)
def _record(record_type: str, number: int) -> Message:
    return corpus.record(record_type, number)


def _cut(record: Message, fields: Sequence[str]) -> Message:
    cut = type(record)()
    cut.CopyFrom(record)
    for field in record.DESCRIPTOR.fields:
        if field.name not in fields:
            cut.ClearField(field.name)
    return cut


def _same(found: Message, expected: Message, number: int) -> None:
    if found != expected:
        raise WrongAnswerError(f"number {number}: {found}\nis not\n{expected}")


def federated(answer: federation_pb2.QueryResponse, number: int, given: Given) -> None:
    """Check our own answer: exactly the fields that policy gives, each as the corpus has it, and a decision on each."""
    if [section.record_type for section in answer.sections] != list(given):
        raise WrongAnswerError(f"number {number}: sections {[s.record_type for s in answer.sections]}")
    for section in answer.sections:
        _section(section, number, given[section.record_type])


def _section(section: exchange_pb2.Section, number: int, fields: Sequence[str]) -> None:
    name = section.record_type
    clear = {d.field for d in section.decisions if d.verdict == exchange_pb2.VERDICT_CLEAR}
    if len(section.records) != 1 or clear != set(fields):
        given = f"{len(section.records)} records, status {section.status} {section.reason}"
        raise WrongAnswerError(f"{name}, number {number}: {given}, given {sorted(clear)}, not {sorted(fields)}")
    found = catalogue.load().get(name).message()
    if not section.records[0].Unpack(found):
        raise WrongAnswerError(f"{name}, number {number}: a record of type {section.records[0].type_url}")
    if not found.HasField(ENVELOPE):
        raise WrongAnswerError(f"{name}, number {number}: no envelope")
    found.ClearField(ENVELOPE)
    _same(found, _cut(_record(name, number), fields), number)


def whole(answer: Any, number: int) -> None:
    """Check a peer's answer: every field of every record."""
    for name, field in contract.FIELDS.items():
        _same(getattr(answer, field), _record(name, number), number)


def bodies(rows: Sequence[tuple[str, bytes]], number: int) -> None:
    """Check serialized records by their type."""
    if sorted(name for name, _ in rows) != sorted(corpus.TYPES):
        raise WrongAnswerError(f"number {number}: rows of {[name for name, _ in rows]}")
    for name, body in rows:
        _same(catalogue.load().get(name).message.FromString(body), _record(name, number), number)


def json(data: Mapping[str, Any], number: int, given: Given) -> None:
    """Check an answer in JSON, by record type: exactly the fields that were asked for."""
    for name, fields in given.items():
        record = _cut(_record(name, number), fields)
        expected = MessageToDict(record, preserving_proto_field_name=True)
        if data.get(contract.FIELDS[name]) != expected:
            raise WrongAnswerError(f"{name}, number {number}: {data.get(contract.FIELDS[name])} is not {expected}")
