"""Revocation: the signed lists the authorities publish, and the reader every server asks before it trusts a peer.

The file holds an X.509 CRL (RFC 5280 §5) and the intermediate certificate that signed it, both PEM, for each authority
whose certificates are accepted: one, and two while the zone's authority is rotated. The zone's roots are all a reader
needs to believe them. Each list speaks for its own issuer only. The policy where there is no good list is to refuse:

- absent, unreadable, not signed under the zone's roots, older than one seen before: everyone it speaks for is refused;
- past its next update: the same, since an old list says nothing about today. The authority signs new ones with every
  issue, renewal and revocation; with daily renewal a list is a day old and lasts a week;
- a good list appearing again ends the refusal, without a restart.

So that an authority's list is there no more is what ends trust in everything it issued. A root ends by leaving the
bundle. Where an authority publishes no lists, certificates stand because they are short-lived (`ShortLives`).

Lists are signed and numbered, so anybody may bring one (`RevocationList.take`): the newer of what the file holds and of
what was brought counts. Whoever keeps the newest (`RevocationList.newest`) and brings them after a restart does not go
back behind them. Which authorities are believed at all is for the file alone to say: what was brought can revoke
more, and can neither bring an authority in nor keep one that has left the file.
"""

import datetime as dt
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import AuthorityUnknown, CertificateError, CertificateRevoked, LifeTooLong, RevocationUnknown
from certs.issuance import issued_by, key_id
from certs.peer import Peer
from certs.register import Issued, RevocationReason, serial_text
from certs.svid import FileState, certificates_of, file_state, pem_of

LIST_LIFE = dt.timedelta(days=7)
"""How long servers live with a list that the authority does not refresh."""
LISTED_BEYOND = dt.timedelta(days=1)
"""How long a list names a certificate after its end: a server whose clock is late may believe that it stands still."""
LOOK_EVERY = dt.timedelta(seconds=1)
"""How often the file is looked at: the most a revocation can take to be noticed."""

_PUBLISH = "publish it again with `hutong certs rotate` and bring it to this node"
# Base64 has no hyphen: without that limit a text of many beginnings and no end would be gone through again for each.
_CRLS = re.compile(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----\n?")
_UNREADABLE = (
    ValueError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion,
    x509.ExtensionNotFound, x509.DuplicateExtension,
)  # fmt: skip
"""What is raised of a list, or of its issuer's certificate, that makes no sense."""
MOST_BYTES = 4 * 1024 * 1024
"""Of lists that somebody brings: some 50,000 serials."""
MOST_LISTS = 16
"""Of lists that somebody brings: a zone has one, and two while its authority is rotated."""
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
    """Sign the list of `revoked`, numbered after those at `published` if they can be read.

    It goes without what ended long ago, if the issuer's list at `published` is from after that end (RFC 5280 §3.3).
    """
    former = _crls_at(published)
    # The time as number keeps it growing when the last list was lost; the last plus one, when the clock went back.
    number = max(int(now.timestamp() * 1000), *(_number(crl) + 1 for crl in former), 0)
    last = max((crl.last_update_utc for crl in former if crl.issuer == issuer.subject), default=None)
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
        if last is None or _needed(entry, min(last, now)):
            builder = builder.add_revoked_certificate(_list_entry(entry))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM) + pem_of(issuer)


def _list_entry(entry: Issued) -> x509.RevokedCertificate:
    reason = _FLAGS[entry.revocation_reason or RevocationReason.UNSPECIFIED]
    builder = x509.RevokedCertificateBuilder().serial_number(entry.serial).revocation_date(_revoked_at(entry))
    if reason is not x509.ReasonFlags.unspecified:  # RFC 5280 §5.3.1: absent instead of unspecified
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()


def _needed(entry: Issued, last: dt.datetime) -> bool:
    """Tell whether a list must name what is revoked, after one that was issued at `last`."""
    return last <= max(entry.not_after, _revoked_at(entry)) + LISTED_BEYOND


