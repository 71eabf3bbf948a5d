"""A token is taken once, for its act, at its node, through its system, in its time; everything else is refused."""

import asyncio
import datetime as dt
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey

from hutong.api.authorization.v1 import authorization_pb2
from services.kit.credentials import strict
from services.kit.errors import FailedPrecondition, PermissionDenied, Reason, Unauthenticated
from services.kit.officers.acts import act_nonce
from services.kit.officers.issuer import officers_uri
from services.kit.officers.tokens import LIMIT, Role
from tests.officers.bed import (
    AUDIENCE,
    CUSTOMS,
    METHOD,
    MINUTE,
    NOW,
    REQUEST,
    SECOND,
    SUBJECT,
    TAXATION,
    Bed,
    Signing,
    jwks,
)
from tests.zone import ZONE

Signings = dict[str, Signing]
INVALID = Reason.OFFICER_TOKEN_INVALID
EXPIRED = Reason.OFFICER_TOKEN_EXPIRED


async def test_a_good_token_says_who_acts(bed: Bed) -> None:
    officer = await bed.officers().verify(bed.token(), METHOD, REQUEST, bed.call(), Role.APPROVER)
    assert officer.reference == f"customs:{SUBJECT}"
    assert officer.roles == {Role.APPROVER}
    assert (officer.issued_at, officer.expires_at) == (NOW, NOW + 5 * MINUTE)
    assert officer.remembered_until == NOW + 6 * MINUTE
    assert SUBJECT not in repr(officer)
    assert officer.jti not in repr(officer)


async def test_a_request_may_hold_the_token(bed: Bed) -> None:
    request = authorization_pb2.ApproveAuthorizationRequest()
    request.CopyFrom(REQUEST)
    request.officer_token = bed.token()
    await bed.officers().verify(request.officer_token, METHOD, request, bed.call(), Role.APPROVER)


async def test_no_token(bed: Bed) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await bed.officers().verify("", METHOD, REQUEST, bed.call(), Role.APPROVER)
    assert refused.value.reason is Reason.OFFICER_MISSING


async def test_a_token_is_taken_once(bed: Bed) -> None:
    officers, token = bed.officers(), bed.token()
    assert await bed.refusal(token, officers) is None
    assert await bed.refusal(token, officers) is Reason.OFFICER_TOKEN_REPLAYED
    assert await bed.refusal(bed.token(), officers) is None


async def test_of_many_at_once_one_takes_it(bed: Bed) -> None:
    officers, token = bed.officers(), bed.token()
    reasons = await asyncio.gather(*(bed.refusal(token, officers) for _ in range(50)))
    assert sorted(reasons, key=str) == [None, *[Reason.OFFICER_TOKEN_REPLAYED] * 49]


async def test_one_id_of_two_agencies_is_two_tokens(bed: Bed) -> None:
    officers = bed.officers()
    assert await bed.refusal(bed.forged(), officers) is None
    theirs = bed.claims(
        iss=officers_uri(ZONE, "taxation"),
        cnf=strict.loads(strict.decode(bed.token("taxation", TAXATION).split(".")[1]))["cnf"],
    )
    assert await bed.refusal(bed.signing("taxation").token(theirs), officers, path=TAXATION) is None


async def test_reading_uses_nothing_up(bed: Bed) -> None:
    officers, token = bed.officers(), bed.token()
    for _ in range(2):
        await officers.read(token, METHOD, REQUEST, bed.call(), Role.APPROVER)
    assert await bed.refusal(token, officers) is None


async def test_a_token_that_was_refused_is_not_used_up(bed: Bed) -> None:
    officers, token = bed.officers(), bed.token()
    assert await bed.refusal(token, officers, role=Role.AUDITOR) is Reason.OFFICER_ROLE_MISSING
    assert await bed.refusal(token, officers) is None


async def test_after_a_restart_earlier_tokens_are_not_taken(bed: Bed) -> None:
    token = bed.token()
    assert await bed.refusal(token, bed.officers()) is None
    bed.clock.now += SECOND
    assert await bed.refusal(token, bed.officers()) is EXPIRED
    assert await bed.refusal(bed.token(), bed.officers()) is None


