"""The zone's certificate authority: a root that signs an intermediate, an intermediate that issues X.509 SVIDs.

Everything is EC P-256 (https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md for the form). The root key
is needed once, at creation; a zone whose `root/` folder was moved to a safe works on. An issue is in the register
before its certificate is on disk, so that nothing valid exists that cannot be found and revoked.
"""

import contextlib
import datetime as dt
import secrets
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certs.errors import (
    CertificateError,
    NameRefused,
    RevocationRefused,
    SvidExists,
    SvidUnknown,
    SvidUnreadable,
    TtlRefused,
    ZoneDamaged,
    ZoneExists,
    ZoneMissing,
)
from certs.files import PUBLIC, locked, make_folder, sync_folder, write_atomically
from certs.issuance import intermediate_certificate, key_id, leaf_certificate, root_certificate, whole_second
from certs.layout import AuthorityFiles, Layout
from certs.register import Issued, Register, RevocationReason, State
from certs.revocation import signed_list
from certs.spiffe import SpiffeId, check_zone
from certs.standing import FIRST, Standing
from certs.svid import certificates_of, pem_of

DEFAULT_TTL = dt.timedelta(hours=24)
MAX_TTL = dt.timedelta(days=7)
"""Short lives are what makes a stolen key worth little; a week bridges a holiday."""


class Authority:
    """The authority of one zone, working on its folder. Made by `create` and `open`.

    It issues as whichever authority is the current one at that moment: another process may rotate it meanwhile.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.register = Register(layout.register)
        self._known: dict[str, Signer] = {}
        self._standing = layout.standing()
        self.zone = SpiffeId.from_certificate(self.signer.certificate).trust_domain

    @classmethod
    def create(cls, folder: Path, zone: str, now: dt.datetime) -> Self:
        """Create the zone called `zone` in `folder`, which must be absent or empty; it appears whole or not at all.

        Raises `NameRefused` for a name that is not a DNS name, `ZoneExists` when there is anything in `folder`.
        """
        check_zone(zone)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ZoneExists(
                f"{folder} already holds {'a zone' if _holds_zone(folder) else 'something'}",
                "choose a folder that does not exist; an existing zone is never overwritten",
            )
        make_folder(folder.absolute().parent)
        fresh = folder.absolute().with_name(f".{folder.absolute().name}.{secrets.token_hex(8)}.new")
        try:
            _write_zone(Layout(fresh), zone, now)
            fresh.rename(folder)
        except BaseException as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if isinstance(error, OSError) and folder.exists() and any(folder.iterdir()):
                raise ZoneExists(f"{folder} was filled by somebody else meanwhile") from error
            raise
        sync_folder(folder.absolute().parent)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the zone in `folder`; the root key is not needed.

        Raises `ZoneMissing` when there is none, `ZoneDamaged` when its files cannot be read or do not agree.
        """
        layout = Layout(folder)
        if not _holds_zone(folder):
            raise ZoneMissing(f"no zone in {folder}", f"create one with `hutong certs init {folder} --zone NAME`")
        return cls(layout)

    @property
    def signer(self) -> "Signer":
        """What issues, as far as was seen at the last step."""
        return self.signer_of(self._standing.current)

    def signer_of(self, name: str) -> "Signer":
        """Read one of the zone's authorities; raises `ZoneDamaged` where its files do not stand."""
        if name not in self._known:
            self._known[name] = Signer.read(self.layout.authority(name))
        return self._known[name]

    @contextlib.contextmanager
    def turn(self) -> Generator[Standing]:
        """Have the folder to oneself; gives where the rotation of the authority stands."""
        with locked(self.layout.lock):
            self._standing = self.layout.standing()
            yield self._standing

    def issue(self, spiffe_id: SpiffeId, now: dt.datetime, ttl: dt.timedelta = DEFAULT_TTL) -> Issued:
        """Issue a first certificate, or one after expiry or revocation, into the system's folder.

        Raises `NameRefused` for a name that is not of this zone, `TtlRefused` for a lifetime that is too long or not
        positive, `SvidExists` when the system has a certificate that stands.
        """
        with self.turn():
            self._check(spiffe_id, now, ttl)
            last = self.current().get(spiffe_id)
            if last is not None and last.state(now) is State.VALID and self.layout.svid(spiffe_id).certificate.exists():
                raise SvidExists(
                    f"{spiffe_id} has certificate {last.serial_text} until {last.not_after:%Y-%m-%d %H:%M:%S}Z",
                    f"renew it with `hutong certs rotate {spiffe_id.agency}/{spiffe_id.system}`",
                )
            return self._write_svid(spiffe_id, now, ttl)

    def renew(self, spiffe_id: SpiffeId, now: dt.datetime, ttl: dt.timedelta = DEFAULT_TTL) -> Issued:
        """Issue a new key and certificate into the same file in one rename; the old certificate is not revoked.

        Raises `SvidUnknown` when the system never had one, `RevocationRefused` when its last was revoked, and what
        `issue` raises for name and lifetime.
        """
        with self.turn():
            self._check(spiffe_id, now, ttl)
            last = self.current().get(spiffe_id)
            name = f"{spiffe_id.agency}/{spiffe_id.system}"
            if last is None:
                raise SvidUnknown(f"{spiffe_id} never had a certificate", f"use `hutong certs issue {name}`")
            if last.state(now) is State.REVOKED:
                raise RevocationRefused(
                    f"{spiffe_id} was revoked ({last.revocation_reason}) and is not renewed",
                    f"if it may come back, say so with `hutong certs issue {name}`",
                )
            return self._write_svid(spiffe_id, now, ttl)

    def revoke(self, serials: tuple[int, ...], reason: RevocationReason, now: dt.datetime) -> tuple[Issued, ...]:
        """Revoke certificates by serial and publish the list; servers refuse them within about a second.

        Raises `SvidUnknown` for a serial not issued here, `RevocationRefused` when all of them were revoked before;
        the list is published all the same, so that repeating after a crash helps.
        """
        with self.turn():
            known = {entry.serial: entry for entry in self.register.entries()}
            if unknown := [serial for serial in serials if serial not in known]:
                raise SvidUnknown(f"serial {unknown[0]:x} was not issued by this zone")
            fresh = tuple(serial for serial in serials if known[serial].revoked_at is None)
            if fresh:
                self.register.add_revoked(fresh, whole_second(now), reason)
            self.publish_lists(now)
            if not fresh:
                raise RevocationRefused("already revoked; the list was published again")
            known = {entry.serial: entry for entry in self.register.entries()}
            return tuple(known[serial] for serial in fresh)

    def archive(self, now: dt.datetime) -> None:
        """Move what ended long ago out of the register, which every command reads; raises as `Register.archive`."""
        with self.turn():
            self.register.archive(now)

    def publish_revocations(self, now: dt.datetime) -> None:
        """Sign the revocation list anew: a list that is not refreshed lapses, and servers then refuse everyone."""
        with self.turn():
            self.publish_lists(now)

    def current(self) -> dict[SpiffeId, Issued]:
        """Give the last certificate of each system, whatever has become of it."""
        return {entry.spiffe_id: entry for entry in self.register.entries()}

    def delivered(self, entry: Issued) -> bool:
        """Say whether the certificate is the one in the system's file; a file taken elsewhere counts as delivered."""
        path = self.layout.svid(entry.spiffe_id).certificate
        if not path.exists():
            return True
        try:
            return certificates_of(path.read_bytes(), path)[0].serial_number == entry.serial
        except (OSError, SvidUnreadable):
            return False

    def _check(self, spiffe_id: SpiffeId, now: dt.datetime, ttl: dt.timedelta) -> None:
        if spiffe_id.trust_domain != self.zone:
            raise NameRefused(f"{spiffe_id} is not of zone {self.zone}")
        SpiffeId.of(self.zone, spiffe_id.agency, spiffe_id.system)
        if ttl < dt.timedelta(seconds=1):
            raise TtlRefused("a lifetime is at least a second", "use for example --ttl 24h")
        if ttl > MAX_TTL:
            raise TtlRefused(
                f"a lifetime of {ttl} is longer than {MAX_TTL.days} days",
                f"use at most --ttl {MAX_TTL.days}d; certificates are renewed without a restart",
            )
        if now + ttl > self.signer.certificate.not_valid_after_utc:
            raise TtlRefused(f"the zone's own authority ends at {self.signer.certificate.not_valid_after_utc}")

    def _write_svid(self, spiffe_id: SpiffeId, now: dt.datetime, ttl: dt.timedelta) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = leaf_certificate(spiffe_id, key.public_key(), self.signer.certificate, self.signer.key, now, ttl)
        issued = Issued(
            serial=leaf.serial_number,
            spiffe_id=spiffe_id,
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            issued_at=whole_second(now),
            authority=self._standing.current,
        )
        self.register.add_issued(issued)
        files = self.layout.svid(spiffe_id)
        make_folder(files.certificate.parent)
        write_atomically(files.certificate, pem_of_key(key) + pem_of(leaf) + pem_of(self.signer.certificate))
        self.publish_lists(now)
        return issued

    def publish_lists(self, now: dt.datetime) -> None:
        """Sign the list of every authority whose certificates are accepted, within a `turn`; they share one file."""
        revoked = [entry for entry in self.register.entries() if entry.revoked_at is not None]
        lists: list[bytes] = []
        for name in self.layout.standing().names:
            signer, own = self.signer_of(name), [entry for entry in revoked if entry.authority == name]
            lists.append(signed_list(self.layout.revoked, own, signer.certificate, signer.key, now))
        write_atomically(self.layout.revoked, b"".join(lists), PUBLIC)


