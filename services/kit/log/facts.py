"""What a handler tells of its call, for the log: who asked and why, about whom, and what was given.

Every call carries one `Facts`. Handlers note what they know as soon as they know it, so that a refusal is logged with
as much as was known then; `services.kit.log.recording` reads it when the answer stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.caller import Caller

if TYPE_CHECKING:
    from services.kit.policy.mask import ReadMask

Subject = tuple[str, str]
"""Scheme and value, checked."""

Named = Mapping[Subject, int]
"""Enterprises that records name, and how many of the records name each."""

NOBODY: Final[Named] = MappingProxyType({})


class Scoped(Protocol):
    """What an authorization opens."""

    @property
    def text(self) -> bytes:
        """The scope in canonical serialization."""
        ...


class Granted(Protocol):
    """An authorization that a call relies on, verified (`services.kit.authorizations`)."""

    @property
    def authorization_id(self) -> str:
        """Its id."""
        ...

    @property
    def scope(self) -> Scoped:
        """What it opens."""
        ...

    @property
    def scope_digest(self) -> bytes:
        """Digest of that."""
        ...

    @property
    def officer(self) -> str:
        """Pseudonym of the officer who uses it."""
        ...

    @property
    def emergency(self) -> bool:
        """It was given in an emergency."""
        ...


@dataclass(slots=True)
class Given:
    """What was given of one record type."""

    record_type: str
    mask: "ReadMask | None"
    """What was decided, over the fields that were asked for; None where no policy decides, as with events."""
    rows: int
    """How many records were given."""
    withheld: bool
    """Row conditions hid fields of some record."""
    named: Named
    """The enterprises that the records name, shown or not."""


class Facts:
    """What is known of one call beside its rpc and its peer. Each message of a stream has disclosures of its own."""

    __slots__ = ("caller", "context", "counted", "disclosures", "grant", "officer", "query_id", "subject")

    def __init__(self) -> None:
        self.caller: Caller | None = None
        """For whom the peer asks; None where it asks for itself."""
        self.context: exchange_pb2.RequestContext | None = None
        """Why."""
        self.subject: Subject | None = None
        """Whom the question is about."""
        self.grant: Granted | None = None
        """The authorization relied on."""
        self.officer = ""
        """Pseudonym of the officer who acts, where that is not who uses an authorization."""
        self.query_id = ""
        """The federated query this is part of."""
        self.disclosures: list[Given] = []
        self.counted = False
        """Its caller's quota has it (`services.kit.quotas`)."""

    def asked(
        self, caller: Caller, context: exchange_pb2.RequestContext, subject: Subject | None = None, query_id: str = ""
    ) -> None:
        """Note for whom, why and about whom; `caller` is the original one, where a gateway speaks for it."""
        self.caller = caller
        self.context = context
        self.subject = subject
        self.query_id = query_id

    def stated(self, context: exchange_pb2.RequestContext) -> None:
        """Note why, as the request says it."""
        self.context = context

    def about(self, subject: Subject | None) -> None:
        """Note whom it is about; in a stream, whom it is about from now on."""
        self.subject = subject

    def granted(self, grant: Granted | None) -> None:
        """Note the authorization that was verified, where there is one."""
        self.grant = grant

    def acted(self, officer: str) -> None:
        """Note the officer who acts, by the pseudonym that the node calls one by."""
        self.officer = officer

    def disclosed(self, mask: "ReadMask", rows: int, withheld: bool = False, named: Named = NOBODY) -> None:
        """Note what is given of one record type, with the enterprises it names whether or not they are shown."""
        self.disclosures.append(Given(mask.record_type.name, mask, rows, withheld, named))

    def told(self, what: str, rows: int, named: Named = NOBODY) -> None:
        """Note what is given without asking a policy, since it is nobody else's: events sent to an agency.

        `what` stands where a record type's name does.
        """
        self.disclosures.append(Given(what, None, rows, False, named))

    def clear(self) -> None:
        """Begin the next message of a stream: what was given so far is logged."""
        self.disclosures.clear()
