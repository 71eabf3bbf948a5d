"""Where everything of a zone lies in its folder.

    ZONE/
      bundle.crt               the trusted roots: every node and caller reads it
      revoked.crl              the signed revocation list: every server reads it
      svid/AGENCY/SYSTEM/      one system's credential bundle (key and chain): that system alone reads it
      ca/                      the authority at work: intermediate certificate and key, register of what was issued
                           (`ca/issued.jsonl`, and an archive for each year)
      ca/NAME/                 one that came later, by rotation; `ca/authorities.json` says which of them issues
      root/                    root certificate and key: only ever signs an intermediate, may be kept elsewhere
      root/NAME/               the root of one that came later with a root of its own

Folders are 0700 and keys 0600. What leaves for a node is `bundle.crt`, `revoked.crl` and its own `svid` folder.
"""

from dataclasses import dataclass
from pathlib import Path

from certs.spiffe import SpiffeId
from certs.standing import FIRST, Standing
from certs.svid import CREDENTIAL_BUNDLE, SvidFiles


@dataclass(frozen=True, slots=True)
class AuthorityFiles:
    """Where one authority lies."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of the zone in `folder`."""

    folder: Path

    @property
    def bundle(self) -> Path:
        """The trusted roots."""
        return self.folder / "bundle.crt"

    @property
    def revoked(self) -> Path:
        """The revocation list."""
        return self.folder / "revoked.crl"

    @property
    def root_certificate(self) -> Path:
        """The root's certificate."""
        return self.folder / "root" / "root.crt"

    @property
    def root_key(self) -> Path:
        """The root's key, which no running system needs."""
        return self.folder / "root" / "root.key"

    @property
    def authorities(self) -> Path:
        """Which authority issues, where there was ever more than one."""
        return self.folder / "ca" / "authorities.json"

    def standing(self) -> Standing:
        """Read which authority issues; raises `ZoneDamaged`."""
        return Standing.read(self.authorities)

    def authority(self, name: str) -> AuthorityFiles:
        """Say where an authority lies."""
        folder = self.folder / "ca" if name == FIRST else self.folder / "ca" / name
        return AuthorityFiles(folder / "intermediate.crt", folder / "intermediate.key")

    def new_root(self, name: str) -> Path:
        """Say where the certificate of the root lies under which an authority was prepared."""
        return self.folder / "ca" / name / "root.crt"

    @property
    def intermediate_certificate(self) -> Path:
        """The certificate of the authority that issues."""
        return self.authority(self.standing().current).certificate

    @property
    def intermediate_key(self) -> Path:
        """The key of the authority that issues."""
        return self.authority(self.standing().current).key

    @property
    def register(self) -> Path:
        """What was issued and revoked, one JSON object a line; what ended long ago is beside it (`certs.register`)."""
        return self.folder / "ca" / "issued.jsonl"

    @property
    def lock(self) -> Path:
        """Held while the authority writes."""
        return self.folder / "ca" / "lock"

    def svid(self, spiffe_id: SpiffeId) -> SvidFiles:
        """Say where the identity of a system lies."""
        credentials = self.folder / "svid" / spiffe_id.agency / spiffe_id.system / CREDENTIAL_BUNDLE
        return SvidFiles(certificate=credentials, key=credentials, bundle=self.bundle)
