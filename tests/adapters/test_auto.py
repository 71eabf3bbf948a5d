"""Our own files: every record type is written and read back, value for value."""

import io
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters import mapping, reading, writing
from adapters.mapping import Mapper
from adapters.rows import Cells, Mapped, Row
from services.kit.errors import InvalidArgument
from services.kit.records import catalogue
from services.kit.records.catalogue import Field, RecordType
from services.kit.records.values import Kind, enum_of
from tests.adapters.specimens import outcomes, uscc

TYPES = {t.name: t for t in catalogue.load()}

IDENTIFIERS = {
    "cn.uscc": [uscc(n) for n in range(20)],
    "cn.customs_code": ["3502910001", "350291000A"],
    "cn.declaration_no": ["350220261000000001", "350220260000000002"],
    "cn.seal_no": ["3502000012345"],
    "wco.declaration_id": ["350220261000000001", "26GB5SCPZSPYDAUAA1", "REF 1"],
    "eori": ["GB553202734852", "XI1"],
    "gtin": ["4006381333931"],
    "hs": ["01", "850440", "8504401300"],
    "iso3166": ["NA", "CN"],
    "iso4217": ["CNY"],
    "iso6346": ["CSQU3054383"],
    "mx.rfc": ["AAA120730823"],
    "un.undg": ["1203"],
    "un.locode": ["CNXMN"],
    "hutong.token": ["0123456789abcdef0123456789abcdef"],
}
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), min_size=1, max_size=12).map(
    lambda t: "".join(t.split())
)


def texts(field: Field) -> st.SearchStrategy[Any]:
    if not field.scheme:
        # A list of one text that looks like JSON is JSON; nobody's value starts so.
        return PLAIN.filter(lambda t: bool(t.strip()) and t == t.strip() and not t.startswith("["))
    return st.sampled_from(IDENTIFIERS.get(field.scheme, ["A-1", "B/2"]))


def decimals() -> st.SearchStrategy[str]:
    return st.decimals(-(10**12), 10**12, allow_nan=False, places=4).map(lambda d: f"{d:f}")


def value(field: Field) -> st.SearchStrategy[Any]:
    match field.kind:
        case Kind.STRING:
            return texts(field)
        case Kind.INT:
            return st.integers(0, 2**31 - 1)
        case Kind.BOOL:
            return st.booleans()
        case Kind.ENUM:
            return st.sampled_from([v.number for v in enum_of(field.descriptor).values if v.number or not field.key])
        case Kind.BYTES:
            return st.binary(min_size=1, max_size=8)
        case Kind.DATE:
            return st.dates().map(lambda d: {"year": d.year, "month": d.month, "day": d.day})
        case Kind.PERIOD:
            return st.tuples(st.integers(1, 9999), st.integers(0, 12)).map(lambda p: {"year": p[0], "month": p[1]})
        case Kind.TIMESTAMP:
            return st.tuples(st.integers(0, 4 * 10**9), st.integers(0, 999_999)).map(
                lambda t: {"seconds": t[0], "nanos": t[1] * 1000}
            )
        case Kind.DECIMAL:
            return decimals().map(lambda d: {"value": d})
        case Kind.MONEY:
            return decimals().map(lambda d: {"currency_code": "CNY", "amount": {"value": d}})
        case Kind.QUANTITY:
            return decimals().map(lambda d: {"unit_code": "KGM", "value": {"value": d}})
        case Kind.PART:
            raise AssertionError("parts are made of their fields")


@st.composite
def contents(draw: st.DrawFn, record: RecordType, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in record.fields.values():
        if field.path != f"{path}{field.name}":
            continue
        one = contents(record, f"{field.path}.") if field.kind is Kind.PART else value(field)
        wanted = st.lists(one, max_size=3) if field.descriptor.is_repeated else one
        if field.key or draw(st.booleans()):
            found[field.name] = draw(wanted)
    return found


def make(record: RecordType, content: dict[str, Any]) -> Message:
    return record.message(**content)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_record_type_round_trips(name: str) -> None:
    record = TYPES[name]
    mapper = Mapper(mapping.auto(record))
    columns = dict[str, str | None].fromkeys(writing.columns(record))

    @settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(content=contents(record))
    def round_trip(content: dict[str, Any]) -> None:
        message = make(record, content)
        outcome = mapper.map(Row("2", b"", Cells(columns | writing.cells(record, message))))
        assert isinstance(outcome, Mapped), outcome
        assert normal(outcome.message) == normal(message)

    round_trip()


def normal(message: Message) -> bytes:
    """Serialise without parts that hold nothing: a row cannot tell them from parts that are not there."""
    copy = type(message)()
    copy.CopyFrom(message)
    for field, found in copy.ListFields():
        if not field.is_repeated and isinstance(found, Message) and not found.ByteSize():
            copy.ClearField(field.name)
    return copy.SerializeToString(deterministic=True)


def test_a_file_is_written_and_read_back(tmp_path: Path) -> None:
    record = TYPES["customs.Declaration"]
    messages = [
        record.message(
            declaration_no=f"35022026{n % 2}{n:09d}",
            licence_nos=["L|1", "L2"] if n else [],
            lines=[{"line_no": 1, "goods_name": 'a "quoted", name\nin two lines', "total_price": {"value": "12.50"}}],
            containers=[{"container_no": "CSQU3054383", "line_nos": [1, 2]}],
            special_relation=False,
        )
        for n in range(3)
    ]
    path = tmp_path / "declarations.csv"
    writing.write_file(path, record, messages)
    mapped, unmapped = outcomes(reading.read(mapping.auto(record), path))
    assert unmapped == []
    assert [m.message for m in mapped] == messages
    again = io.StringIO()
    writing.write(again, record, [m.message for m in mapped])
    assert again.getvalue() == path.read_text("utf-8")


def test_columns_may_be_missing_but_not_unknown(tmp_path: Path) -> None:
    made = mapping.auto(TYPES["taxation.StatusNotice"])
    path = tmp_path / "notices.csv"
    path.write_text("notice_no,presumption.sat_document,presumption.sat_published_on\n7,Of. 1,2026-01-02|2026-02\n")
    mapped, _ = outcomes(reading.read(made, path))
    assert isinstance(mapped[0], Mapped)
    assert "sat_published_on {\n    year: 2026\n    month: 2\n  }" in str(mapped[0].message)
    path.write_text("notice_no,presumtion.sat_document\n7,x\n")
    with pytest.raises(InvalidArgument, match=r"'presumtion\.sat_document'; did you mean 'presumption\.sat_document'"):
        reading.read(made, path)
    path.write_text("taxpayer_name\nx\n")
    with pytest.raises(InvalidArgument, match="no column 'notice_no'"):
        reading.read(made, path)


def test_the_source_system_can_be_named() -> None:
    made = mapping.with_source_system(mapping.auto(TYPES["commerce.Enterprise"]), "hutong-sample")
    assert made.source_system == "hutong-sample"
    assert made.name == "commerce.auto"
