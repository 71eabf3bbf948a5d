"""What every adapter owes: each record of a source comes out once, with its place and its bytes, again and again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from adapters import mapping, reading
from adapters.mapping import Mapping
from adapters.reading import Location, Reading
from adapters.rows import Mapped, Row, Source, Unmapped, Unreadable
from tests.adapters.specimens import outcomes, uscc


@dataclass(frozen=True)
class Bed:
    """A source with seven records: four good, one without a key, one with a doubtful code, one that is no row."""

    mapping: Mapping
    location: Location
    data: bytes | None
    """Every byte of the source that is data; None where a source has no bytes of its own."""
    unreadable: int = 1

    def open(self) -> Source:
        return reading.open_source(self.mapping, self.location)

    def read(self) -> Reading:
        return reading.read(self.mapping, self.location)


CODES = [uscc(1), uscc(2), "", "91350211M0000XUF46", uscc(3), uscc(4)]
HEAD = "mapping: commerce.specimen\nversion: 1\nrecord: commerce.Enterprise\nsource_system: s\n"
FIELDS = "fields: {uscc: {column: code, required: true}, name: title}\n"


def text_file(folder: Path, end: str, encoding: str, bad: bytes) -> Bed:
    made = mapping.loads(f"{HEAD}source: {{kind: delimited, encoding: [{encoding}], null_words: [N/A]}}\n{FIELDS}")
    rows = [f'{code or "N/A"},"企业\n{n}"{end}'.encode(encoding) for n, code in enumerate(CODES)]
    rows.insert(3, bad)
    path = folder / "source.csv"
    path.write_bytes(f"code,title{end}".encode(encoding) + b"".join(rows))
    return Bed(made, path, b"".join(rows))


def messages(folder: Path) -> Bed:
    made = mapping.loads(f"{HEAD}source: {{kind: wco, null_words: [N/A]}}\n{FIELDS}")
    root = folder / "messages"
    root.mkdir()
    texts = [
        f"<MetaData><Declaration><code>{code or 'N/A'}</code><title>企业</title></Declaration></MetaData>"
        for code in CODES
    ]
    texts.insert(3, "<MetaData><Response/></MetaData>")
    for number, text in enumerate(texts):
        (root / f"{number}.xml").write_text(text, "utf-8")
    return Bed(made, root, "".join(texts).encode())


def table(folder: Path) -> Bed:
    made = mapping.loads(f"{HEAD}source: {{kind: sql, table: t, key: [id], batch: 2, null_words: [N/A]}}\n{FIELDS}")
    engine = sa.create_engine(f"sqlite:///{folder / 'legacy.db'}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT, title TEXT)"))
        for code in [*CODES, "not a code"]:
            connection.execute(sa.text("INSERT INTO t (code, title) VALUES (:c, '企业')"), {"c": code or "N/A"})
    return Bed(made, engine, None, unreadable=0)


BEDS: dict[str, Callable[[Path], Bed]] = {
    "utf-8, LF": lambda f: text_file(f, "\n", "utf-8", b"\xff\xfe,x\n"),
    "utf-8, CR": lambda f: text_file(f, "\r", "utf-8", b"a,b,c\r"),
    "gb18030, CRLF": lambda f: text_file(f, "\r\n", "gb18030", b"a\0,b\r\n"),
    "utf-16, CRLF": lambda f: text_file(f, "\r\n", "utf-16-le", "a,b,c\r\n".encode("utf-16-le")),
    "WCO messages": messages,
    "SQL table": table,
}


@pytest.fixture(params=list(BEDS))
def bed(request: pytest.FixtureRequest, tmp_path: Path) -> Bed:
    return BEDS[request.param](tmp_path)


def test_nothing_is_lost_and_nothing_comes_twice(bed: Bed) -> None:
    found = list(bed.open())
    assert len(found) == 7
    assert sum(isinstance(f, Unreadable) for f in found) == bed.unreadable
    positions = [f.position for f in found]
    assert len(set(positions)) == 7
    assert all(positions)


def test_originals_are_the_source_byte_for_byte(bed: Bed) -> None:
    originals = [f.original for f in bed.open()]
    assert all(originals)
    if bed.data is not None:
        assert b"".join(originals) == bed.data


def test_reading_again_gives_the_same(bed: Bed) -> None:
    def told(source: Source) -> list[tuple[str, bytes, bool]]:
        return [(f.position, f.original, isinstance(f, Row)) for f in source]

    assert told(bed.open()) == told(bed.open())


def test_null_words_are_nulls(bed: Bed) -> None:
    codes = [f.values.get("code") for f in bed.open() if isinstance(f, Row)]
    assert "N/A" not in codes
    assert codes.count(None) == 1


def test_progress_only_grows_and_ends_at_the_total(bed: Bed) -> None:
    source = bed.open()
    seen = [0, *(source.done for _ in source)]
    assert seen == sorted(seen)
    assert source.done == source.total


def test_every_record_becomes_one_outcome(bed: Bed) -> None:
    mapped, unmapped = outcomes(bed.read())
    assert (len(mapped), len(unmapped)) == (4, 3)
    reasons = {u.reason.value for u in unmapped}
    assert {"KEY_MISSING", "CHECK_DIGIT"} < reasons
    assert all(u.detail for u in unmapped)


def test_every_outcome_can_be_had_again_from_its_bytes(bed: Bed) -> None:
    read = bed.read()
    for outcome in read:
        again = reading.retry(bed.mapping, outcome.position, outcome.original, layout=read.layout)
        assert type(again) is type(outcome)
        if isinstance(outcome, Mapped) and isinstance(again, Mapped):
            assert again.message == outcome.message
        elif isinstance(outcome, Unmapped) and isinstance(again, Unmapped):
            assert again.reason == outcome.reason


def test_a_column_that_is_not_there_stops_the_reading_before_it_begins(bed: Bed) -> None:
    fields = bed.mapping.document.fields | {"address": "titel"}
    made = mapping.make(bed.mapping.document.model_copy(update={"fields": fields}))
    if not made.needs:
        return  # messages need not be alike: a path that a message lacks is a value it does not have
    with pytest.raises(Exception, match="no column 'titel'; did you mean 'title'"):
        reading.open_source(made, bed.location)
