"""Other zones: whose certificates count under roots of their own, and for names of their own only.

A trust bundle speaks for one trust domain, and no root of it for another one (SPIFFE Federation §5.2,
https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Federation.md). So roots of several zones are never put
together to judge anybody: first it is read which zone a certificate says it is of, then that zone's roots, and none
other, have to bear it out. All of `certs.verify` is asked besides.
"""

import datetime as dt
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from certs.errors import CertificateUnreadable, ChainUntrusted, TrustDomainWrong
from certs.peer import Peer, Revocations
from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import FileState, Svid, SvidFiles, SvidVersion, certificates_of, file_state, pem_of
from certs.verify import REMEMBERED, Clock, check_moment, read_peer

LONGEST_CHAIN = 5
"""Certificates from the leaf up, without the root."""
_CHAIN_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Proven:
    """Somebody of another zone, as a chain proved."""

    peer: Peer
    key: ec.EllipticCurvePublicKey
    roots: FileState
    """The roots it was proven under."""
    until: dt.datetime
    """The first moment at which a certificate of the chain ends."""


class ForeignZone:
    """One other zone: its name, its roots, and who of it is revoked."""

    def __init__(self, name: str, bundle: Path, revocations: Revocations) -> None:
        self.name = name
        self._bundle = bundle
        self._revocations = revocations
        self._proven: OrderedDict[tuple[bytes, ...], Proven] = OrderedDict()

    def verify(self, chain: Sequence[bytes], now: dt.datetime) -> Proven:
        """Verify a chain, DER, leaf first and without the root.

        Raises `ChainUntrusted` where it does not lead to this zone's roots, and as `certs.verify.verify_peer`.
        """
        key = tuple(chain)
        proven = self._proven.get(key)
        roots = file_state(self._bundle)
        if proven is None or proven.roots != roots or now > proven.until:
            proven = self._prove(key, roots, now)
            if len(self._proven) >= REMEMBERED:
                self._proven.popitem(last=False)
            self._proven[key] = proven
        self.check(proven.peer, now)
        return proven

    def check(self, peer: Peer, now: dt.datetime) -> None:
        """Check again that somebody of this zone stands; raises as `certs.verify.check_moment`."""
        check_moment(peer, self._revocations, now)

    def check_leaf(self, pem: bytes, peer: Peer, now: dt.datetime) -> None:
        """Check that an authority of this zone has issued a leaf, of which the chain is not at hand.

        Where the zone has revocation lists, they bring their issuers, proven under its roots. Where it has none, what
        can be said is that it lives short. Raises `ChainUntrusted`, and as `check`.
        """
        self.check(peer, now)
        if isinstance(self._revocations, RevocationList) and not self._revocations.issued(
            x509.load_pem_x509_certificate(pem), peer.authority, now
        ):
            raise ChainUntrusted(f"certificate of {peer.spiffe_id} was not issued by an authority of {self.name}")

    def _prove(self, chain: Sequence[bytes], roots: FileState, now: dt.datetime) -> Proven:
        if not 0 < len(chain) <= LONGEST_CHAIN or sum(map(len, chain)) > _CHAIN_BYTES:
            raise CertificateUnreadable(f"a chain has 1 to {LONGEST_CHAIN} certificates")
        try:
            leaf, *between = map(x509.load_der_x509_certificate, chain)
        except (ValueError, x509.InvalidVersion) as error:
            raise CertificateUnreadable(f"certificate cannot be read: {error}") from None
        peer = read_peer(pem_of(leaf), self.name)
        store = verification.Store(certificates_of(self._bundle.read_bytes(), self._bundle))
        verifier = verification.PolicyBuilder().store(store).time(now).build_client_verifier()
        try:
            found = verifier.verify(leaf, between).chain
        except verification.VerificationError:
            raise ChainUntrusted(f"certificate of {peer.spiffe_id} does not lead to the roots of {self.name}") from None
        public = leaf.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise CertificateUnreadable("the key of the certificate is not an elliptic curve key")
        return Proven(peer, public, roots, min(each.not_valid_after_utc for each in found))


class ForeignPeers:
    """Verifies peers of several other zones, each by its own; for a server that nobody of this zone calls.

    A handshake with the roots of several zones cannot say that it was under those of the zone that a certificate names.
    So the leaf's issuer is looked at besides (`ForeignZone.check_leaf`); and what gateways say brings the whole chain.
    """

    def __init__(self, zones: Mapping[str, ForeignZone], clock: Clock) -> None:
        self._zones = zones
        self._clock = clock
        self._peers: OrderedDict[bytes, Peer] = OrderedDict()

    def verify(self, pem: bytes) -> SpiffeId:
        """Say who sent the certificate `pem`; raises as `certs.verify.PeerVerifier.verify`."""
        peer = self._peers.get(pem)
        if peer is None:
            peer = read_peer(pem, _zone_of(pem))
            self._zone(peer).check_leaf(pem, peer, self._clock())
            if len(self._peers) >= REMEMBERED:
                self._peers.popitem(last=False)
            self._peers[pem] = peer
        self._zone(peer).check(peer, self._clock())
        return peer.spiffe_id

    def _zone(self, peer: Peer) -> ForeignZone:
        zone = self._zones.get(peer.spiffe_id.trust_domain)
        if zone is None:
            raise TrustDomainWrong(f"{peer.spiffe_id} is of no zone that is known here")
        return zone


@dataclass(frozen=True, slots=True)
class JoinedFiles(SvidFiles):
    """An identity whose peers are of several zones: what a handshake takes for roots is the roots of them all."""

    others: tuple[Path, ...] = ()
    """Their bundles."""

    def version(self) -> SvidVersion:
        """Tell which version is on disk; another one when any of the bundles was replaced."""
        own = SvidFiles(self.certificate, self.key, self.others[0]).version()
        states = [file_state(path) for path in self.others]
        return SvidVersion(own.certificate, own.key, (hash(tuple(states)), len(states), 0))

    def load(self, attempts: int = 5) -> Svid:
        """Read all files; raises as `SvidFiles.load`."""
        version = self.version()
        own = SvidFiles(self.certificate, self.key, self.others[0]).load(attempts)
        roots = [each for path in self.others for each in certificates_of(path.read_bytes(), path)]
        return Svid(
            chain=own.chain,
            key=own.key,
            bundle=b"".join(map(pem_of, roots)),
            leaf=own.leaf,
            spiffe_id=own.spiffe_id,
            version=version,
        )


def _zone_of(pem: bytes) -> str:
    try:
        return SpiffeId.from_certificate(x509.load_pem_x509_certificate(pem)).trust_domain
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateUnreadable(f"certificate cannot be read: {error}") from None
