"""Base64url and JSON are read one way only."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.credentials import strict

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=80))
def test_base64url_is_what_everyone_writes(data: bytes) -> None:
    text = strict.encode(data)
    assert text == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert strict.decode(text) == data


@given(st.text(alphabet="AQgwBRhx-_+/= \n", max_size=12))
def test_what_is_read_is_written_the_same(text: str) -> None:
    try:
        data = strict.decode(text)
    except ValueError:
        return
    assert strict.encode(data) == text


@pytest.mark.parametrize("text", ["A", "AB", "AAB", "QQ==", "Q+==", "Q/", "QUI ", "Q\nUI", "QÜ", "QUJDR"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its words are the callers' business
        strict.decode(text)


@given(JSON)
def test_json_comes_back(value: Any) -> None:
    assert strict.loads(strict.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{}x",
        b"",
        b"[" * 40 + b"]" * 40,
        b"[" * 60_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b"9" * 5000,
    ],
)
def test_json_that_others_may_read_otherwise_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its words are the callers' business
        strict.loads(text)


def test_the_deepest_nesting_is_taken_and_one_more_is_not() -> None:
    for depth in (3, strict.DEPTH):
        text = json.dumps(_nested(depth)).encode()
        assert strict.loads(text, depth) == _nested(depth)
        with pytest.raises(ValueError, match="too deep"):
            strict.loads(text, depth - 1)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nothing_is_written_that_is_no_json() -> None:
    for value in (float("nan"), float("inf"), "\ud800"):
        with pytest.raises(ValueError):  # noqa: PT011 - its words are the callers' business
            strict.dumps(value)
    with pytest.raises(TypeError):
        strict.dumps(object())
