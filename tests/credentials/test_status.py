"""Status lists: the draft's vectors, lists of our own, and what somebody may send instead of one."""

import datetime as dt
import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.credentials import signed, status, strict
from services.kit.credentials.keys import PublishedKeys
from services.kit.credentials.published import seconds
from services.kit.credentials.status import Status, StatusList
from services.kit.errors import HutongError, InvalidArgument, Reason
from tests.credentials import vectors
from tests.credentials.making import DAY, LIST, NOW, Agencies
from tests.credentials.vectors import Vector

MINUTE = dt.timedelta(minutes=1)
EVERY = pytest.mark.parametrize(
    "vector",
    [vectors.SHORT_1, vectors.SHORT_2, vectors.LONG_1, vectors.LONG_2, vectors.LONG_4, vectors.LONG_8],
    ids=["1 bit", "2 bits", "1 bit, long", "2 bits, long", "4 bits, long", "8 bits, long"],
)


@EVERY
def test_a_vector_is_read(vector: Vector) -> None:
    made = StatusList(LIST, vector.bits, status.decompress(vector.lst))
    assert len(made) == vector.size
    assert {i: made[i] for i in range(len(made)) if made[i]} == {i: v for i, v in vector.values.items() if v}


@EVERY
def test_a_vector_is_packed(vector: Vector) -> None:
    values = [0] * vector.size
    for index, value in vector.values.items():
        values[index] = value
    made = StatusList.of(LIST, values, vector.bits)
    # Not the text: how well zlib compresses is its own business.
    assert made.packed == status.decompress(vector.lst)
    assert status.decompress(status.compress(made.packed)) == made.packed


@given(st.sampled_from((1, 2, 4, 8)).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1)))))
def test_what_is_packed_comes_back(case: tuple[int, list[int]]) -> None:
    bits, values = case
    made = StatusList.of(LIST, values, bits)
    assert [made[i] for i in range(len(values))] == values
    assert len(values) <= len(made) < len(values) + 8 // bits
    with pytest.raises(IndexError):
        made[len(made)]
    with pytest.raises(IndexError):
        made[-1]


@pytest.mark.parametrize("value", [-1, 4])
def test_what_does_not_fit_is_not_packed(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        StatusList.of(LIST, [0, value])


def issued(agencies: Agencies, values: list[int] | None = None) -> str:
    made = StatusList.of(LIST, values or [Status.VALID, Status.INVALID, Status.SUSPENDED, Status.SUPERSEDED])
    return status.issue(made, agencies.signing["recognition"], NOW, DAY, 5 * MINUTE)


def test_a_list_travels(agencies: Agencies, published: PublishedKeys) -> None:
    read = status.verify(issued(agencies), published, at=NOW, issuer="recognition", uri=LIST)
    assert [Status(read[i]) for i in range(len(read))] == list(Status)
    assert (read.uri, read.issued_at, read.expires_at, read.ttl) == (LIST, NOW, NOW + DAY, 5 * MINUTE)


def reason(text: str, published: PublishedKeys, at: dt.datetime = NOW, issuer: str = "recognition") -> Reason | None:
    try:
        status.verify(text, published, at=at, issuer=issuer, uri=LIST)
    except HutongError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (NOW - MINUTE, None),
        (NOW - MINUTE - dt.timedelta(seconds=1), Reason.STATUS_LIST_INVALID),
        (NOW + DAY - dt.timedelta(seconds=1), None),
        (NOW + DAY, Reason.STATUS_LIST_INVALID),
    ],
)
def test_a_list_has_its_time(
    agencies: Agencies, published: PublishedKeys, at: dt.datetime, expected: Reason | None
) -> None:
    assert reason(issued(agencies), published, at) is expected


def token(agencies: Agencies, header: dict[str, Any] | None = None, agency: str = "recognition", **changed: Any) -> str:
    signing = agencies.signing[agency].active(NOW)
    claims = {
        "sub": LIST,
        "iss": signing.issuer,
        "iat": seconds(NOW),
        "status_list": {"bits": 2, "lst": status.compress(b"\x00")},
        **changed,
    }
    said = {name: value for name, value in claims.items() if value is not None}
    return signed.sign({"typ": status.TYPE, "kid": signing.kid, **(header or {})}, said, signing.key)


