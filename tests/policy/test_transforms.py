"""Transforms: what each gives, where it fits, and that none fails open."""

from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from services.kit.policy.transforms import Transform, initials, last4, least_revealing, pseudonym_key
from services.kit.records.values import Kind
from tests.policy.specimen import records
from tests.policy.support import SECRET, TYPE, present

KEY = pseudonym_key(SECRET, "taxation", "P-REBATE")


def transform(text: str) -> Transform:
    found = Transform.parse(text)
    assert found is not None
    return found


def after(text: str, path: str, **fields: Any) -> Any:
    """The field's value after a transform; None where it was left out."""
    record: Any = TYPE.message(**fields)
    transform(text).bind(TYPE.field(path), KEY)(record)
    field = TYPE.field(path)
    if field.descriptor.has_presence and not record.HasField(path):
        return None
    return getattr(record, path) or None


@pytest.mark.parametrize(
    ("text", "given_", "came"),
    [
        ("last4", "13905912345", "****2345"),
        ("last4", "1234567", "****567"),
        ("last4", "12345", None),
        ("initials", "John Smith", "J. S."),
        ("initials", "Fujian  Trading Co., Ltd", "F. T. C. L."),
        ("initials", "王小明", "王**"),
        ("initials", "A", None),
        ("initials", "A B C", None),
        ("initials", "--", None),
    ],
)
def test_texts(text: str, given_: str, came: str | None) -> None:
    assert after(text, "phone", phone=given_) == came


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_masks_of_texts_never_show_more_than_half(text: str) -> None:
    for shown in (last4(text), initials(text)):
        if shown is not None:
            letters = [c for c in shown if c not in "*. "]
            assert 2 * len(letters) <= max(len(text), 2 * sum(c.isalnum() for c in text))
            assert shown != text
    if last4(text) is not None:
        assert last4(str(last4(text))) == last4(text)


@pytest.mark.parametrize(
    ("edges", "number", "came"),
    [
        ("0,10000,100000", "9999.99", "0"),
        ("0,10000,100000", "10000", "10000"),
        ("0,10000,100000", "1e9", "100000"),
        ("0,10000,100000", "-0.01", None),
        ("-5.5,0", "-1", "-5.5"),
        ("log10/4", "0", "0"),
        ("log10/4", "1", "1"),
        ("log10/4", "1777.9", "1000"),
        ("log10/4", "1778", "1778"),
        ("log10/4", "999.99", "562.3"),
        ("log10/4", "-0.002", "-0.001778"),
        ("log10/1", "123456", "100000"),
        ("log10/4", "nonsense", None),
        ("log10/4", "Infinity", None),
        ("log10/4", "NaN", None),
        ("log10/4", "1e60", None),
        ("0,1", "NaN", None),
    ],
)
def test_buckets_give_the_lower_edge(edges: str, number: str, came: str | None) -> None:
    found = after(f"bucket:{edges}", "weight", weight={"value": number})
    assert (found.value if found else None) == came


def test_buckets_keep_type_currency_and_unit() -> None:
    money = after("bucket:0,100", "value", value={"currency_code": "CNY", "amount": {"value": "250.10"}})
    assert (money.currency_code, money.amount.value) == ("CNY", "100")
    quantity = after("bucket:0,100", "mass", mass={"unit_code": "KGM", "value": {"value": "99"}})
    assert (quantity.unit_code, quantity.value.value) == ("KGM", "0")
    assert after("bucket:1,10", "count", count=25) == 10
    assert after("bucket:log10/4", "count", count=25) == 17
    assert after("bucket:RED,BLUE", "colour", colour=2) == 1
    assert after("bucket:GREEN", "colour", colour=1) is None


@given(st.decimals(-(10**12), 10**12, allow_nan=False, places=3), st.integers(1, 10))
def test_logarithmic_buckets_lie_below_and_repeat(number: Decimal, bands: int) -> None:
    text = f"bucket:log10/{bands}"
    edge = Decimal(after(text, "weight", weight={"value": f"{number:f}"}).value)
    assert abs(edge) <= abs(number)
    assert abs(number) < abs(edge) * Decimal(10) or not number
    assert Decimal(after(text, "weight", weight={"value": f"{edge:f}"}).value) == edge


def test_dates_times_and_periods_are_cut() -> None:
    date = after("year", "bought_on", bought_on={"year": 2024, "month": 2, "day": 29})
    assert (date.year, date.month, date.day) == (2024, 0, 0)
    date = after("month", "bought_on", bought_on={"year": 2024, "month": 2, "day": 29})
    assert (date.year, date.month, date.day) == (2024, 2, 0)
    period = after("year", "period", period={"year": 2024, "month": 3})
    assert (period.year, period.month) == (2024, 0)
    assert after("month", "found_at", found_at={"seconds": 1_717_171_717, "nanos": 5}).ToJsonString() == (
        "2024-05-01T00:00:00Z"
    )
    assert after("year", "found_at", found_at={"seconds": 1_717_171_717}).ToJsonString() == "2024-01-01T00:00:00Z"
    # Past what a calendar can say: left out, not let through.
    assert after("year", "found_at", found_at={"seconds": 2**60}) is None


