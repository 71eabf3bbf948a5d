"""Values outside protobuf: what goes into a column, for any number at all, at once or not at all."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import InvalidArgument, Reason
from services.kit.records import conditions, values
from services.kit.records.values import SCALE, scaled
from tests.policy import specimen

LIMIT = 2**63 - 1
HUGE = ("1E900000", "-1E999999", "1E9999999", "9E999999999", "1E13", "9223372036854.775808")


@pytest.mark.parametrize("text", HUGE)
def test_numbers_beyond_all_measure_are_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="too large for a column"):
        scaled(Decimal(text))


@pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        scaled(Decimal(text))


@pytest.mark.parametrize("text", ["1E-900000", "-1E-9999999", "0E9999999", "-0", "0.0000009", "1E-999999999"])
def test_numbers_finer_than_a_column_are_cut_to_nothing(text: str) -> None:
    assert scaled(Decimal(text)) == 0


def test_the_largest_and_smallest_fit() -> None:
    assert scaled(Decimal("9223372036854.775807")) == LIMIT
    assert scaled(Decimal("-9223372036854.7758079999")) == -LIMIT


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_number_is_cut_exactly_or_refused(number: Decimal) -> None:
    if number and number.adjusted() > 30:
        exact = LIMIT + 1
    else:
        exact = int(Fraction(number) * 10**SCALE) if number.adjusted() > -60 else 0
    if abs(exact) > LIMIT:
        with pytest.raises(ValueError, match="too large"):
            scaled(number)
    else:
        assert scaled(number) == exact


@given(st.lists(st.decimals(-(10**12), 10**12, allow_nan=False), min_size=2, max_size=2))
def test_columns_sort_like_numbers(pair: list[Decimal]) -> None:
    low, high = sorted(pair)
    assert scaled(low) <= scaled(high)


@pytest.mark.parametrize("text", HUGE[:4])
def test_a_filter_cannot_ask_for_one(text: str) -> None:
    kind = specimen.specimen_type()
    with pytest.raises(ValueError, match="too large"):
        values.column_from_text(kind.field("weight").descriptor, text)
    for written in (text, f"'{text}'"):
        with pytest.raises(InvalidArgument) as refused:
            conditions.parse(f"weight > {written}", kind)
        assert refused.value.reason is Reason.FILTER_INVALID
