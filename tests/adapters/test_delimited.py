"""Delimited files: the header decides, every row comes out once, whatever state the file is in."""

from pathlib import Path

import pytest

from adapters.delimited import Delimited, again
from adapters.rows import Cause, Row, Unreadable
from services.kit.errors import InvalidArgument, Reason
from tests.adapters.specimens import cells, delimited, split


def write(folder: Path, data: bytes) -> Path:
    path = folder / "source.csv"
    path.write_bytes(data)
    return path


def test_rows_have_names_positions_and_their_own_bytes(tmp_path: Path) -> None:
    source = Delimited(write(tmp_path, b"code, name \r\n1, Ann \r\n\r\n2,Bob\r\n"), delimited())
    rows, none = split(source)
    assert source.layout == ("code", "name")
    assert [(r.position, r.original, cells(r)) for r in rows] == [
        ("2", b"1, Ann \r\n", {"code": "1", "name": "Ann"}),
        ("4", b"2,Bob\r\n", {"code": "2", "name": "Bob"}),
    ]
    assert none == []
    assert source.done == source.total == 31
    assert split(source)[0] == rows, "a source may be read again"


def test_null_words_are_nulls_and_namibia_is_not(tmp_path: Path) -> None:
    data = b"a,b,c,d,e\nN/A,-0- ,NA,,null\n"
    rows, _ = split(Delimited(write(tmp_path, data), delimited(null_words=["N/A", "-0-"])))
    assert cells(rows[0]) == {"a": None, "b": None, "c": "NA", "d": None, "e": "null"}


def test_title_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    data = "List of 18 May,,\nPublished by the authority,,\nNo,RFC,Name\n1,ABC,Él\n".encode("windows-1252")
    rows, _ = split(Delimited(write(tmp_path, data), delimited(encoding=["windows-1252"], skip_lines=2)))
    assert [(r.position, cells(r)) for r in rows] == [("4", {"No": "1", "RFC": "ABC", "Name": "Él"})]


def test_a_file_without_header_has_the_names_it_is_given(tmp_path: Path) -> None:
    source = Delimited(
        write(tmp_path, b"\xef\xbb\xbfA1,red\nB2,blue"), delimited(header=False, columns=["plate", "colour"])
    )
    rows, _ = split(source)
    assert [cells(r) for r in rows] == [{"plate": "A1", "colour": "red"}, {"plate": "B2", "colour": "blue"}]
    assert rows[0].original == b"A1,red\n"


def test_a_name_that_stands_twice_is_numbered(tmp_path: Path) -> None:
    source = Delimited(write(tmp_path, b"\xef\xbb\xbfreference,Category,category,reference\n1,2,3,4\n"), delimited())
    rows, _ = split(source)
    assert cells(rows[0]) == {"reference": "1", "Category": "2", "category": "3", "reference#2": "4"}


def test_a_row_of_another_width_is_told(tmp_path: Path) -> None:
    rows, none = split(Delimited(write(tmp_path, b"a,b\n1\n1,2\n1,2,3\n"), delimited()))
    assert len(rows) == 1
    assert [(u.position, u.reason, u.detail) for u in none] == [
        ("2", Cause.COLUMN_COUNT, "1 columns where 2 were expected"),
        ("4", Cause.COLUMN_COUNT, "3 columns where 2 were expected"),
    ]


def test_a_file_that_changes_encoding_half_way_loses_nothing(tmp_path: Path) -> None:
    good = [f"{i},名称{i}\n".encode() for i in range(3)]
    other = [f"{i},名称{i}\n".encode("gb18030") for i in range(3, 6)]
    late = ["6,后来\n".encode()]
    source = Delimited(
        write(tmp_path, "code,名称\n".encode() + b"".join(good + other + late)),
        delimited(encoding=["utf-8", "gb18030"]),
        needs=["名称"],
    )
    rows, none = split(source)
    assert [r.original for r in rows] == good + late
    assert [u.original for u in none] == other
    assert {u.reason for u in none} == {Cause.NOT_DECODABLE}
    assert source.done == source.total


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "windows-1252"])
def test_the_encoding_is_the_first_in_which_header_and_rows_are_right(tmp_path: Path, encoding: str) -> None:
    name = "Größe" if encoding == "windows-1252" else "名称"
    text = f"code,{name}\n1,{name}\n"
    source = Delimited(
        write(tmp_path, text.encode(encoding)),
        delimited(encoding=["utf-8-sig", "utf-16", "gb18030", "windows-1252"]),
        needs=["code", name],
    )
    rows, _ = split(source)
    assert cells(rows[0]) == {"code": "1", name: name}


