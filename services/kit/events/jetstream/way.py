"""A way through the broker: from one source to one agency. Each has a stream, and subjects, of its own."""

from dataclasses import dataclass
from typing import Final, Self

from certs.spiffe import SpiffeId
from services.kit.log.checkpoint import origin_of

_ROOT: Final = "hutong"


def inbox_prefix(identity: SpiffeId) -> str:
    """Say where the broker's answers to a node go: nobody else may listen there."""
    return f"_INBOX_{_token(identity.trust_domain)}_{identity.agency}_{identity.system}"


@dataclass(frozen=True, slots=True)
class Way:
    """Where what one node has for one agency goes through the broker.

    A stream for each agency, and not one for all: who may read it is then a matter of its name, and a department that
    is away for long takes no room from the others.
    """

    zone: str
    source: str
    """The node it comes from, `agency/system`."""
    audience: str
    """The agency it is for."""

    @classmethod
    def of(cls, source: SpiffeId, audience: str) -> Self:
        """Make the way from a node to an agency."""
        return cls(source.trust_domain, f"{source.agency}/{source.system}", audience)

    @property
    def origin(self) -> str:
        """The name of the source's log, whose key signs."""
        agency, _, system = self.source.partition("/")
        return origin_of(self.zone, agency, system)

    @property
    def stream(self) -> str:
        """Name of the stream. None of its parts holds an underscore, so no two ways have the same."""
        return "_".join((_ROOT, _token(self.zone), *self.source.split("/"), self.audience))

    @property
    def events(self) -> str:
        """Subject of what is kept in the stream."""
        return self._subject("events")

    @property
    def beats(self) -> str:
        """Subject of what is not: how far the source has got, told now and then, and after whatever was published."""
        return self._subject("beats")

    @property
    def asks(self) -> str:
        """Subject on which the receiver asks for a beat."""
        return self._subject("asks")

    def _subject(self, what: str) -> str:
        return ".".join((_ROOT, _token(self.zone), what, *self.source.split("/"), self.audience))


def _token(zone: str) -> str:
    """Write a zone as one part of a subject; labels of a zone hold no tilde."""
    return zone.replace(".", "~")