def _revoked_at(entry: Issued) -> dt.datetime:
    assert entry.revoked_at is not None, "only revoked certificates are listed"  # noqa: S101 - the caller's promise
    return entry.revoked_at


def _crls_at(path: Path) -> list[x509.CertificateRevocationList]:
    """Read the lists that are published; none, where any cannot be read."""
    try:
        found = [x509.load_pem_x509_crl(pem) for pem in _CRLS.findall(path.read_bytes())]
        for crl in found:
            _number(crl)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return []
    return found


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


@dataclass(frozen=True, slots=True)
class _List:
    """A list that was verified."""

    serials: frozenset[int]
    number: int
    next_update: dt.datetime
    text: bytes
    """The list itself, PEM."""
    issuer: x509.Certificate

    @property
    def pem(self) -> bytes:
        """The list and its issuer's certificate, for others to verify."""
        return self.text + pem_of(self.issuer)


@dataclass(frozen=True, slots=True)
class _Lists:
    """The lists that can be trusted, by the key of their issuer, and what is wrong with the others."""

    good: Mapping[bytes, _List]
    problem: str = ""

    def newest(self, known: Mapping[bytes, _List]) -> "_Lists":
        """Put what is known in the place of what is older here, and nowhere else."""
        newer = {key: known[key] for key in self.good.keys() & known if known[key].number > self.good[key].number}
        return _Lists({**self.good, **newer}, self.problem) if newer else self


class Brought(StrEnum):
    """What became of a list that somebody brought."""

    TAKEN = "taken"
    """It is newer than what was there."""
    KNOWN = "known"
    OLDER = "older"
    STRANGE = "strange"
    """Its issuer is no authority under the trusted roots, now."""
    FORGED = "forged"
    """Its authority did not sign it, or it cannot be read."""


class _Stranger(ValueError):
    """The issuer of a list is none that may sign it."""


