"""Values of a sample row, and the canonical text each is written as.

Rows are made of Python values, amounts above all; the text forms are those of `services.kit.records.values.text_of`,
and what repeats stands in one column as JSON, so that `adapters.mapping.auto` reads the files back.
"""

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import cast

Row = dict[str, object]
"""One record: values by field path; a repeated part is a list of rows."""

_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount with its currency."""

    amount: Decimal
    currency: str = "CNY"

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its UN/ECE Recommendation 20 unit."""

    number: Decimal
    unit: str

    def __str__(self) -> str:
        return f"{self.number:f} {self.unit}"


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A calendar month."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @classmethod
    def of(cls, day: dt.date) -> "Period":
        """Tell the month a day is in."""
        return cls(day.year, day.month)

    def plus(self, months: int) -> "Period":
        """Go some months on, or back."""
        count = self.year * 12 + self.month - 1 + months
        return Period(count // 12, count % 12 + 1)

    def day(self, number: int) -> dt.date:
        """Name a day of the month."""
        return dt.date(self.year, self.month, number)


def cents(amount: Decimal | int) -> Decimal:
    """Round to two decimals, half up, as money is rounded on forms."""
    return Decimal(amount).quantize(_CENT, ROUND_HALF_UP)


def text(value: object) -> str:  # noqa: PLR0911 - one line per kind of value
    """Write a value's canonical text; raises `TypeError` for what records do not hold, floats above all."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | Money() | Quantity() | Period():
            return str(value)
        case Decimal():
            return f"{value:f}"
        case dt.datetime():
            return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        case dt.date():
            return value.isoformat()
        case list() | tuple():
            return _list_text(cast("list[object]", value)) if value else ""
        case _:
            raise TypeError(f"records hold no {type(value).__name__}")


def _list_text(values: list[object]) -> str:
    return json.dumps([_item(v) for v in values], ensure_ascii=False, separators=(",", ":"))


def _item(value: object) -> str | dict[str, str]:
    if not isinstance(value, Mapping):
        return text(value)
    part = cast("Mapping[str, object]", value)
    # A list inside a part is JSON in a text, as `adapters.writing` has it.
    return {name: text(held) for name, held in part.items() if held is not None}
