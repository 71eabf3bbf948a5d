"""Mapping files: what does not make sense is told before a row is read; what does, does what it says."""

from pathlib import Path

import pytest

from adapters import mapping, reading, sql
from adapters.mapping import Mapper
from adapters.rows import Cause, Cells, Mapped, Row, Unmapped
from hutong.api.commerce.v1 import enterprise_pb2
from hutong.api.common.v1 import common_pb2
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from tests.adapters.specimens import SECRETS, outcomes, read_text, text_mapping, uscc

CODE = uscc(1)


def refusal(text: str) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        mapping.loads(text, "specimen.yaml")
    return caught.value


def whole(fields: str = "{uscc: code}", more: str = "", source: str = "{kind: delimited}") -> str:
    return (
        f"mapping: commerce.specimen\nversion: 1\nrecord: commerce.Enterprise\nsource_system: s\nsource: {source}\n"
        f"{more}\nfields: {fields}\n"
    )


def one(made: mapping.Mapping, **cells: str | None) -> Mapped | Unmapped:
    return Mapper(made, SECRETS).map(Row("1", b"row", Cells(cells)))


def enterprise(outcome: Mapped | Unmapped) -> enterprise_pb2.Enterprise:
    assert isinstance(outcome, Mapped), outcome
    assert isinstance(outcome.message, enterprise_pb2.Enterprise)
    return outcome.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "expected the node content"),
        ("- a", "valid dictionary"),
        (whole(more="version: 2"), "'version' stands twice"),
        (whole("{uscc: code, uscc: other}"), "'uscc' stands twice"),
        (whole(more="colour: red"), "colour: Extra inputs are not permitted"),
        (whole(source="{kind: punched_cards}"), "'punched_cards'"),
        (whole(source="{kind: delimited, header: false}"), "a file without header needs columns"),
        (whole(source="{kind: delimited, delimiter: ''}"), "delimiter"),
        (whole(source="{kind: delimited, skip_lines: -1}"), "skip_lines"),
        (whole(source="{kind: sql, table: t, key: []}"), "key"),
        (whole(more="duplicates: forget"), "duplicates"),
        (whole("{}"), "fields"),
        (whole("{name: n}"), "the key field 'uscc' of commerce.Enterprise is not mapped"),
        (whole("{uscc: code, nmae: n}"), "has no field 'nmae'; did you mean 'name'"),
        (whole("{uscc: {}}"), "needs exactly one of column"),
        (whole("{uscc: {column: a, constant: b}}"), "needs exactly one of column"),
        (whole("{uscc: {column: a, join: x}}"), "join goes with columns"),
        (whole("{uscc: {each: a}}"), "each and part go with fields"),
        (whole("{uscc: {each: a, fields: {b: c}}}"), "uscc is no part"),
        (whole("{uscc: {part: true, fields: {b: c}, required: true}}"), "required goes with the fields of a part"),
        (whole("{uscc: c, name: {column: n, parse: shout}}"), "name: there is no parser 'shout'"),
        (whole("{uscc: c, name: {column: n, parse: {upper: x, lower: y}}}"), "a parser is a name"),
        (whole("{uscc: c, name: {column: n, parse: 7}}"), "a parser is a name"),
        (whole("{uscc: c, name: {column: n, parse: {date: '%Y'}}}"), "name is string: parser 'date' gives date"),
        (whole("{uscc: c, establish_date: {column: d, parse: integer}}"), "establish_date is date: .* gives int"),
        (whole("{uscc: c, reg_capital_amt: {column: d, parse: cn_capital}}"), "parser 'cn_capital' gives money"),
        (whole("{uscc: c, reg_status: {column: s, words: {x: ALIVE}}}"), "'ALIVE' is no value of RegStatus"),
        (whole("{uscc: c, reg_status: {constant: ALIVE}}"), "'ALIVE' is no value of RegStatus"),
        (whole("{uscc: c, establish_date: {constant: soon}}"), "establish_date is date: 'soon': is no date"),
        (whole("{uscc: c, name: {column: n, split: ','}}"), "name does not repeat"),
        (whole("{uscc: c, name: {column: n, unit: KGM}}"), "name is string: it has no unit"),
        (whole("{uscc: c, name: {column: n, when: {x: '('}}}"), "name: not a regular expression"),
        (whole(source="{kind: delimited, header: false, columns: [coed]}"), "no 'code'; did you mean 'coed'"),
        (whole(source="{kind: delimited, columns: [coed]}"), "no 'code'; did you mean 'coed'"),
        (whole(source="{kind: delimited, encoding: [utf-8, klingon]}"), "unknown encoding: klingon"),
        (whole(source="{kind: delimited, encoding: [utf-7]}"), "'utf-7' is not supported"),
        (whole("{uscc: 'A B'}", source="{kind: wco}"), "uscc: 'A B' is no path of elements"),
        (whole("{uscc: 1}"), "fields.uscc"),
        (whole("{uscc: c, name: []}"), "name: an empty list is no way to a value"),
    ],
)
def test_what_makes_no_sense_is_told(text: str, words: str) -> None:
    error = refusal(text)
    assert error.reason is Reason.MAPPING_INVALID
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(error.message)


