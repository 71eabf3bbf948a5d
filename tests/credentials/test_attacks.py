"""What somebody may try with a result: each attempt is refused, with the reason that tells what was tried."""

import base64
import contextlib
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

from services.kit.credentials import results, sdjwt, signed, strict
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.errors import HutongError, Reason
from tests.credentials.making import NOW, SUBJECT, Agencies, forged, refusal, statement
from tests.credentials.test_strict import JSON


@pytest.fixture(scope="module")
def agencies(one: Agencies) -> Agencies:
    """The same for every attempt: none of them changes anything."""
    return one


@pytest.fixture(scope="module")
def published(agencies: Agencies) -> PublishedKeys:
    """What they have published."""
    return agencies.published


@pytest.fixture(scope="module")
def credential(agencies: Agencies) -> str:
    """A credential of public security, with every disclosure."""
    return results.issue(statement(), agencies.signing["publicsecurity"])


_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def segment(value: Any) -> str:
    return strict.encode(json.dumps(value).encode())


def reheaded(credential: str, signature: str | None = None, **header: Any) -> str:
    """Change the header of a credential; the signature stays, or becomes another."""
    token, *disclosures = credential.split("~")
    old, payload, kept = token.split(".")
    head = {**strict.loads(strict.decode(old)), **header}
    head = {name: value for name, value in head.items() if value is not None}
    return "~".join((".".join((segment(head), payload, kept if signature is None else signature)), *disclosures))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, ["none"], {}])
@pytest.mark.parametrize("signature", ["", None])
def test_no_signature(published: PublishedKeys, credential: str, algorithm: Any, signature: str | None) -> None:
    assert refusal(reheaded(credential, signature, alg=algorithm), published) is Reason.RESULT_ALGORITHM


def public_forms(agencies: Agencies) -> list[bytes]:
    """Everything that the public key looks like, and that a careless verifier may take for a shared secret."""
    jwk = json.loads(agencies.signing["publicsecurity"].published())["keys"][0]
    key = OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x")})
    return [
        strict.decode(jwk["x"]),
        jwk["x"].encode(),
        key.as_pem(),
        key.as_der(),
        json.dumps(jwk).encode(),
        json.dumps({name: jwk[name] for name in ("crv", "kty", "x")}, separators=(",", ":")).encode(),
        agencies.signing["publicsecurity"].published().encode(),
    ]


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_public_key_as_a_secret(
    agencies: Agencies, published: PublishedKeys, credential: str, algorithm: str
) -> None:
    hashing = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    for secret in public_forms(agencies):
        token, *rest = reheaded(credential, alg=algorithm).split("~")
        signing_input = token.rpartition(".")[0]
        signature = strict.encode(hmac.new(secret, signing_input.encode(), hashing).digest())
        text = "~".join((f"{signing_input}.{signature}", *rest))
        assert refusal(text, published) is Reason.RESULT_ALGORITHM


@pytest.mark.parametrize(
    "algorithm", ["ES256", "ES384", "ES256K", "RS256", "PS256", "EdDSA", "Ed448", "ed25519", "Ed25519 ", "ML-DSA-44"]
)
def test_an_algorithm_of_the_attackers_choice(published: PublishedKeys, credential: str, algorithm: str) -> None:
    assert refusal(reheaded(credential, alg=algorithm), published) is Reason.RESULT_ALGORITHM


def test_a_good_signature_with_an_algorithm_that_is_not_taken(published: PublishedKeys, credential: str) -> None:
    token, *disclosures = credential.split("~")
    header, payload = (strict.loads(strict.decode(part)) for part in token.split(".")[:2])
    key = ECKey.generate_key("P-256")
    text = signed.sign({"typ": header["typ"], "kid": header["kid"]}, payload, key, "ES256")
    assert refusal("~".join((text, *disclosures)), published) is Reason.RESULT_ALGORITHM


