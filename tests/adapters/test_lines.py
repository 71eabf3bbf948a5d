"""Lines and records of delimited text: the same cells as `csv` gives, and every byte accounted for."""

import csv
import io
import re
from typing import BinaryIO, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.lines import MAX_RECORD_BYTES, Codec, Record, Records
from adapters.rows import Cause
from tests.adapters.specimens import Trickle

LINE_ENDS = ("\n", "\r\n", "\r")
ENCODINGS = ("utf-8", "gb18030", "windows-1252", "utf-16-le", "utf-16-be", "big5", "shift_jis")


def records(
    data: bytes, encoding: str = "utf-8", step: int = 1 << 20, limit: int = MAX_RECORD_BYTES, delimiter: str = ","
) -> list[Record]:
    codec = Codec.of(encoding, data[:4])
    return list(Records(cast("BinaryIO", Trickle(data, step)), codec, delimiter, '"', limit))


def covered(found: list[Record]) -> bytes:
    return b"".join(r.raw for r in found)


CELL = st.text(st.sampled_from("ab é0,;\"\n\r'"))
ROW = st.lists(CELL, min_size=1, max_size=4).filter(lambda row: row != [""])


@given(
    rows=st.lists(ROW, max_size=6),
    end=st.sampled_from(LINE_ENDS),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    always=st.booleans(),
    encoding=st.sampled_from(["utf-8", "windows-1252", "utf-16-le", "gb18030"]),
    step=st.integers(1, 40),
)
def test_what_csv_writes_is_read_back(
    rows: list[list[str]], end: str, delimiter: str, always: bool, encoding: str, step: int
) -> None:
    stream = io.StringIO(newline="")
    # A lone CR is left bare by some versions of `csv`, which no reader could tell from a line end.
    breaks = any("\r" in cell or "\n" in cell for row in rows for cell in row)
    quoting: Literal[0, 1] = csv.QUOTE_ALL if always or breaks else csv.QUOTE_MINIMAL
    csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    data = stream.getvalue().encode(encoding)
    found = records(data, encoding, step, delimiter=delimiter)
    assert [r.cells for r in found] == rows
    assert covered(found) == data
    assert all(r.problem is None for r in found)


@given(
    text=st.text(st.sampled_from('ab,"\n\r'), max_size=60),
    step=st.integers(1, 9),
    encoding=st.sampled_from(["utf-8", "utf-16-le"]),
)
def test_any_text_is_read_like_csv_reads_it_and_no_byte_is_lost(text: str, step: int, encoding: str) -> None:
    data = text.encode(encoding)
    found = records(data, encoding, step)
    whole = records(data, encoding)
    assert found == whole, "where chunks end makes no difference"
    kept = covered(found).decode(encoding)
    assert re.sub("[\r\n]", "", kept) == re.sub("[\r\n]", "", text), "only blank lines are left out"
    if not any(r.problem for r in found):
        expected = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        assert [r.cells for r in found] == expected


@given(data=st.binary(max_size=200), step=st.integers(1, 50), encoding=st.sampled_from(ENCODINGS))
def test_any_bytes_are_covered_in_any_encoding(data: bytes, step: int, encoding: str) -> None:
    codec = Codec.of(encoding, data[:4])
    found = records(data, encoding, step, limit=32)
    body = data[len(codec.bom) :]
    if not codec.wide and (body == b"\x1a" or body.endswith((b"\n\x1a", b"\r\x1a"))):
        body = body[:-1]
    assert without_line_ends(covered(found), codec) == without_line_ends(body, codec)


def without_line_ends(data: bytes, codec: Codec) -> bytes:
    if not codec.wide:
        return re.sub(rb"[\r\n]", b"", data)
    even = len(data) & ~1
    text = data[:even].decode(codec.name, "surrogatepass")
    return re.sub("[\r\n]", "", text).encode(codec.name, "surrogatepass") + data[even:]


@pytest.mark.parametrize("end", LINE_ENDS)
def test_positions_count_physical_lines(end: str) -> None:
    text = end.join(["a,b", "", '"x', 'y",z', "c,d"])
    found = records(text.encode())
    assert [(r.position, r.cells) for r in found] == [("1", ["a", "b"]), ("3-4", [f"x{end}y", "z"]), ("5", ["c", "d"])]


def test_line_ends_may_be_mixed() -> None:
    found = records(b'a,1\nb,2\r\nc,3\rd,"4\n\r\n\r5"\r\ne,6')
    assert [r.cells for r in found] == [["a", "1"], ["b", "2"], ["c", "3"], ["d", "4\n\r\n\r5"], ["e", "6"]]
    assert [r.position for r in found] == ["1", "2", "3", "4-7", "8"]


def test_a_quote_inside_a_bare_cell_is_only_a_quote() -> None:
    found = records(b'1,5" pipe,x\n2,ok,y\n')
    assert [r.cells for r in found] == [["1", '5" pipe', "x"], ["2", "ok", "y"]]


