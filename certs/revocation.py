"""Revocation: the signed list the authority publishes, and the reader every server asks before it trusts a peer.

The file is an X.509 CRL (RFC 5280 §5) followed by the intermediate certificate that signed it, both PEM, so that the
zone's roots are all a reader needs to believe it. The policy where there is no good list is to refuse:

- absent, unreadable, not signed under the zone's roots, older than one seen before: everyone is refused;
- past its next update: everyone is refused, since an old list says nothing about today. The authority signs a new one
  with every issue, renewal and revocation; with daily renewal a list is a day old and lasts a week;
- a good list appearing again ends the refusal, without a restart.

What a list cannot say is that the intermediate itself was revoked: then the zone's roots are replaced.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import CertificateError, CertificateRevoked, RevocationUnknown
from certs.register import Issued, RevocationReason, serial_text
from certs.svid import FileState, certificates_of, file_state, pem_of

LIST_LIFE = dt.timedelta(days=7)
"""How long servers live with a list that the authority does not refresh."""
LOOK_EVERY = dt.timedelta(seconds=1)
"""How often the file is looked at: the most a revocation can take to be noticed."""

_FLAGS = {
    RevocationReason.UNSPECIFIED: x509.ReasonFlags.unspecified,
    RevocationReason.KEY_COMPROMISE: x509.ReasonFlags.key_compromise,
    RevocationReason.AFFILIATION_CHANGED: x509.ReasonFlags.affiliation_changed,
    RevocationReason.SUPERSEDED: x509.ReasonFlags.superseded,
    RevocationReason.CESSATION_OF_OPERATION: x509.ReasonFlags.cessation_of_operation,
    RevocationReason.PRIVILEGE_WITHDRAWN: x509.ReasonFlags.privilege_withdrawn,
}


def signed_list(
    published: Path,
    revoked: Iterable[Issued],
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> bytes:
    """Sign the list of `revoked`, numbered after the one at `published` if that can be read."""
    # The time as number keeps it growing when the last list was lost; the last plus one, when the clock went back.
    number = max(int(now.timestamp() * 1000), _number_at(published) + 1)
    start = now.astimezone(dt.UTC).replace(microsecond=0)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(start)
        .next_update(start + LIST_LIFE)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(_list_entry(entry))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM) + pem_of(issuer)


def _list_entry(entry: Issued) -> x509.RevokedCertificate:
    assert entry.revoked_at is not None, "only revoked certificates are listed"  # noqa: S101 - the caller's promise
    reason = _FLAGS[entry.revocation_reason or RevocationReason.UNSPECIFIED]
    builder = x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(entry.revoked_at)
    if reason is not x509.ReasonFlags.unspecified:  # RFC 5280 §5.3.1: absent instead of unspecified
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()


def _number_at(path: Path) -> int:
    try:
        crl = x509.load_pem_x509_crl(path.read_bytes())
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (OSError, ValueError, x509.ExtensionNotFound):
        return 0


@dataclass(frozen=True, slots=True)
class _Good:
    """A list that was verified."""

    serials: frozenset[int]
    number: int
    next_update: dt.datetime


@dataclass(frozen=True, slots=True)
class _Bad:
    """Why there is no list."""

    problem: str


class RevocationList:
    """The revocation list at `path`, believed when signed under the roots in `bundle`, followed as the file changes.

    Nothing is read before the first question. Each question brings its own `now`, and the file is looked at when a
    second has passed since the last look, so that a question costs a set look-up.
    """

    def __init__(self, path: Path, bundle: Path) -> None:
        self._path = path
        self._bundle = bundle
        self._state: _Good | _Bad = _Bad("not read yet")
        self._seen: tuple[FileState, FileState] | None = None
        self._looked_at: dt.datetime | None = None
        self._highest = 0

    def check(self, serial: int, now: dt.datetime) -> None:
        """Raise `CertificateRevoked` when `serial` is listed, `RevocationUnknown` when no list can be trusted now."""
        state = self._current(now)
        if isinstance(state, _Bad):
            raise RevocationUnknown(
                f"revocation list cannot be trusted: {state.problem}",
                "publish it again with `hutong certs rotate` and bring it to this node",
            )
        if now > state.next_update:
            raise RevocationUnknown(
                f"revocation list lapsed at {state.next_update:%Y-%m-%d %H:%M:%S}Z",
                "publish it again with `hutong certs rotate` and bring it to this node",
            )
        if serial in state.serials:
            raise CertificateRevoked(f"certificate {serial_text(serial)} is revoked")

    def problem(self, now: dt.datetime) -> str:
        """Say what is wrong with the list, for a health check; empty when nothing is."""
        state = self._current(now)
        if isinstance(state, _Bad):
            return state.problem
        return f"lapsed at {state.next_update:%Y-%m-%d %H:%M:%S}Z" if now > state.next_update else ""

    def seconds_left(self, now: dt.datetime) -> float:
        """Say how long the list is good for still; 0 where none can be trusted."""
        state = self._current(now)
        return 0.0 if isinstance(state, _Bad) else max(0.0, (state.next_update - now).total_seconds())

    def _current(self, now: dt.datetime) -> _Good | _Bad:
        # A clock that was set back must not stop the looking, hence abs.
        if self._looked_at is None or abs(now - self._looked_at) >= LOOK_EVERY:
            self._looked_at = now
            self._look(now)
        return self._state

    def _look(self, now: dt.datetime) -> None:
        try:
            seen = file_state(self._path), file_state(self._bundle)
            if seen == self._seen:
                return
            good = self._read(now)
            self._state, self._seen, self._highest = good, seen, good.number
        except (OSError, ValueError, CertificateError, InvalidSignature, x509.ExtensionNotFound) as error:
            # Not remembered as seen: the next look tries again, whatever the reason was.
            self._state, self._seen = _Bad(str(error) or type(error).__name__), None

    def _read(self, now: dt.datetime) -> _Good:
        pem = self._path.read_bytes()
        crl = x509.load_pem_x509_crl(pem)
        issuer = certificates_of(pem, self._path)[0]
        _check_issuer(issuer, certificates_of(self._bundle.read_bytes(), self._bundle), now)
        key = issuer.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not crl.is_signature_valid(key):
            raise ValueError("its signature is wrong")
        if crl.issuer != issuer.subject:
            raise ValueError("it names another issuer than the one that signed it")
        if any(extension.critical for extension in crl.extensions):
            raise ValueError("it has a critical extension, so it may be only part of a list")
        if crl.next_update_utc is None:
            raise ValueError("it does not say when the next one is due")
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        if number < self._highest:
            raise ValueError(f"it is number {number}, older than {self._highest} seen before")
        return _Good(frozenset(entry.serial_number for entry in crl), number, crl.next_update_utc)


def _check_issuer(issuer: x509.Certificate, roots: list[x509.Certificate], now: dt.datetime) -> None:
    """Raise `ValueError` unless `issuer` is an authority that may sign lists, directly under one of `roots`, now."""
    if not any(_issued_by(issuer, root) for root in roots):
        raise ValueError("its issuer is not under the trusted roots")
    extensions = issuer.extensions
    if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise ValueError("its issuer is not an authority")
    if not extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
        raise ValueError("its issuer may not sign revocation lists")
    if not issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc:
        raise ValueError("its issuer's certificate is outside its time")


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
