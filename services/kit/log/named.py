"""Which enterprises a record names: each may learn that the record was read, whoever the question was about.

They are taken from records before these are cut: that a read did not show whose record it was is no reason to keep the
read from the one whose record it was.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from services.kit.caller import USCC
from services.kit.log.facts import Subject
from services.kit.records.catalogue import RecordType

_Values = Callable[[Message], Iterable[str]]


def count(kind: RecordType, record: Message, named: dict[Subject, int]) -> None:
    """Add one to each enterprise that an uncut record of this type names."""
    counter(kind)(record, named)


def counter(kind: RecordType) -> Callable[[Message, dict[Subject, int]], None]:
    """Make what counts the enterprises of one uncut record of this type after another, as `count` does."""
    paths = tuple(field.path for field in kind.subjects.get(USCC, ()))
    if len(paths) == 1 and "." not in paths[0] and not kind.fields[paths[0]].repeated:
        return _one_counter(paths[0])
    lister = _lister(kind.message.DESCRIPTOR, paths)

    def count_each(record: Message, named: dict[Subject, int]) -> None:
        for subject in lister(record):
            named[subject] = named.get(subject, 0) + 1

    return count_each


def _one_counter(name: str) -> Callable[[Message, dict[Subject, int]], None]:
    """Make the counter of a type that names one enterprise at most: most types do."""

    def count_one(record: Message, named: dict[Subject, int]) -> None:
        value: str = getattr(record, name)
        if value:
            named[USCC, value] = named.get((USCC, value), 0) + 1

    return count_one


@lru_cache(maxsize=1024)
def _lister(message: Descriptor, paths: tuple[str, ...]) -> Callable[[Message], Iterable[Subject]]:
    """Compile what lists the enterprises in a record, in order of declaration, each once."""
    readers = tuple(_reader(message, path) for path in paths)

    def named(record: Message) -> Iterable[Subject]:
        return dict.fromkeys((USCC, value) for values in readers for value in values(record) if value)

    return named


def _reader(message: Descriptor, path: str) -> _Values:
    """Compile the way to a field, through parts that may be repeated."""
    name, _, below = path.partition(".")
    field: Any = message.fields_by_name[name]
    if not below:
        return _all(name) if field.is_repeated else _one(name)
    inner = _reader(field.message_type, below)
    return _in_parts(name, inner) if field.is_repeated else _in_part(name, inner)


def _one(name: str) -> _Values:
    return lambda message: (getattr(message, name),)


def _all(name: str) -> _Values:
    def values(message: Message) -> Iterable[str]:
        found: Iterable[str] = getattr(message, name)
        return found

    return values


def _in_part(name: str, inner: _Values) -> _Values:
    return lambda message: inner(getattr(message, name))


def _in_parts(name: str, inner: _Values) -> _Values:
    return lambda message: [value for part in getattr(message, name) for value in inner(part)]
