"""The keys of identity providers: JWK sets (RFC 7517) from a file or from where they are published.

Of a set those keys are used that the issuer's pinned algorithms need. A set that holds a private key or a secret, or
one key id twice, is used not at all.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from services.kit.credentials import strict
from services.kit.credentials.signed import Key
from services.kit.errors import Reason, Unavailable
from services.kit.followed import Followed
from services.kit.officers.fetching import NotFetched, fetch

LIMIT: Final = 64 * 1024
"""Most bytes of a set of keys."""
MAX_KEYS: Final = 100
"""Most keys of a set."""
RSA_BITS: Final = range(2048, 8192 + 1)
"""How long an RSA key may be: shorter is weak, longer is slow to check for whoever is asked."""

REFRESH: Final = 300.0
"""Seconds after which keys from a URL are fetched again."""
STALE: Final = 3600.0
"""Seconds that keys from a URL are believed while they cannot be fetched again."""
AGAIN: Final = 60.0
"""Seconds between two fetches at least, however many unknown keys are named meanwhile."""
RETRY: Final = 5.0
"""Seconds between two fetches where there are no keys to go on with."""
TIMEOUT: Final = 5.0
"""Seconds that a fetch may take."""

_log = logging.getLogger(__name__)

_KID: Final = 200
_SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A public key, and the one algorithm it is used with."""

    algorithm: str
    key: Key = field(repr=False)


Keys = Mapping[str, IssuerKey]
"""Keys by their `kid`."""


class IssuerKeys(Protocol):
    """Where the keys of one issuer come from."""

    async def find(self, kid: str) -> IssuerKey | None:
        """Find a key; None where there is none of that id. Raises `Unavailable` where there are none at all."""
        ...

    async def close(self) -> None:
        """Stop fetching."""
        ...


def read_jwks(data: bytes, algorithms: Collection[str]) -> Keys:
    """Read the keys of a set that may be used with these algorithms; raises `ValueError`, which quotes none of it."""
    if len(data) > LIMIT:
        raise ValueError("too large")
    raw = strict.loads(data)
    listed = raw.get("keys") if strict.is_object(raw) else None
    if not strict.is_array(listed) or len(listed) > MAX_KEYS:
        raise ValueError(f"not a JWK set of at most {MAX_KEYS} keys")
    found: dict[str, IssuerKey] = {}
    for jwk in listed:
        if not strict.is_object(jwk) or not _SECRET.isdisjoint(jwk):
            raise ValueError("it holds what is no key, a private key, or a secret")
        kid: Any = jwk.get("kid")
        algorithm = _algorithm(jwk)
        if algorithm in algorithms and isinstance(kid, str) and 0 < len(kid) <= _KID:
            if kid in found:
                raise ValueError("a key id stands twice")
            found[kid] = IssuerKey(algorithm, _imported(jwk, algorithm))
    if not found:
        raise ValueError("it holds no key that the issuer's tokens may be signed with")
    return found


def _algorithm(jwk: Mapping[str, Any]) -> str:
    """Name the algorithm that a key is for; empty where it is none that is taken here."""
    fits = {("OKP", "Ed25519"): "Ed25519", ("EC", "P-256"): "ES256", ("RSA", None): "PS256"}
    kind: Any = (jwk.get("kty"), jwk.get("crv"))
    made_for = next((name for known, name in fits.items() if known == kind), "")
    if jwk.get("alg", made_for) != made_for or jwk.get("use", "sig") != "sig":
        return ""
    operations: Any = jwk.get("key_ops", ["verify"])
    return made_for if strict.is_array(operations) and "verify" in operations else ""


def _imported(jwk: Mapping[str, Any], algorithm: str) -> Key:
    try:
        if algorithm == "PS256":
            return _rsa(jwk)
        if algorithm == "ES256":
            return ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")})
        return OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x")})
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("a key is none") from None


def _rsa(jwk: Mapping[str, Any]) -> RSAKey:
    modulus, exponent = (int.from_bytes(strict.decode(jwk[name])) for name in ("n", "e"))
    if modulus.bit_length() not in RSA_BITS or not 65537 <= exponent < 1 << 32:
        raise ValueError
    return RSAKey.import_key({name: jwk[name] for name in ("kty", "n", "e")})


def _none() -> Unavailable:
    return Unavailable(Reason.ISSUER_KEYS_UNAVAILABLE, "the keys of the officer's identity provider cannot be had now")


class FileKeys:
    """Keys from a file, read again when it changes."""

    def __init__(self, path: Path, algorithms: Collection[str]) -> None:
        self._path = path
        self._file = Followed(path, LIMIT, lambda data: read_jwks(data, algorithms))
        self._good = True

    def read(self) -> Keys:
        """Read them; raises `OSError` or `ValueError`."""
        return self._file.read()

    async def find(self, kid: str) -> IssuerKey | None:
        """Find a key; see `IssuerKeys`. Nothing is believed while the file cannot be read."""
        try:
            keys = self.read()
        except (OSError, ValueError) as error:
            if self._good:
                self._good = False
                _log.error("Keys of an identity provider cannot be used: %s: %s", self._path, error)
            raise _none() from None
        self._good = True
        return keys.get(kid)

    async def close(self) -> None:
        """Nothing is open."""


class UrlKeys:
    """Keys from where they are published, fetched when they are first needed and again from time to time.

    A key id that nobody knows may belong to a new key: it has them fetched too, but at most once a minute. While they
    cannot be fetched, those there are go on being believed for an hour.
    """

    def __init__(
        self,
        url: str,
        ca: Path | None,
        algorithms: Collection[str],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        timeout: float = TIMEOUT,
    ) -> None:
        """`ca` holds the roots that are trusted instead of the system's."""
        self._url = url
        self._ca = ca
        self._algorithms = algorithms
        self._monotonic = monotonic
        self._timeout = timeout
        self._keys: Keys = {}
        self._fetched = self._tried = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> IssuerKey | None:
        """Find a key; see `IssuerKeys`."""
        if self._age() >= REFRESH or kid not in self._keys:
            fetching = self._begin()
            if fetching:
                # Several calls wait for it: one that gives up does not end it for the others.
                await asyncio.shield(fetching)
        if self._age() >= STALE:
            raise _none()
        return self._keys.get(kid)

    def _age(self) -> float:
        return self._monotonic() - self._fetched

    def _begin(self) -> asyncio.Task[None] | None:
        """Begin to fetch, or join in; None where it is too early for that."""
        if self._fetching is None:
            now = self._monotonic()
            if now < self._tried + (AGAIN if self._age() < STALE else RETRY):
                return None
            self._tried = now
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            data = await fetch(self._url, ca=self._ca, limit=LIMIT, timeout=self._timeout)
            self._keys = read_jwks(data, self._algorithms)
            self._fetched = self._monotonic()
        except (NotFetched, ValueError) as error:
            _log.error("Keys of an identity provider cannot be fetched: %s: %s", self._url, error)
        finally:
            self._fetching = None

    async def close(self) -> None:
        """Stop fetching."""
        if self._fetching:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
