"""Signing keys: made, published, replaced, revoked; and what a folder of published ones may hold."""

import datetime as dt
import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OKPKey

from services.kit.credentials import signed
from services.kit.credentials.keys import KeyState, PublishedKeys, SigningKeys
from services.kit.credentials.published import SUFFIX, issuer_uri, read_set
from services.kit.errors import FailedPrecondition, NotFound, PermissionDenied, Reason
from tests.credentials.making import DAY, NOW, Agencies, refusal

ISSUER = "spiffe://north.example/publicsecurity"
SECOND = dt.timedelta(seconds=1)


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeys:
    return SigningKeys.create(tmp_path / "signing", ISSUER, NOW)


def states(keys: SigningKeys, now: dt.datetime) -> list[KeyState]:
    return [key.state(now) for key in keys.listed()]


def private(folder: Path) -> set[str]:
    return {path.name.removesuffix(".private.jwk.json") for path in folder.glob("*.private.jwk.json")}


def test_private_keys_are_for_nobody_else(tmp_path: Path, keys: SigningKeys) -> None:
    folder = tmp_path / "signing"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.glob("*.private.jwk.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = json.loads(file.read_text())["d"]
    assert secret not in keys.published()
    assert secret not in repr(keys.active(NOW))


def test_a_folder_that_holds_keys_is_not_overwritten(tmp_path: Path, keys: SigningKeys) -> None:
    before = keys.published()
    with pytest.raises(FailedPrecondition) as refused:
        SigningKeys.create(tmp_path / "signing", ISSUER, NOW)
    assert refused.value.reason is Reason.FOLDER_NOT_EMPTY
    assert SigningKeys.open(tmp_path / "signing").published() == before


@pytest.mark.parametrize(
    "issuer", ["publicsecurity", "spiffe://north.example", "spiffe://north.example/a/b", "spiffe://north.example/A", ""]
)
def test_an_issuer_is_an_agency_of_a_zone(tmp_path: Path, issuer: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        SigningKeys.create(tmp_path / "x", issuer, NOW)
    assert refused.value.reason is Reason.KEY_INVALID


def test_a_folder_without_keys(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        SigningKeys.open(tmp_path)
    assert refused.value.reason is Reason.CONFIG_FILE_MISSING


def test_rotation_keeps_what_was_signed_and_destroys_what_signed_it(tmp_path: Path, keys: SigningKeys) -> None:
    old = keys.active(NOW)
    new = keys.rotate(NOW + DAY)
    assert states(keys, NOW + DAY) == [KeyState.RETIRED, KeyState.ACTIVE]
    assert keys.active(NOW + DAY).kid == new != old.kid
    assert private(tmp_path / "signing") == {new}
    keys.publish(tmp_path / "keys")
    published = PublishedKeys.load(tmp_path / "keys")
    published.find("publicsecurity", old.kid, NOW)
    published.find("publicsecurity", new, NOW + DAY)


def test_a_lead_lets_everyone_learn_of_the_next_key_first(tmp_path: Path, keys: SigningKeys) -> None:
    old = keys.active(NOW).kid
    new = keys.rotate(NOW, lead=DAY)
    assert states(keys, NOW) == [KeyState.ACTIVE, KeyState.PLANNED]
    assert states(keys, NOW + DAY) == [KeyState.RETIRED, KeyState.ACTIVE]
    assert keys.active(NOW + DAY - SECOND).kid == old
    assert keys.active(NOW + DAY).kid == new
    assert private(tmp_path / "signing") == {old, new}
    newest = keys.rotate(NOW + 2 * DAY)
    assert private(tmp_path / "signing") == {newest}


def test_rotating_again_replaces_a_planned_key(keys: SigningKeys) -> None:
    keys.rotate(NOW, lead=DAY)
    newest = keys.rotate(NOW)
    assert keys.active(NOW).kid == newest
    assert keys.active(NOW + 2 * DAY).kid == newest


def test_a_clock_a_little_behind_a_rotation_still_signs(tmp_path: Path, keys: SigningKeys) -> None:
    new = keys.rotate(NOW + DAY)
    signing = keys.active(NOW + DAY - 30 * SECOND)
    assert signing.kid == new
    keys.publish(tmp_path / "keys")
    PublishedKeys.load(tmp_path / "keys").find("publicsecurity", new, NOW + DAY - 30 * SECOND)


def test_a_retired_key_leaves_nothing_to_sign_with(keys: SigningKeys) -> None:
    keys.retire(keys.active(NOW).kid, NOW + DAY)
    with pytest.raises(FailedPrecondition) as refused:
        keys.active(NOW + DAY)
    assert refused.value.reason is Reason.KEY_EXPIRED


def test_a_revoked_key_signs_and_verifies_nothing(tmp_path: Path, keys: SigningKeys) -> None:
    kid = keys.active(NOW).kid
    keys.revoke(kid, NOW + DAY, "key-compromise")
    keys.revoke(kid, NOW + 2 * DAY, "again")
    (key,) = keys.listed()
    assert (key.revoked_at, key.revoked_reason, key.state(NOW)) == (NOW + DAY, "key-compromise", KeyState.REVOKED)
    assert private(tmp_path / "signing") == set()
    with pytest.raises(FailedPrecondition):
        keys.active(NOW)
    keys.publish(tmp_path / "keys")
    with pytest.raises(PermissionDenied) as refused:
        PublishedKeys.load(tmp_path / "keys").find("publicsecurity", kid, NOW)
    assert refused.value.reason is Reason.KEY_REVOKED


def test_an_unknown_key(keys: SigningKeys) -> None:
    with pytest.raises(NotFound) as refused:
        keys.retire("nobody", NOW)
    assert refused.value.reason is Reason.KEY_UNKNOWN
    with pytest.raises(NotFound) as refused:
        keys.revoke("nobody", NOW, "x")
    assert refused.value.reason is Reason.KEY_UNKNOWN


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"null",
        b'{"kty":"OKP"}',
        b'{"d":7}',
        b'{"d":"AAAA"}',
        b"\xff",
        # Another's: what it signs, nobody could verify.
        json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True)).encode(),
    ],
)
def test_a_damaged_private_key_is_not_used(tmp_path: Path, keys: SigningKeys, content: bytes) -> None:
    (file,) = (tmp_path / "signing").glob("*.private.jwk.json")
    file.write_bytes(content)
    with pytest.raises(FailedPrecondition) as refused:
        keys.active(NOW)
    assert refused.value.reason is Reason.KEY_INVALID
    assert refused.value.__cause__ is None