@dataclass(frozen=True, slots=True)
class Signer:
    """The certificate and the key of one authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, files: AuthorityFiles) -> Self:
        """Read both; raises `ZoneDamaged` when they cannot be read or do not belong together."""
        try:
            certificate = certificates_of(files.certificate.read_bytes(), files.certificate)[0]
            key = load_pem_private_key(files.key.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, CertificateError) as error:
            raise ZoneDamaged(f"authority in {files.key.parent} cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ZoneDamaged(f"{files.key} does not belong to {files.certificate}")
        return cls(certificate, key)

    @property
    def key_id(self) -> bytes:
        """The identifier of its key, which what it issues names."""
        return key_id(self.certificate)


def _write_zone(layout: Layout, zone: str, now: dt.datetime) -> None:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = root_certificate(zone, root_key, now)
    certificate = intermediate_certificate(zone, key.public_key(), root, root_key, now)
    for folder in (layout.folder, layout.folder / "svid", layout.root_key.parent, layout.register.parent):
        make_folder(folder)
    files = layout.authority(FIRST)
    write_atomically(layout.root_key, pem_of_key(root_key))
    write_atomically(layout.root_certificate, pem_of(root), PUBLIC)
    write_atomically(files.key, pem_of_key(key))
    write_atomically(files.certificate, pem_of(certificate), PUBLIC)
    write_atomically(layout.register, b"")
    write_atomically(layout.bundle, pem_of(root), PUBLIC)
    write_atomically(layout.revoked, signed_list(layout.revoked, [], certificate, key, now), PUBLIC)


def _holds_zone(folder: Path) -> bool:
    return Layout(folder).intermediate_certificate.exists()


def pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
