"""A mesh with supervision: departments, a gateway and the service that keeps authorizations, and officers to act."""

import contextlib
import datetime as dt
import uuid
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import cbec_listing_pb2, declaration_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from hutong.api.taxation.v1 import invoice_summary_pb2
from services.kit.authorizations.enforcer import Enforcer
from services.kit.authorizations.registry import Registry
from services.kit.config import AuthorizationsSection, IssuerSection, LimitsSection, StoreSection
from services.kit.credentials.keys import SigningKeys
from services.kit.host import Host
from services.kit.officers.acts import act_nonce
from services.kit.officers.issuer import Issuer, officers_uri
from services.kit.officers.tokens import Role
from services.supervision.config import SupervisionConfig
from services.supervision.node import SupervisionNode
from tests.exchange.mesh import Mesh, question
from tests.exchange.records import EXPORTER, RECORDS, cny, declaration, moment
from tests.zone import ZONE, now

SERVICE: Final = "/hutong.api.authorization.v1.AuthorizationService"
AML: Final = "supervision/aml"
POLICE: Final = "publicsecurity/investigation"
BROKER: Final = "9999960001"
HOUR: Final = dt.timedelta(hours=1)
DECLARATIONS: Final = pb.ScopedType(
    record_type="customs.Declaration", fields=["declaration_no", "total_value_cny", "trader_uscc", "gross_wt_kg"]
)
INVOICES: Final = pb.ScopedType(
    record_type="taxation.InvoiceSummary", fields=["period", "direction", "invoiced_amt", "invoice_count"]
)
LISTINGS: Final = pb.ScopedType(record_type="customs.CbecListing", fields=["payment_no", "actual_paid"])

_AGENCIES: Final = ("supervision", "customs", "taxation", "quality", "publicsecurity", "recognition", "audit")

R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class Leave:
    """An authorization in force, with a ticket to use it."""

    authorization_id: str
    scope: pb.Scope
    ticket: str

    @property
    def why(self) -> dict[str, str]:
        """The context of a question under it."""
        return {
            "purpose": self.scope.purpose,
            "legal_basis": self.scope.legal_basis,
            "case_ref": self.scope.case_ref,
            "authorization_id": self.authorization_id,
            "authorization_ticket": self.ticket,
        }

    def context(self, **changes: str) -> exchange_pb2.RequestContext:
        return exchange_pb2.RequestContext(**self.why | changes)