def test_pseudonyms_are_keyed_and_joinable_within_one_consumer_and_purpose_only() -> None:
    record: Any = TYPE.message(id_number="350211199001011234")
    seen: set[str] = set()
    for secret, consumer, purpose in [
        (SECRET, "taxation", "P-REBATE"),
        (SECRET, "customs", "P-REBATE"),
        (SECRET, "taxation", "P-RISK"),
        (SECRET[::-1], "taxation", "P-REBATE"),
        (SECRET, "taxationP", "-REBATE"),
    ]:
        came: Any = TYPE.message.FromString(record.SerializeToString())
        bind = transform("pseudonym").bind(TYPE.field("id_number"), pseudonym_key(secret, consumer, purpose))
        bind(came)
        seen.add(came.id_number)
        again = TYPE.message.FromString(record.SerializeToString())
        bind(again)
        assert again == came
        assert came.id_number.startswith("pn_")
        assert "3502" not in came.id_number
    assert len(seen) == 5


def test_a_short_secret_protects_nothing() -> None:
    with pytest.raises(ValueError, match="32"):
        pseudonym_key(b"short", "taxation", "P-REBATE")


@pytest.mark.parametrize(
    ("text", "path", "why"),
    [
        ("last4", "weight", "does not fit weight"),
        ("initials", "colour", "does not fit"),
        ("pseudonym", "count", "does not fit"),
        ("year", "code", "does not fit"),
        ("bucket:1,2", "code", "does not fit"),
        ("bucket:2,1", "count", "rise"),
        ("bucket:1,1", "count", "rise"),
        ("bucket:1.5", "count", "whole numbers"),
        ("bucket:3000000000", "limit", "whole numbers"),
        ("bucket:low,high", "weight", "up to"),
        ("bucket:log10/11", "weight", "up to"),
        ("bucket:log10/4", "colour", "log10/4"),
        ("bucket:RED,PURPLE", "colour", "PURPLE"),
        ("bucket:BLUE,RED", "colour", "rise"),
        ("bucket:UNSPECIFIED", "colour", "known values"),
        ("year", "place", "does not fit"),
    ],
)
def test_what_does_not_fit_says_so(text: str, path: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        transform(text).check(TYPE.field(path))


@pytest.mark.parametrize("text", ["", "lastfour", "last4:2", "bucket", "bucket:", "CLEAR", "hmac"])
def test_unknown_transforms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"transform|edges|up to"):
        transform(text).check(TYPE.field("weight"))


def test_a_wrong_name_brings_up_the_nearest() -> None:
    with pytest.raises(ValueError, match="'pseudonym'"):
        Transform.parse("pseudonim")


def test_least_revealing_is_a_total_order() -> None:
    texts = [
        "pseudonym",
        "initials",
        "last4",
        "bucket:1",
        "bucket:1,2",
        "bucket:log10/1",
        "bucket:log10/4",
        "year",
        "month",
    ]
    order = [transform(text) for text in texts]
    assert sorted(order, key=lambda t: t.rank) == order
    for index, one in enumerate(order):
        assert least_revealing([None, *order[index:], None]) == one
    assert least_revealing([None, None]) is None
    assert least_revealing([]) is None
    assert Transform.parse("clear") is None


@given(records(TYPE), st.data())
def test_the_value_itself_never_comes_out_of_a_transform_that_hides_it(record: Message, data: st.DataObject) -> None:
    leaf = data.draw(
        st.sampled_from([f for f in TYPE.leaves if "." not in f.path and f.kind in {Kind.STRING, Kind.BYTES}])
    )
    before = [value for path, value in present(TYPE, record) if path == leaf.path]
    transform("pseudonym").bind(leaf, KEY)(record)
    came = [value for path, value in present(TYPE, record) if path == leaf.path]
    assert len(came) == len(before)
    assert not set(came) & set(before)


def test_repeated_fields_are_transformed_one_by_one() -> None:
    record: Any = TYPE.message(
        remarks=["13905912345", "x"], shown_on=[{"year": 2024, "month": 1, "day": 2}], other_colours=[1, 5, 0]
    )
    for text, path in (("last4", "remarks"), ("year", "shown_on"), ("bucket:GREEN", "other_colours")):
        transform(text).bind(TYPE.field(path), KEY)(record)
    assert list(record.remarks) == ["****2345"]
    assert [(d.year, d.month) for d in record.shown_on] == [(2024, 0)]
    assert list(record.other_colours) == [2]