def test_several_at_once_lose_no_key(tmp_path: Path, keys: SigningKeys) -> None:
    threads = [threading.Thread(target=keys.rotate, args=(NOW + i * SECOND,)) for i in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listed = keys.listed()
    assert len(listed) == len({key.kid for key in listed}) == 9
    assert sum(key.state(NOW + DAY) is KeyState.ACTIVE for key in listed) == 1


def test_a_keys_name_is_no_option(keys: SigningKeys) -> None:
    for day in range(60):
        keys.rotate(NOW + day * DAY)
    assert all(key.kid[0].isalnum() for key in keys.listed())


def test_a_set_comes_back(keys: SigningKeys) -> None:
    keys.rotate(NOW + DAY)
    keys.revoke(keys.active(NOW + DAY).kid, NOW + 2 * DAY, "key-compromise")
    keys.rotate(NOW + 2 * DAY, lead=DAY)
    assert read_set(keys.published().encode(), "x") == (ISSUER, keys.listed())
    jwks = json.loads(keys.published())
    assert {key["alg"] for key in jwks["keys"]} == {"Ed25519"}
    # RFC 7638: a key is named after what it is.
    assert all(OKPKey.import_key(key).thumbprint() == key["kid"] for key in jwks["keys"])


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (NOW - 61 * SECOND, Reason.KEY_NOT_YET_VALID),
        (NOW - 60 * SECOND, None),
        (NOW + DAY + 60 * SECOND, None),
        (NOW + DAY + 61 * SECOND, Reason.KEY_EXPIRED),
    ],
)
def test_a_key_verifies_what_was_signed_in_its_time(
    tmp_path: Path, keys: SigningKeys, at: dt.datetime, expected: Reason | None
) -> None:
    kid = keys.active(NOW).kid
    keys.rotate(NOW + DAY)
    keys.publish(tmp_path / "keys")
    published = PublishedKeys.load(tmp_path / "keys")
    if expected is None:
        published.find("publicsecurity", kid, at)
        return
    with pytest.raises(PermissionDenied) as refused:
        published.find("publicsecurity", kid, at)
    assert refused.value.reason is expected


def test_changes_in_the_folder_count_at_once(agencies: Agencies, credential: str) -> None:
    published, keys = agencies.published, agencies.signing["publicsecurity"]
    assert refusal(credential, published) is None
    keys.revoke(keys.active(NOW).kid, NOW, "key-compromise")
    assert refusal(credential, published) is None
    path = keys.publish(agencies.keys)
    assert refusal(credential, published) is Reason.KEY_REVOKED
    path.unlink()
    assert refusal(credential, published) is Reason.RESULT_ISSUER
    path.write_text("half a fi")
    assert refusal(credential, published) is Reason.KEY_INVALID
    assert refusal(credential, published) is Reason.KEY_INVALID
    path.unlink()
    path.mkdir()
    assert refusal(credential, published) is Reason.KEY_INVALID