@pytest.mark.parametrize("role", [Role.REQUESTER, Role.AUDITOR, Role.DATA_OFFICER])
async def test_the_role_must_be_there(bed: Bed, role: Role) -> None:
    with pytest.raises(PermissionDenied) as refused:
        await bed.officers().verify(bed.token(), METHOD, REQUEST, bed.call(), role)
    assert (refused.value.reason, refused.value.metadata) == (Reason.OFFICER_ROLE_MISSING, {"role": role.value})


async def test_of_several_roles_one_is_enough(bed: Bed) -> None:
    officers, token = bed.officers(), bed.token("customs", CUSTOMS, Role.AUDITOR, Role.REQUESTER)
    found = await officers.read(token, METHOD, REQUEST, bed.call(), {Role.APPROVER, Role.AUDITOR})
    assert found.roles == {Role.AUDITOR, Role.REQUESTER}
    with pytest.raises(PermissionDenied):
        await officers.read(token, METHOD, REQUEST, bed.call(), {Role.APPROVER, Role.DATA_OFFICER})
    with pytest.raises(PermissionDenied):
        await officers.read(token, METHOD, REQUEST, bed.call(), ())


@pytest.mark.parametrize(
    "request_",
    [
        authorization_pb2.ApproveAuthorizationRequest(authorization_id="a-2", scope_digest=b"\x01" * 32),
        authorization_pb2.ApproveAuthorizationRequest(authorization_id="a-1", scope_digest=b"\x02" * 32),
        authorization_pb2.ApproveAuthorizationRequest(),
    ],
)
async def test_a_token_for_another_content(bed: Bed, request_: authorization_pb2.ApproveAuthorizationRequest) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await bed.officers().verify(bed.token(), METHOD, request_, bed.call(), Role.APPROVER)
    assert refused.value.reason is INVALID


