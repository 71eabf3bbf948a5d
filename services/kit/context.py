"""The exchange context: a gateway's signed word, to a department, on whom it asks for.

Short-lived, bound to what is asked, signed by the key of the gateway's own TLS certificate: a department needs no
further key to check it, and nobody else can present it. It is the same for every subject that a caller asks the same
about, so that it is signed once and verified once for many questions.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError, Message

from certs.errors import CertificateError
from certs.spiffe import SpiffeId
from certs.svid import Svid, SvidVersion
from hutong.api.exchange.v1 import exchange_pb2, reads_pb2, record_source_pb2, zone_pb2
from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.errors import PermissionDenied, Reason, Unauthenticated
from services.kit.rpc import Call

LIFETIME = dt.timedelta(seconds=30)
"""How long a context lasts; also the longest a department accepts."""

SKEW = dt.timedelta(seconds=5)
"""How far two nodes' clocks may differ."""

_ALWAYS = dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)
_TIMES = "its times do not stand"
_ALGORITHM = ec.ECDSA(hashes.SHA256())

DelegatedRequest = record_source_pb2.FetchRequest | record_source_pb2.WatchRequest | reads_pb2.FetchReadsRequest

_NOT_BOUND: dict[type[Message], tuple[str, ...]] = {
    record_source_pb2.FetchRequest: ("delegated", "subject", "as_of", "query_id"),
    record_source_pb2.WatchRequest: ("delegated", "resume_token", "from_start"),
    # One context is for one listing of one enterprise: whose reads it is about is as much of it as anything.
    reads_pb2.FetchReadsRequest: ("delegated",),
}


def request_digest(request: DelegatedRequest) -> bytes:
    """Digest what a sub-request asks for, which a context is bound to.

    Whom it asks about, as of when and from where on are left out; see `ExchangeContext.request_digests`.
    """
    asked = cast("Message", type(request).FromString(request.SerializeToString()))
    for name in _NOT_BOUND[type(request)]:
        asked.ClearField(name)
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).digest()