def test_a_list_need_not_end(agencies: Agencies, published: PublishedKeys) -> None:
    assert reason(token(agencies), published, NOW + 3650 * DAY) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"sub": "urn:hutong:status:customs:1"},
        {"sub": None},
        {"iss": None},
        {"iss": "spiffe://south.example/recognition"},
        {"iss": "spiffe://north.example/customs"},
        {"iat": None},
        {"iat": "1"},
        {"iat": True},
        {"iat": -1},
        {"iat": 10**15},
        {"exp": "never"},
        {"ttl": 0},
        {"ttl": -5},
        {"status_list": None},
        {"status_list": {"bits": 3, "lst": status.compress(b"\x00")}},
        {"status_list": {"bits": True, "lst": status.compress(b"\x00")}},
        {"status_list": {"bits": 2}},
        {"status_list": {"bits": 2, "lst": "AAAA"}},
        {"status_list": {"bits": 2, "lst": "not base64url"}},
        {"status_list": {"bits": 2, "lst": strict.encode(zlib.compress(b"\x00")[:-1])}},
        {"status_list": {"bits": 2, "lst": strict.encode(zlib.compress(b"\x00") + b"\x00")}},
        {"status_list": {"bits": 2, "lst": strict.encode(zlib.compress(bytes(status.MAX_BYTES + 1), 9))}},
        {"header": {"typ": "JWT"}},
        {"header": {"typ": "dc+sd-jwt"}},
        {"header": {"jku": "https://keys.example/jwks.json"}},
        {"agency": "customs"},
    ],
)
def test_what_is_no_list_of_theirs_is_refused(
    agencies: Agencies, published: PublishedKeys, changed: dict[str, Any]
) -> None:
    assert reason(token(agencies, **changed), published) is Reason.STATUS_LIST_INVALID


def test_a_bomb_does_not_go_off() -> None:
    bomb = strict.encode(zlib.compress(bytes(64 * 1024 * 1024), 9))
    assert len(bomb) < status.LIMIT
    with pytest.raises(ValueError, match="too long"):
        status.decompress(bomb)
    assert len(status.decompress(status.compress(bytes(status.MAX_BYTES)))) == status.MAX_BYTES


def test_the_longest_list_travels(agencies: Agencies, published: PublishedKeys) -> None:
    # As full of different values as it gets, so that it does not compress.
    full = StatusList(LIST, 2, random.Random(1).randbytes(status.MAX_BYTES))
    text = status.issue(full, agencies.signing["recognition"], NOW, DAY, 5 * MINUTE)
    assert len(text) > status.MAX_BYTES
    assert status.verify(text, published, at=NOW, issuer="recognition").packed == full.packed


def test_keys_are_the_issuers(agencies: Agencies, published: PublishedKeys) -> None:
    # Signed by customs, which gives out that recognition did.
    forged = token(agencies, agency="customs", iss=agencies.signing["recognition"].issuer)
    assert reason(forged, published) is Reason.KEY_UNKNOWN
    kid = agencies.signing["recognition"].active(NOW).kid
    forged = token(agencies, {"kid": kid}, agency="customs", iss=agencies.signing["recognition"].issuer)
    assert reason(forged, published) is Reason.STATUS_LIST_INVALID


def test_a_revoked_key_signs_no_list(agencies: Agencies) -> None:
    text, keys = issued(agencies), agencies.signing["recognition"]
    keys.revoke(keys.active(NOW).kid, NOW, "key-compromise")
    keys.publish(agencies.keys)
    assert reason(text, agencies.published) is Reason.KEY_REVOKED


def test_every_altered_character_is_noticed(agencies: Agencies, published: PublishedKeys) -> None:
    text = issued(agencies)
    for place, character in enumerate(text):
        altered = text[:place] + ("B" if character == "A" else "A") + text[place + 1 :]
        with pytest.raises(HutongError):
            status.verify(altered, published, at=NOW, issuer="recognition", uri=LIST)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "x" * (status.LIMIT + 1), "é.é.é"])
def test_what_is_no_token_is_refused(published: PublishedKeys, text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        status.verify(text, published, at=NOW, issuer="recognition")
    assert refused.value.reason is Reason.STATUS_LIST_INVALID