class Supervised(Mesh):
    """A mesh whose nodes follow a supervision node."""

    def __init__(self, folder: Path, silence: dt.timedelta, limits: LimitsSection) -> None:
        super().__init__(folder)
        self._silence = silence
        self.limits = limits
        self.supervision: SupervisionNode | None = None
        self._issuers: dict[str, Issuer] = {}
        self._signing = SigningKeys.create(folder / "signing", f"spiffe://{ZONE}/supervision", now())
        self._signing.publish(folder / "keys")
        for agency in _AGENCIES:
            issuer = Issuer.create(folder / "issuers" / agency, officers_uri(ZONE, agency), now())
            issuer.publish(self._jwks(agency))
            self._issuers[agency] = issuer

    def _jwks(self, agency: str) -> Path:
        return self.folder / "officers" / f"{agency}.jwks.json"

    def _supervision_config(self, listen: str, agencies: Iterable[str]) -> SupervisionConfig:
        return SupervisionConfig(
            node=self.zone.node("supervision/node").model_copy(update={"listen": listen}),
            tls=self.zone.tls("supervision/node"),
            log=self.zone.log("supervision/node"),
            store=StoreSection(url=self.url("supervision"), migrate=True),
            policy=self.policies(*(self.policy(agency) for agency in agencies)),
            secret=self.folder / "secret",
            signing=self.folder / "signing",
            keys=self.folder / "keys",
            break_glass=True,
            officers={
                agency: IssuerSection(issuer=officers_uri(ZONE, agency), jwks=self._jwks(agency))
                for agency in _AGENCIES
            },
        )

    async def start_supervision(self, *agencies: str, listen: str = "127.0.0.1:0") -> None:
        config = self._supervision_config(listen, agencies)
        self.supervision = SupervisionNode(config, self.url("supervision"), self.zone.frame(config))
        await self.supervision.start()
        self.authorizations = AuthorizationsSection(
            target=self.supervision.host.address, keys=self.folder / "keys", silence=self._silence
        )

    async def act(self, name: str, request: Any, response: type[R], system: str, officer: str, *roles: Role) -> R:
        """Do something as an officer, through a system of the officer's agency."""
        assert self.supervision is not None
        method, audience = f"{SERVICE}/{name}", str(self.supervision.host.identity)
        certificate = self.zone.files(system).load().chain
        issuer = self._issuers[system.partition("/")[0]]
        every = roles or tuple(Role)
        request.officer_token = issuer.token(officer, every, audience, act_nonce(method, request), certificate, now())
        return await self.client(system, "supervision").unary(method, request, response, timeout=10)

    def host(self, agency: str) -> Host:
        if agency == "supervision":
            assert self.supervision is not None
            return self.supervision.host
        return super().host(agency)

    async def stop(self) -> None:
        await super().stop()
        if self.supervision is not None:
            await self.supervision.stop()

    async def give(
        self, *types: pb.ScopedType, who: str = AML, subjects: Iterable[str] = (f"cn.uscc:{EXPORTER}",), **changes: Any
    ) -> Leave:
        """Have an authorization requested, approved by two others, heard of by every node, and used."""
        scope = _scope(types, who, subjects, changes)
        request = pb.RequestAuthorizationRequest(request_id=str(uuid.uuid4()), scope=scope)
        made = (
            await self.act("RequestAuthorization", request, pb.RequestAuthorizationResponse, who, "req")
        ).authorization
        approvers = [("customs/release", "owner"), (who, "chief")]
        for system, officer in approvers[:1] if scope.emergency else approvers:
            approve = pb.ApproveAuthorizationRequest(
                authorization_id=made.authorization_id, scope_digest=made.scope_digest
            )
            await self.act("ApproveAuthorization", approve, pb.ApproveAuthorizationResponse, system, officer)
        leave = Leave(made.authorization_id, made.scope, await self.use(made.authorization_id, who))
        await self.heard(leave.authorization_id, pb.AUTHORIZATION_STATE_ACTIVE, types)
        return leave

    async def use(self, authorization_id: str, who: str = AML) -> str:
        request = pb.UseAuthorizationRequest(authorization_id=authorization_id)
        return (await self.act("UseAuthorization", request, pb.UseAuthorizationResponse, who, "req")).ticket

    async def revoke(self, leave: Leave) -> None:
        request = pb.RevokeAuthorizationRequest(authorization_id=leave.authorization_id, reason_code="CASE_CLOSED")
        await self.act("RevokeAuthorization", request, pb.RevokeAuthorizationResponse, "customs/release", "owner")

    async def used(self, leave: Leave) -> int:
        """How many rows have been taken off its quota."""
        request = pb.GetAuthorizationRequest(authorization_id=leave.authorization_id)
        client = self.client(leave.scope.caller, "supervision")
        answer = await client.unary(f"{SERVICE}/GetAuthorization", request, pb.GetAuthorizationResponse, timeout=10)
        return int(answer.authorization.rows_used)

    def enforcers(self, *owners: str) -> dict[str, Enforcer]:
        assert self.gateway is not None
        found = {agency: self.departments[agency].enforcer for agency in owners}
        return {"gateway": self.gateway.enforcer, **found}

    async def heard(self, name: str, state: int, types: Iterable[pb.ScopedType]) -> None:
        """Wait until the gateway and the owners of the types have heard how an authorization stands."""
        for enforcer in self.enforcers(*{each.record_type.partition(".")[0] for each in types}).values():
            known = registry(enforcer)
            while (standing := known.find(name)) is None or standing.state != state:
                await known.change(30)


