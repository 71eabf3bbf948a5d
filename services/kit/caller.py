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
        """Make a caller of a verified identity of this zone."""
        return cls(str(identity), identity.agency, identity.system)

    @classmethod
    @lru_cache(maxsize=1024)
    def abroad(cls, identity: SpiffeId) -> Self:
        """Make a caller of a verified identity of another zone.

        Its agency is called `<agency>.<zone>`: names of agencies here have no dots, so it is none of ours, whatever
        looks at it.
        """
        return cls(str(identity), f"{identity.agency}.{identity.trust_domain}", identity.system)

    @classmethod
    def seen_from(cls, zone: str, identity: SpiffeId) -> Self:
        """Make a caller of a verified identity, as nodes of `zone` call it."""
        return cls.of(identity) if identity.trust_domain == zone else cls.abroad(identity)

    @property
    def zone(self) -> str:
        """The other zone that it is of; empty for one of this zone."""
        return self.agency.partition(".")[2]

    @property
    def path(self) -> str:
        """`agency/system`: what access lists name."""
        return f"{self.agency}/{self.system}"

    @property
    def told(self) -> str:
        """How spans and log lines call it: of an enterprise not by its code, which may be a person's."""
        return ENTERPRISE if self.agency.partition(".")[0] == ENTERPRISE else self.path


def own_subject(caller: Caller) -> tuple[str, str] | None:
    """Give the subject that an enterprise is; None for everybody else."""
    return (USCC, caller.system.upper()) if caller.agency == ENTERPRISE else None