@pytest.mark.parametrize("method", [METHOD.replace("Approve", "Revoke"), METHOD[1:], METHOD.lower(), ""])
async def test_a_token_for_another_rpc(bed: Bed, method: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await bed.officers().verify(bed.token(), method, REQUEST, bed.call(), Role.APPROVER)
    assert refused.value.reason is INVALID


async def test_a_token_brought_by_another_system_of_the_agency(bed: Bed) -> None:
    assert await bed.refusal(bed.token(), path="customs/node") is INVALID


async def test_a_token_of_another_agencys_officer(bed: Bed) -> None:
    assert await bed.refusal(bed.token(), path=TAXATION) is Reason.ISSUER_UNKNOWN
    assert await bed.refusal(bed.token("customs", TAXATION), path=TAXATION) is Reason.ISSUER_UNKNOWN


async def test_a_system_of_an_agency_without_identity_provider(bed: Bed) -> None:
    assert await bed.refusal(bed.token(), path="quality/lab") is Reason.ISSUER_UNKNOWN


async def test_an_issuer_that_says_it_is_another(bed: Bed) -> None:
    theirs = bed.signing("taxation")
    assert await bed.refusal(theirs.token(bed.claims())) is INVALID
    assert await bed.refusal(theirs.named(bed.signing().kid).token(bed.claims())) is INVALID


def changed(bed: Bed, name: str, value: Any) -> str:
    return bed.forged(**{name: value})


@pytest.mark.parametrize(
    ("claim", "value", "reason"),
    [
        ("iss", None, Reason.ISSUER_UNKNOWN),
        ("iss", f"https://officers.customs.{ZONE}/", Reason.ISSUER_UNKNOWN),
        ("iss", [f"https://officers.customs.{ZONE}"], Reason.ISSUER_UNKNOWN),
        ("sub", None, INVALID),
        ("sub", "", INVALID),
        ("sub", 17, INVALID),
        ("sub", "o 17", INVALID),
        ("sub", "o-17\n", INVALID),
        ("sub", "ö-17", INVALID),
        ("sub", "x" * 256, INVALID),
        ("aud", None, INVALID),
        ("aud", AUDIENCE + "/", INVALID),
        ("aud", AUDIENCE.upper(), INVALID),
        ("aud", "supervision/node", INVALID),
        ("aud", f"spiffe://{ZONE}/customs/node", INVALID),
        ("aud", [AUDIENCE], INVALID),
        ("aud", [AUDIENCE, f"spiffe://{ZONE}/customs/node"], INVALID),
        ("aud", "*", INVALID),
        ("jti", None, INVALID),
        ("jti", "", INVALID),
        ("jti", 1, INVALID),
        ("jti", "x" * 256, INVALID),
        ("nonce", None, INVALID),
        ("nonce", "", INVALID),
        ("nonce", act_nonce(METHOD, REQUEST) + "=", INVALID),
        ("nonce", act_nonce(METHOD, REQUEST).swapcase(), INVALID),
        ("roles", None, INVALID),
        ("roles", [], INVALID),
        ("roles", "approver", INVALID),
        ("roles", ["approver", "minister"], INVALID),
        ("roles", ["approver", "approver"], INVALID),
        ("roles", ["Approver"], INVALID),
        ("roles", [["approver"]], INVALID),
        ("roles", {"approver": True}, INVALID),
        ("cnf", None, INVALID),
        ("cnf", {}, INVALID),
        ("cnf", {"x5t#S256": ""}, INVALID),
        ("cnf", {"x5t#S256": "A" * 43}, INVALID),
        ("cnf", {"x5t#S256": 1}, INVALID),
        ("cnf", {"jkt": "A" * 43}, INVALID),
        ("cnf", [], INVALID),
    ],
)
async def test_a_claim_that_is_not_as_it_should_be(bed: Bed, claim: str, value: Any, reason: Reason) -> None:
    assert await bed.refusal(changed(bed, claim, value)) is reason


async def test_another_confirmation_beside_ours_is_not_passed_over(bed: Bed) -> None:
    confirmation = {**bed.claims()["cnf"], "jkt": "A" * 43}
    assert await bed.refusal(changed(bed, "cnf", confirmation)) is INVALID


async def test_claims_of_the_issuers_own_do_no_harm(bed: Bed) -> None:
    assert await bed.refusal(bed.forged(name="somebody", auth_time=1, azp="x")) is None


BEGIN = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iat": None}, INVALID),
        ({"exp": None}, INVALID),
        ({"nbf": None}, None),
        ({"iat": True, "nbf": 0, "exp": 2}, INVALID),
        ({"iat": float(BEGIN)}, INVALID),
        ({"iat": str(BEGIN)}, INVALID),
        ({"iat": -1}, INVALID),
        ({"exp": 1 << 80}, INVALID),
        ({"exp": 253_402_300_799}, INVALID),
        # It lives for ten minutes at most.
        ({"exp": BEGIN + 600}, None),
        ({"exp": BEGIN + 601}, INVALID),
        ({"exp": BEGIN}, INVALID),
        ({"exp": BEGIN - 1}, INVALID),
        ({"nbf": BEGIN + 300, "exp": BEGIN + 300}, INVALID),
        # Clocks differ by a minute at most.
        ({"iat": BEGIN + 60, "nbf": BEGIN + 60}, None),
        ({"iat": BEGIN + 61, "nbf": BEGIN}, INVALID),
        ({"nbf": BEGIN + 60}, None),
        ({"nbf": BEGIN + 61}, INVALID),
        ({"iat": BEGIN - 300, "nbf": BEGIN - 300, "exp": BEGIN - 59}, None),
        ({"iat": BEGIN - 300, "nbf": BEGIN - 300, "exp": BEGIN - 60}, EXPIRED),
        ({"iat": 0, "nbf": 0, "exp": 600}, EXPIRED),
    ],
)
async def test_times(bed: Bed, claims: dict[str, Any], reason: Reason | None) -> None:
    bed.clock.now = NOW - dt.timedelta(days=1)
    officers = bed.officers()
    bed.clock.now = NOW
    assert await bed.refusal(bed.forged(**claims), officers) is reason