def test_a_quote_that_never_closes_costs_its_own_line_only() -> None:
    found = records(b'a,1\nb,"2\nc,3\nd,4\n')
    assert [(r.position, r.problem) for r in found] == [
        ("1", None),
        ("2", Cause.QUOTE_UNCLOSED),
        ("3", None),
        ("4", None),
    ]
    assert found[1].raw == b'b,"2\n'


def test_a_quote_open_beyond_the_limit_costs_its_own_line_only() -> None:
    data = b'a,"open\n' + b"b,2\n" * 50 + b'c,"closed"\n'
    found = records(data, limit=100)
    assert found[0].problem is Cause.QUOTE_UNCLOSED
    assert [r.cells for r in found[1:]] == [["b", "2"]] * 50 + [["c", "closed"]]
    assert covered(found) == data


def test_an_overlong_line_comes_in_pieces() -> None:
    data = b"a,1\n" + b"x" * 250 + b"\nb,2\n"
    found = records(data, step=37, limit=100)
    pieces = [r for r in found if r.problem is Cause.ROW_TOO_LONG]
    assert [p.position for p in pieces] == ["2/1", "2/2", "2/3"]
    assert all(len(p.raw) <= 100 for p in pieces)
    assert [r.cells for r in found if r.problem is None] == [["a", "1"], ["b", "2"]]
    assert [r.position for r in found if r.problem is None] == ["1", "3"]
    assert covered(found) == data


def test_an_overlong_line_at_the_end_loses_nothing() -> None:
    data = b"a,1\n" + b"y" * 301
    found = records(data, step=64, limit=100)
    assert covered(found) == data
    assert {r.problem for r in found[1:]} == {Cause.ROW_TOO_LONG}


def test_memory_stays_small_however_long_a_line_is() -> None:
    class Endless(Trickle):
        def read(self, size: int = -1, /) -> bytes:
            self._at += size
            return b"z" * size if self._at < 64 << 20 else b""

    largest = 0
    for record in Records(cast("BinaryIO", Endless(b"", 1)), Codec.of("utf-8", b""), ",", '"'):
        largest = max(largest, len(record.raw))
        assert record.problem is Cause.ROW_TOO_LONG
    assert largest == MAX_RECORD_BYTES


def test_a_nul_byte_is_told() -> None:
    found = records(b'a,1\nb,\0\n"c\0",3\nd,4\n')
    assert [r.problem for r in found] == [None, Cause.NUL_BYTE, Cause.NUL_BYTE, None]


def test_bytes_that_do_not_decode_are_told_with_their_place() -> None:
    found = records("甲,1\n".encode() + "乙,2\n".encode("gb18030") + "丙,3\n".encode())
    assert [r.problem for r in found] == [None, Cause.NOT_DECODABLE, None]
    assert "byte 0" in found[1].detail
    assert found[1].raw == "乙,2\n".encode("gb18030")


def test_a_quoted_cell_that_does_not_decode_is_one_record() -> None:
    bad = '"乙\n丁",2\n'.encode("gb18030")
    found = records("甲,1\n".encode() + bad + "丙,3\n".encode())
    assert [(r.problem, r.position) for r in found] == [(None, "1"), (Cause.NOT_DECODABLE, "2-3"), (None, "4")]
    assert found[1].raw == bad


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
def test_a_byte_order_mark_is_not_data(encoding: str) -> None:
    written = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(encoding, encoding)
    data = "\ufeff甲,1\n乙,2\n".encode(written)
    found = records(data, encoding)
    assert [r.cells for r in found] == [["甲", "1"], ["乙", "2"]]
    assert covered(found) == data[len("\ufeff".encode(written)) :]


def test_big_endian_text_is_recognised_by_its_mark() -> None:
    assert [r.cells for r in records("\ufeffa,b\n".encode("utf-16-be"), "utf-16")] == [["a", "b"]]


@pytest.mark.parametrize("encoding", ["iso2022_jp", "hz", "utf-7", "utf-32", "no-such-encoding"])
def test_encodings_whose_lines_do_not_stand_alone_are_refused(encoding: str) -> None:
    with pytest.raises(LookupError):
        Codec.of(encoding, b"")


def test_the_end_mark_of_old_systems_is_not_data() -> None:
    assert [r.cells for r in records(b"a,1\nb,2\n\x1a")] == [["a", "1"], ["b", "2"]]
    assert [r.cells for r in records(b"a,1\n\x1a\nb,2\n")] == [["a", "1"], ["\x1a"], ["b", "2"]]


def test_delimiters_may_be_longer_and_quotes_may_mean_nothing() -> None:
    stream = io.BytesIO(b'a||"b||c\n')
    assert [r.cells for r in Records(stream, Codec.of("utf-8", b""), "||", "")] == [["a", '"b', "c"]]
