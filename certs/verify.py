"""Who the peer of a connection is: what the TLS handshake does not check, and what must be checked again on each call.

The handshake (BoringSSL inside gRPC) has verified the chain up to the zone's roots, the dates of that moment, and that
the certificate may be used by a TLS client. On top of that, a peer stands when

1. what it sent is one X.509 certificate,
2. with exactly one URI name,
3. which is a SPIFFE ID of the form `spiffe://<zone>/<agency>/<system>`,
4. of our trust domain;
5. it is not an authority's certificate,
6. its keyUsage is critical, allows digitalSignature, and allows signing neither certificates nor revocation lists,
7. its extendedKeyUsage allows a TLS client;
8. now lies within its dates: a connection does not outlive its certificate;
9. its serial is not revoked, by a list of its issuer's that can be trusted; or it is short-lived, where there is none.

1-7 depend on the certificate's bytes alone and are remembered; 8 and 9 are asked every time.
(X509-SVID §4-5, https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md.)
"""

import datetime as dt
import warnings
from collections.abc import Callable
from contextlib import suppress

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.errors import (
    AuthorityAsLeaf,
    CertificateExpired,
    CertificateNotYetValid,
    CertificateUnreadable,
    ExtendedKeyUsageWrong,
    KeyUsageWrong,
    RevocationUnknown,
    TrustDomainWrong,
)
from certs.peer import Peer, Revocations
from certs.spiffe import SpiffeId

Clock = Callable[[], dt.datetime]
"""Gives the present moment, aware."""

REMEMBERED = 1024
"""Certificates kept by a verifier: every system of a zone, several rotations over."""


def verify_peer(pem: bytes, trust_domain: str, revocations: Revocations, now: dt.datetime) -> SpiffeId:
    """Verify one certificate by all nine checks. Raises the `CertificateError` of the first that fails."""
    peer = read_peer(pem, trust_domain)
    check_moment(peer, revocations, now)
    return peer.spiffe_id


def read_peer(pem: bytes, trust_domain: str) -> Peer:
    """Do checks 1-7. Raises the `CertificateError` of the first that fails."""
    # (1)
    try:
        with warnings.catch_warnings():
            # What the library warns of today it refuses tomorrow: a serial number that is none, above all.
            warnings.simplefilter("error")
            certificate = x509.load_pem_x509_certificate(pem)
            extensions = certificate.extensions
    except (ValueError, Warning, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CertificateUnreadable(f"certificate cannot be read: {error}") from error
    # (2) (3)
    spiffe_id = SpiffeId.from_certificate(certificate)
    _ = spiffe_id.agency, spiffe_id.system
    # (4)
    if spiffe_id.trust_domain != trust_domain:
        raise TrustDomainWrong(f"{spiffe_id} is not of trust domain {trust_domain}")
    _check_not_authority(extensions)  # (5)
    _check_key_usage(extensions)  # (6)
    _check_extended_key_usage(extensions)  # (7)
    return Peer(
        spiffe_id=spiffe_id,
        serial=certificate.serial_number,
        authority=_authority_of(extensions),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def check_moment(peer: Peer, revocations: Revocations, now: dt.datetime) -> None:
    """Do checks 8 and 9. Raises the `CertificateError` of the first that fails."""
    # (8)
    if now > peer.not_after:
        raise CertificateExpired(f"certificate of {peer.spiffe_id} expired at {peer.not_after:%Y-%m-%d %H:%M:%S}Z")
    if now < peer.not_before:
        raise CertificateNotYetValid(
            f"certificate of {peer.spiffe_id} is valid from {peer.not_before:%Y-%m-%d %H:%M:%S}Z"
        )
    # (9)
    revocations.check(peer, now)


def _authority_of(extensions: x509.Extensions) -> bytes:
    try:
        return extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    except x509.ExtensionNotFound:
        return b""


def _check_not_authority(extensions: x509.Extensions) -> None:
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return  # RFC 5280 §4.2.1.9: without it, not an authority
    if constraints.ca:
        raise AuthorityAsLeaf("an authority's certificate does not identify a system")


def _check_key_usage(extensions: x509.Extensions) -> None:
    try:
        extension = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        raise KeyUsageWrong("certificate has no keyUsage") from None
    if not extension.critical:
        raise KeyUsageWrong("certificate's keyUsage is not critical")
    if not extension.value.digital_signature:
        raise KeyUsageWrong("certificate's keyUsage does not allow digitalSignature")
    if extension.value.key_cert_sign or extension.value.crl_sign:
        raise KeyUsageWrong("certificate's keyUsage allows signing certificates or revocation lists")


def _check_extended_key_usage(extensions: x509.Extensions) -> None:
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise ExtendedKeyUsageWrong("certificate has no extendedKeyUsage") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise ExtendedKeyUsageWrong("certificate's extendedKeyUsage does not allow a TLS client")


class PeerVerifier:
    """Verifies the peer of every call; a certificate seen before costs two comparisons and a set look-up."""

    def __init__(self, trust_domain: str, revocations: Revocations, clock: Clock) -> None:
        self._trust_domain = trust_domain
        self._revocations = revocations
        self._clock = clock
        self._peers: dict[bytes, Peer] = {}

    def verify(self, pem: bytes) -> SpiffeId:
        """Say who sent the certificate `pem`. Raises the `CertificateError` of the first check that fails."""
        peer = self._peers.get(pem)
        if peer is None:
            peer = read_peer(pem, self._trust_domain)
            if len(self._peers) >= REMEMBERED:
                # The oldest goes: it is the likeliest to have been rotated away.
                del self._peers[next(iter(self._peers))]
            self._peers[pem] = peer
        check_moment(peer, self._revocations, self._clock())
        return peer.spiffe_id


class ServerVerifier:
    """Says of servers whether their certificates still stand: the handshake has checked the rest, and their names.

    Where revocations are not known they stand: a node whose list has lapsed must reach those who tell it newer ones.
    """

    def __init__(self, revocations: Revocations, clock: Clock) -> None:
        self._revocations = revocations
        self._clock = clock

    def verify(self, pem: bytes) -> None:
        """Raise `CertificateRevoked`, or another `CertificateError` where the certificate does not stand."""
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            authority = _authority_of(certificate.extensions)
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise CertificateUnreadable(f"certificate cannot be read: {error}") from error
        peer = Peer(
            spiffe_id=SpiffeId.from_certificate(certificate),
            serial=certificate.serial_number,
            authority=authority,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )
        with suppress(RevocationUnknown):
            self._revocations.check(peer, self._clock())
