"""The words of gateways: what one zone's gateway says to another's, on whom it asks for or carries a question for.

A word is signed with the key of the gateway's certificate, and brings the chain that proves whose it is. The word of
the caller's own gateway goes all the way: whoever answers checks it under the roots of the caller's zone. So a zone in
between can carry a question; it cannot make one up, ask about anybody else, or change who asks and why. Each word names
the one before it and the zone it is handed to: no zone is passed twice.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import DecodeError

from certs.errors import CertificateError
from certs.foreign import ForeignZone
from certs.spiffe import SpiffeId
from certs.svid import Svid
from hutong.api.exchange.v1 import exchange_pb2, zone_pb2
from services.kit.caller import Caller
from services.kit.clock import Clock
from services.kit.context import LIFETIME, Signer, times
from services.kit.errors import HutongError, InvalidArgument, PermissionDenied, Reason, Unauthenticated

MOST_WORDS: Final = 4
"""Gateways that a question may pass, the caller's own among them."""

_DOMAIN: Final = b"hutong zone word\n"
_ALGORITHM = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Spoken:
    """A question from another zone, its words verified."""

    caller: Caller
    """Who asks, of the first zone of `path`."""
    context: exchange_pb2.RequestContext
    zone: str
    """The zone that is to answer."""
    path: tuple[str, ...]
    """The zones it came through, the caller's first."""


def digest_of(request: zone_pb2.QueryZoneRequest) -> bytes:
    """Digest a question without its words."""
    question = zone_pb2.QueryZoneRequest()
    question.CopyFrom(request)
    del question.words[:]
    return hashlib.sha256(question.SerializeToString(deterministic=True)).digest()


