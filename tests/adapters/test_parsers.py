"""Parsers: each notation has one meaning, and a text of no notation is refused, not guessed."""

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import parsers
from adapters.parsers import read_capital


def parse(name: str, argument: object, text: str) -> str | None:
    return parsers.parser(name, argument, {"k": b"key"}).step(text)


BRUSSELS = {"formats": "%d-%m-%Y %H:%M", "zone": "Europe/Brussels"}


@pytest.mark.parametrize(
    ("name", "argument", "text", "expected"),
    [
        ("upper", None, "aé", "AÉ"),
        ("lower", None, "AÉ", "aé"),
        ("squeeze", None, " a \n b\u3000c ", "a b c"),
        ("replace", {"pattern": "^No ", "with": "#"}, "No 7", "#7"),
        ("replace", "[^0-9]", "a1b2", "12"),
        ("extract", "[0-9]+", "a12b3", "12"),
        ("extract", "^..([0-9]{6})", "91350402MA", "350402"),
        ("extract", "[0-9]+", "none", None),
        ("matches", "X{12}", "XXXXXXXXXXXX", "true"),
        ("matches", "X{12}", "AXXXXXXXXXXX", "false"),
        ("date", "%d/%m/%Y", "05/03/2020", "2020-03-05"),
        ("date", ["%d/%m/%Y", "%d-%m-%y"], "14-08-19", "2019-08-14"),
        (
            "timestamp",
            BRUSSELS,
            "01-08-2023 14:24",
            "2023-08-01T14:24:00+02:00",
        ),
        (
            "timestamp",
            BRUSSELS,
            "01-12-2023 14:24",
            "2023-12-01T14:24:00+01:00",
        ),
        ("timestamp", {"formats": ["%Y%m%d%H%M%S"], "zone": "+08:00"}, "20260102030405", "2026-01-02T03:04:05+08:00"),
        ("timestamp", {"formats": "%Y-%m-%dT%H:%M:%S%z"}, "2026-01-02T03:04:05-0130", "2026-01-02T03:04:05-01:30"),
        ("wco.timestamp", None, "20221114143931+01", "2022-11-14T14:39:31+01:00"),
        ("wco.timestamp", None, "20240425090243Z", "2024-04-25T09:02:43+00:00"),
        ("wco.timestamp", None, "202404250902-0130", "2024-04-25T09:02:00-01:30"),
        ("decimal", None, "-12.50", "-12.50"),
        ("decimal", None, "１２", "12"),
        ("decimal", ",", "1,234,567.8", "1234567.8"),
        ("decimal", {"group": ".", "point": ","}, "1.234,50", "1234.50"),
        ("decimal", {"group": " ", "point": ","}, "12 34 567,1", "1234567.1"),
        ("integer", ",", "318,000", "318000"),
        ("integer", ",", "12,34,567", "1234567"),
        ("integer", ",", "12,3456", "123456"),
        ("integer", None, "007", "7"),
        ("boolean", {"truths": ["是", "Y"], "falsehoods": ["否", "N"]}, "是", "true"),
        ("boolean", {"truths": ["是", "Y"], "falsehoods": ["否", "N"]}, "N", "false"),
        ("cn_capital", None, "100(万元人民币)", "1000000 CNY"),
        ("cn_capital.amount", None, "100(万元人民币)", "1000000"),
        ("cn_capital.currency", None, "50万美元", "USD"),
        ("cn_capital.currency", "HKD", "50万元", "HKD"),
    ],
)
def test_notations(name: str, argument: object, text: str, expected: str | None) -> None:
    assert parse(name, argument, text) == expected