class RevocationList:
    """The lists at `path`, each believed when signed under the roots in `bundle`, followed as the file changes.

    Nothing is read before the first question. Each question brings its own `now`, and the file is looked at when a
    second has passed since the last look, so that a question costs a set look-up.
    """

    def __init__(self, path: Path, bundle: Path) -> None:
        self._path = path
        self._bundle = bundle
        self._file = self._state = _Lists({}, "not read yet")
        self._newest: dict[bytes, _List] = {}
        """Of each authority, whether the file held it or somebody brought it."""
        self._roots: list[x509.Certificate] = []
        # Metrics are read in another thread, and none must undo what the other one took in.
        self._lock = threading.Lock()
        self._seen: tuple[FileState, FileState] | None = None
        self._looked_at: dt.datetime | None = None
        self._highest: dict[bytes, int] = {}

    def check(self, peer: Peer, now: dt.datetime) -> None:
        """Raise `CertificateRevoked` when the peer's serial is on the list of its issuer.

        Raises `AuthorityUnknown` when lists stand but none is of that issuer: the peer's fault, not ours;
        `RevocationUnknown` when no list of that issuer can be trusted now.
        """
        state = self._current(now)
        found = state.good.get(peer.authority)
        if found is None and not state.problem:
            raise AuthorityUnknown(
                f"certificate of {peer.spiffe_id} was issued by an authority of which there is no revocation list",
                "renew it; an authority that is new must have its list brought to this node before it issues",
            )
        if found is None:
            raise RevocationUnknown(f"revocation list cannot be trusted: {state.problem}", _PUBLISH)
        if now > found.next_update:
            raise RevocationUnknown(f"revocation list {_lapsed(found)}", _PUBLISH)
        if peer.serial in found.serials:
            raise CertificateRevoked(f"certificate {serial_text(peer.serial)} is revoked")

    def problem(self, now: dt.datetime) -> str:
        """Say what is wrong with the lists, for a health check; empty when nothing is."""
        state = self._current(now)
        return state.problem or next((_lapsed(each) for each in state.good.values() if now > each.next_update), "")

    def seconds_left(self, now: dt.datetime) -> float:
        """Say how long every list is good for still; 0 where one cannot be trusted."""
        state = self._current(now)
        if state.problem:
            return 0.0
        return max(0.0, min((each.next_update - now).total_seconds() for each in state.good.values()))

    def authorities(self, now: dt.datetime) -> frozenset[bytes]:
        """List the authorities, by their keys' identifiers, of which a list can be trusted now."""
        return frozenset(key for key, each in self._current(now).good.items() if now <= each.next_update)

    def issued(self, certificate: x509.Certificate, authority: bytes, now: dt.datetime) -> bool:
        """Tell whether the authority that a certificate names has issued it, and has a list that can be trusted."""
        found = self._current(now).good.get(authority)
        return found is not None and issued_by(certificate, found.issuer)

    def numbers(self, now: dt.datetime) -> Mapping[bytes, int]:
        """Give the number of each list that can be trusted, by its authority."""
        return {key: each.number for key, each in self._current(now).good.items()}

    def published(self, now: dt.datetime) -> bytes:
        """Give every list that counts now with its issuer's certificate, PEM, for others to take."""
        return b"".join(each.pem for each in self._current(now).good.values())

    def newest(self, now: dt.datetime) -> bytes:
        """Give the newest list known of each authority, in the same form: of those that count not, or no more, too."""
        self._current(now)
        return b"".join(each.pem for each in list(self._newest.values()))

    def take(self, pem: bytes, now: dt.datetime, *, bounded: bool = True) -> Counter[Brought]:
        """Take in lists that somebody brought, whoever that is; says what became of each.

        One that is newer counts from now on if the file has one of the same authority, and as soon as it has. Only
        of what the node itself has kept there may be more than others may bring.
        """
        self._current(now)
        issuers, texts = self._parted(pem) if not bounded or len(pem) <= MOST_BYTES else ([], [])
        if bounded and (len(texts) > MOST_LISTS or len(issuers) > MOST_LISTS):
            issuers, texts = [], []
        # Verified before the lock is held: what is asked meanwhile need not wait.
        brought = [self._judged(text, issuers, now) for text in texts]
        with self._lock:
            found = Counter(each if isinstance(each, Brought) else self._take(*each) for each in brought)
            self._state = self._file.newest(self._newest)
        return found or Counter({Brought.FORGED: 1})

    def strange(self, pem: bytes, now: dt.datetime) -> bytes:
        """Give those of such lists that cannot be judged now, with their issuers' certificates: roots may yet come."""
        self._current(now)
        issuers, texts = self._parted(pem)
        kept = [text for text in texts if self._judged(text, issuers, now) is Brought.STRANGE]
        signers = {x509.load_pem_x509_crl(text).issuer for text in kept}
        return b"".join([*kept, *(pem_of(issuer) for issuer in issuers if issuer.subject in signers)])

    def _parted(self, pem: bytes) -> tuple[list[x509.Certificate], list[bytes]]:
        """Give the issuers and the texts of lists; none where they cannot be read."""
        with suppress(CertificateError):
            return certificates_of(pem, self._path), _CRLS.findall(pem)
        return [], []

    def _judged(self, text: bytes, issuers: list[x509.Certificate], now: dt.datetime) -> tuple[bytes, _List] | Brought:
        try:
            return _verified(text, issuers, self._roots, now)
        except _Stranger:
            return Brought.STRANGE
        except _UNREADABLE:
            return Brought.FORGED

    def _take(self, key: bytes, found: _List) -> Brought:
        known = self._newest.get(key)
        if known and found.number <= known.number:
            return Brought.KNOWN if found.number == known.number else Brought.OLDER
        self._newest[key] = found
        return Brought.TAKEN

    def _current(self, now: dt.datetime) -> _Lists:
        # A clock that was set back must not stop the looking, hence abs.
        if self._looked_at is None or abs(now - self._looked_at) >= LOOK_EVERY:
            with self._lock:
                self._looked_at = now
                self._look(now)
                self._state = self._file.newest(self._newest)
        return self._state

    def _look(self, now: dt.datetime) -> None:
        try:
            seen = file_state(self._path), file_state(self._bundle)
            if seen == self._seen:
                return
            self._file = self._read(now)
        except (OSError, CertificateError) as error:
            self._file, seen = _Lists({}, str(error) or type(error).__name__), None
        self._highest |= {key: each.number for key, each in self._file.good.items()}
        self._newest |= {key: self._file.newest(self._newest).good[key] for key in self._file.good}
        # Not remembered as seen where anything was wrong: the next look tries again, whatever the reason was.
        self._seen = None if self._file.problem else seen

    def _read(self, now: dt.datetime) -> _Lists:
        pem = self._path.read_bytes()
        issuers = certificates_of(pem, self._path)
        roots = self._roots = certificates_of(self._bundle.read_bytes(), self._bundle)
        good: dict[bytes, _List] = {}
        problems: list[str] = []
        for text in _CRLS.findall(pem):
            try:
                key, found = _verified(text, issuers, roots, now)
                if found.number < (highest := self._highest.get(key, 0)):
                    raise ValueError(f"it is number {found.number}, older than {highest} seen before")
                good[key] = found
            except _UNREADABLE as error:
                problems.append(str(error) or type(error).__name__)
        if not good and not problems:
            problems.append(f"there is none in {self._path}")
        return _Lists(good, "; ".join(problems))


