"""A node's view of authorizations without a network: what it was told, its clock, and tickets as a test wants them."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from services.kit import jurisdiction
from services.kit.authorizations import tickets
from services.kit.authorizations.enforcer import Enforcer, Grant, Service
from services.kit.authorizations.registry import Registry
from services.kit.authorizations.scope import scope_digest
from services.kit.authorizations.tickets import Ticket, Tickets
from services.kit.caller import Caller
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.errors import HutongError, Reason
from tests.exchange.records import EXPORTER
from tests.zone import ZONE

NOW: Final = dt.datetime(2026, 6, 1, 9, tzinfo=dt.UTC)
SECOND: Final = dt.timedelta(seconds=1)
MINUTE: Final = dt.timedelta(minutes=1)
SILENCE: Final = 3 * SECOND
AML: Final = Caller(f"spiffe://{ZONE}/supervision/aml", "supervision", "aml")
OTHER: Final = Caller(f"spiffe://{ZONE}/supervision/other", "supervision", "other")
WHY: Final = {"purpose": "P-AML", "legal_basis": "CN-AML", "case_ref": "STR-2026-7"}
ACTIVE: Final = pb.AUTHORIZATION_STATE_ACTIVE
NAME: Final = "a-1"


def scope(**changes: Any) -> pb.Scope:
    """A good scope, in force for an hour, with some of it changed."""
    begin, lasts = changes.pop("begin", NOW - MINUTE), changes.pop("lasts", 60 * MINUTE)
    given: dict[str, Any] = {
        "caller": AML.path,
        **WHY,
        "types": [pb.ScopedType(record_type="customs.Declaration", fields=["declaration_no", "total_value_cny"])],
        "subjects": [common_pb2.SubjectId(scheme="cn.uscc", value=EXPORTER)],
        "row_quota": 100,
    }
    made = pb.Scope(**given | changes)
    made.not_before.FromDatetime(begin)
    made.not_after.FromDatetime(begin + lasts)
    return made


def told(
    *some: pb.Authorization, as_of: dt.datetime = NOW, snapshot: bool = False, more: bool = False
) -> pb.FollowAuthorizationsResponse:
    """What the service tells."""
    made = pb.FollowAuthorizationsResponse(authorizations=some, snapshot=snapshot, more=more)
    made.as_of.FromDatetime(as_of)
    return made


def authorization(
    wanted: pb.Scope, state: "pb.AuthorizationState.ValueType" = ACTIVE, name: str = NAME
) -> pb.Authorization:
    return pb.Authorization(authorization_id=name, scope=wanted, scope_digest=scope_digest(wanted), state=state)


@dataclass
class Steady:
    """Seconds that go forward when a test says so."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Bed:
    """A node that has heard of one authorization."""

    signing: SigningKeys
    clock: dt.datetime = NOW
    steady: Steady = field(default_factory=Steady)
    scope: pb.Scope = field(default_factory=scope)

    def __post_init__(self) -> None:
        self.registry = Registry(SILENCE, self.steady)
        keys = PublishedKeys.of(self.signing.published().encode())
        needing = jurisdiction.load("cn").needing_authorization
        self.enforcer = Enforcer(needing, Service(self.registry, None, Tickets(keys)), lambda: self.clock)
        self.registry.apply(told(authorization(self.scope), snapshot=True))

    def tell(self, state: "pb.AuthorizationState.ValueType", wanted: pb.Scope | None = None) -> None:
        self.registry.apply(told(authorization(wanted or self.scope, state), as_of=self.clock))

    def hear(self, as_of: dt.datetime | None = None) -> None:
        """A heartbeat."""
        self.registry.apply(told(as_of=as_of or self.clock))

    def ticket(self, **changes: Any) -> str:
        given: dict[str, Any] = {
            "ticket_id": "t-1",
            "issuer": self.signing.issuer,
            "authorization_id": NAME,
            "scope_digest": scope_digest(self.scope),
            "caller": AML.spiffe_id,
            "officer": "officer-0123456789abcdef",
            "issued_at": NOW,
            "expires_at": NOW + 5 * MINUTE,
        }
        return tickets.sign(self.signing, Ticket(**given | changes))

    def context(self, **changes: str) -> RequestContext:
        given = {**WHY, "authorization_id": NAME}
        if "authorization_ticket" not in changes:
            given["authorization_ticket"] = self.ticket()
        return RequestContext(**given | changes)

    def check(self, context: RequestContext | None = None, caller: Caller = AML) -> Grant:
        grant = self.enforcer.check(caller, context or self.context(), self.clock)
        assert grant is not None
        return grant

    def refusal(self, context: RequestContext | None = None, caller: Caller = AML) -> Reason | None:
        """Check; gives the reason it was refused for, None where it was not."""
        asked, said = context or self.context(), ""
        try:
            self.enforcer.check(caller, asked, self.clock)
            reason = None
        except HutongError as error:
            reason, said = error.reason, error.message
        assert not asked.authorization_ticket or asked.authorization_ticket not in said
        return reason


def bed(folder: Path, **changes: Any) -> Bed:
    signing = SigningKeys.create(folder / "signing", f"spiffe://{ZONE}/supervision", NOW - 10 * MINUTE)
    return Bed(signing, **changes)
