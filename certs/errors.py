"""Every error of the identity package, each with a reason that stays and a hint that says what to do.

CertificateError
  SpiffeIdMalformed       SPIFFE_ID_MALFORMED       the text is not a SPIFFE ID, or not one of ours
  SpiffeIdMissing         SPIFFE_ID_MISSING         the certificate names nobody
  SpiffeIdSeveral         SPIFFE_ID_SEVERAL         the certificate names more than one
  CertificateUnreadable   CERTIFICATE_UNREADABLE    not one X.509 certificate
  TrustDomainWrong        TRUST_DOMAIN_WRONG        somebody else's zone
  AuthorityAsLeaf         AUTHORITY_AS_LEAF         a CA certificate used to identify a system
  KeyUsageWrong           KEY_USAGE_WRONG           keyUsage absent, not critical, or for something else
  ExtendedKeyUsageWrong   EXTENDED_KEY_USAGE_WRONG  not for a TLS client
  CertificateNotYetValid  CERTIFICATE_NOT_YET_VALID before its time
  CertificateExpired      CERTIFICATE_EXPIRED       after its time
  CertificateRevoked      CERTIFICATE_REVOKED       on the zone's revocation list
  RevocationUnknown       REVOCATION_UNKNOWN        no revocation list to be trusted: our fault, not the peer's
  AuthorityUnknown        AUTHORITY_UNKNOWN         issued by an authority that publishes no list here
  ChainUntrusted          CHAIN_UNTRUSTED           does not lead to the roots of the zone it names
  LifeTooLong             LIFE_TOO_LONG             lives too long for a zone without revocation lists
  SvidUnreadable          SVID_UNREADABLE           certificate, key or trust bundle file absent or damaged
  SvidMismatch            SVID_MISMATCH             key and certificate do not belong together
  KeyExposed              KEY_EXPOSED               a private key every user of the machine can read
  ZoneExists              ZONE_EXISTS               the folder already holds something
  ZoneMissing             ZONE_MISSING              the folder holds no zone
  ZoneDamaged             ZONE_DAMAGED              the zone's own files do not agree
  NameRefused             NAME_REFUSED              a zone, agency or system name that cannot be used
  TtlRefused              TTL_REFUSED               a lifetime that is too long or not positive
  SvidExists              SVID_EXISTS               the system already has a valid certificate
  SvidUnknown             SVID_UNKNOWN              no such certificate was issued here
  RevocationRefused       REVOCATION_REFUSED        a certificate that may not be renewed or revoked
  StepRefused             CA_STEP_REFUSED           a step of the authority's rotation out of its order
  AgentRunning            AGENT_RUNNING             another agent keeps the certificates of the folder
  WorkloadApiFailed       WORKLOAD_API_FAILED       the SPIFFE Workload API gives no identity that can be used
  TlsFloorTooLate         TLS_FLOOR_TOO_LATE        gRPC was loaded before TLS 1.3 was required
"""

from typing import ClassVar


class CertificateError(Exception):
    """Anything this package refuses; `reason` is contract, the message is for people, `hint` says what to do next."""

    reason: ClassVar[str] = "CERTIFICATE_ERROR"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SpiffeIdMalformed(CertificateError):
    """The text is not a SPIFFE ID, or does not have the form this mesh uses."""

    reason = "SPIFFE_ID_MALFORMED"


class SpiffeIdMissing(CertificateError):
    """The certificate has no URI name."""

    reason = "SPIFFE_ID_MISSING"


class SpiffeIdSeveral(CertificateError):
    """The certificate has more than one URI name (X509-SVID §2 wants exactly one)."""

    reason = "SPIFFE_ID_SEVERAL"


class CertificateUnreadable(CertificateError):
    """The bytes are not one X.509 certificate that can be parsed."""

    reason = "CERTIFICATE_UNREADABLE"


class TrustDomainWrong(CertificateError):
    """The certificate belongs to another zone."""

    reason = "TRUST_DOMAIN_WRONG"