def test_a_new_agency_is_found(agencies: Agencies) -> None:
    published = agencies.published
    assert published.agencies() == ("customs", "publicsecurity", "recognition")
    made = SigningKeys.create(agencies.folder / "quality", issuer_uri("north.example", "quality"), NOW)
    made.publish(agencies.keys)
    published.find("quality", made.active(NOW).kid, NOW)
    assert json.loads(published.text("quality")) == json.loads(made.published())
    assert (published.text("nobody"), published.keys("nobody"), published.issuer("nobody")) == ("", (), "")


def test_names_are_no_paths(agencies: Agencies) -> None:
    (agencies.folder / f"outside{SUFFIX}").write_bytes((agencies.keys / f"customs{SUFFIX}").read_bytes())
    for name in ("../outside", "/etc/passwd", ".", "", "customs/../customs", "CUSTOMS", "customs\x00"):
        assert agencies.published.issuer(name) == ""


def test_keys_at_hand_need_no_folder(agencies: Agencies, credential: str) -> None:
    published = PublishedKeys.of(*(keys.published().encode() for keys in agencies.signing.values()))
    assert published.agencies() == ("customs", "publicsecurity", "recognition")
    assert refusal(credential, published) is None


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        PublishedKeys.load(tmp_path / "nowhere")
    assert refused.value.reason is Reason.CONFIG_FILE_MISSING


@pytest.mark.parametrize(
    "members",
    [
        {"kty": "EC"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"crv": "Ed448"},
        {"crv": "X25519"},
        {"alg": "EdDSA"},
        {"alg": "HS256"},
        {"use": "enc"},
        {"x": None},
        {"x": "AAAA"},
        {"x": "!" * 43},
        {"x": "B" * 43},
        {"kid": None},
        {"kid": ""},
        {"nbf": None},
        {"nbf": "1"},
        {"nbf": -1},
        {"exp": 10**15},
        {"exp": 1.5},
        {"revoked": {}},
        {"revoked": True},
        {"d": "c2VjcmV0"},
    ],
)
def test_a_key_that_is_none_spoils_its_set(tmp_path: Path, keys: SigningKeys, members: dict[str, Any]) -> None:
    (key,) = json.loads(keys.published())["keys"]
    changed = {name: value for name, value in {**key, **members}.items() if value is not None}
    assert spoilt(tmp_path, {"issuer": ISSUER, "keys": [changed]})


def test_a_set_that_is_none(tmp_path: Path, keys: SigningKeys) -> None:
    listed = json.loads(keys.published())["keys"]
    assert spoilt(tmp_path, {"issuer": ISSUER, "keys": listed * 2})
    assert spoilt(tmp_path, {"issuer": ISSUER, "keys": {}})
    assert spoilt(tmp_path, {"issuer": "spiffe://north.example/customs", "keys": listed})
    assert spoilt(tmp_path, {"issuer": "publicsecurity", "keys": listed})
    assert spoilt(tmp_path, {"keys": listed})
    assert spoilt(tmp_path, {})


def spoilt(folder: Path, jwks: dict[str, Any]) -> bool:
    (folder / f"publicsecurity{SUFFIX}").write_text(json.dumps(jwks))
    with pytest.raises(FailedPrecondition) as refused:
        PublishedKeys.load(folder)
    return refused.value.reason is Reason.KEY_INVALID and "publicsecurity" in refused.value.message


def test_members_that_others_add_are_passed_over(tmp_path: Path, keys: SigningKeys) -> None:
    jwks = json.loads(keys.published())
    jwks["keys"][0]["x5t"] = jwks["more"] = "whatever"
    (tmp_path / f"publicsecurity{SUFFIX}").write_text(json.dumps(jwks))
    PublishedKeys.load(tmp_path).find("publicsecurity", keys.active(NOW).kid, NOW)


def test_a_set_that_is_too_large(tmp_path: Path, keys: SigningKeys) -> None:
    (tmp_path / f"publicsecurity{SUFFIX}").write_text(keys.published() + " " * 1024 * 1024)
    with pytest.raises(FailedPrecondition) as refused:
        PublishedKeys.load(tmp_path)
    assert refused.value.reason is Reason.KEY_INVALID


def test_the_key_is_the_one_that_signed(agencies: Agencies) -> None:
    signing = agencies.signing["customs"].active(NOW)
    text = signed.sign({"typ": "x", "kid": signing.kid}, {"a": 1}, signing.key)
    signed.check(signed.read(text, typ="x"), agencies.published.find("customs", signing.kid, NOW))
