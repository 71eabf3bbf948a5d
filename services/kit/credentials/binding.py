"""Key binding (RFC 9901 section 4.3): the holder's signature on what it shows, to whom, and for this one occasion.

Whether it is demanded is for whoever verifies to say, never for what was sent.
"""

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

from services.kit.credentials import sdjwt, signed, strict
from services.kit.credentials.published import SKEW, seconds
from services.kit.credentials.sdjwt import SdJwt
from services.kit.credentials.signed import PRODUCT, Key
from services.kit.errors import HutongError, PermissionDenied, Reason

TYPE: Final = "kb+jwt"
LIMIT: Final = 8 * 1024
"""Most characters of a key binding token."""

MAX_AGE: Final = dt.timedelta(minutes=5)

_MEMBERS: Final = {"Ed25519": ("OKP", ("crv", "x")), "P-256": ("EC", ("crv", "x", "y"))}


def bind(text: str, key: Key, *, audience: str, nonce: str, at: dt.datetime, algorithm: str = "Ed25519") -> str:
    """Put the holder's signature behind an SD-JWT as it will be shown; gives both in one text."""
    payload = {"nonce": nonce, "aud": audience, "iat": seconds(at), "sd_hash": sdjwt.digest(text)}
    return text + signed.sign({"typ": TYPE}, payload, key, algorithm)


def check(
    sd_jwt: SdJwt,
    *,
    audience: str,
    nonce: str,
    at: dt.datetime,
    max_age: dt.timedelta = MAX_AGE,
    algorithms: Collection[str] = PRODUCT,
) -> None:
    """Check the holder's signature on an SD-JWT whose own was checked before.

    The holder's key is the one that the issuer put into `cnf`. Raises `PermissionDenied` KEY_BINDING_INVALID: there is
    no key or no signature, it is another's, for somebody else or another occasion, not recent, or not on this text.
    """
    if not sd_jwt.binding:
        raise _invalid("there is none")
    try:
        token = signed.read(sd_jwt.binding, typ=TYPE, algorithms=algorithms, limit=LIMIT)
        signed.check(token, _holder(sd_jwt.token.payload))
    except HutongError as error:
        raise _invalid(error.message) from None
    said = token.payload
    if said.get("aud") != audience or said.get("nonce") != nonce:
        raise _invalid("it is for somebody else, or another occasion")
    issued = said.get("iat")
    if not isinstance(issued, int) or not seconds(at - max_age - SKEW) <= issued <= seconds(at + SKEW):
        raise _invalid("it is not recent")
    if said.get("sd_hash") != sdjwt.digest(sd_jwt.text):
        raise _invalid("it is on something else")


def _holder(payload: Mapping[str, Any]) -> Key:
    confirmation: Any = payload.get("cnf")
    jwk = confirmation.get("jwk") if strict.is_object(confirmation) else None
    if not strict.is_object(jwk):
        raise _invalid("the issuer named no key of the holder")
    kind, names = _MEMBERS.get(str(jwk.get("crv")), ("", ()))
    if not kind or jwk.get("kty") != kind or "d" in jwk:
        raise _invalid("the holder's key is not one that is taken here")
    try:
        public = {"kty": kind, **{name: jwk[name] for name in names}}
        return OKPKey.import_key(public) if kind == "OKP" else ECKey.import_key(public)
    except (JoseError, ValueError, KeyError, TypeError):
        raise _invalid("the holder's key is none") from None


def _invalid(what: str) -> PermissionDenied:
    return PermissionDenied(Reason.KEY_BINDING_INVALID, f"the holder's signature cannot be taken: {what}")
