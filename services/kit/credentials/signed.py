"""JSON Web Signatures in compact form, read with suspicion.

Whoever verifies says which algorithms and which type it takes; nothing in a token chooses its own key or algorithm.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from services.kit.credentials import strict
from services.kit.errors import HutongError, InvalidArgument, Reason

Key = OKPKey | ECKey | RSAKey
"""A signing or verifying key. Keys with one secret for both sides are none of these."""

PRODUCT: Final = frozenset({"Ed25519"})
"""Algorithms that this product signs with and takes (RFC 9864)."""

LIMIT: Final = 64 * 1024
"""Most characters of a token."""

Refusal = Callable[[str], HutongError]
"""Makes the error for a token that is no stage result; it is told what is wrong, in words that quote nothing of it."""

_ASYMMETRIC: Final = frozenset({"Ed25519", "ES256", "PS256"})
_CHOOSING: Final = frozenset({"jwk", "jku", "x5c", "x5u", "x5t", "x5t#S256", "crit", "b64"})
"""Header parameters by which a token would bring its own key, or change what the signature means."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A token that was read, and whose signature nobody has checked yet."""

    text: str = field(repr=False)
    header: Mapping[str, Any]
    payload: Mapping[str, Any] = field(repr=False)

    @property
    def algorithm(self) -> str:
        """Its algorithm: one of those that `read` was told to take."""
        return str(self.header["alg"])

    @property
    def key_id(self) -> str:
        """Its `kid`; empty where it has none."""
        return str(self.header.get("kid", ""))


def malformed(what: str) -> InvalidArgument:
    """Make the error for a text that is not what it should be; `what` is a constant, never part of the text."""
    return InvalidArgument(Reason.RESULT_MALFORMED, f"not a credential as it should be: {what}")


def read(
    text: str,
    *,
    typ: str,
    algorithms: Collection[str] = PRODUCT,
    limit: int = LIMIT,
    refusal: Refusal | None = None,
) -> Signed:
    """Read a token; raises what `refusal` makes, else `InvalidArgument` RESULT_MALFORMED or RESULT_ALGORITHM."""
    wrong = refusal or malformed
    if len(text) > limit:
        raise wrong("too long")
    parts = text.split(".")
    if len(parts) != 3:
        raise wrong("a token has three parts")
    try:
        header, payload = (strict.loads(strict.decode(part)) for part in parts[:2])
        strict.decode(parts[2])
    except ValueError:
        raise wrong("its parts are base64url and JSON") from None
    if not strict.is_object(header) or not strict.is_object(payload):
        raise wrong("header and payload are objects")
    signed = Signed(text, header, payload)
    _check_algorithm(signed, algorithms, refusal)
    _check_header(signed, typ, wrong)
    return signed


def _check_algorithm(signed: Signed, algorithms: Collection[str], refusal: Refusal | None) -> None:
    algorithm: Any = signed.header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _ASYMMETRIC.intersection(algorithms):
        what = "signed with an algorithm that is not taken here"
        raise refusal(what) if refusal else InvalidArgument(Reason.RESULT_ALGORITHM, what)


def _check_header(signed: Signed, typ: str, wrong: Refusal) -> None:
    header = signed.header
    if not _CHOOSING.isdisjoint(header):
        raise wrong("its header brings a key of its own, or demands an extension")
    if header.get("typ") != typ:
        raise wrong("its type is another")
    if not isinstance(header.get("kid", ""), str):
        raise wrong("its key id is no text")


def check(signed: Signed, key: Key, refusal: Refusal | None = None) -> None:
    """Check the signature; raises what `refusal` makes, else `InvalidArgument` RESULT_SIGNATURE."""
    registry = jws.JWSRegistry(algorithms=[signed.algorithm], strict_check_header=False)
    # `read` has bounded the whole text.
    registry.max_header_length = registry.max_payload_length = len(signed.text)
    try:
        jws.deserialize_compact(signed.text, key, registry=registry)
    except (JoseError, ValueError):
        what = "the signature does not fit"
        raise (refusal(what) if refusal else InvalidArgument(Reason.RESULT_SIGNATURE, what)) from None


def sign(header: Mapping[str, Any], payload: Mapping[str, Any], key: Key, algorithm: str = "Ed25519") -> str:
    """Sign a payload; raises `ValueError` where it is no JSON."""
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    return jws.serialize_compact({"alg": algorithm, **header}, strict.dumps(payload), key, registry=registry)
