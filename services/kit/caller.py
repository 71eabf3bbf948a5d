"""Who calls: the verified identity behind a request, on whichever transport it came."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from certs.spiffe import SpiffeId

ENTERPRISE: Final = "enterprise"
"""What enterprises have instead of an agency: `spiffe://ZONE/enterprise/CODE`."""

USCC: Final = "cn.uscc"
"""Scheme of the code by which an enterprise is known."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A system of an agency, as its certificate proved or a gateway's signed word says."""

    spiffe_id: str
    """`spiffe://<zone>/<agency>/<system>`."""
    agency: str
    system: str

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, identity: SpiffeId) -> Self:
        """Make a caller of a verified identity."""
        return cls(str(identity), identity.agency, identity.system)

    @property
    def path(self) -> str:
        """`agency/system`: what access lists name."""
        return f"{self.agency}/{self.system}"

    @property
    def told(self) -> str:
        """How spans and log lines call it: of an enterprise not by its code, which may be a person's."""
        return ENTERPRISE if self.agency == ENTERPRISE else self.path


def own_subject(caller: Caller) -> tuple[str, str] | None:
    """Give the subject that an enterprise is; None for everybody else."""
    return (USCC, caller.system.upper()) if caller.agency == ENTERPRISE else None
