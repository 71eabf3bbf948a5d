"""Key binding: the holder's signature, for one verifier and one occasion, on exactly what is shown."""

from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey

from services.kit.credentials import binding, sdjwt, signed
from services.kit.credentials.published import seconds
from services.kit.credentials.sdjwt import Hidden
from services.kit.errors import PermissionDenied, Reason
from tests.credentials.making import NOW

TYP = "test+sd-jwt"
ISSUER = OKPKey.generate_key("Ed25519")
HOLDER = OKPKey.generate_key("Ed25519")
OTHER = OKPKey.generate_key("Ed25519")
OCCASION: dict[str, Any] = {"audience": "spiffe://north.example/customs", "nonce": "n-1", "at": NOW}
CNF = {"jwk": HOLDER.as_dict(private=False)}


def issued(cnf: Any = CNF, **claims: Any) -> str:
    return sdjwt.issue({"cnf": cnf, "a": Hidden(1), **claims}, ISSUER, header={"typ": TYP})


def check(text: str, **changed: Any) -> None:
    binding.check(sdjwt.read(text, typ=TYP), **{**OCCASION, **changed})


def refused(text: str, **changed: Any) -> bool:
    with pytest.raises(PermissionDenied) as error:
        check(text, **changed)
    return error.value.reason is Reason.KEY_BINDING_INVALID


def test_a_holder_binds_what_it_shows() -> None:
    text = issued()
    check(binding.bind(text, HOLDER, **OCCASION))
    shown = sdjwt.present(sdjwt.read(text, typ=TYP), lambda _: False)
    bound = binding.bind(shown, HOLDER, **OCCASION)
    check(bound)
    assert sdjwt.verify(sdjwt.read(bound, typ=TYP), ISSUER).claims == {"cnf": CNF}


def test_what_was_bound_cannot_show_more_or_less() -> None:
    text = issued()
    shown = sdjwt.present(sdjwt.read(text, typ=TYP), lambda _: False)
    for one, other in ((text, shown), (shown, text)):
        bound = binding.bind(one, HOLDER, **OCCASION).rpartition("~")[2]
        assert refused(other + bound)


def test_no_binding_where_one_is_demanded() -> None:
    assert refused(issued())


def test_another_holder() -> None:
    assert refused(binding.bind(issued(), OTHER, **OCCASION))


@pytest.mark.parametrize(
    "cnf",
    [
        None,
        {},
        {"kid": "x"},
        {"jwk": None},
        {"jwk": {}},
        {"jwk": {"kty": "oct", "k": "c2VjcmV0"}},
        {"jwk": {"kty": "OKP", "crv": "X25519", "x": CNF["jwk"]["x"]}},
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}},
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": 7}},
        {"jwk": {"kty": "OKP", "crv": "Ed25519"}},
        {"jwk": HOLDER.as_dict(private=True)},
        {"jwk": ECKey.generate_key("P-256").as_dict(private=False)},
    ],
)
def test_a_holders_key_that_is_none(cnf: Any) -> None:
    assert refused(binding.bind(issued(cnf), HOLDER, **OCCASION))


@pytest.mark.parametrize(
    ("header", "changed"),
    [
        ({"typ": "JWT"}, {}),
        ({"typ": binding.TYPE, "jwk": CNF["jwk"]}, {}),
        ({"typ": binding.TYPE}, {"aud": ["spiffe://north.example/customs"]}),
        ({"typ": binding.TYPE}, {"nonce": None}),
        ({"typ": binding.TYPE}, {"iat": None}),
        ({"typ": binding.TYPE}, {"iat": True}),
        ({"typ": binding.TYPE}, {"iat": str(seconds(NOW))}),
        ({"typ": binding.TYPE}, {"iat": seconds(NOW) + 120}),
        ({"typ": binding.TYPE}, {"iat": seconds(NOW) - 600}),
        ({"typ": binding.TYPE}, {"sd_hash": "x"}),
        ({"typ": binding.TYPE}, {"padding": "x" * binding.LIMIT}),
    ],
)
def test_a_binding_that_says_something_else(header: dict[str, Any], changed: dict[str, Any]) -> None:
    text = issued()
    said = {"nonce": "n-1", "aud": OCCASION["audience"], "iat": seconds(NOW), "sd_hash": sdjwt.digest(text), **changed}
    assert refused(text + signed.sign(header, said, HOLDER))