MINE = OKPKey.generate_key("Ed25519")


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": MINE.as_dict(private=False)},
        {"jku": "https://keys.example/jwks.json"},
        {"x5u": "https://keys.example/chain.pem"},
        {"x5c": ["MIIB"]},
        {"x5t": "x"},
        {"x5t#S256": "x"},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"b64": True},
        {"typ": "JWT"},
        {"typ": "kb+jwt"},
        {"typ": "statuslist+jwt"},
        {"typ": None},
        {"kid": 7},
        {"kid": ["a"]},
    ],
)
def test_a_header_that_brings_its_own_key_or_means_something_else(
    agencies: Agencies, published: PublishedKeys, credential: str, header: dict[str, Any]
) -> None:
    assert refusal(reheaded(credential, **header), published) is Reason.RESULT_MALFORMED
    if not {"crit", "b64", "kid"} & header.keys():
        # Not even where the true issuer signed it so.
        text = forged(credential, agencies.signing["publicsecurity"], header)
        assert refusal(text, published) is Reason.RESULT_MALFORMED


def test_my_own_key_under_anothers_name(published: PublishedKeys, credential: str) -> None:
    token, *disclosures = credential.split("~")
    header, payload = (strict.loads(strict.decode(part)) for part in token.split(".")[:2])
    for kid, expected in (
        (header["kid"], Reason.RESULT_SIGNATURE),
        (MINE.thumbprint(), Reason.KEY_UNKNOWN),
        ("", Reason.KEY_UNKNOWN),
        ("../customs", Reason.KEY_UNKNOWN),
        ("' OR 1=1 --", Reason.KEY_UNKNOWN),
    ):
        text = signed.sign({"typ": header["typ"], "kid": kid}, payload, MINE)
        assert refusal("~".join((text, *disclosures)), published) is expected


def test_no_key_id(published: PublishedKeys, credential: str) -> None:
    assert refusal(reheaded(credential, kid=None), published) is Reason.KEY_UNKNOWN


def test_a_stranger(agencies: Agencies, published: PublishedKeys) -> None:
    stranger = Agencies.found(agencies.folder / "elsewhere", "courts").signing["courts"]
    text = results.issue(statement(issuer="courts"), stranger)
    assert refusal(text, published) is Reason.RESULT_ISSUER


def test_an_agency_of_the_same_name_in_another_zone(agencies: Agencies, published: PublishedKeys) -> None:
    other = SigningKeys.create(agencies.folder / "other", "spiffe://south.example/publicsecurity", NOW)
    assert refusal(results.issue(statement(), other), published) is Reason.RESULT_ISSUER


@pytest.mark.parametrize(
    "issuer",
    [
        "publicsecurity",
        "https://north.example/publicsecurity",
        "spiffe://north.example/publicsecurity/node",
        "spiffe://north.example/../publicsecurity",
        "spiffe://north.example/publicsecurity\n",
        "spiffe://north.example/PUBLICSECURITY",
        "spiffe://north.example//publicsecurity",
        "",
    ],
)
def test_issuers_that_are_written_otherwise(
    agencies: Agencies, published: PublishedKeys, credential: str, issuer: str
) -> None:
    text = forged(credential, agencies.signing["publicsecurity"], iss=issuer)
    assert refusal(text, published) in {Reason.RESULT_ISSUER, Reason.RESULT_MALFORMED}


def test_one_agency_in_the_name_of_another(agencies: Agencies, published: PublishedKeys, credential: str) -> None:
    customs, theirs = agencies.signing["customs"], agencies.signing["publicsecurity"]
    assert refusal(forged(credential, customs), published) is Reason.KEY_UNKNOWN
    kid = theirs.active(NOW).kid
    assert refusal(forged(credential, customs, {"kid": kid}), published) is Reason.RESULT_SIGNATURE
    # What customs signs as itself is its own, and is refused where public security is wanted.
    own = forged(credential, customs, iss=customs.issuer)
    assert refusal(own, published) is None
    assert refusal(own, published, issuer="publicsecurity") is Reason.RESULT_ISSUER


