"""The embedded identity provider: its keys are its own, its tokens are good, and it makes none that are not."""

import stat
from pathlib import Path

import pytest

from services.kit.credentials import strict
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.officers.acts import act_nonce
from services.kit.officers.issuer import Issuer, officers_uri
from services.kit.officers.tokens import MAX_LIFE, Role
from tests.officers.bed import AUDIENCE, CUSTOMS, METHOD, NOW, REQUEST, SECOND, Bed


def test_private_keys_are_private_and_public_ones_hold_no_secret(bed: Bed) -> None:
    folder = bed.folder / "customs"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "private.jwks.json").stat().st_mode) == 0o600
    published = strict.loads(bed.jwks("customs").read_bytes())
    assert published["issuer"] == "https://officers.customs.zone.example"
    (key,) = published["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "alg", "use", "iat"}
    assert stat.S_IMODE(bed.jwks("customs").stat().st_mode) == 0o644


def test_keys_are_never_overwritten(bed: Bed) -> None:
    before = (bed.folder / "customs" / "private.jwks.json").read_bytes()
    with pytest.raises(FailedPrecondition) as refused:
        Issuer.create(bed.folder / "customs", "https://x.example", NOW)
    assert refused.value.reason is Reason.FOLDER_NOT_EMPTY
    assert (bed.folder / "customs" / "private.jwks.json").read_bytes() == before


async def test_what_was_opened_again_goes_on_as_before(bed: Bed) -> None:
    bed.issuers["customs"] = Issuer.open(bed.folder / "customs")
    assert bed.issuers["customs"].uri == officers_uri("zone.example", "customs")
    assert await bed.refusal(bed.token()) is None


def test_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        Issuer.open(tmp_path)
    assert refused.value.reason is Reason.CONFIG_FILE_MISSING


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"issuer":"x","keys":[]}', b'{"issuer":"x","keys":[{}]}'])
def test_keys_that_are_none(bed: Bed, content: bytes) -> None:
    (bed.folder / "customs" / "private.jwks.json").write_bytes(content)
    with pytest.raises(FailedPrecondition) as refused:
        Issuer.open(bed.folder / "customs")
    assert refused.value.reason is Reason.KEY_INVALID


def test_keys_that_others_may_read(bed: Bed) -> None:
    (bed.folder / "customs" / "private.jwks.json").chmod(0o604)
    with pytest.raises(FailedPrecondition, match="chmod 600"):
        bed.token()


def test_a_new_key_signs_and_the_one_before_stays(bed: Bed) -> None:
    issuer = bed.issuers["customs"]
    (first,) = issuer.key_ids()
    second = issuer.rotate(NOW)
    assert issuer.key_ids() == [first, second]
    third = issuer.rotate(NOW)
    assert issuer.key_ids() == [second, third]
    assert strict.loads(strict.decode(bed.token().split(".")[0]))["kid"] == third


def test_no_token_is_made_that_nobody_would_take(bed: Bed) -> None:
    nonce, certificate = act_nonce(METHOD, REQUEST), bed.certificate(CUSTOMS)
    issuer = bed.issuers["customs"]
    for subject, roles, life in (
        ("o-17", (), MAX_LIFE),
        ("o-17", (Role.APPROVER,), MAX_LIFE + SECOND),
        ("o-17", (Role.APPROVER,), 0 * SECOND),
        ("", (Role.APPROVER,), MAX_LIFE),
        ("Zhang San", (Role.APPROVER,), MAX_LIFE),
    ):
        with pytest.raises(InvalidArgument) as refused:
            issuer.token(subject, roles, AUDIENCE, nonce, certificate, NOW, life)
        assert refused.value.reason is Reason.OFFICER_TOKEN_INVALID
    assert issuer.token("o-17", (Role.APPROVER,), AUDIENCE, nonce, certificate, NOW, MAX_LIFE)
