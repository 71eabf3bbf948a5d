"""The authority's rotation in four steps, none of which costs a call: prepare, activate, rotate, prune.

    prepare    makes the next authority; its root is in the bundle, its (empty) revocation list published, and nothing
               is issued by it: every node learns to trust it
    activate   what is issued from now on is issued by it; what the former one issued is good as before
    rotate     every identity of the former one is renewed
    prune      the former one is trusted no more: its list is gone, its root leaves the bundle, its key is deleted, and
               the key of the root that left

Each step is one rename of `ca/authorities.json`. What goes before it is not seen by anybody, and what comes after it is
done again when the step is repeated: whatever stops the process, the zone works on, and the step may be made again.
"""

import datetime as dt
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certs.authority import Authority, Signer, pem_of_key
from certs.errors import CertificateError, StepRefused, ZoneDamaged
from certs.files import PUBLIC, make_folder, write_atomically
from certs.issuance import intermediate_certificate, issued_by, key_id, root_certificate
from certs.layout import AuthorityFiles
from certs.register import Issued, State
from certs.revocation import RevocationList
from certs.rotation import rotate as renew
from certs.standing import FIRST, Standing
from certs.svid import certificates_of, pem_of

SETTLES: Final = dt.timedelta(seconds=3)
"""How long after a step the next one waits: running nodes look at their bundle and list about once a second."""


@dataclass(frozen=True, slots=True)
class Known:
    """One of the authorities that are trusted."""

    name: str
    role: str
    """current, prepared or former."""
    certificate: x509.Certificate
    root: x509.Certificate
    standing: tuple[Issued, ...]
    """What it issued that could be used still."""