def test_claims_altered_under_the_old_signature(published: PublishedKeys, credential: str) -> None:
    token, *disclosures = credential.split("~")
    header, payload, signature = token.split(".")
    claims = strict.loads(strict.decode(payload))
    for change in (
        {"sub": "cn.uscc:91110108551385082Q"},
        {"fact": "seal_registered"},
        {"assurance": "ON_SITE "},
        {"exp": claims["exp"] + 1},
        {"status": {"status_list": {"idx": 6, "uri": claims["status"]["status_list"]["uri"]}}},
    ):
        text = "~".join((f"{header}.{segment({**claims, **change})}.{signature}", *disclosures))
        assert refusal(text, published) is Reason.RESULT_SIGNATURE


def test_another_subject(published: PublishedKeys, credential: str) -> None:
    assert refusal(credential, published, subject=SUBJECT) is None
    assert refusal(credential, published, subject="cn.uscc:91110108551385082Q") is Reason.RESULT_SUBJECT


def test_a_disclosure_that_was_not_issued(agencies: Agencies, published: PublishedKeys, credential: str) -> None:
    other = results.issue(statement(value={"method": "none", "colour": "red"}), agencies.signing["publicsecurity"])
    token, *mine = credential.split("~")[:-1]
    foreign = other.split("~")[1:-1]
    invented = [segment(["c2FsdA", "method", "chip"]), segment(["c2FsdA", "admin", True]), segment(["c2FsdA", 1])]
    for disclosure in (*foreign, *invented):
        for disclosures in ([disclosure], [*mine, disclosure], [disclosure, *mine]):
            assert refusal("~".join((token, *disclosures, "")), published) is Reason.RESULT_DISCLOSURE
    assert refusal("~".join((token, *mine, mine[0], "")), published) is Reason.RESULT_DISCLOSURE
    # The order in which they stand means nothing.
    assert refusal("~".join((token, *reversed(mine), "")), published) is None


def test_a_disclosure_with_its_value_altered(published: PublishedKeys, credential: str) -> None:
    token, *disclosures = credential.split("~")[:-1]
    for place, disclosure in enumerate(disclosures):
        salt, name, _ = strict.loads(strict.decode(disclosure))
        altered = [*disclosures[:place], segment([salt, name, "other"]), *disclosures[place + 1 :]]
        assert refusal("~".join((token, *altered, "")), published) is Reason.RESULT_DISCLOSURE


def test_a_key_binding_from_somewhere(published: PublishedKeys, credential: str) -> None:
    bound = credential + signed.sign({"typ": "kb+jwt"}, {"sd_hash": sdjwt.digest(credential)}, MINE)
    assert refusal(bound, published) is Reason.RESULT_MALFORMED


@pytest.mark.parametrize("step", [1, 7, 33])
def test_every_altered_character_is_noticed(published: PublishedKeys, credential: str, step: int) -> None:
    for place, character in enumerate(credential):
        other = "~" if character not in _ALPHABET else _ALPHABET[(_ALPHABET.index(character) + step) % 64]
        if character != other:
            altered = credential[:place] + other + credential[place + 1 :]
            assert refusal(altered, published) is not None, place
        else:
            assert refusal(credential[:place] + credential[place + 1 :], published) is not None, place


def test_every_character_too_few_or_too_many_is_noticed(published: PublishedKeys, credential: str) -> None:
    for place in range(len(credential)):
        assert refusal(credential[:place] + credential[place + 1 :], published) is not None, place
    for place in range(len(credential) + 1):
        for extra in "A~. \n=é":
            assert refusal(credential[:place] + extra + credential[place:], published) is not None, (place, extra)


