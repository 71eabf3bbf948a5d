"""The mapping files of the rooms: each has example rows and the records they must become.

The examples are held to be complete: whatever is taken out of a mapping (a field, an alternative, a parser, a null
word) must change what comes of at least one of them, so that no part of a mapping can break unseen.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters import mapping, reading
from adapters.document import DelimitedSpec, Document, FieldSpec, Specs
from adapters.mapping import Mapper, Mapping
from adapters.rows import Cells, Mapped, Row, Unmapped
from services.kit.errors import InvalidArgument
from tests.adapters.examples import EXAMPLES, Example
from tests.adapters.specimens import SECRETS

ROOMS = Path(__file__).resolve().parents[2] / "services"
FILES = {f"{path.parent.parent.name}.{path.stem}": path for path in sorted(ROOMS.glob("*/mappings/*.yaml"))}
EVERY = pytest.mark.parametrize("name", sorted(FILES))


def original(made: Mapping, example: Example) -> bytes:
    source = made.document.source
    if not isinstance(example.row, dict):
        return example.row.encode()
    assert isinstance(source, DelimitedSpec)
    assert set(example.row) <= set(source.columns), "an example names a column that the source does not have"
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=source.delimiter, lineterminator="\r\n")
    writer.writerow([example.row.get(column, "") for column in source.columns])
    return stream.getvalue().encode(source.encoding[0].removesuffix("-sig"))


def outcome(made: Mapping, example: Example) -> str:
    """What comes of an example, as text: the record, or the reason that there is none."""
    found = reading.retry(made, "1", original(made, example), SECRETS)
    if isinstance(found, Unmapped):
        return f"{found.reason}: {found.detail}"
    return text_format.MessageToString(found.message, as_utf8=True)


@EVERY
def test_a_mapping_is_named_for_its_room_and_file(name: str) -> None:
    made = mapping.load(FILES[name])
    assert made.name == name
    assert made.record.owner == name.partition(".")[0]
    assert made.document.title


@EVERY
def test_examples_become_the_records_they_must(name: str) -> None:
    made = mapping.load(FILES[name])
    for example in EXAMPLES[name]:
        if example.expected[0].isupper():
            assert outcome(made, example).startswith(example.expected)
            continue
        found = reading.retry(made, "1", original(made, example), SECRETS)
        assert isinstance(found, Mapped), found
        wanted = made.record.message()
        text_format.Parse(example.expected, wanted)
        told = text_format.MessageToString(found.message, as_utf8=True)
        assert told == text_format.MessageToString(wanted, as_utf8=True)


@EVERY
def test_every_part_of_a_mapping_shows_in_its_examples(name: str) -> None:
    made = mapping.load(FILES[name])
    before = [outcome(made, example) for example in EXAMPLES[name]]
    unseen: list[str] = []
    for what, fields in without(made.document.fields):
        try:
            broken = mapping.make(made.document.model_copy(update={"fields": fields}))
        except InvalidArgument:
            continue
        if [outcome(broken, example) for example in EXAMPLES[name]] == before:
            unseen.append(what)
    assert unseen == []


@EVERY
def test_no_value_however_odd_stops_a_reading(name: str) -> None:
    made = mapping.load(FILES[name])
    mapper = Mapper(made, SECRETS)
    odd = st.sampled_from(ODD) | st.text(max_size=30)
    columns = st.sampled_from(made.needs or ("FunctionCode", "TypeCode", "TotalPackageQuantity", "InvoiceAmount"))
    rows = st.dictionaries(columns, odd, min_size=1)
    good = [e.row for e in EXAMPLES[name] if isinstance(e.row, dict)] or [{"FunctionalReferenceID": "REF 1"}]

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(changed=rows, before=st.sampled_from(good))
    def survives(changed: dict[str, str], before: dict[str, str]) -> None:
        cells: dict[str, str | None] = {**before, **changed}
        outcome = mapper.map(Row("1", b"row", Cells(cells)))
        assert (outcome.position, outcome.original) == ("1", b"row")

    survives()


ODD = [
    *("9" * 5000, "1e999999999", "-", "--", "0001-01-01", "9999-12-31", "00/00/0000", "31/12/9999", "NaN", "∞", "１２"),
    *(
        "[",
        "[]",
        "{}",
        "[" * 5000,
        '"',
        "\ud7ff",
        "\u202e",
        "万",
        "亿" * 50,
        ",",
        "9,9,9",
        "999999999999999999999999亿元",
    ),
    *("2024-02-30", "24:00:00", "01-01-0001 00:00:00", "31-12-9999 23:59:59", "\x7f", "(", "\\", "XXXXXXXXXXXX"),
]


@EVERY
def test_the_header_a_mapping_expects_is_read_from_a_file(name: str, tmp_path: Path) -> None:
    made = mapping.load(FILES[name])
    source = made.document.source
    rows = [original(made, example) for example in EXAMPLES[name]]
    if not isinstance(source, DelimitedSpec):
        for number, row in enumerate(rows):
            (tmp_path / f"{number}.xml").write_bytes(row)
        path = tmp_path
    else:
        encoding = source.encoding[0].removesuffix("-sig")
        head = b"A title line\r\n" * source.skip_lines
        if source.header:
            stream = io.StringIO(newline="")
            csv.writer(stream).writerow([column.removesuffix("#2") for column in source.columns])
            head += stream.getvalue().encode(encoding)
        path = tmp_path / "source.csv"
        path.write_bytes(head + b"".join(rows))
    found = list(reading.read(made, path, SECRETS))
    assert [type(f) for f in found] == [type(reading.retry(made, "1", row, SECRETS)) for row in rows]


def without(fields: Specs, path: str = "") -> Iterator[tuple[str, Specs]]:
    """Give the fields of a mapping, each time with one thing less."""
    for name, written in fields.items():
        where = f"{path}{name}"
        yield where, {k: v for k, v in fields.items() if k != name}
        if isinstance(written, str):
            continue
        ways = written if isinstance(written, list) else [written]
        for at, spec in enumerate(ways):
            for what, less in reduced(spec, where):
                yield what, fields | {name: [*ways[:at], *less, *ways[at + 1 :]]}
            if spec.fields:
                for what, inner in without(spec.fields, f"{where}."):
                    yield what, fields | {name: spec.model_copy(update={"fields": inner})}


def reduced(spec: FieldSpec, where: str) -> Iterator[tuple[str, list[FieldSpec]]]:
    yield f"{where}: a way", []
    empty: dict[str, object] = {"nulls": [], "when": {}, "split": None, "parse": None, "words": {}, "unit": None}
    for attribute, nothing in empty.items():
        if getattr(spec, attribute) not in (nothing, [], {}):
            yield f"{where}: {attribute}", [spec.model_copy(update={attribute: nothing})]
    for word in spec.words:
        less = {k: v for k, v in spec.words.items() if k != word}
        if less:
            yield f"{where}: word {word}", [spec.model_copy(update={"words": less})]
    if len(spec.columns) > 1:
        for column in spec.columns:
            less_columns = [c for c in spec.columns if c != column]
            yield f"{where}: column {column}", [spec.model_copy(update={"columns": less_columns})]


def test_documents_and_examples_belong_together() -> None:
    assert set(EXAMPLES) == set(FILES)
    assert all(isinstance(mapping.load(path).document, Document) for path in FILES.values())