@pytest.mark.parametrize(
    ("name", "argument", "text"),
    [
        ("date", "%d/%m/%Y", "31/02/2020"),
        ("date", "%d/%m/%Y", "2020-02-01"),
        ("timestamp", {"formats": "%H:%M", "zone": "UTC"}, "noon"),
        ("wco.timestamp", None, "20221114143931"),
        ("decimal", None, "1e3"),
        ("decimal", None, "1,5"),
        ("decimal", ",", "1,2345678"),
        ("decimal", ",", "3,18"),
        ("decimal", ",", "1,234,56"),
        ("decimal", ",", ",5"),
        ("decimal", None, "."),
        ("decimal", None, "NaN"),
        ("integer", None, "1.0"),
        ("integer", ",", "31,8000000"),
        ("boolean", {"truths": "Y", "falsehoods": "N"}, "maybe"),
        ("cn_capital", None, "某"),
        ("cn_capital", None, "有限责任公司 外商投资企业"),
        ("cn_capital", None, "100万两"),
        ("cn_capital", None, "1.2.3万元"),
    ],
)
def test_what_is_no_notation_is_refused(name: str, argument: object, text: str) -> None:
    with pytest.raises(ValueError, match=r"no |neither|has ','"):
        parse(name, argument, text)


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("500万元人民币", "5000000", "CNY"),
        ("100万人民币", "1000000", "CNY"),
        ("1,188.89万人民币", "11888900", "CNY"),
        ("69.1000(万元人民币)", "691000", "CNY"),
        ("1,000(万元人民币)", "10000000", "CNY"),
        ("200(万)", "2000000", "CNY"),
        ("75,917.5400(万)", "759175400", "CNY"),
        ("10万人民币元", "100000", "CNY"),
        ("50万美元", "500000", "USD"),
        ("1.5000(万美元)", "15000", "USD"),
        ("0(万元人民币)", "0", "CNY"),
        ("0.0888万元人民币", "888", "CNY"),
        ("1.23456万元", "12345.6", "CNY"),
        ("3（万港元）", "30000", "HKD"),
        ("1.2亿元人民币", "120000000", "CNY"),
        ("10万欧元", "100000", "EUR"),
        ("88888元", "88888", "CNY"),
        ("300", "300", "CNY"),
    ],
)
def test_registered_capital(text: str, amount: str, currency: str) -> None:
    assert read_capital(text, "CNY") == (amount, currency)


def test_a_unit_without_a_number_says_nothing() -> None:
    assert read_capital("万人民币", "CNY") is None


@given(number=st.decimals(0, 10**9, places=4, allow_nan=False), scale=st.sampled_from([("", 0), ("万", 4), ("亿", 8)]))
def test_capital_is_exact(number: Decimal, scale: tuple[str, int]) -> None:
    found = read_capital(f"{number:f}{scale[0]}元人民币", "CNY")
    assert found is not None
    assert Decimal(found[0]) == number.scaleb(scale[1])
    assert "E" not in found[0]


@given(value=st.decimals(-(10**12), 10**12, places=3, allow_nan=False))
def test_grouped_numbers_are_read_back(value: Decimal) -> None:
    assert Decimal(parse("decimal", ",", f"{value:,f}") or "") == value


@given(day=st.dates(dt.date(1000, 1, 1)))
def test_dates_are_read_back(day: dt.date) -> None:
    assert parse("date", "%d.%m.%Y", day.strftime("%d.%m.%Y")) == day.isoformat()


def test_tokens_are_keyed_stable_and_tell_nothing() -> None:
    token = parse("token", "k", "abc 123")
    assert token == parse("token", "k", "ABC123"), "blanks and case make no other plate"
    assert token != parsers.parser("token", "k", {"k": b"other"}).step("ABC123")
    assert token is not None
    assert len(token) == 32
    assert "123" not in token.upper() or len(set(token)) > 3
    with pytest.raises(KeyError):
        parsers.parser("token", "missing", {})


@pytest.mark.parametrize(
    ("name", "argument", "words"),
    [
        ("dates", None, "no parser 'dates'; did you mean 'date'"),
        ("date", None, "needs 'formats'"),
        ("date", {"formats": []}, "needs 'formats'"),
        ("date", {"formats": [1]}, "needs 'formats'"),
        ("upper", "x", "takes no argument"),
        ("upper", {"x": "y"}, "no argument 'x'"),
        ("replace", {"pattern": "("}, "no regular expression"),
        ("timestamp", {"formats": "%H"}, "needs 'zone'"),
        ("timestamp", {"formats": "%H", "zone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ("timestamp", {"formats": "%H", "zone": "+99:00"}, "no time zone"),
    ],
)
def test_wrong_calls_are_told(name: str, argument: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parsers.parser(name, argument, None)


def test_words_are_refused_kept_or_dropped() -> None:
    table = {"alert": "ALERT", "information": "INFORMATION"}
    assert parsers.words(table, "refuse").step("alert") == "ALERT"
    assert parsers.words(table, "keep").step("other") == "other"
    assert parsers.words(table, "drop").step("other") is None
    with pytest.raises(ValueError, match="none of the known words; nearest is 'alert'"):
        parsers.words(table, "refuse").step("alerts")


def test_every_parser_is_tested_here() -> None:
    assert set(parsers.NAMES) == {
        *("upper", "lower", "squeeze", "replace", "extract", "matches", "token", "date", "timestamp", "wco.timestamp"),
        *("decimal", "integer", "boolean", "cn_capital", "cn_capital.amount", "cn_capital.currency"),
    }