class Rollover:
    """The rotation of a zone's authority."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._layout = authority.layout

    def known(self, now: dt.datetime) -> tuple[Known, ...]:
        """Tell which authorities are trusted, the current one first."""
        standing = self._layout.standing()
        roles = {standing.current: "current", standing.prepared: "prepared", standing.former: "former"}
        return tuple(
            Known(name, roles[name], signer.certificate, self._root_of(name), self._usable(name, now))
            for name in standing.names
            for signer in (self._authority.signer_of(name),)
        )

    def settles_at(self) -> dt.datetime | None:
        """Say from when on the next step may follow the last; None where there was none."""
        since = self._layout.standing().since
        return since + SETTLES if since else None

    def prepare(self, now: dt.datetime, *, new_root: bool = False) -> str:
        """Make the next authority, under a root of its own with `new_root`; gives its name.

        Repeated, it publishes again the one that is prepared. Raises `StepRefused` when a former one is not pruned
        yet, when the one that is prepared has another kind of root, or when the root's key is needed and not here.
        """
        with self._authority.turn() as standing:
            if standing.former:
                raise StepRefused(
                    f"the former authority {standing.former} is still trusted", "end it first: `hutong certs ca prune`"
                )
            if standing.prepared is None:
                self._clear(standing)
                name = self._make(now, new_root)
                standing.model_copy(update={"prepared": name, "since": now}).write(self._layout.authorities)
            elif new_root == self._same_root(standing.prepared, standing.current):
                raise StepRefused(
                    f"authority {standing.prepared} is prepared already, under "
                    f"{'the same root' if new_root else 'a root of its own'}",
                    "go on with it: `hutong certs ca activate`",
                )
            else:
                name = standing.prepared
            self._trust(self._root_of(name))
            self._authority.publish_lists(now)
            return name

    def activate(self, now: dt.datetime, delivered: Iterable[Path] = ()) -> str:
        """Let the prepared authority issue; gives its name.

        `delivered` are folders elsewhere with a `bundle.crt` and a `revoked.crl` that nodes read. Raises `StepRefused`
        when none is prepared, or when the zone's folder or one of these does not know it yet, naming each file.
        """
        with self._authority.turn() as standing:
            if standing.prepared is None:
                if standing.former:
                    return standing.current
                raise StepRefused("no authority is prepared", "make one: `hutong certs ca prepare`")
            self._settled(now)
            missing = self._missing(standing.prepared, (self._layout.folder, *delivered), now)
            if missing:
                raise StepRefused(
                    f"authority {standing.prepared} is not known everywhere: {'; '.join(missing)}",
                    "bring bundle.crt and revoked.crl there; `hutong certs ca prepare` writes the zone's own again",
                )
            Standing(current=standing.prepared, former=standing.current, since=now).write(self._layout.authorities)
        # The lists of both are published since the other was prepared.
        return standing.prepared

    def rotate(self, now: dt.datetime) -> tuple[Issued, ...]:
        """Renew every identity that another authority than the current one issued; gives the new certificates.

        Raises `StepRefused` when no former authority is left.
        """
        standing = self._layout.standing()
        if standing.former is None:
            raise StepRefused("no authority was activated", "`hutong certs ca show` says where the rotation stands")
        self._settled(now)
        left = [
            entry
            for entry in self._authority.current().values()
            if entry.state(now) is not State.REVOKED
            and (entry.authority != standing.current or not self._authority.delivered(entry))
        ]
        renewed = tuple(renew(self._authority, entry, now) for entry in left)
        if renewed:
            with self._authority.turn() as standing:
                standing.model_copy(update={"since": now}).write(self._layout.authorities)
        return renewed

    def prune(self, now: dt.datetime, *, cut: bool = False) -> str:
        """End the trust in the former authority; gives its name, or nothing where only a rest was left to clear.

        Raises `StepRefused` while something that it issued could be used still, with the list. With `cut`, what was
        replaced is no reason to wait, and whoever uses it still is refused: for a key that was stolen.
        """
        with self._authority.turn() as standing:
            former = standing.former
            if former is not None:
                self._settled(now)
                held = [entry for entry in self._usable(former, now) if not (cut and entry.replaced)]
                if held:
                    raise StepRefused(_held(former, held), _how_to_end(held))
                standing.model_copy(update={"former": None, "since": now}).write(self._layout.authorities)
            self._authority.publish_lists(now)
            self._clear(self._layout.standing())
            return former or ""

    def _make(self, now: dt.datetime, new_root: bool) -> str:
        zone, layout = self._authority.zone, self._layout
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:16]
        if new_root:
            root_key = ec.generate_private_key(ec.SECP256R1())
            root = root_certificate(zone, root_key, now, known_as=name)
            folder = layout.root_key.parent / name
            make_folder(folder)
            write_atomically(folder / "root.key", pem_of_key(root_key))
            write_atomically(folder / "root.crt", pem_of(root), PUBLIC)
        else:
            root, root_key = self._present_root()
        certificate = intermediate_certificate(zone, key.public_key(), root, root_key, now, known_as=name)
        files = layout.authority(name)
        make_folder(files.key.parent)
        write_atomically(layout.new_root(name), pem_of(root), PUBLIC)
        write_atomically(files.key, pem_of_key(key))
        write_atomically(files.certificate, pem_of(certificate), PUBLIC)
        return name

    def _present_root(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Find the root under which the current authority is, with its key."""
        folder = self._layout.root_key.parent
        for path in (folder / "root.crt", *sorted(folder.glob("*/root.crt"))):
            if path.exists() and path.with_suffix(".key").exists():
                found = Signer.read(AuthorityFiles(path, path.with_suffix(".key")))
                if issued_by(self._authority.signer.certificate, found.certificate):
                    return found.certificate, found.key
        raise StepRefused(
            f"the key of the zone's root is not in {folder}",
            "bring the folder back for this step, or make a new root: `hutong certs ca prepare --root`",
        )

    def _root_of(self, name: str) -> x509.Certificate:
        """Find the root of an authority: beside it, or, of the zone's first, in the bundle."""
        path = self._layout.new_root(name)
        certificate = self._authority.signer_of(name).certificate
        try:
            roots = certificates_of((path if path.exists() else self._layout.bundle).read_bytes(), path)
        except (OSError, CertificateError) as error:
            raise ZoneDamaged(f"trusted roots cannot be read: {error}") from error
        for root in roots:
            if issued_by(certificate, root):
                return root
        raise ZoneDamaged(
            f"the root of authority {name} is not in {self._layout.bundle}", "restore the bundle from its last backup"
        )

    def _same_root(self, one: str, other: str) -> bool:
        return self._root_of(one) == self._root_of(other)

    def _bundle(self) -> list[x509.Certificate]:
        return certificates_of(self._layout.bundle.read_bytes(), self._layout.bundle)

    def _trust(self, root: x509.Certificate) -> None:
        bundle = self._bundle()
        if root not in bundle:
            write_atomically(self._layout.bundle, b"".join(map(pem_of, (*bundle, root))), PUBLIC)

    def _missing(self, name: str, folders: Iterable[Path], now: dt.datetime) -> list[str]:
        """Say which of the files that nodes read do not know an authority yet."""
        root, key = self._root_of(name), key_id(self._authority.signer_of(name).certificate)
        missing: list[str] = []
        for folder in folders:
            bundle, revoked = folder / self._layout.bundle.name, folder / self._layout.revoked.name
            try:
                if root not in certificates_of(bundle.read_bytes(), bundle):
                    missing.append(f"{bundle} does not hold its root")
            except (OSError, CertificateError) as error:
                missing.append(f"{bundle} cannot be read: {error}")
            if key not in RevocationList(revoked, bundle).authorities(now):
                missing.append(f"{revoked} holds no list of it")
        return missing

    def _usable(self, name: str, now: dt.datetime) -> tuple[Issued, ...]:
        usable = {State.VALID, State.REPLACED}
        return tuple(
            entry
            for entry in self._authority.register.entries()
            if entry.authority == name and entry.state(now) in usable
        )

    def _settled(self, now: dt.datetime) -> None:
        settles = self.settles_at()
        if settles and now < settles:
            raise StepRefused(
                f"the last step was made {(now - settles + SETTLES).total_seconds():.1f} s ago",
                f"nodes need {SETTLES.total_seconds():.0f} s to see it: try again",
            )

    def _clear(self, standing: Standing) -> None:
        """Delete the keys of authorities that are trusted no more, or were never finished; before that, their roots."""
        trusted = [self._authority.signer_of(name).certificate for name in standing.names]
        folder = self._layout.register.parent
        found = [FIRST, *(each.name for each in folder.iterdir() if each.is_dir())]
        for files in (self._layout.authority(name) for name in found if name not in standing.names):
            if files.certificate.exists():
                self._distrust(certificates_of(files.certificate.read_bytes(), files.certificate)[0], trusted)
            files.key.unlink(missing_ok=True)
            files.certificate.unlink(missing_ok=True)
            if files.key.parent != folder:
                shutil.rmtree(files.key.parent)
        self._destroy_roots({*self._bundle(), *map(self._root_of, standing.names)})

    def _destroy_roots(self, trusted: set[x509.Certificate]) -> None:
        """Delete the keys of roots that are trusted no more: where a bundle was never delivered they could do harm.

        Their certificates stay, to tell which root signed what there is from its time.
        """
        folder = self._layout.root_key.parent
        for path in (folder / "root.crt", *folder.glob("*/root.crt")):
            if path.exists() and trusted.isdisjoint(certificates_of(path.read_bytes(), path)):
                path.with_suffix(".key").unlink(missing_ok=True)

    def _distrust(self, ended: x509.Certificate, trusted: list[x509.Certificate]) -> None:
        """Take from the bundle the root of an authority that ended, unless it is one's that is trusted."""
        bundle = self._bundle()
        left = [each for each in bundle if not issued_by(ended, each) or any(issued_by(t, each) for t in trusted)]
        if len(left) < len(bundle):
            write_atomically(self._layout.bundle, b"".join(map(pem_of, left)), PUBLIC)


def _held(name: str, held: list[Issued]) -> str:
    shown = ", ".join(
        f"{entry.spiffe_id} {entry.serial_text[:16]} until {entry.not_after:%Y-%m-%d %H:%M:%S}Z" for entry in held[:20]
    )
    more = f", and {len(held) - 20} more" if len(held) > 20 else ""
    return f"{len(held)} certificates of authority {name} could be used still: {shown}{more}"


def _how_to_end(held: list[Issued]) -> str:
    if all(entry.replaced for entry in held):
        last = max(entry.not_after for entry in held)
        return f"wait until {last:%Y-%m-%d %H:%M:%S}Z; or add --cut to refuse at once whoever uses one of them still"
    return "renew them with `hutong certs ca rotate`, or revoke those whose systems are gone"
