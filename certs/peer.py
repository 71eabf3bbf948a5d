"""What the certificate of a peer says, and who is asked whether it still stands."""

import datetime as dt
from dataclasses import dataclass
from typing import Protocol

from certs.spiffe import SpiffeId


@dataclass(frozen=True, slots=True)
class Peer:
    """What the bytes of a certificate say, once and for all."""

    spiffe_id: SpiffeId
    serial: int
    authority: bytes
    """Key identifier of the authority that issued it (RFC 5280 §4.2.1.1); empty where the certificate has none."""
    not_before: dt.datetime
    not_after: dt.datetime


class Revocations(Protocol):
    """Knows which certificates no longer stand, though their dates say so."""

    def check(self, peer: Peer, now: dt.datetime, /) -> None:
        """Raise a `CertificateError` unless the certificate stands at `now`."""
        ...
