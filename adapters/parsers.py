"""Named value parsers: how a legacy notation becomes the canonical text of a value.

A parser takes text and gives text, or None where the notation says "no value". What it gives is the canonical form of
one kind of value (`2021-05-18`, `1250.50`, `true`, `1250.50 CNY`), which `adapters.fields` reads into the record.
Mapping files name parsers and give them arguments:

    parse: upper
    parse: {date: ["%d/%m/%Y", "%d/%m/%y"]}
    parse: [{replace: {pattern: "^No ", with: ""}}, {decimal: {group: ","}}]
"""

import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.kit.records.values import Kind

Step = Callable[[str], str | None]
"""One step of a parser; raises `ValueError` for a text it cannot read."""

Secrets = Mapping[str, bytes]
"""Keys for tokens, by name. They come from the node's configuration, never from a mapping file."""


@dataclass(frozen=True, slots=True)
class Parser:
    """A parser with its arguments bound: what it does, and the kind of value it gives."""

    name: str
    step: Step
    gives: Kind | None = None
    """The kind its text is canonical for; None for plain text, which any field may read."""
    outcomes: tuple[str, ...] = ()
    """Every text it can give, where that is known: checked against the field when the mapping is loaded."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a mapping file wrote beside a parser's name; asking for one takes it off the list of unknown ones."""

    values: dict[str, object]
    secrets: Secrets | None
    """None while a mapping is only being checked."""
    _seen: set[str] = field(default_factory=set[str])

    def text(self, name: str, default: str | None = None) -> str:
        """Get a text argument; raises `ValueError` where it is missing or no text."""
        self._seen.add(name)
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise ValueError(f"needs {name!r}, a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Get one or several texts; raises `ValueError` where there are none."""
        self._seen.add(name)
        value = self.values.get(name)
        found = cast("list[object]", value) if isinstance(value, list) else [value]
        if not found or not all(isinstance(v, str) for v in found):
            raise ValueError(f"needs {name!r}, a text or a list of texts")
        return tuple(cast("list[str]", found))

    def pattern(self, name: str) -> re.Pattern[str]:
        """Get a regular expression; raises `ValueError` where it is none."""
        try:
            return re.compile(self.text(name))
        except re.error as error:
            raise ValueError(f"{name!r} is no regular expression: {error}") from None

    def unknown(self) -> set[str]:
        """Tell which arguments nobody asked for."""
        return set(self.values) - self._seen


# ------------------------------------------------------------------------------------------------ text


def _upper(_: Arguments) -> Parser:
    return Parser("upper", str.upper)


def _lower(_: Arguments) -> Parser:
    return Parser("lower", str.lower)


def _squeeze(_: Arguments) -> Parser:
    return Parser("squeeze", lambda text: " ".join(text.split()))


def _replace(arguments: Arguments) -> Parser:
    pattern, by = arguments.pattern("pattern"), arguments.text("with", "")
    return Parser("replace", lambda text: pattern.sub(by, text))


def _extract(arguments: Arguments) -> Parser:
    pattern = arguments.pattern("pattern")

    def step(text: str) -> str | None:
        found = pattern.search(text)
        return found[found.re.groups and 1] if found else None

    return Parser("extract", step)


def _matches(arguments: Arguments) -> Parser:
    pattern = arguments.pattern("pattern")
    return Parser("matches", lambda text: "true" if pattern.fullmatch(text) else "false", Kind.BOOL)


def _token(arguments: Arguments) -> Parser:
    name = arguments.text("key")
    secrets = arguments.secrets
    if secrets is not None and name not in secrets:
        raise KeyError(name)
    key = b"" if secrets is None else secrets[name]

    def step(text: str) -> str:
        # Half of a SHA-256: 128 bits, as many as nobody guesses, in the length of a form field.
        normal = "".join(text.split()).upper().encode()
        return hmac.new(key, normal, hashlib.sha256).hexdigest()[:32]

    return Parser("token", step)


# ------------------------------------------------------------------------------------------------ typed


def _date(arguments: Arguments) -> Parser:
    formats = arguments.texts("formats")

    def step(text: str) -> str:
        for form in formats:
            try:
                return dt.datetime.strptime(text, form).date().isoformat()  # noqa: DTZ007 - a date has no zone
            except ValueError:
                continue
        raise ValueError(f"is no date of the form {' or '.join(formats)}")

    return Parser("date", step, Kind.DATE)


def _zone(name: str) -> dt.tzinfo:
    try:
        if re.fullmatch(r"[+-]\d\d:\d\d", name):
            return dt.datetime.strptime(name, "%z").tzinfo or dt.UTC
        return ZoneInfo(name)
    except (ValueError, ZoneInfoNotFoundError):
        raise ValueError(f"there is no time zone {name!r}") from None


def _timestamp(arguments: Arguments) -> Parser:
    formats = arguments.texts("formats")
    zone = None if all("%z" in form for form in formats) else _zone(arguments.text("zone"))

    def step(text: str) -> str:
        for form in formats:
            try:
                found = dt.datetime.strptime(text, form)  # noqa: DTZ007 - the zone is added below
            except ValueError:
                continue
            return (found if found.tzinfo else found.replace(tzinfo=zone)).isoformat()
        raise ValueError(f"is no time of the form {' or '.join(formats)}")

    return Parser("timestamp", step, Kind.TIMESTAMP)


_WCO_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)?(Z|[+-]\d\d(?:\d\d)?)")