def registry(enforcer: Enforcer) -> Registry:
    assert enforcer.service is not None
    return enforcer.service.registry


def _scope(types: Iterable[pb.ScopedType], who: str, subjects: Iterable[str], changes: dict[str, Any]) -> pb.Scope:
    purpose, basis = ("P-AML", "CN-AML") if who == AML else ("P-CRIMINAL", "CN-CRIMINAL-PROCEDURE")
    lasts: dt.timedelta = changes.pop("lasts", HOUR)
    named = (subject.partition(":") for subject in subjects)
    given: dict[str, Any] = {
        "caller": who,
        "purpose": purpose,
        "legal_basis": basis,
        "case_ref": "STR-2026-7",
        "types": types,
        "subjects": [common_pb2.SubjectId(scheme=scheme, value=value) for scheme, _, value in named],
        "row_quota": 1000,
    }
    made = pb.Scope(**given | changes)
    begin = now().replace(microsecond=0) - dt.timedelta(minutes=1)
    made.not_before.FromDatetime(begin)
    made.not_after.FromDatetime(begin + lasts)
    return made


def asked(
    leave: Leave, *selections: str, subject: str = f"cn.uscc:{EXPORTER}", **how: Any
) -> federation_pb2.QueryRequest:
    """A question under an authorization; an empty subject asks about nobody in particular."""
    request = question(subject, *selections, **leave.why)
    if not subject:
        request.ClearField("subject")
    for selection in request.selections:
        selection.page_size = how.get("page_size", 0)
        selection.filter = how.get("filter", "")
    return request


def under(opened: pb.ScopedType, condition: str) -> pb.ScopedType:
    """The same type and fields, of rows for which a condition holds."""
    return pb.ScopedType(record_type=opened.record_type, fields=opened.fields, condition=condition)


def number(count: int) -> str:
    return f"9999202600{count:08d}"


def declarations(count: int, first: int = 100, trader: str = EXPORTER) -> list[Message]:
    """Cleared exports."""
    cleared = declaration_pb2.DECLARATION_STATUS_CLEARED
    return [declaration(number(first + n), trader, cleared) for n in range(count)]


def invoices(count: int, uscc: str = EXPORTER) -> list[Message]:
    """Invoices of as many months."""
    return [
        invoice_summary_pb2.InvoiceSummary(
            uscc=uscc,
            period=common_pb2.Period(year=2020 + n // 12, month=n % 12 + 1),
            direction=invoice_summary_pb2.INVOICE_DIRECTION_ISSUED,
            invoice_count=3,
            invoiced_amt=cny("1000"),
        )
        for n in range(count)
    ]


def listings(count: int, merchant: str = BROKER, first: int = 0) -> list[Message]:
    """Retail imports."""
    return [
        cbec_listing_pb2.CbecListing(
            invt_no=f"I{merchant}{first + n}",
            merchant_code=merchant,
            payment_no=f"PAY{first + n}",
            actual_paid=cny("10"),
            listed_at=moment("2026-05-04T09:30:00+08:00"),
        )
        for n in range(count)
    ]


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    *agencies: str,
    silence: dt.timedelta = dt.timedelta(seconds=3),
    limits: LimitsSection = LimitsSection(),  # noqa: B008 - frozen
) -> AsyncGenerator[Supervised]:
    """Run supervision, the named departments (customs and taxation where none is named) and a gateway."""
    mesh = Supervised(folder, silence, limits)
    wanted = agencies or ("customs", "taxation")
    try:
        await mesh.start_supervision(*wanted)
        for agency in wanted:
            await mesh.start(agency)
        await mesh.start_gateway()
        yield mesh
    finally:
        await mesh.stop()


@contextlib.asynccontextmanager
async def loaded(folder: Path) -> AsyncGenerator[Supervised]:
    """Run what `running` runs, with a few records."""
    async with running(folder) as mesh:
        await mesh.load("customs", [*RECORDS["customs"], *declarations(5), *listings(5)])
        await mesh.load("taxation", invoices(5))
        yield mesh
