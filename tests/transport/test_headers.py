"""What is written into headers is read back, and what others write is read as gRPC says."""

import base64
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.transport.nghttp2 import headers


@given(st.one_of(st.floats(0, 1e-3), st.floats(0, 1), st.floats(1, 90_000_000)))
def test_a_timeout_is_read_back_never_shorter_and_hardly_longer(seconds: float) -> None:
    text = headers.timeout(seconds)
    read = headers.timeout_of(text)
    assert len(text) <= 9
    assert seconds * (1 - 1e-6) <= read <= seconds * 1.01 + 1e-6 * 1.01


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, b"500m"),
        (0.29, b"290m"),
        (5, b"5000m"),
        (9.8734, b"9880m"),
        (0.9991, b"1000m"),
        (0.0001, b"100u"),
        (0.0011, b"1100u"),
        (0.0, b"1u"),
        (-1.0, b"1u"),
        (86_400, b"86400000m"),
        (1e12, b"99999999S"),
    ],
)
def test_a_timeout_is_written_as_expected(seconds: float, text: bytes) -> None:
    assert headers.timeout(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1H", 3600),
        (b"2M", 120),
        (b"3S", 3),
        (b"4m", 0.004),
        (b"5u", 5e-6),
        (b"6n", 6e-9),
        (b"99999999H", 359_999_996_400),
    ],
)
def test_every_unit_is_read(text: bytes, seconds: float) -> None:
    assert math.isclose(headers.timeout_of(text), seconds)


@pytest.mark.parametrize(
    "text", [b"", b"S", b"5", b"5s", b"-5S", b"+5S", b" 5S", b"5S ", b"5.0S", b"123456789S", "٣S".encode(), b"5S\n"]
)
def test_what_is_no_timeout_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        headers.timeout_of(text)


@given(st.text(st.characters(codec="utf-8")))
def test_a_message_is_read_back(message: str) -> None:
    written = headers.percent_encode(message)
    assert all(0x20 <= byte <= 0x7E for byte in written)
    assert headers.percent_decode(written) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"100%", "100%"), (b"%zz%4", "%zz%4"), (b"%e4%BD%a0", "你"), (b"%FF", "\ufffd"), (b"\xe4\xbd\xa0", "你")],
)
def test_what_others_write_is_read_as_best_it_can_be(text: bytes, message: str) -> None:
    assert headers.percent_decode(text) == message


def test_half_a_character_is_no_reason_to_fail() -> None:
    assert headers.percent_encode("a\ud800b") == b"a?b"


@given(st.binary())
def test_details_are_read_back_padded_or_not(status: bytes) -> None:
    assert b"=" not in headers.details(status)
    assert headers.read_details(headers.details(status)) == status
    assert headers.read_details(base64.b64encode(status)) == status


@given(st.binary(min_size=1), st.binary())
def test_of_several_details_the_first_is_read(first: bytes, second: bytes) -> None:
    assert headers.read_details(headers.details(first) + b"," + headers.details(second)) == first


@pytest.mark.parametrize("text", [b"*", b"AAAAA", b"A\xff==", b"AA AA"])
def test_what_is_no_base64_is_none(text: bytes) -> None:
    assert headers.read_details(text) is None
