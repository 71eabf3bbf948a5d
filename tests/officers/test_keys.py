"""Which keys of a set are used, and how keys from a URL are kept."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from joserfc.jwk import RSAKey

from services.kit.credentials import strict
from services.kit.errors import Reason, Unavailable
from services.kit.officers.keys import AGAIN, LIMIT, MAX_KEYS, REFRESH, RETRY, STALE, UrlKeys, read_jwks
from services.kit.officers.seen import MemorySeen
from services.kit.officers.verifier import Officers
from tests.officers.bed import AUDIENCE, PSEUDONYMS, Bed, Signing, jwks
from tests.officers.provider import Provider, Seconds, provider

EVERY = ("Ed25519", "ES256", "PS256")
ED = Signing.generate("Ed25519", "ed")
EC = Signing.generate("ES256", "ec")
RSA = Signing.generate("PS256", "rsa")


@pytest.mark.parametrize("signing", [ED, EC, RSA], ids=EVERY)
def test_a_key_is_for_one_algorithm(signing: Signing) -> None:
    found = read_jwks(jwks(ED, EC, RSA), EVERY)
    assert {kid: key.algorithm for kid, key in found.items()} == {"ed": "Ed25519", "ec": "ES256", "rsa": "PS256"}
    assert set(read_jwks(jwks(ED, EC, RSA), [signing.algorithm])) == {signing.kid}


@pytest.mark.parametrize("signing", [ED, EC, RSA], ids=EVERY)
@pytest.mark.parametrize("said", [{"alg": None}, {"use": None}, {"key_ops": ["verify"]}, {"x5t": "A"}, {"exp": 1}])
def test_what_a_key_need_not_say(signing: Signing, said: dict[str, Any]) -> None:
    assert set(read_jwks(jwks(signing.public(**said)), EVERY)) == {signing.kid}


@pytest.mark.parametrize(
    "other",
    [
        RSA.public(alg="RS256", kid="ed"),
        RSA.public(alg="RSA-OAEP", kid="ed"),
        EC.public(use="enc", kid="ed"),
        EC.public(key_ops=["sign"], kid="ed"),
        EC.public(key_ops="verify", kid="ed"),
        EC.public(crv="P-384", kid="ed"),
        ED.public(alg="EdDSA"),
        ED.public(crv="Ed448"),
        ED.public(crv="X25519"),
        EC.public(kid=None),
        EC.public(kid=""),
        EC.public(kid=1),
        EC.public(kid="x" * 201),
        {"kty": "other", "kid": "ed"},
        {"kty": [], "crv": {}, "kid": "ed"},
        {},
    ],
)
def test_keys_for_something_else_are_left_alone(other: dict[str, Any]) -> None:
    assert set(read_jwks(jwks(other, ED), EVERY)) == {"ed"}
    with pytest.raises(ValueError, match="no key that"):
        read_jwks(jwks(other), EVERY)


def rsa(bits: int, exponent: int = 65537) -> dict[str, Any]:
    numbers = generate_private_key(65537, max(bits, 1024)).public_key().public_numbers()
    modulus = numbers.n if bits >= 1024 else 15
    encoded = {"n": modulus, "e": exponent}
    return {"kty": "RSA", "kid": "r"} | {
        name: strict.encode(value.to_bytes((value.bit_length() + 7) // 8)) for name, value in encoded.items()
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {**ED.key.as_dict(private=True), "kid": "ed"},
        {**EC.key.as_dict(private=True), "kid": "ec"},
        {**RSA.key.as_dict(private=True), "kid": "rsa"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "mac"},
        RSA.public(d=""),
        rsa(1024),
        rsa(2047),
        rsa(1),
        rsa(2048, 3),
        rsa(2048, 1),
        rsa(2048, 1 << 32),
        rsa(2048, 65536),
        {**rsa(2048), "n": strict.encode(b"\xff" * 1025)},
        {**rsa(2048), "n": 5},
        {**rsa(2048), "e": "AQAB="},
        ED.public(x=None),
        ED.public(x=""),
        ED.public(x="A" * 42),
        ED.public(x=1),
        EC.public(y=EC.public()["x"]),
        EC.public(y=None),
        EC.public(x="AA"),
        "key",
        None,
    ],
    ids=range(24),
)
def test_a_set_with_a_bad_key_is_used_not_at_all(wrong: Any) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - its words are for people
        read_jwks(jwks(ED.named("good"), wrong), EVERY)
    assert "c2VjcmV0" not in str(refused.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[],"keys":[]}',
        b"\xff",
        jwks(ED, ED),
        jwks(ED, EC.named("ed")),
        jwks(*(ED.named(str(number)) for number in range(MAX_KEYS + 1))),
        jwks(ED) + b" " * LIMIT,
        jwks(ED)[:-1],
    ],
    ids=range(12),
)
def test_what_is_no_set(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its words are for people
        read_jwks(data, EVERY)


def test_the_largest_set_is_read() -> None:
    named = [ED.named(str(number)) for number in range(MAX_KEYS)]
    assert len(read_jwks(jwks(*named), EVERY)) == MAX_KEYS
    assert len(read_jwks(jwks(ED).ljust(LIMIT), EVERY)) == 1


def test_an_rsa_key_of_the_largest_size_is_read() -> None:
    raw = {**rsa(2048), "n": strict.encode(b"\xff" * 1024)}
    (found,) = read_jwks(jwks(raw), EVERY).values()
    assert isinstance(found.key, RSAKey)


def followed(there: Provider, seconds: Seconds, timeout: float = 10) -> UrlKeys:
    return UrlKeys(there.url, there.ca, EVERY, monotonic=seconds, timeout=timeout)


async def test_keys_are_fetched_once_and_kept(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        there.body = jwks(ED)
        seconds = Seconds()
        keys = followed(there, seconds)
        assert there.asked == [], "a node starts without its identity providers"
        for _ in range(3):
            assert await keys.find("ed")
        assert len(there.asked) == 1


async def test_many_at_once_fetch_once(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        there.body = jwks(ED)
        keys = followed(there, Seconds())
        assert all(await asyncio.gather(*(keys.find("ed") for _ in range(50))))
        assert len(there.asked) == 1


async def test_unknown_keys_have_them_fetched_again_once_a_minute_at_most(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        there.body = jwks(ED)
        seconds = Seconds()
        keys = followed(there, seconds)
        assert await keys.find("ed")
        there.body = jwks(ED, EC)
        assert await keys.find("ec") is None
        seconds.at += AGAIN - 1
        assert [await keys.find(str(number)) for number in range(100)] == [None] * 100
        assert len(there.asked) == 1
        seconds.at += 1
        assert await keys.find("ec"), "a new key is found"
        assert [await keys.find(str(number)) for number in range(100)] == [None] * 100
        assert len(there.asked) == 2


async def test_keys_are_fetched_again_and_what_was_taken_back_is_gone(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        there.body = jwks(ED, EC)
        seconds = Seconds()
        keys = followed(there, seconds)
        assert await keys.find("ec")
        there.body = jwks(ED)
        seconds.at += REFRESH - 1
        assert await keys.find("ec")
        seconds.at += 1
        assert await keys.find("ec") is None
        assert await keys.find("ed")
        assert len(there.asked) == 2


async def test_while_the_provider_is_away_keys_stand_for_an_hour(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with provider(tmp_path) as there:
        there.body = jwks(ED)
        seconds = Seconds()
        keys = followed(there, seconds)
        assert await keys.find("ed")
        there.body = b"gone"
        seconds.at += STALE - 1
        assert await keys.find("ed")
        assert "cannot be fetched" in caplog.text
        seconds.at += 1
        with pytest.raises(Unavailable) as refused:
            await keys.find("ed")
        assert refused.value.reason is Reason.ISSUER_KEYS_UNAVAILABLE
        there.body = jwks(ED)
        seconds.at += AGAIN
        assert await keys.find("ed")


async def test_without_keys_it_is_tried_again_soon_but_not_always(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        seconds = Seconds()
        keys = followed(there, seconds)
        for _ in range(10):
            with pytest.raises(Unavailable):
                await keys.find("ed")
        assert len(there.asked) == 1
        there.body = jwks(ED)
        seconds.at += RETRY
        assert await keys.find("ed")


async def test_a_call_that_gives_up_does_not_end_it_for_the_others(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        there.body = jwks(ED)
        there.gate.clear()
        keys = followed(there, Seconds())
        impatient, patient = (asyncio.create_task(keys.find("ed")) for _ in range(2))
        await there.reached.wait()
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        there.gate.set()
        assert await patient
        assert len(there.asked) == 1


async def test_nothing_waits_while_keys_are_fetched(tmp_path: Path) -> None:
    """The event loop goes on: what it does meanwhile is what lets the provider answer at all."""
    async with provider(tmp_path) as there:
        there.body = jwks(ED)
        there.gate.clear()
        keys = followed(there, Seconds())
        asking = asyncio.create_task(keys.find("ed"))
        await there.reached.wait()
        assert not asking.done()
        there.gate.set()
        assert await asking


async def test_closing_ends_a_fetch(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        there.silent = True
        keys = followed(there, Seconds())
        asking = asyncio.create_task(keys.find("ed"))
        await there.reached.wait()
        await keys.close()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await keys.close()


async def test_officers_are_known_by_keys_from_a_url(bed: Bed, tmp_path: Path) -> None:
    async with provider(tmp_path / "provider") as there:
        there.body = jwks(ED)
        section = bed.section("customs", jwks=None, jwks_url=there.url, jwks_ca=there.ca)
        seconds = Seconds()
        seen = MemorySeen(bed.clock)
        officers = Officers({"customs": section}, AUDIENCE, bed.clock, seen, PSEUDONYMS, monotonic=seconds)
        assert await bed.refusal(ED.token(bed.claims()), officers) is None
        assert await bed.refusal(EC.token(bed.claims()), officers) is Reason.OFFICER_TOKEN_INVALID
        assert await bed.refusal(bed.token(), officers) is Reason.OFFICER_TOKEN_INVALID
        seconds.at += STALE
        there.body = b""
        assert await bed.refusal(ED.token(bed.claims(jti="t-2")), officers) is Reason.ISSUER_KEYS_UNAVAILABLE
        await officers.close()