async def test_a_clock_set_back_brings_nothing_back(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    officers, token, other = bed.officers(), bed.token(), bed.token()
    assert await bed.refusal(token, officers) is None
    bed.clock.now = NOW + dt.timedelta(hours=1)
    assert await bed.refusal(other, officers) is EXPIRED
    assert await bed.refusal(bed.token(), officers) is None
    bed.clock.now = NOW
    with caplog.at_level(logging.WARNING):
        assert await bed.refusal(token, officers) is EXPIRED
        assert await bed.refusal(other, officers) is EXPIRED
        assert await bed.refusal(bed.token(), officers) is EXPIRED
    assert "The clock was set back" in caplog.text


@pytest.mark.parametrize(
    "header",
    [
        {"typ": None},
        {"typ": "at+jwt"},
        {"typ": "kb+jwt"},
        {"typ": "jwt"},
        {"kid": None},
        {"kid": ""},
        {"kid": "another"},
        {"kid": "../officers"},
        {"kid": 1},
        {"jwk": Signing.generate("Ed25519").public()},
        {"jku": "https://evil.example/jwks.json"},
        {"x5c": ["MIIB"]},
        {"x5u": "https://evil.example/x.pem"},
        {"x5t": "A" * 27},
        {"x5t#S256": "A" * 43},
        {"crit": ["exp"], "exp": 1},
        {"b64": True},
    ],
)
async def test_a_header_that_chooses(bed: Bed, header: dict[str, Any]) -> None:
    signing = bed.signing()
    head = {"alg": "Ed25519", "typ": "JWT", "kid": signing.kid, **header}
    text = _by_hand({name: value for name, value in head.items() if value is not None}, bed.claims(), signing)
    assert await bed.refusal(text) is INVALID


async def test_the_key_in_the_header_is_not_the_one_that_counts(bed: Bed) -> None:
    mine = Signing.generate("Ed25519", bed.signing().kid)
    assert await bed.refusal(mine.token(bed.claims(), {"jwk": mine.public()})) is INVALID


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS256", "ES256", "EdDSA", "ES384", "", 1, None])
async def test_an_algorithm_that_is_not_pinned(bed: Bed, algorithm: Any) -> None:
    signing = bed.signing()
    head = {"alg": algorithm, "typ": "JWT", "kid": signing.kid}
    assert await bed.refusal(_by_hand(head, bed.claims(), signing)) is INVALID
    unsigned = _by_hand(head, bed.claims(), signing).rpartition(".")[0] + "."
    assert await bed.refusal(unsigned) is INVALID


async def test_no_published_key_is_taken_for_a_shared_secret(bed: Bed) -> None:
    """The published key is known to everyone: a MAC made with it proves nothing."""
    secret = OctKey.import_key(bed.jwks("customs").read_bytes())
    registry = jws.JWSRegistry(algorithms=["HS256"], strict_check_header=False)
    head = {"alg": "HS256", "typ": "JWT", "kid": bed.signing().kid}
    text = jws.serialize_compact(head, strict.dumps(bed.claims()), secret, registry=registry)
    assert await bed.refusal(text) is INVALID


def _by_hand(head: dict[str, Any], claims: dict[str, Any], signing: Signing) -> str:
    """A token with any header, truly signed with Ed25519."""
    assert isinstance(signing.key, OKPKey)
    text = f"{strict.encode(strict.dumps(head))}.{strict.encode(strict.dumps(claims))}"
    private: Any = signing.key.private_key
    return f"{text}.{strict.encode(private.sign(text.encode()))}"


async def test_what_is_made_by_hand_is_good_where_nothing_is_wrong(bed: Bed) -> None:
    signing = bed.signing()
    assert await bed.refusal(_by_hand({"alg": "Ed25519", "typ": "JWT", "kid": signing.kid}, bed.claims(), signing)) is (
        None
    )


@pytest.mark.parametrize("claims", [b'{"iss":1,"iss":2}', b"[]", b"1", b"{", b"\xff", b'{"a":NaN}', b"[" * 50])
async def test_claims_that_are_none(bed: Bed, claims: bytes) -> None:
    signing = bed.signing()
    assert isinstance(signing.key, OKPKey)
    private: Any = signing.key.private_key
    head = strict.encode(strict.dumps({"alg": "Ed25519", "typ": "JWT", "kid": signing.kid}))
    text = f"{head}.{strict.encode(claims)}"
    assert await bed.refusal(f"{text}.{strict.encode(private.sign(text.encode()))}") is INVALID


async def test_a_name_that_stands_twice_in_the_claims(bed: Bed) -> None:
    signing = bed.signing()
    assert isinstance(signing.key, OKPKey)
    private: Any = signing.key.private_key
    head = strict.encode(strict.dumps({"alg": "Ed25519", "typ": "JWT", "kid": signing.kid}))
    claims = strict.dumps(bed.claims())[:-1] + b',"roles":["approver"]}'
    text = f"{head}.{strict.encode(claims)}"
    assert await bed.refusal(f"{text}.{strict.encode(private.sign(text.encode()))}") is INVALID


async def test_a_token_that_is_too_long(bed: Bed) -> None:
    room = LIMIT - len(bed.forged(pad=""))
    fits = bed.forged(pad="x" * (room * 3 // 4 - 4))
    assert LIMIT - 8 < len(fits) <= LIMIT
    assert await bed.refusal(fits) is None
    assert await bed.refusal(bed.forged(pad="x" * room)) is INVALID


@pytest.mark.parametrize("text", [".", "..", "a.b.c", "....", "é.é.é", "\x00", " ", "x" * (LIMIT + 1)])
async def test_what_is_no_token(bed: Bed, text: str) -> None:
    assert await bed.refusal(text) is INVALID


@pytest.mark.parametrize("algorithm", ["Ed25519", "ES256", "PS256"])
async def test_each_algorithm_where_it_is_pinned(bed: Bed, algorithm: str) -> None:
    signing = Signing.generate(algorithm)
    bed.jwks("customs").write_bytes(jwks(signing))
    for pinned in ("Ed25519", "ES256", "PS256"):
        section = bed.section("customs", algorithms=[pinned])
        if pinned == algorithm:
            officers = bed.officers(customs=section)
            assert await bed.refusal(signing.token(bed.claims()), officers) is None
            assert await bed.refusal(signing.token(bed.claims()), officers) is Reason.OFFICER_TOKEN_REPLAYED
        else:
            with pytest.raises(FailedPrecondition):
                bed.officers(customs=section)


async def test_a_key_is_for_its_own_algorithm_only(bed: Bed) -> None:
    ours, theirs = Signing.generate("Ed25519", "a"), Signing.generate("ES256", "b")
    bed.jwks("customs").write_bytes(jwks(ours, theirs))
    officers = bed.officers(customs=bed.section("customs", algorithms=["Ed25519", "ES256"]))
    assert await bed.refusal(ours.named("b").token(bed.claims()), officers) is INVALID
    assert await bed.refusal(theirs.named("a").token(bed.claims()), officers) is INVALID
    assert await bed.refusal(theirs.token(bed.claims()), officers) is None


async def test_keys_are_followed_as_their_file_changes(bed: Bed) -> None:
    officers, before = bed.officers(), bed.token()
    bed.issuers["customs"].rotate(NOW)
    after = bed.token()
    assert await bed.refusal(after, officers) is INVALID
    bed.issuers["customs"].publish(bed.jwks("customs"))
    assert await bed.refusal(after, officers) is None
    assert await bed.refusal(before, officers) is None
    bed.issuers["customs"].rotate(NOW)
    bed.issuers["customs"].publish(bed.jwks("customs"))
    assert await bed.refusal(bed.forged(), officers) is None
    assert await bed.refusal(before, officers) is INVALID


async def test_while_keys_cannot_be_read_nobody_is_believed(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    officers = bed.officers()
    good = bed.jwks("customs").read_bytes()
    for bad in (b"", b"{}", good[:-9], b"x" * (1 << 17)):
        bed.jwks("customs").write_bytes(bad)
        assert await bed.refusal(bed.token(), officers) is Reason.ISSUER_KEYS_UNAVAILABLE
    bed.jwks("customs").unlink()
    assert await bed.refusal(bed.token(), officers) is Reason.ISSUER_KEYS_UNAVAILABLE
    assert len(caplog.records) == 1, "it is said once, not for every token"
    assert await bed.refusal(bed.token("taxation", TAXATION), officers, path=TAXATION) is None
    bed.jwks("customs").write_bytes(good)
    assert await bed.refusal(bed.token(), officers) is None


def test_a_node_does_not_start_with_keys_that_cannot_be_used(bed: Bed) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        bed.officers(quality=bed.section("quality"))
    assert refused.value.reason is Reason.CONFIG_FILE_MISSING
    bed.jwks("customs").write_bytes(b"{}")
    with pytest.raises(FailedPrecondition) as refused:
        bed.officers()
    assert refused.value.reason is Reason.KEY_INVALID
    nowhere = bed.folder / "ca.pem"
    section = bed.section("customs", jwks=None, jwks_url="https://127.0.0.1/keys", jwks_ca=nowhere)
    with pytest.raises(FailedPrecondition) as refused:
        bed.officers(customs=section)
    assert refused.value.reason is Reason.CONFIG_FILE_MISSING
    nowhere.write_text("nothing")
    with pytest.raises(FailedPrecondition) as refused:
        bed.officers(customs=section)
    assert refused.value.reason is Reason.KEY_INVALID


def test_two_agencies_with_one_issuer_would_make_two_officers_of_one(bed: Bed) -> None:
    shared = bed.section("taxation", issuer=officers_uri(ZONE, "customs"))
    with pytest.raises(FailedPrecondition) as refused:
        bed.officers(taxation=shared)
    assert refused.value.reason is Reason.CONFIG_INVALID


@given(data=st.data())
async def test_no_byte_of_a_token_can_be_altered(still: Bed, data: st.DataObject) -> None:
    token = still.forged()
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters(codec="utf-8").filter(lambda letter: letter != token[place]))
    refusal = await still.refusal(token[:place] + letter + token[place + 1 :])
    assert refusal in {INVALID, Reason.ISSUER_UNKNOWN}


_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


@pytest.fixture(scope="module")
def signings(still: Bed) -> Signings:
    made = {algorithm: Signing.generate(algorithm, algorithm) for algorithm in ("ES256", "PS256")}
    still.jwks("others").write_bytes(jwks(*made.values()))
    return made


@given(data=st.data(), algorithm=st.sampled_from(["ES256", "PS256"]))
async def test_nor_under_another_algorithm(still: Bed, signings: Signings, data: st.DataObject, algorithm: str) -> None:
    token = signings[algorithm].token(still.claims())
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from(sorted(_LETTERS - {token[place]})))
    section = still.section("customs", jwks=still.jwks("others"), algorithms=["ES256", "PS256"])
    refusal = await still.refusal(token[:place] + letter + token[place + 1 :], still.officers(customs=section))
    assert refusal in {INVALID, Reason.ISSUER_UNKNOWN}


@given(place=st.integers(0), cut=st.booleans())
async def test_nor_taken_away_or_added(still: Bed, place: int, cut: bool) -> None:
    token = still.forged()
    place %= len(token)
    altered = token[:place] + token[place + 1 :] if cut else token[:place] + "A" + token[place:]
    assert await still.refusal(altered) in {INVALID, Reason.ISSUER_UNKNOWN}


@given(st.text())
async def test_no_text_is_a_token(still: Bed, text: str) -> None:
    assert await still.refusal(text) in {INVALID, Reason.OFFICER_MISSING}