def test_an_unknown_record_type_names_the_nearest() -> None:
    error = refusal(whole().replace("commerce.Enterprise", "commerce.Entreprise"))
    assert error.reason is Reason.RECORD_TYPE_UNKNOWN
    assert "did you mean 'commerce.Enterprise'" in error.message


def test_a_part_needs_to_be_said_how(tmp_path: Path) -> None:
    parts = whole("{declaration_no: n, lines: goods}").replace("commerce.Enterprise", "customs.Declaration")
    assert "lines is a part: it needs each, and fields" in refusal(parts).message
    once = whole("{notice_no: n, presumption: {each: p, fields: {sat_document: d}}}")
    error = refusal(once.replace("commerce.Enterprise", "taxation.StatusNotice"))
    assert "presumption is a part: it needs part: true, and fields" in error.message
    with pytest.raises(InvalidArgument, match="No such file"):
        mapping.load(tmp_path / "none.yaml")


def test_words_are_text_whatever_they_look_like() -> None:
    made = text_mapping(
        "  uscc: code\n  industry_code: {constant: 0110}\n  registrar: {constant: NO}\n"
        "  entity_type: {column: t, words: {NA: Namibia, 1e3: x, 2021-05-18: y, on: z}}\n"
    )
    found = enterprise(one(made, code=CODE, t="2021-05-18"))
    assert (found.industry_code, found.registrar, found.entity_type) == ("0110", "NO", "y")
    assert enterprise(one(made, code=CODE, t="NA")).entity_type == "Namibia"


def test_a_secret_comes_from_outside_or_not_at_all() -> None:
    made = text_mapping(
        "  plate_no: p\n  plate_token: {column: p, parse: {token: plate}}\n", record="publicsecurity.Vehicle"
    )
    with pytest.raises(FailedPrecondition, match="needs the secret 'plate'") as caught:
        Mapper(made, {})
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert isinstance(Mapper(made, SECRETS).map(Row("1", b"", Cells({"p": "ABC123"}))), Mapped)


def test_every_kind_of_value_is_read() -> None:
    made = text_mapping(
        "  uscc: code\n  reg_status: status\n  establish_date: day\n  reg_capital_amt: amount\n"
        "  paid_in_capital_amt: {column: paid, parse: {decimal: ','}, unit: CNY}\n"
    )
    found = enterprise(one(made, code=CODE, status="REVOKED", day="2026-02", amount="12.50", paid="1,000.00"))
    assert found.reg_status == enterprise_pb2.REG_STATUS_REVOKED
    assert found.establish_date == common_pb2.Date(year=2026, month=2)
    assert found.reg_capital_amt.value == "12.50"
    assert found.paid_in_capital_amt == common_pb2.Money(
        currency_code="CNY", amount=common_pb2.Decimal(value="1000.00")
    )