class Speaker:
    """Speaks as this zone's gateway."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._signer = Signer()

    def ask(
        self,
        svid: Svid,
        request: zone_pb2.QueryZoneRequest,
        caller: Caller,
        context: exchange_pb2.RequestContext,
        way: Sequence[str],
    ) -> None:
        """Add the first word: that a caller of this zone asks; `way` is the zone to answer, and the one next on it."""
        self._add(svid, request, zone_pb2.ZoneContext(caller=caller.spiffe_id, request=context), way)

    def carry(self, svid: Svid, request: zone_pb2.QueryZoneRequest, way: Sequence[str]) -> None:
        """Add a word: that this zone carries the question on."""
        before = hashlib.sha256(request.words[-1].payload).digest()
        self._add(svid, request, zone_pb2.ZoneContext(carries=before), way)

    def answer(self, svid: Svid, request: zone_pb2.QueryZoneRequest, sections: bytes) -> bytes:
        """Give the word on an answer, serialized; `sections` are those of a `QueryZoneResponse`, serialized."""
        said = zone_pb2.ZoneAnswer(
            asked=hashlib.sha256(request.words[0].payload).digest(), sections_digest=hashlib.sha256(sections).digest()
        )
        payload = said.SerializeToString()
        word = zone_pb2.ZoneWord(payload=payload, signature=self._sign(svid, payload), certificates=_chain(svid))
        return word.SerializeToString()

    def _sign(self, svid: Svid, payload: bytes) -> bytes:
        # What is said here is never taken for anything else that the same key signs.
        return self._signer.sign(svid, _DOMAIN + payload)

    def _add(
        self, svid: Svid, request: zone_pb2.QueryZoneRequest, word: zone_pb2.ZoneContext, way: Sequence[str]
    ) -> None:
        word.zone, word.next = way
        word.question_digest = digest_of(request)
        now = self._clock()
        word.issued_at.FromDatetime(now)
        word.expires_at.FromDatetime(now + LIFETIME)
        payload = word.SerializeToString()
        request.words.add(payload=payload, signature=self._sign(svid, payload), certificates=_chain(svid))


class Listener:
    """Verifies what gateways of other zones say."""

    def __init__(
        self, own: str, zones: Mapping[str, ForeignZone], gateways: Mapping[str, SpiffeId], clock: Clock
    ) -> None:
        """`own` is this zone; `gateways` are those of the others, by zone."""
        self._own = own
        self._zones = zones
        self._gateways = gateways
        self._clock = clock

    def hear(self, request: zone_pb2.QueryZoneRequest, certificate: bytes) -> Spoken:
        """Verify the words of a question; `certificate` is the peer's, PEM.

        Raises `Unauthenticated` CONTEXT_MISSING, CONTEXT_INVALID or CONTEXT_EXPIRED, `InvalidArgument` ZONE_LOOP, or
        `PermissionDenied` ZONE_UNKNOWN, after these checks:

        1. there is a word, and there are not too many;
        2. each is signed with the key of a certificate that stands under the roots of the zone it names, and is the
           identity of that zone's gateway;
        3. no zone speaks twice, and this one not at all;
        4. each is of this very question, to the zone that the first one says, and its times stand;
        5. each names the one before it, and is by whom that one was handed to; the last is handed to this zone;
        6. the last is the peer's;
        7. the caller is a system of the first one's zone, and not its gateway.
        """
        if not request.words:
            raise Unauthenticated(Reason.CONTEXT_MISSING, "a gateway must say for whom it asks")
        if len(request.words) > MOST_WORDS:
            raise InvalidArgument(Reason.ZONE_LOOP, f"a question passes at most {MOST_WORDS} gateways")
        digest, now = digest_of(request), self._clock()
        path: list[str] = []
        contexts: list[zone_pb2.ZoneContext] = []
        for word in request.words:
            zone, context = self._read(word, now)
            if zone == self._own or zone in path:
                raise InvalidArgument(Reason.ZONE_LOOP, "the question has been here before")
            times(context, now)
            if context.question_digest != digest or (contexts and context.zone != contexts[0].zone):
                raise _invalid("it is of another question")
            path.append(zone)
            contexts.append(context)
        handed = [context.next for context in contexts]
        if handed != [*path[1:], self._own]:
            raise _invalid("it was handed to another zone")
        before = [b"", *(hashlib.sha256(word.payload).digest() for word in request.words[:-1])]
        if [context.carries for context in contexts] != before:
            raise _invalid("it carries another word")
        if x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER) != request.words[-1].certificates[0]:
            raise _invalid("it is not the peer's")
        return Spoken(self._caller(contexts[0], path[0]), contexts[0].request, contexts[0].zone, tuple(path))

    def check_answer(self, zone: str, request: zone_pb2.QueryZoneRequest, sections: bytes, word: bytes) -> None:
        """Check that a zone's gateway answered this question with these sections, whoever brought them.

        Raises `Unauthenticated` CONTEXT_INVALID, or `PermissionDenied` ZONE_UNKNOWN.
        """
        try:
            name, payload = self._proven(zone_pb2.ZoneWord.FromString(word), self._clock())
            said = zone_pb2.ZoneAnswer.FromString(payload)
        except DecodeError:
            raise _invalid("it cannot be read") from None
        asked = hashlib.sha256(request.words[0].payload).digest()
        if (name, said.asked, said.sections_digest) != (zone, asked, hashlib.sha256(sections).digest()):
            raise _invalid("it is on another answer")

    def _read(self, word: zone_pb2.ZoneWord, now: dt.datetime) -> tuple[str, zone_pb2.ZoneContext]:
        name, payload = self._proven(word, now)
        try:
            return name, zone_pb2.ZoneContext.FromString(payload)
        except DecodeError:
            raise _invalid("it cannot be read") from None

    def _proven(self, word: zone_pb2.ZoneWord, now: dt.datetime) -> tuple[str, bytes]:
        """Verify who speaks; gives the zone, and what was said."""
        try:
            name = _zone_of(word)
            zone = self._zones.get(name)
            if zone is None:
                raise PermissionDenied(Reason.ZONE_UNKNOWN, "a gateway of a zone that is not known here spoke")
            proven = zone.verify(word.certificates, now)
            if proven.peer.spiffe_id != self._gateways[name]:
                raise _invalid("it is no gateway's")
            proven.key.verify(word.signature, _DOMAIN + word.payload, _ALGORITHM)
            return name, word.payload
        except CertificateError as error:
            raise _invalid(f"its certificate does not stand ({error.reason})") from None
        except (InvalidSignature, ValueError, x509.InvalidVersion):
            raise _invalid("its signature does not stand") from None

    def _caller(self, first: zone_pb2.ZoneContext, zone: str) -> Caller:
        try:
            identity = SpiffeId.parse(first.caller)
            caller = Caller.abroad(identity)
        except CertificateError:
            raise _invalid("it names no caller") from None
        if identity.trust_domain != zone or identity == self._gateways[zone]:
            raise _invalid("it names no caller of its zone")
        return caller


def _chain(svid: Svid) -> list[bytes]:
    return [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(svid.chain)]


def _zone_of(word: zone_pb2.ZoneWord) -> str:
    """Read of which zone a word says to be."""
    if not word.certificates:
        raise _invalid("it has no certificate")
    return SpiffeId.from_certificate(x509.load_der_x509_certificate(word.certificates[0])).trust_domain


def _invalid(why: str) -> HutongError:
    return Unauthenticated(Reason.CONTEXT_INVALID, f"the gateway's word does not stand: {why}")