def _wco_timestamp(_: Arguments) -> Parser:
    def step(text: str) -> str:
        # UN/EDIFACT 2379 forms 303 and 304: the zone is in the text, as hours alone or hours and minutes.
        found = _WCO_TIME.fullmatch(text)
        if not found:
            raise ValueError("is no time of the form 304 (CCYYMMDDHHMMSSZZZ)")
        year, month, day, hour, minute, second, zone = found.groups(default="00")
        offset = "+00:00" if zone == "Z" else f"{zone[:3]}:{zone[3:] or '00'}"
        return f"{year}-{month}-{day}T{hour}:{minute}:{second}{offset}"

    return Parser("wco.timestamp", step, Kind.TIMESTAMP)


def plain_decimal(text: str) -> str:
    """Write a number without exponent, sign of plus or needless leading zeros; raises `ValueError` for none."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("is no decimal number") from None
    if not number.is_finite():
        raise ValueError("is no finite number")
    return format(number, "f")


def _number(text: str, group: str, point: str) -> str:
    whole, mark, fraction = text.partition(point)
    if group:
        # Threes; threes with twos before them, as in India; fours, as in China. "3,18" is a comma of another meaning.
        g = re.escape(group)
        forms = rf"\d{{1,3}}({g}\d{{3}})+|\d{{1,2}}({g}\d{{2}})*{g}\d{{3}}|\d{{1,4}}({g}\d{{4}})+"
        if group in whole and not re.fullmatch(rf"[+-]?({forms})", whole):
            raise ValueError(f"has {group!r} where no group of digits ends")
        whole = whole.replace(group, "")
    if not re.fullmatch(r"[+-]?\d+", whole) or (mark and not re.fullmatch(r"\d+", fraction)):
        raise ValueError("is no decimal number")
    return f"{whole}.{fraction}" if mark else whole


def _decimal(arguments: Arguments) -> Parser:
    group, point = arguments.text("group", ""), arguments.text("point", ".")
    return Parser("decimal", lambda text: plain_decimal(_number(text, group, point)), Kind.DECIMAL)


def _integer(arguments: Arguments) -> Parser:
    group = arguments.text("group", "")

    def step(text: str) -> str:
        return str(int(_number(text, group, "\0")))

    return Parser("integer", step, Kind.INT)


def _boolean(arguments: Arguments) -> Parser:
    truths, falsehoods = arguments.texts("truths"), arguments.texts("falsehoods")

    def step(text: str) -> str:
        if text in truths:
            return "true"
        if text in falsehoods:
            return "false"
        raise ValueError(f"is neither {' nor '.join(truths + falsehoods)}")

    return Parser("boolean", step, Kind.BOOL)


_CAPITAL = re.compile(r"(?P<number>[\d,，]*(?:\.\d+)?)\s*[(（]?(?P<scale>[万亿]?)(?P<unit>[^\d()（）]*)[)）]?")
_CAPITAL_DIGITS = 20
"""More would not be exact in decimal arithmetic once it is scaled."""
_SCALES = {"": 0, "万": 4, "亿": 8}
_CURRENCIES = {
    "": "",
    "元": "",
    "人民币": "CNY",
    "元人民币": "CNY",
    "人民币元": "CNY",
    "美元": "USD",
    "港元": "HKD",
    "港币": "HKD",
    "欧元": "EUR",
    "日元": "JPY",
    "英镑": "GBP",
    "澳元": "AUD",
    "加元": "CAD",
    "加拿大元": "CAD",
    "新加坡元": "SGD",
    "新台币": "TWD",
    "台币": "TWD",
    "韩元": "KRW",
    "瑞士法郎": "CHF",
}
"""Currency words of Chinese registers; 元 alone is the yuan of whatever currency the register keeps."""


def read_capital(text: str, default: str) -> tuple[str, str] | None:
    """Read an amount the way Chinese registers write registered capital: 100(万元人民币), 50万美元, 1.2亿元.

    Gives amount and ISO 4217 currency, None where the notation has a unit but no number. Raises `ValueError` for
    anything else.
    """
    found = _CAPITAL.fullmatch(text.replace(" ", ""))
    if not found or found["unit"] not in _CURRENCIES:
        raise ValueError("is no notation of capital")
    if not found["number"]:
        return None
    if len(found["number"]) > _CAPITAL_DIGITS:
        raise ValueError("is no amount anybody has")
    number = Decimal(_number(found["number"].replace("，", ","), ",", "."))
    amount = number.scaleb(_SCALES[found["scale"]])
    # 1.5000(万美元) is 15000: four decimals of a ten thousand say nothing about cents.
    normal = amount.quantize(Decimal(1)) if amount == amount.to_integral_value() else amount.normalize()
    return plain_decimal(str(normal)), _CURRENCIES[found["unit"]] or default


def _capital(part: int | None, name: str, gives: Kind | None) -> Callable[[Arguments], Parser]:
    def make(arguments: Arguments) -> Parser:
        default = arguments.text("currency", "CNY")

        def step(text: str) -> str | None:
            found = read_capital(text, default)
            if found is None:
                return None
            return " ".join(found) if part is None else found[part]

        return Parser(name, step, gives)

    return make


_PARSERS: Mapping[str, tuple[str, Callable[[Arguments], Parser]]] = {
    # name -> the argument a bare value stands for, and the maker
    "upper": ("", _upper),
    "lower": ("", _lower),
    "squeeze": ("", _squeeze),
    "replace": ("pattern", _replace),
    "extract": ("pattern", _extract),
    "matches": ("pattern", _matches),
    "token": ("key", _token),
    "date": ("formats", _date),
    "timestamp": ("formats", _timestamp),
    "wco.timestamp": ("", _wco_timestamp),
    "decimal": ("group", _decimal),
    "integer": ("group", _integer),
    "boolean": ("truths", _boolean),
    "cn_capital": ("currency", _capital(None, "cn_capital", Kind.MONEY)),
    "cn_capital.amount": ("currency", _capital(0, "cn_capital.amount", Kind.DECIMAL)),
    "cn_capital.currency": ("currency", _capital(1, "cn_capital.currency", None)),
}

NAMES: tuple[str, ...] = tuple(sorted(_PARSERS))
"""Every parser a mapping file may name."""


def words(table: Mapping[str, str], other: str) -> Parser:
    """Make a parser that translates words; `other` words are refused, kept or dropped."""

    def step(text: str) -> str | None:
        found = table.get(text)
        if found is None and other == "refuse":
            close = get_close_matches(text, table, n=1)
            raise ValueError("is none of the known words" + (f"; nearest is {close[0]!r}" if close else ""))
        return text if found is None and other == "keep" else found

    outcomes = () if other == "keep" else tuple(table.values())
    return Parser("words", step, outcomes=outcomes)


def parser(name: str, argument: object, secrets: Secrets | None) -> Parser:
    """Make a parser from its name and what the mapping file wrote beside it.

    Raises `ValueError` for an unknown name or unfit arguments, `KeyError` for a secret that is not there.
    """
    if name not in _PARSERS:
        close = get_close_matches(name, _PARSERS, n=1)
        raise ValueError(f"there is no parser {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    bare, make = _PARSERS[name]
    if isinstance(argument, dict):
        values = cast("dict[str, object]", argument)
    elif argument is None:
        values = {}
    elif bare:
        values = {bare: argument}
    else:
        raise ValueError(f"parser {name!r} takes no argument")
    arguments = Arguments(values, secrets)
    try:
        made = make(arguments)
    except ValueError as error:
        raise ValueError(f"parser {name!r} {error}") from None
    if unknown := arguments.unknown():
        raise ValueError(f"parser {name!r} knows no argument {sorted(unknown)[0]!r}")
    return made