def test_currency_may_stand_in_a_column_of_its_own_and_must_be_one() -> None:
    made = text_mapping("  uscc: code\n  paid_in_capital_amt: {column: paid, unit: {column: ccy, default: CNY}}\n")
    assert enterprise(one(made, code=CODE, paid="5", ccy="USD")).paid_in_capital_amt.currency_code == "USD"
    assert enterprise(one(made, code=CODE, paid="5", ccy=None)).paid_in_capital_amt.currency_code == "CNY"
    refused = one(made, code=CODE, paid="5", ccy="dollars")
    assert isinstance(refused, Unmapped)
    assert refused.detail == "paid_in_capital_amt: '5' has no ISO 4217 currency"


@pytest.mark.parametrize(
    ("cells", "cause", "detail"),
    [
        ({"code": None}, Cause.KEY_MISSING, "uscc"),
        ({"code": "91350211M0000XUF46"}, Cause.CHECK_DIGIT, "check digit is '6', should be 'R'"),
        ({"code": "1234"}, Cause.KEY_INVALID, "uscc: '1234' is not 18 characters"),
        ({"code": CODE, "status": "ALIVE"}, Cause.VALUE_INVALID, "reg_status: 'ALIVE' 'ALIVE' is no value"),
        ({"code": CODE, "day": "2026-02-30"}, Cause.VALUE_INVALID, "establish_date: '2026-02-30' day"),
        ({"code": CODE, "amount": "1e5"}, Cause.VALUE_INVALID, "reg_capital_amt: '1e5' is no decimal number"),
        ({"code": CODE, "rep": None}, Cause.VALUE_MISSING, "legal_rep_name: the row has no value"),
    ],
)
def test_a_row_that_becomes_no_record_says_why(cells: dict[str, str | None], cause: Cause, detail: str) -> None:
    made = text_mapping(
        "  uscc: {column: code}\n  reg_status: status\n  establish_date: day\n  reg_capital_amt: amount\n"
        "  legal_rep_name: {column: rep, required: true}\n"
    )
    found = one(made, **({"rep": "Wang"} | cells))
    assert isinstance(found, Unmapped)
    assert (found.reason, found.original, found.position) == (cause, b"row", "1")
    assert detail in found.detail


def test_doubtful_identifiers_are_taken_where_the_mapping_says_so() -> None:
    made = text_mapping("  uscc: code\n", more="suspect: accept")
    assert enterprise(one(made, code="91350211m0000xuf46 ")).uscc == "91350211M0000XUF46"
    assert isinstance(one(made, code="1234"), Unmapped)
    unchecked = text_mapping("  uscc: {column: code, check: off}\n")
    assert enterprise(one(unchecked, code="1234")).uscc == "1234"


def test_what_must_not_leave_its_node_stands_in_no_message() -> None:
    made = text_mapping(
        "  uscc: code\n  legal_rep_id_no: {column: id, words: {x: y}}\n  legal_rep_name: {column: rep, words: {x: y}}\n"
    )
    hidden = one(made, code=CODE, id="350200198001011234")
    shown = one(made, code=CODE, rep="W" * 200)
    assert isinstance(hidden, Unmapped)
    assert isinstance(shown, Unmapped)
    assert hidden.detail == "legal_rep_id_no: is none of the known words"
    assert "W" * 39 + "…" in shown.detail


def test_alternatives_conditions_joins_and_nulls() -> None:
    made = text_mapping(
        "  uscc: code\n"
        "  name:\n"
        "    - {column: english, when: {lang: '^en'}}\n"
        "    - {columns: [first, second], nulls: ['-']}\n"
        "    - {constant: unnamed}\n"
        "  address: {columns: [city, street], join: ' / '}\n"
    )
    row = {"code": CODE, "lang": "en-GB", "english": "Tea Ltd", "second": "茶", "city": "厦门", "street": None}
    assert enterprise(one(made, **row)).name == "Tea Ltd"
    assert enterprise(one(made, **(row | {"lang": "zh"}))).name == "茶"
    assert enterprise(one(made, **(row | {"lang": None, "second": "-"}))).name == "unnamed"
    assert enterprise(one(made, **row)).address == "厦门"
    assert enterprise(one(made, **(row | {"street": "湖滨"}))).address == "厦门 / 湖滨"


