"""The node's own identity, followed as it is renewed on disk, and what it takes to judge that of others."""

import datetime as dt
import logging
import time
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from certs.errors import WorkloadApiFailed
from certs.renewed import Renewed
from certs.revocation import RevocationList, ShortLives
from certs.spiffe import SpiffeId
from certs.svid import Svid, SvidFiles
from certs.workload import WorkloadFiles
from services.kit.config import TlsSection

_log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0
"""Seconds between looks at the files."""


_BY_HAND: Final = dt.timedelta(days=365)
"""Authorities that live shorter renew themselves, as SPIRE's and cert-manager's do: nobody need know of it."""


@dataclass(frozen=True, slots=True)
class Ends:
    """When the authorities end that somebody has to renew: the first of them; None where there is none."""

    issuing: dt.datetime | None
    """Of those between the node's own certificate and the roots."""
    roots: dt.datetime | None
    """Of the roots that the node trusts."""

    @classmethod
    def of(cls, svid: Svid) -> "Ends":
        """Tell it of an identity."""
        chain, roots = map(x509.load_pem_x509_certificates, (svid.chain, svid.bundle))
        return cls(_first_end(chain[1:]), _first_end(roots))


def _first_end(authorities: list[x509.Certificate]) -> dt.datetime | None:
    lasting = [each for each in authorities if each.not_valid_after_utc - each.not_valid_before_utc >= _BY_HAND]
    return min((each.not_valid_after_utc for each in lasting), default=None)


class Identity:
    """Gives the present certificate and key; cheap enough to ask for every call.

    What must belong together (a signature, and the connection it goes over) is made from one `Svid` asked for once.
    """

    def __init__(self, files: SvidFiles) -> None:
        """Raises what `SvidFiles.load` raises where there is no identity to start with."""
        self._renewed = Renewed(files, _itself)
        self._svid = self._renewed.present()
        self._looked = time.monotonic()

    def svid(self) -> Svid:
        """Get the present identity, the last good one at that; looks at the files at most once a second."""
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            self._looked = time.monotonic()
            self._svid = self._renewed.present()
        return self._svid


def _itself(svid: Svid) -> Svid:
    return svid


def from_workload_api(section: TlsSection, wanted: SpiffeId) -> WorkloadFiles | None:
    """Fetch the identity where the config says that a Workload API hands it out; None where it does not.

    An agent that is away is no reason not to start with what it handed out before. Raises `WorkloadApiFailed` where
    there is nothing to start with.
    """
    if section.workload_api is None or section.folder is None:
        return None
    workload = WorkloadFiles(section.workload_api, section.folder, wanted)
    try:
        workload.fetch()
    except WorkloadApiFailed as error:
        if not section.certificate.exists():
            raise
        _log.warning("The Workload API is away; its last identity serves", extra={"fields": {"problem": str(error)}})
    return workload


def revocations(section: TlsSection) -> RevocationList | ShortLives:
    """Make what knows who is revoked: the zone's list, or short lives where the config says that there is none."""
    if section.longest_life is not None:
        return ShortLives(section.longest_life)
    return RevocationList(section.revoked, section.bundle)
