"""Conditions: what the language takes and refuses, and that SQLite and a record in hand answer alike."""

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import InvalidArgument, Reason
from services.kit.records import conditions, values
from services.kit.records.conditions import MAX_COMPARISONS, MAX_DEPTH, MAX_TEXT, Condition, parse
from services.kit.records.values import Column, Kind
from tests.policy.specimen import records, specimen_type

TYPE = specimen_type()
PARAMS = {"caller_agency", "case_ref", "today", "now"}


class _Utc(sa.types.TypeDecorator[dt.datetime]):
    """Times in SQLite, kept as microseconds."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> int | None:
        return (
            None if value is None else (value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
        )


_SQL_TYPES: dict[Kind, sa.types.TypeEngine[Any]] = {
    Kind.STRING: sa.String(),
    Kind.DATE: sa.String(),
    Kind.PERIOD: sa.String(),
    Kind.BOOL: sa.Boolean(),
    Kind.TIMESTAMP: _Utc(),
}
_META = sa.MetaData()
_TABLE = sa.Table(
    "specimen", _META, *(sa.Column(f.name, _SQL_TYPES.get(f.kind, sa.BigInteger())) for f in TYPE.indexed)
)
_COLUMNS = {f.path: _TABLE.c[f.name] for f in TYPE.indexed}


@pytest.fixture(scope="module")
def engine() -> Any:
    engine = sa.create_engine("sqlite://")
    _META.create_all(engine)
    yield engine
    engine.dispose()


def _sql_truth(engine: sa.Engine, record: Message, condition: Condition, given: dict[str, Column]) -> bool | None:
    with engine.connect() as connection:
        row = {f.name: values.column_of(f.descriptor, record) for f in TYPE.indexed}
        connection.execute(_TABLE.insert(), row)
        found: Any = connection.execute(sa.select(condition.to_sql(_COLUMNS, given))).scalar_one()
        connection.rollback()
    return None if found is None else bool(found)


def _quoted(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(["'" + text.replace("'", "''") + "'", '"' + text.replace('"', '""') + '"'])


_plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)
_LITERALS: dict[str, st.SearchStrategy[str]] = {
    "code": (_plain | st.sampled_from(["a", "b", "x y", "'", '"', "\\", "%"])).flatmap(_quoted),
    "holder": st.sampled_from(["'91350211M0000XUF47'", ":caller_agency", ":case_ref"]),
    "count": st.integers(0, 6).map(str) | st.integers(-(2**59), 2**59).map(str),
    "limit": st.integers(0, 6).map(str),
    "weight": st.sampled_from(["0", "99.5", "-3.25", "'100'", "1000.000000"]),
    "value": st.sampled_from(["0", "99.5", "100"]),
    "mass": st.sampled_from(["0", "99.5", "100"]),
    "bought_on": st.sampled_from(["'2024-02-29'", "'2020-01-01'", ":today"]),
    "found_at": st.sampled_from(["'2020-02-29'", "'2023-01-01T08:00:00+08:00'", ":now"]),
    "period": st.sampled_from(["'2024'", "'2024-03'", '"2021-12"']),
}
_ORDERED = st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="])


@st.composite
def _terms(draw: st.DrawFn) -> str:
    field = draw(st.sampled_from([f.path for f in TYPE.indexed]))
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from([f"{field} IS NULL", f"{field} IS NOT NULL", f"{field} is null"]))
    if field in {"colour", "dangerous"}:
        literal = st.sampled_from(["RED", "'GREEN'", '"COLOUR_BLUE"'] if field == "colour" else ["true", "FALSE"])
        operator = st.sampled_from(["=", "!="])
    else:
        literal, operator = _LITERALS[field], _ORDERED
    if draw(st.booleans()):
        several = ", ".join(draw(st.lists(literal, min_size=1, max_size=3)))
        return f"{field} {draw(st.sampled_from(['IN', 'NOT IN', 'in']))} ({several})"
    return f"{field} {draw(operator)} {draw(literal)}"


_texts = st.recursive(
    _terms(),
    lambda inner: (
        st.tuples(st.sampled_from(["AND", "or"]), st.lists(inner, min_size=2, max_size=3)).map(
            lambda both: f" {both[0]} ".join(f"({part})" for part in both[1])
        )
        | inner.map(lambda t: f"NOT ({t})")
    ),
    max_leaves=6,
)
_given = st.fixed_dictionaries(
    {
        "caller_agency": st.sampled_from(["taxation", "91350211M0000XUF47"]),
        "case_ref": st.none() | st.just("91350211M0000XUF47"),
        "today": st.sampled_from(["2024-02-29", "2022-12-31"]),
        "now": st.just(dt.datetime(2024, 5, 1, tzinfo=dt.UTC)),
    }
)


@given(text=_texts, record=records(TYPE), given=_given)
def test_sql_and_record_answer_alike(engine: sa.Engine, text: str, record: Message, given: dict[str, Column]) -> None:
    condition = parse(text, TYPE, PARAMS)
    assert _sql_truth(engine, record, condition, given) is condition.evaluate(record, given)


@given(_texts)
def test_normal_form_is_a_fixed_point(text: str) -> None:
    condition = parse(text, TYPE, PARAMS)
    again = parse(condition.text, TYPE, PARAMS)
    assert (again.text, again.fields, again.params) == (condition.text, condition.fields, condition.params)
    assert again == condition
    assert hash(again) == hash(condition)


@given(
    st.text(max_size=60) | st.text(st.sampled_from("abcode count=<>!()'\",.:-ANDORNOTINSUL 123;*/`{}[]@?"), max_size=60)
)
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    try:
        condition = parse(text, TYPE, PARAMS)
    except InvalidArgument as error:
        if error.reason not in {Reason.FILTER_INVALID, Reason.FIELD_UNKNOWN, Reason.FILTER_FIELD_NOT_INDEXED}:
            raise
    else:
        assert parse(condition.text, TYPE, PARAMS) == condition


def test_values_are_bound_never_written() -> None:
    condition = parse("code = 'x''; DROP TABLE specimen; --' AND count IN (1, 2)", TYPE)
    statement = str(sa.select(_TABLE).where(condition.to_sql(_COLUMNS)).compile())
    assert "DROP" not in statement
    assert "(__[POSTCOMPILE" in statement or ":param" in statement


def test_what_it_says_about_itself() -> None:
    condition = parse('colour="RED"and (count>3 or holder = :case_ref)', TYPE, {"case_ref"})
    assert condition.text == "colour = 'RED' AND (count > 3 OR holder = :case_ref)"
    assert condition.fields == {"colour", "count", "holder"}
    assert condition.params == {"case_ref"}


_REFUSED = {
    "": "empty",
    "count = 1 OR colour = RED AND limit = 2": "parentheses",
    "count": "comparison",
    "true": "comparison",
    "1 = 1": "left",
    "count = limit": "no value",
    "code = holder": "quotes",
    "code = 5": "quotes",
    "code = NULL": "IS NULL",
    "code IN ('a', NULL)": "IS NULL",
    "code LIKE 'a%'": "cannot be read",
    "code = 'a' -- comment": "",
    "code = 'a' /* comment */": "cannot use",
    "code = 'a'; count = 1": "cannot use",
    "code = upper('a')": "",
    "upper(code) = 'A'": "left",
    "code = (SELECT 1)": "",
    "code = ?": "cannot use",
    "code = @a": "cannot use",
    "`code` = 'a'": "cannot use",
    "code = N'a'": "cannot use",
    "code = 'a": "cannot be read",
    "code = 'a' 'b'": "",
    "count BETWEEN 1 AND 2": "",
    "count = 1 + 1": "cannot use",
    "count = 1e5": "number",
    "count = 1.5": "cannot be compared",
    "count = 12345678901234567890": "18 digits",
    "weight = 999999999999999": "too large",
    "count = --5": "",
    "colour > RED": "no order",
    "colour = PURPLE": "PURPLE",
    "dangerous < true": "no order",
    "dangerous = 1": "neither true nor false",
    "bought_on = 'yesterday'": "cannot be compared",
    "found_at > '0001-01-01T00:00:00+14:00'": "cannot be compared",
    "period = '2024-13'": "period",
    "holder = :subject": ":subject",
    "holder = :calleragency": "caller_agency",
    "code = :today": "date",
    "count = 1 b": "",
    "code = 'a\x00'": "control",
    "code = '\ud800'": "no text",
    "code ='" + "a" * MAX_TEXT + "'": str(MAX_TEXT),
    "(" * 4000: str(MAX_DEPTH),
    "NOT " * 1000 + "count = 1": str(MAX_DEPTH),
    "(" * (MAX_DEPTH + 1) + "count = 1" + ")" * (MAX_DEPTH + 1): str(MAX_DEPTH),
    " OR ".join(["count = 1"] * (MAX_COMPARISONS + 1)): str(MAX_COMPARISONS),
    f"count IN ({', '.join(['1'] * (MAX_COMPARISONS + 1))})": str(MAX_COMPARISONS),
}


@pytest.mark.parametrize("text", _REFUSED, ids=lambda t: ascii(t[:30]))
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(text, TYPE, PARAMS - {"subject"})
    assert caught.value.reason is Reason.FILTER_INVALID
    assert _REFUSED[text] in caught.value.message


def test_limits_are_reachable() -> None:
    parse(" OR ".join(["count = 1"] * MAX_COMPARISONS), TYPE)
    parse("(" * MAX_DEPTH + "count = 1" + ")" * MAX_DEPTH, TYPE)


def test_a_field_that_is_not_indexed_names_those_that_are() -> None:
    with pytest.raises(InvalidArgument, match="code, holder, colour") as caught:
        parse("phone = '1'", TYPE)
    assert caught.value.reason is Reason.FILTER_FIELD_NOT_INDEXED
    with pytest.raises(InvalidArgument) as caught:
        parse("lines.goods = '1'", TYPE)
    assert caught.value.reason is Reason.FILTER_FIELD_NOT_INDEXED


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(InvalidArgument, match="colour") as caught:
        parse("color = RED", TYPE)
    assert caught.value.reason is Reason.FIELD_UNKNOWN


def test_code_that_asks_for_a_parameter_that_does_not_exist_is_wrong() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        parse("count = 1", TYPE, {"nonsense"})
    assert set(conditions.PARAMS) >= PARAMS