@dataclass(frozen=True, slots=True)
class ShortLives:
    """Stands for lists where the authority publishes none, as SPIRE: who is revoked gets no new certificate.

    A certificate that lives longer than `longest` is refused: the time for which a stolen one can be used.
    """

    longest: dt.timedelta

    def check(self, peer: Peer, _now: dt.datetime) -> None:
        """Raise `LifeTooLong` where the certificate was made to live longer than is accepted without a list."""
        if peer.not_after - peer.not_before > self.longest:
            raise LifeTooLong(
                f"certificate of {peer.spiffe_id} lives for {peer.not_after - peer.not_before}, "
                f"and without revocation lists at most {self.longest} is accepted"
            )


def _lapsed(found: _List) -> str:
    return f"lapsed at {found.next_update:%Y-%m-%d %H:%M:%S}Z"


def _verified(
    text: bytes, issuers: list[x509.Certificate], roots: list[x509.Certificate], now: dt.datetime
) -> tuple[bytes, _List]:
    """Verify one list; gives its issuer's key too. Raises `ValueError` saying why it cannot be trusted."""
    crl = x509.load_pem_x509_crl(text)
    issuer = next((each for each in issuers if each.subject == crl.issuer), None)
    if issuer is None:
        raise ValueError("it names another issuer than the one that signed it")
    _check_issuer(issuer, roots, now)
    public = issuer.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not crl.is_signature_valid(public):
        raise ValueError("its signature is wrong")
    if any(extension.critical for extension in crl.extensions):
        raise ValueError("it has a critical extension, so it may be only part of a list")
    if crl.next_update_utc is None:
        raise ValueError("it does not say when the next one is due")
    number = _number(crl)
    serials = frozenset(entry.serial_number for entry in crl)
    return key_id(issuer), _List(serials, number, crl.next_update_utc, text, issuer)


def _check_issuer(issuer: x509.Certificate, roots: list[x509.Certificate], now: dt.datetime) -> None:
    """Raise `_Stranger` unless `issuer` is an authority that may sign lists, directly under one of `roots`, now."""
    if not any(issued_by(issuer, root) for root in roots):
        raise _Stranger("its issuer is not under the trusted roots")
    extensions = issuer.extensions
    if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise _Stranger("its issuer is not an authority")
    if not extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
        raise _Stranger("its issuer may not sign revocation lists")
    if not issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc:
        raise _Stranger("its issuer's certificate is outside its time")