def test_one_broken_line_does_not_turn_a_file_over_to_an_encoding_that_takes_anything(tmp_path: Path) -> None:
    good = [f"{i},Größe\n".encode() for i in range(3)]
    data = b"code,name\n" + b"".join(good) + "3,Größe\n".encode("windows-1252") + b"4,plain\n"
    source = Delimited(write(tmp_path, data), delimited(encoding=["utf-8", "windows-1252"]))
    rows, none = split(source)
    assert source.encoding == "utf-8"
    assert [r.original for r in rows] == [*good, b"4,plain\n"]
    assert [u.position for u in none] == ["5"]


def test_an_ascii_header_does_not_fix_the_encoding_of_the_rows(tmp_path: Path) -> None:
    lines = ["code,name\n"] + [f"{i},plain\n" for i in range(5000)] + ["5000,名称\n"]
    data = "".join(lines).encode("gb18030")
    source = Delimited(write(tmp_path, data), delimited(encoding=["utf-8", "gb18030"]), needs=["code"])
    assert source.encoding == "gb18030"
    rows, none = split(source)
    assert cells(rows[-1])["name"] == "名称"
    assert none == []


def test_a_missing_column_is_named_with_the_nearest_before_any_row_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "企业名称,统一社会信用代号\nx,y\n".encode())
    with pytest.raises(
        InvalidArgument, match="no column '统一社会信用代码'; did you mean '统一社会信用代号'"
    ) as caught:
        Delimited(path, delimited(encoding=["utf-8", "gb18030"]), needs=["统一社会信用代码"])
    assert caught.value.reason is Reason.MAPPING_COLUMN_MISSING
    assert caught.value.metadata["column"] == "统一社会信用代码"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the header is empty"),
        (b"\n\n", "the header is empty"),
        (b"\xff\xfe\xfd,b\n1,2\n", "does not read as utf-8"),
        (b'"a,b\n1,2\n', "never ends"),
    ],
)
def test_a_header_that_cannot_be_read_is_told(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        Delimited(write(tmp_path, data), delimited(encoding=["utf-8"]))
    assert caught.value.reason is Reason.MAPPING_COLUMN_MISSING


def test_what_is_no_file_and_no_encoding_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"missing\.csv cannot be read: No such file"):
        Delimited(tmp_path / "missing.csv", delimited())
    with pytest.raises(InvalidArgument, match="cannot be read: Is a directory"):
        Delimited(tmp_path, delimited())
    with pytest.raises(InvalidArgument, match="unknown encoding: klingon") as caught:
        Delimited(write(tmp_path, b"a\n1\n"), delimited(encoding=["klingon"]))
    assert caught.value.reason is Reason.MAPPING_INVALID


def test_columns_beyond_those_allowed_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, b"uscc,nmae\n1,2\n")
    with pytest.raises(InvalidArgument, match="no field goes by the column name 'nmae'; did you mean 'name'"):
        Delimited(path, delimited(), needs=["uscc"], allows={"uscc", "name"})


def test_a_row_is_read_again_out_of_quarantine() -> None:
    spec = delimited(encoding=["utf-8", "gb18030"], null_words=["N/A"])
    row = again(spec, ("code", "name"), "7-8", '1,"名\n称"\n'.encode("gb18030"))
    assert isinstance(row, Row)
    assert (row.position, cells(row)) == ("7-8", {"code": "1", "name": "名\n称"})
    for original, reason in [
        (b"1,2,3\n", Cause.COLUMN_COUNT),
        (b"1,2\n3,4\n", Cause.COLUMN_COUNT),
        (b"", Cause.COLUMN_COUNT),
        (b'"1,2\n', Cause.QUOTE_UNCLOSED),
        (b"1,\xff\n", Cause.NOT_DECODABLE),
    ]:
        found = again(spec, ("code", "name"), "7", original)
        assert isinstance(found, Unreadable)
        assert (found.position, found.original, found.reason) == ("7", original, reason)