def test_parts_and_lists_may_stand_in_cells_as_json() -> None:
    made = text_mapping(
        "  declaration_no: no\n"
        "  licence_nos: {column: licences, split: ';'}\n"
        "  lines: {each: goods, fields: {line_no: n, hs10: hs, total_price: price}}\n"
        "  containers: {each: boxes, fields: {container_no: box, line_nos: lines}}\n",
        record="customs.Declaration",
    )
    found = one(
        made,
        no="REF1",
        licences="L1; L2;",
        goods='[{"n": 1, "hs": "8504401300", "price": 12.5}, {"n": 2, "hs": null}]',
        boxes='[{"box": "CSQU3054383", "lines": [1, 2]}]',
    )
    assert isinstance(found, Mapped)
    text = str(found.message)
    assert 'licence_nos: "L1"\nlicence_nos: "L2"\n' in text
    assert text.count("lines {") == 2
    assert "line_nos: 1\n  line_nos: 2" in text
    for broken in ('{"n": 1}', "[1]", "[" * 100_000, "[{", '[{"n": "one"}]', '[{"hs": "850"}]'):
        refused = one(made, no="REF1", goods=broken)
        assert isinstance(refused, Unmapped), broken
        assert refused.reason in (Cause.VALUE_INVALID, Cause.IDENTIFIER_INVALID)
        assert refused.detail.startswith("lines")


def test_a_reading_gives_one_outcome_per_row_and_its_progress(tmp_path: Path) -> None:
    made = text_mapping("  uscc: code\n  name: n\n")
    text = f"code,n\n{uscc(1)},A\nbad,B\n{uscc(3)}\n{uscc(4)},D\n"
    path = tmp_path / "s.csv"
    path.write_text(text)
    read = reading.read(made, path)
    seen = [read.done for _ in read]
    assert seen == sorted(seen)
    assert read.done == read.total == len(text)
    assert read.layout == ("code", "n")
    assert read.resume is None
    mapped, unmapped = outcomes(reading.read(made, path))
    assert [m.position for m in mapped] == ["2", "5"]
    assert [(u.position, u.reason) for u in unmapped] == [("3", Cause.KEY_INVALID), ("4", Cause.COLUMN_COUNT)]


def test_quarantined_bytes_are_mapped_again_with_the_mapping_as_it_is_now(tmp_path: Path) -> None:
    strict = text_mapping("  uscc: code\n  name: {column: n, required: true}\n")
    _, unmapped = read_text(strict, tmp_path, "code,n\n91350211M0000XUF46,Firm\n")
    (kept,) = unmapped
    with pytest.raises(InvalidArgument, match="names no columns"):
        reading.retry(strict, kept.position, kept.original)
    again = reading.retry(strict, kept.position, kept.original, layout=("code", "n"))
    assert again == kept
    lenient = text_mapping("  uscc: code\n  name: n\n", more="suspect: accept", source=", columns: [code, n]")
    found = reading.retry(lenient, kept.position, kept.original)
    assert enterprise(found).name == "Firm"
    assert (found.position, found.original) == (kept.position, kept.original)


def test_sources_and_locations_must_fit(tmp_path: Path) -> None:
    made = text_mapping("  uscc: code\n")
    engine = sql.engine_for("sqlite://")
    with pytest.raises(InvalidArgument, match="reads files, not a database"):
        reading.open_source(made, engine)
    with pytest.raises(InvalidArgument, match="only a table can be read live"):
        reading.LiveTable(made, engine)
    with pytest.raises(InvalidArgument, match="did you mean 'kode'") as caught:
        read_text(made, tmp_path, "kode\n1\n")
    assert caught.value.reason is Reason.MAPPING_COLUMN_MISSING
