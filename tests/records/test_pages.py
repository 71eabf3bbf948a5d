"""Page tokens and resume tokens: opaque, sealed, and bound to their question."""

import datetime as dt

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.kit.errors import InvalidArgument, Reason
from services.kit.records.pages import DEFAULT_SIZE, MAX_SIZE, MAX_TOKEN, Cursor, PageTokens, ResumeTokens

SECRET = bytes(range(32))
PAGES, RESUME = PageTokens(SECRET), ResumeTokens(SECRET)
ASKED = ("spiffe://zone/tax/refund", "customs.Declaration", "cn.uscc", "91350211M0000XUF47")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
bindings = st.lists(texts, max_size=5).map(tuple)
moments = st.none() | st.datetimes(timezones=st.just(dt.UTC))


def refused(token: str, binding: tuple[str, ...] = ASKED) -> Reason:
    with pytest.raises(InvalidArgument) as caught:
        PAGES.open(token, binding)
    return caught.value.reason


@given(texts, moments, bindings)
def test_round_trip(key: str, moment: dt.datetime | None, binding: tuple[str, ...]) -> None:
    assert PAGES.open(PAGES.seal(key, moment, binding), binding) == Cursor(key, moment)


@given(st.integers(0, 2**63 - 1), bindings)
def test_round_trip_of_resume_tokens(seq: int, binding: tuple[str, ...]) -> None:
    assert RESUME.open(RESUME.seal(seq, binding), binding) == seq


@given(texts, bindings, bindings)
def test_a_token_of_another_question(key: str, binding: tuple[str, ...], other: tuple[str, ...]) -> None:
    assume(binding != other)
    assert refused(PAGES.seal(key, None, binding), other) is Reason.PAGE_TOKEN_MISMATCH


@given(st.data())
def test_any_change_is_noticed(data: st.DataObject) -> None:
    token = PAGES.seal("223120261000000001", None, ASKED)
    at = data.draw(st.integers(0, len(token) - 1))
    new = data.draw(st.characters(codec="ascii") | st.sampled_from("ABab01-_="))
    changed = token[:at] + new + token[at + 1 :]
    assume(changed != token)
    assert refused(changed) is Reason.PAGE_TOKEN_INVALID


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.hex()))
def test_anything_else_is_refused(token: str) -> None:
    assert refused(token) is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize("cut", [1, 2, 5, 20])
def test_a_token_cut_short_or_grown(cut: int) -> None:
    token = PAGES.seal("k", None, ASKED)
    for wrong in (token[:-cut], token + "A" * cut, token + "=", " " + token, token + "\n"):
        assert refused(wrong) is Reason.PAGE_TOKEN_INVALID


def test_another_nodes_token() -> None:
    assert refused(PageTokens(bytes(32)).seal("k", None, ASKED)) is Reason.PAGE_TOKEN_INVALID


def test_one_kind_of_token_is_not_the_other() -> None:
    assert refused(RESUME.seal(1, ASKED)) is Reason.PAGE_TOKEN_INVALID
    for token in (PAGES.seal("k", None, ASKED), "", "x" * (MAX_TOKEN + 1), RESUME.seal(1, ("other",))):
        with pytest.raises(InvalidArgument) as caught:
            RESUME.open(token, ASKED)
        assert caught.value.reason is Reason.RESUME_TOKEN_INVALID


def test_a_token_does_not_show_the_key() -> None:
    # The key may be a field that the caller is not given.
    longest = PAGES.seal("223120261000000001", None, ASKED)
    assert "2231" not in longest
    assert PAGES.seal("1", None, ASKED)[-8:] != PAGES.seal("2", None, ASKED)[-8:]


def test_page_sizes() -> None:
    assert [PAGES.size(n) for n in (0, 1, MAX_SIZE, MAX_SIZE + 1, 2**31 - 1)] == [DEFAULT_SIZE, 1, 200, 200, 200]
    with pytest.raises(InvalidArgument) as caught:
        PAGES.size(-1)
    assert caught.value.reason is Reason.PAGE_SIZE_INVALID
