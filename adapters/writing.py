"""Records written as rows of our own files: what `adapters.mapping.auto` reads back, value for value."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from google.protobuf.message import Message

from services.kit.records import values
from services.kit.records.catalogue import Field, RecordType
from services.kit.records.values import Kind


def columns(record: RecordType) -> tuple[str, ...]:
    """List the columns of a record type's file, in order of declaration."""
    return tuple(_columns(record, "", ""))


def cells(record: RecordType, message: Message) -> dict[str, str]:
    """Write a record as the cells of one row; what it does not know has no cell."""
    return dict(_cells(record, message, "", ""))


def write(stream: TextIO, record: RecordType, messages: Iterable[Message]) -> None:
    """Write a file of records; open the stream as UTF-8 with `newline=""`."""
    writer = csv.DictWriter(stream, columns(record), restval="", lineterminator="\n")
    writer.writeheader()
    for message in messages:
        writer.writerow(cells(record, message))


def write_file(path: Path, record: RecordType, messages: Iterable[Message]) -> None:
    """Write a file of records at a path."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        write(stream, record, messages)


def _children(record: RecordType, path: str) -> Iterable[Field]:
    return (field for field in record.fields.values() if field.path == f"{path}{field.name}")


def _columns(record: RecordType, path: str, column: str) -> Iterable[str]:
    for field in _children(record, path):
        if field.kind is Kind.PART and not field.descriptor.is_repeated:
            yield from _columns(record, f"{field.path}.", f"{column}{field.name}.")
        else:
            yield f"{column}{field.name}"


def _cells(record: RecordType, message: Message, path: str, column: str) -> Iterable[tuple[str, str]]:
    for field in _children(record, path):
        name = f"{column}{field.name}"
        if field.descriptor.is_repeated:
            found = [_item(record, field, item) for item in getattr(message, field.name)]
            if found:
                yield name, json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        elif not values.is_set(field.descriptor, message) and not (field.key and field.kind is Kind.INT):
            continue  # a number in a key may be 0, which is all the same to protobuf
        elif field.kind is Kind.PART:
            yield from _cells(record, getattr(message, field.name), f"{field.path}.", f"{name}.")
        else:
            yield name, values.text_of(field.descriptor, getattr(message, field.name))


def _item(record: RecordType, field: Field, item: Message) -> str | dict[str, str]:
    if field.kind is Kind.PART:
        return dict(_cells(record, item, f"{field.path}.", ""))
    return values.text_of(field.descriptor, item)