class AuthorityAsLeaf(CertificateError):
    """A certificate that may sign others was used to identify a system (X509-SVID §3.2)."""

    reason = "AUTHORITY_AS_LEAF"


class KeyUsageWrong(CertificateError):
    """The keyUsage extension is absent, not critical, lacks digitalSignature or allows signing (X509-SVID §4.3)."""

    reason = "KEY_USAGE_WRONG"


class ExtendedKeyUsageWrong(CertificateError):
    """The certificate is not meant for a TLS client (X509-SVID §4.4)."""

    reason = "EXTENDED_KEY_USAGE_WRONG"


class CertificateNotYetValid(CertificateError):
    """The certificate's time has not come."""

    reason = "CERTIFICATE_NOT_YET_VALID"


class CertificateExpired(CertificateError):
    """The certificate's time is over."""

    reason = "CERTIFICATE_EXPIRED"


class CertificateRevoked(CertificateError):
    """The certificate is on the zone's revocation list."""

    reason = "CERTIFICATE_REVOKED"


class RevocationUnknown(CertificateError):
    """No revocation list that can be trusted, so nobody can be: the fault is on this side of the connection."""

    reason = "REVOCATION_UNKNOWN"


class AuthorityUnknown(CertificateError):
    """The lists stand, and none is of the authority that issued the certificate: it was pruned, or is not ours."""

    reason = "AUTHORITY_UNKNOWN"


class ChainUntrusted(CertificateError):
    """A certificate's chain does not lead to the roots of the zone that the certificate names."""

    reason = "CHAIN_UNTRUSTED"


class LifeTooLong(CertificateError):
    """The certificate lives longer than is accepted where no revocation list could end it."""

    reason = "LIFE_TOO_LONG"


class SvidUnreadable(CertificateError):
    """A certificate, key or trust bundle file is absent or damaged."""

    reason = "SVID_UNREADABLE"


class SvidMismatch(CertificateError):
    """The private key does not belong to the certificate."""

    reason = "SVID_MISMATCH"


class KeyExposed(CertificateError):
    """Every user of the machine can read the private key."""

    reason = "KEY_EXPOSED"


class ZoneExists(CertificateError):
    """The folder already holds a zone, or something else that is not ours to overwrite."""

    reason = "ZONE_EXISTS"


class ZoneMissing(CertificateError):
    """The folder holds no zone."""

    reason = "ZONE_MISSING"


class ZoneDamaged(CertificateError):
    """The zone's own files are unreadable or do not agree with each other."""

    reason = "ZONE_DAMAGED"


class NameRefused(CertificateError):
    """A zone, agency or system name that cannot stand in a certificate."""

    reason = "NAME_REFUSED"


class TtlRefused(CertificateError):
    """A lifetime that is not positive, too long, or longer than the authority's own."""

    reason = "TTL_REFUSED"


class SvidExists(CertificateError):
    """The system already has a certificate that is valid and not revoked."""

    reason = "SVID_EXISTS"


class SvidUnknown(CertificateError):
    """No such certificate was issued by this zone."""

    reason = "SVID_UNKNOWN"


class RevocationRefused(CertificateError):
    """A revoked identity is not renewed on the quiet, and nothing is revoked twice."""

    reason = "REVOCATION_REFUSED"


class StepRefused(CertificateError):
    """A step of the authority's rotation that would cut somebody off, or comes out of its order."""

    reason = "CA_STEP_REFUSED"


class AgentRunning(CertificateError):
    """Another agent keeps the certificates of the folder."""

    reason = "AGENT_RUNNING"


class WorkloadApiFailed(CertificateError):
    """The SPIFFE Workload API cannot be reached, refuses, or gives an identity that cannot be used."""

    reason = "WORKLOAD_API_FAILED"


class TlsFloorTooLate(CertificateError):
    """The gRPC library was loaded before TLS 1.3 was required of it, and can no longer be told."""

    reason = "TLS_FLOOR_TOO_LATE"
