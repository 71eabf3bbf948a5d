"""Fields of a mapping file, checked against the record type and made ready to run."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as defaults
from typing import Any, cast

from adapters import parsers
from adapters.canonical import reader
from adapters.document import FieldSpec, Specs, Unit
from adapters.fields import Choice, Leaf, Part
from services.kit.records.catalogue import Field, RecordType, nearest
from services.kit.records.values import Kind


class Unfit(Exception):
    """A mapping that does not fit the record type; the message says which field and why."""


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for every field of a mapping."""

    secrets: parsers.Secrets | None
    """None while a mapping is only being checked."""
    accept_suspect: bool = False
    path_form: Callable[[str], object] = defaults(default=lambda _: None)
    """Refuses, by `ValueError`, a column name that the source's kind cannot have."""


def compile_fields(record: RecordType, specs: Specs, options: Options, prefix: str = "") -> tuple[Choice | Part, ...]:
    """Compile the fields of a mapping; raises `Unfit` for what the record does not have or cannot take."""
    return tuple(_compile(record, f"{prefix}{name}", spec, options) for name, spec in specs.items())


def _compile(
    record: RecordType, path: str, written: FieldSpec | str | list[FieldSpec], options: Options
) -> Choice | Part:
    if path not in record.fields:
        raise Unfit(f"{record.name} has no field {path!r}{nearest(path, record.fields)}")
    known = record.fields[path]
    specs = ways(written)
    if not specs:
        raise Unfit(f"{path}: an empty list is no way to a value")
    if known.kind is not Kind.PART:
        return Choice(path, tuple(_leaf(known, spec, options) for spec in specs), any(s.required for s in specs))
    spec, form = specs[0], "each" if known.descriptor.is_repeated else "part: true"
    if len(specs) > 1 or not spec.fields or known.descriptor.is_repeated != (spec.each is not None):
        raise Unfit(f"{path} is a part: it needs {form}, and fields")
    if spec.each is not None:
        _check_path(path, spec.each, options)
    return Part(known.name, path, spec.each, compile_fields(record, spec.fields, options, f"{path}."))


def _check_path(path: str, column: str, options: Options) -> None:
    try:
        options.path_form(column)
    except ValueError as error:
        raise Unfit(f"{path}: {column!r} {error}") from None


def _leaf(known: Field, spec: FieldSpec, options: Options) -> Leaf:
    if spec.fields:
        raise Unfit(f"{known.path} is no part: it has no fields of its own")
    for column in columns_of(spec):
        _check_path(known.path, column, options)
    if spec.split is not None and not known.descriptor.is_repeated:
        raise Unfit(f"{known.path} does not repeat: there is nothing to split")
    if spec.unit is not None and known.kind not in (Kind.MONEY, Kind.QUANTITY):
        raise Unfit(f"{known.path} is {known.type_text}: it has no unit")
    bound = _parsers(known, spec, options)
    read = reader(known)
    _check_outcomes(known, spec, bound, read)
    try:
        split = re.compile(spec.split) if spec.split is not None else None
        when = tuple((column, re.compile(pattern)) for column, pattern in spec.when.items())
    except re.error as error:
        raise Unfit(f"{known.path}: not a regular expression: {error}") from None
    steps = tuple(p.step for p in bound)
    return Leaf(known, spec, steps, read, split, when, frozenset(spec.nulls), options.accept_suspect)


def _parsers(known: Field, spec: FieldSpec, options: Options) -> list[parsers.Parser]:
    written = cast("list[object]", spec.parse) if isinstance(spec.parse, list) else [spec.parse]
    bound: list[parsers.Parser] = []
    for item in written:
        if item is None:
            continue
        try:
            bound.append(parsers.parser(*_called(item), options.secrets))
        except ValueError as error:
            raise Unfit(f"{known.path}: {error}") from None
    if spec.words:
        bound.append(parsers.words(spec.words, spec.other))
    if bound:
        gives = bound[-1].gives
        amount = gives is Kind.DECIMAL and spec.unit is not None
        if gives is not None and gives is not known.kind and not amount:
            raise Unfit(f"{known.path} is {known.type_text}: parser {bound[-1].name!r} gives {gives}")
    return bound


def _called(item: object) -> tuple[str, object]:
    if isinstance(item, str):
        return item, None
    if isinstance(item, dict) and len(call := cast("dict[str, object]", item)) == 1:
        return next(iter(call.items()))
    raise ValueError("a parser is a name, or one name with its arguments")


def _check_outcomes(known: Field, spec: FieldSpec, bound: list[parsers.Parser], read: Callable[[str], Any]) -> None:
    texts = bound[-1].outcomes if bound else () if spec.constant is None else (spec.constant,)
    for text in texts:
        try:
            read(f"{text} {spec.unit}" if isinstance(spec.unit, str) else text)
        except ValueError as error:
            raise Unfit(f"{known.path} is {known.type_text}: {text!r}: {error}") from None


def columns_of(spec: FieldSpec) -> list[str]:
    """List the columns a field reads of its own row."""
    found = [*spec.columns, *spec.when]
    if spec.column is not None:
        found.append(spec.column)
    if spec.each is not None:
        found.append(spec.each)
    if isinstance(spec.unit, Unit):
        found.append(spec.unit.column)
    return found


def ways(written: FieldSpec | str | list[FieldSpec]) -> list[FieldSpec]:
    """Write a field's short forms out: a column name, one specification, alternatives."""
    if isinstance(written, str):
        return [FieldSpec(column=written)]
    return written if isinstance(written, list) else [written]


def needs(specs: Specs) -> list[str]:
    """List the columns of the row itself that a mapping reads, in the order it names them."""
    found: list[str] = []
    for written in specs.values():
        for spec in ways(written):
            found += columns_of(spec)
            if spec.part:
                found += needs(spec.fields)
    return list(dict.fromkeys(found))