def test_bits_that_nobody_reads_are_noticed(published: PublishedKeys, credential: str) -> None:
    token, *rest = credential.split("~")
    # 64 bytes end in a character of which four bits are not used: sixteen texts would be the same signature.
    last = _ALPHABET.index(token[-1])
    assert last % 16 == 0
    for other in range(last + 1, last + 16):
        text = "~".join((token[:-1] + _ALPHABET[other], *rest))
        assert base64.urlsafe_b64decode(text.split("~")[0].split(".")[2] + "==") == strict.decode(token.split(".")[2])
        assert refusal(text, published) is Reason.RESULT_MALFORMED


@settings(max_examples=200)
@given(data=st.data())
def test_any_damage_is_refused_for_a_reason(one: Agencies, data: st.DataObject) -> None:
    credential = results.issue(statement(), one.signing["publicsecurity"])
    start = data.draw(st.integers(0, len(credential)))
    end = data.draw(st.integers(start, len(credential)))
    damaged = credential[:start] + data.draw(st.text(max_size=40)) + credential[end:]
    try:
        verified = results.verify(damaged, one.published, at=NOW)
    except HutongError:
        return
    # Then whole disclosures were left out, or nothing was changed at all.
    assert set(damaged.split("~")) <= set(credential.split("~"))
    assert verified.value.items() <= statement().value.items()


_CLAIMS = st.sampled_from(
    ["iss", "iat", "nbf", "exp", "jti", "sub", "vct", "fact", "assurance", "value", "status", "_sd", "_sd_alg", "cnf"]
)


@settings(max_examples=300)
@given(claims=st.dictionaries(_CLAIMS, JSON, max_size=3), header=st.dictionaries(st.sampled_from(["typ", "kid"]), JSON))
def test_whatever_an_issuer_signs_is_taken_or_refused(
    one: Agencies, claims: dict[str, Any], header: dict[str, Any]
) -> None:
    keys = one.signing["publicsecurity"]
    credential = results.issue(statement(), keys)
    try:
        text = forged(credential, keys, header, **claims)
    except JoseError:
        # Not even joserfc signs such a header.
        return
    for attempt in (
        lambda: results.verify(text, one.published, at=NOW, subject=SUBJECT),
        lambda: results.read(text),
        lambda: results.present(text, ["method"]),
    ):
        with contextlib.suppress(HutongError):
            attempt()


@given(st.text(max_size=60) | st.text(alphabet='eyJA.~-_{}[]":,', max_size=200))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    published = PublishedKeys.of()
    for attempt in (
        lambda: results.verify(text, published, at=NOW),
        lambda: results.read(text),
        lambda: results.present(text, ["a"]),
    ):
        with pytest.raises(HutongError):
            attempt()


@pytest.mark.parametrize(
    "text",
    [
        "A" * (signed.LIMIT + 1),
        "~" * 60_000,
        "." * 60_000,
        "eyJ9.eyJ9." + "~A" * 30_000,
        strict.encode(b"[" * 40_000) + ".e30.",
        strict.encode(b'{"alg":"Ed25519","typ":"dc+sd-jwt"}') + "." + strict.encode(b'{"a":' * 9_000) + ".AAAA~",
        strict.encode(b'{"alg":"Ed25519","typ":"dc+sd-jwt"}')
        + "."
        + strict.encode(b'{"a":' + b"9" * 40_000 + b"}")
        + ".~",
    ],
)
def test_large_and_deep_texts_are_malformed(published: PublishedKeys, text: str) -> None:
    assert refusal(text, published) is Reason.RESULT_MALFORMED


def test_reasons_quote_nothing_of_what_was_sent(published: PublishedKeys, credential: str) -> None:
    for text in (
        "<script>alert(1)</script>",
        reheaded(credential, alg="<script>"),
        reheaded(credential, kid="<script>"),
    ):
        with pytest.raises(HutongError) as refused:
            results.verify(text, published, at=NOW)
        assert "<script>" not in refused.value.message + str(refused.value.metadata)