class Signer:
    """Signs as whoever an identity is."""

    def __init__(self) -> None:
        self._version: SvidVersion | None = None
        self._key: ec.EllipticCurvePrivateKey | None = None

    def sign(self, svid: Svid, payload: bytes) -> bytes:
        """Sign with an identity's key: ECDSA P-256 with SHA-256, DER."""
        if self._key is None or self._version != svid.version:
            key = serialization.load_pem_private_key(svid.key, None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise TypeError("SVID keys are P-256")
            self._key, self._version = key, svid.version
        return self._key.sign(payload, _ALGORITHM)


class ContextSigner:
    """Signs contexts as the gateway."""

    def __init__(self, gateway: SpiffeId, clock: Clock) -> None:
        self._gateway = str(gateway)
        self._clock = clock
        self._signer = Signer()

    def sign(
        self,
        svid: Svid,
        caller: Caller,
        request: exchange_pb2.RequestContext,
        digests: Iterable[bytes],
    ) -> exchange_pb2.SignedContext:
        """Sign who asks, why, and the digests of all that is asked (`request_digest`).

        The department checks with the certificate of the connection: what `svid` signs must go over connections that
        `svid` opened.
        """
        now = self._clock()
        context = exchange_pb2.ExchangeContext(
            caller=caller.spiffe_id,
            request=request,
            gateway=self._gateway,
            request_digests=digests,
        )
        context.issued_at.FromDatetime(now)
        context.expires_at.FromDatetime(now + LIFETIME)
        return self.seal(svid, context)

    def seal(self, svid: Svid, context: exchange_pb2.ExchangeContext) -> exchange_pb2.SignedContext:
        """Sign a context as it stands."""
        payload = context.SerializeToString()
        return exchange_pb2.SignedContext(payload=payload, signature=self._signer.sign(svid, payload))


@dataclass(frozen=True, slots=True)
class Origin:
    """For whom and why a department is asked."""

    caller: Caller
    request: exchange_pb2.RequestContext


@dataclass(frozen=True, slots=True)
class Word:
    """For whom and why a request is, verified once; `ContextVerifier.check` says whether it still stands."""

    origin: Origin
    since: dt.datetime
    """From when it is good; what the peer says for itself always is."""
    until: dt.datetime
    """From when on it is good no more."""


class ContextVerifier:
    """Tells for whom a department is asked, checking a gateway's word where one speaks."""

    def __init__(self, gateways: Iterable[str], trust_domain: str, clock: Clock, zones: Iterable[str] = ()) -> None:
        """`gateways` are the identities (`agency/system`) whose word counts; of `zones` they may bring callers too."""
        self._gateways = frozenset(gateways)
        self._trust_domain = trust_domain
        self._zones = frozenset((trust_domain, *zones))
        self._clock = clock

    def origin(self, request: DelegatedRequest, call: Call) -> Origin:
        """Find the origin of a request; raises as `word` does."""
        return self.word(request, call).origin

    def word(self, request: DelegatedRequest, call: Call) -> Word:
        """Find the origin of a request, and how long that stands.

        The peer itself where no word is given; a gateway must give one. Raises `Unauthenticated` or
        `PermissionDenied` after these checks:

        1. the peer is one of the department's gateways;
        2. the signature is by the key of the peer's own TLS certificate;
        3. the context names the peer as its gateway;
        4. it is neither expired, nor from the future, nor longer-lived than `LIFETIME`;
        5. it covers what this sub-request asks for;
        6. the original caller is a system of this zone, and no gateway; or of a zone whose callers are let in.
        """
        is_gateway = call.caller.path in self._gateways
        if not request.HasField("delegated"):
            if is_gateway:
                raise Unauthenticated(Reason.CONTEXT_MISSING, "a gateway must say for whom it asks")
            return Word(Origin(call.caller, request.context), *_ALWAYS)
        # 1
        if not is_gateway:
            raise PermissionDenied(Reason.CALLER_NOT_LISTED, "this caller may not speak for others")
        # 2
        context = _signed_by(call.certificate, request.delegated.payload, request.delegated.signature)
        # 3
        if context.gateway != call.caller.spiffe_id:
            raise _invalid("it names another gateway")
        # 4
        since, until = times(context, self._clock())
        # 5
        if request_digest(request) not in context.request_digests:
            raise _invalid("it covers another request")
        # 6
        return Word(Origin(self._original(context.caller), context.request), since, until)

    def check(self, word: Word, now: dt.datetime) -> None:
        """Check the times of a word again; raises as `word` does."""
        if word.since <= now < word.until:
            return
        raise _expired() if now >= word.until else _invalid(_TIMES)

    def _original(self, text: str) -> Caller:
        try:
            identity = SpiffeId.parse(text)
            caller = Caller.seen_from(self._trust_domain, identity)
        except CertificateError:
            raise _invalid("it names no caller") from None
        if identity.trust_domain not in self._zones or caller.path in self._gateways:
            raise _invalid("it names no caller of this zone, or of one whose callers are let in")
        return caller


def times(
    context: exchange_pb2.ExchangeContext | zone_pb2.ZoneContext, now: dt.datetime
) -> tuple[dt.datetime, dt.datetime]:
    """Check the times of a gateway's word; gives from when and until when it is good, whatever two clocks differ.

    Raises `Unauthenticated` CONTEXT_INVALID or CONTEXT_EXPIRED.
    """
    try:
        issued, expires = context.issued_at.ToDatetime(dt.UTC), context.expires_at.ToDatetime(dt.UTC)
    except (ValueError, OverflowError):
        raise _invalid(_TIMES) from None
    if not context.HasField("issued_at") or expires - issued > LIFETIME or issued > now + SKEW:
        raise _invalid(_TIMES)
    if expires + SKEW <= now:
        raise _expired()
    return issued - SKEW, expires + SKEW


@lru_cache(maxsize=1024)
def _signed_by(certificate: bytes, payload: bytes, signature: bytes) -> exchange_pb2.ExchangeContext:
    """Read a context that the key of a certificate has signed; what was found good is remembered, nothing else is."""
    try:
        _public_key(certificate).verify(signature, payload, _ALGORITHM)
        return exchange_pb2.ExchangeContext.FromString(payload)
    except (InvalidSignature, DecodeError):
        raise _invalid("its signature does not stand") from None


def _expired() -> Unauthenticated:
    return Unauthenticated(Reason.CONTEXT_EXPIRED, "the exchange context has expired; ask again")


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated(Reason.CONTEXT_INVALID, f"the exchange context does not stand: {why}")


@lru_cache(maxsize=64)
def _public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    key = x509.load_pem_x509_certificate(pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _invalid("the gateway's key is no EC key")
    return key
