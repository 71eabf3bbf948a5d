"""Fields of a mapping, ready to run: from the values of a row into a protobuf message.

Compiled once per load of a mapping (`adapters.compiling`), run once per row: nothing here looks anything up by name
while rows pass.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from adapters import parsers
from adapters.document import FieldSpec, Unit
from adapters.rows import Cause, Values
from hutong.api.schema.v1 import options_pb2
from services.kit import identifiers
from services.kit.identifiers import Verdict
from services.kit.records.catalogue import Field

_SHOWN = 40
"""At most this many characters of a value appear in a message about it."""


class Refused(Exception):
    """A row that does not become a record."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Leaf:
    """One way a field gets its value."""

    known: Field
    spec: FieldSpec
    steps: tuple[parsers.Step, ...]
    read: Callable[[str], Any]
    split: re.Pattern[str] | None
    when: tuple[tuple[str, re.Pattern[str]], ...]
    nulls: frozenset[str]
    accept_suspect: bool

    def apply(self, values: Values, message: Message) -> bool:
        """Set the field where the row has a value for it; raises `Refused` where the value is no good."""
        for column, pattern in self.when:
            if not pattern.search(values.get(column) or ""):
                return False
        text: str | None = None
        try:
            if self.known.descriptor.is_repeated:
                return self._put_all(values, message)
            text = self._text(values)
            if text is None or (read := self._value(text, values)) is None:
                return False
            self._put(message, read)
        except (ValueError, OverflowError) as error:
            raise Refused(Cause.VALUE_INVALID, f"{self.known.path}: {self._shown(text)}{error}") from None
        return True

    def _text(self, values: Values) -> str | None:
        spec = self.spec
        if spec.column is not None:
            found = values.get(spec.column)
        elif spec.constant is not None:
            return spec.constant
        else:
            texts = [t for column in spec.columns if (t := values.get(column)) is not None]
            if not texts:
                return None
            found = spec.join.join(texts) if spec.join is not None else texts[0]
        return None if found is None or found in self.nulls else found

    def _value(self, text: str | None, values: Values) -> object | None:
        for step in self.steps:
            text = step(text) if text is not None else None
        if not text:
            return None
        if self.spec.unit is not None:
            text = f"{text} {self._unit(self.spec.unit, values)}".rstrip()
        if self.known.scheme and self.spec.check == "required":
            text = self._checked(text)
        value: object = self.read(text)
        return value

    @staticmethod
    def _unit(unit: str | Unit, values: Values) -> str:
        return unit if isinstance(unit, str) else values.get(unit.column) or unit.default

    def _checked(self, text: str) -> str:
        found = identifiers.check(self.known.scheme, text)
        if found.verdict is Verdict.INVALID:
            cause = Cause.KEY_INVALID if self.known.key else Cause.IDENTIFIER_INVALID
            raise Refused(cause, f"{self.known.path}: {self._shown(text)}{found.reason} ({found.scheme})")
        if found.verdict is Verdict.SUSPECT and not self.accept_suspect:
            detail = f"{self.known.path}: {self._shown(text)}of {found.scheme} is in doubt: {found.reason}"
            raise Refused(Cause.CHECK_DIGIT, detail)
        return found.value

    def _put(self, message: Message, value: object) -> None:
        if isinstance(value, Message):
            getattr(message, self.known.name).CopyFrom(value)
        else:
            setattr(message, self.known.name, value)

    def _put_all(self, values: Values, message: Message) -> bool:
        target = getattr(message, self.known.name)
        before = len(target)
        for text in self._texts(values):
            if (value := self._value(text, values)) is not None:
                target.append(value)
        return len(target) > before

    def _texts(self, values: Values) -> Iterable[str]:
        if self.spec.column is not None:
            found = values.texts(self.spec.column, self.split)
        else:
            text = self._text(values)
            found = () if text is None else self.split.split(text) if self.split else (text,)
        return (stripped for text in found if (stripped := text.strip()) and stripped not in self.nulls)

    def _shown(self, text: str | None) -> str:
        # What must not leave its node in clear does not stand in a message either.
        if text is None or self.known.share == options_pb2.SHARE_CLASS_WITHHELD:
            return ""
        return f"{text if len(text) <= _SHOWN else text[: _SHOWN - 1] + '…'!r} "


@dataclass(frozen=True, slots=True)
class Choice:
    """A field with all its ways to a value: the first that gives one counts."""

    path: str
    ways: tuple[Leaf, ...]
    required: bool

    def apply(self, values: Values, message: Message) -> None:
        """Set the field; raises `Refused` where it is required and the row has no value for it."""
        if not any(way.apply(values, message) for way in self.ways) and self.required:
            cause = Cause.KEY_MISSING if self.ways[0].known.key else Cause.VALUE_MISSING
            raise Refused(cause, f"{self.path}: the row has no value for it")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a record, once or repeated."""

    name: str
    path: str
    each: str | None
    fields: "tuple[Choice | Part, ...]"

    def apply(self, values: Values, message: Message) -> None:
        """Fill the part; raises `Refused` where something in it is no good."""
        if self.each is None:
            part = getattr(message, self.name)
            for item in self.fields:
                item.apply(values, part)
            return
        try:
            found = tuple(values.each(self.each))
        except ValueError as error:
            raise Refused(Cause.VALUE_INVALID, f"{self.path}: {error}") from None
        for inner in found:
            part = getattr(message, self.name).add()
            for item in self.fields:
                item.apply(inner, part)
