"""What a system holds: its certificate chain, its private key, and the roots it trusts, as files that change.

The authority writes chain and key as one file, a credential bundle as the SPIFFE Filesystem Delivery standard names it
(https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Filesystem_Delivery.md), so that one rename renews both.
Files from elsewhere may keep the key apart; a reader that meets the moment between the two renames tries again.
"""

import datetime as dt
import re
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from certs.errors import KeyExposed, SvidMismatch, SvidUnreadable
from certs.spiffe import SpiffeId

CREDENTIAL_BUNDLE = "credential-bundle.private-key.pem"
"""SPIFFE Filesystem Delivery §2: key first, then the chain from the leaf up, without the root."""

_ATTEMPTS = 5
_BETWEEN_ATTEMPTS = 0.02
"""Seconds: far longer than two renames, far shorter than anybody waits for a start."""

_OTHERS = 0o007
_CERTIFICATES = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN (?:EC )?PRIVATE KEY-----.*?-----END (?:EC )?PRIVATE KEY-----\n?", re.DOTALL)

FileState = tuple[int, int, int]
"""Inode, time of change and size: a rename changes at least one."""


@dataclass(frozen=True, slots=True)
class SvidVersion:
    """The state of the files at one moment; unequal when any of them was replaced."""

    certificate: FileState
    key: FileState
    bundle: FileState


@dataclass(frozen=True, slots=True)
class Svid:
    """One identity as read: PEM bytes ready for TLS, and what the leaf says."""

    chain: bytes
    """Leaf first, then intermediates."""
    key: bytes
    bundle: bytes
    """The trusted roots."""
    leaf: x509.Certificate
    spiffe_id: SpiffeId
    version: SvidVersion

    @property
    def not_before(self) -> dt.datetime:
        """The first moment of the certificate."""
        return self.leaf.not_valid_before_utc

    @property
    def not_after(self) -> dt.datetime:
        """The last moment of the certificate."""
        return self.leaf.not_valid_after_utc


@dataclass(frozen=True, slots=True)
class SvidFiles:
    """Where an identity lies on disk; `certificate` and `key` may be the same file."""

    certificate: Path
    key: Path
    bundle: Path

    def version(self) -> SvidVersion:
        """Tell cheaply (a `stat` per file) which version is on disk. Raises `SvidUnreadable` when one is absent."""
        certificate = file_state(self.certificate)
        key = certificate if self.key == self.certificate else file_state(self.key)
        return SvidVersion(certificate, key, file_state(self.bundle))

    def load(self, attempts: int = _ATTEMPTS) -> Svid:
        """Read all files as one consistent whole, trying again when they change or disagree meanwhile.

        Raises `SvidMismatch` when key and certificate still disagree at the last attempt, `SvidUnreadable` when a
        file is absent or damaged, `KeyExposed` when users outside the key's group may read it.
        """
        for _ in range(attempts - 1):
            try:
                return self._read()
            except (SvidMismatch, SvidUnreadable):
                time.sleep(_BETWEEN_ATTEMPTS)
        return self._read()

    def _read(self) -> Svid:
        version = self.version()
        certificate = _bytes_of(self.certificate)
        key = certificate if self.key == self.certificate else _bytes_of(self.key)
        bundle = _bytes_of(self.bundle)
        self._refuse_exposed_key()
        chain = b"".join(_CERTIFICATES.findall(certificate))
        own_key = _KEY.search(key)
        if not chain or own_key is None:
            missing = f"certificate in {self.certificate}" if not chain else f"private key in {self.key}"
            raise SvidUnreadable(f"no {missing}", "issue the certificate again with `hutong certs issue`")
        leaf = self._leaf_for(chain, own_key[0])
        roots = certificates_of(bundle, self.bundle)
        if version != self.version():
            raise SvidMismatch(f"{self.certificate} changed while it was read")
        return Svid(
            chain=chain,
            key=own_key[0],
            bundle=b"".join(map(pem_of, roots)),
            leaf=leaf,
            spiffe_id=SpiffeId.from_certificate(leaf),
            version=version,
        )

    def _leaf_for(self, chain: bytes, key: bytes) -> x509.Certificate:
        leaf = certificates_of(chain, self.certificate)[0]
        try:
            private, public = load_pem_private_key(key, password=None), leaf.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SvidUnreadable(f"private key in {self.key}, or its certificate, cannot be read: {error}") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise SvidUnreadable(f"private key in {self.key} is not an elliptic curve key")
        if private.public_key() != public:
            raise SvidMismatch(
                f"private key in {self.key} does not belong to the certificate in {self.certificate}",
                "replace both together; `hutong certs rotate` does",
            )
        return leaf

    def _refuse_exposed_key(self) -> None:
        if self.key.stat().st_mode & _OTHERS:
            raise KeyExposed(f"private key {self.key} is open to every user of this machine", f"chmod 600 {self.key}")


def file_state(path: Path) -> FileState:
    """Tell which file is at `path` now. Raises `SvidUnreadable` when there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise SvidUnreadable(f"{path} cannot be read: {error.strerror}") from error
    return status.st_ino, status.st_mtime_ns, status.st_size


def certificates_of(pem: bytes, where: Path) -> list[x509.Certificate]:
    """Parse every certificate in `pem`. Raises `SvidUnreadable` when there is none or one is damaged."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion) as error:
        raise SvidUnreadable(f"certificates in {where} cannot be read: {error}") from error
    if not certificates:
        raise SvidUnreadable(f"no certificate in {where}")
    return certificates


def pem_of(certificate: x509.Certificate) -> bytes:
    """Write a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SvidUnreadable(f"{path} cannot be read: {error.strerror}") from error
