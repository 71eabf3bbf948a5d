"""The gateway's node: a host with the departments' policies, a client to each department, and the federation door."""

from pathlib import Path

from certs.spiffe import SpiffeId
from gateway.config import GatewayConfig
from gateway.departments import Department
from gateway.plan import Planner
from gateway.reads import AllReads
from gateway.service import FederationService
from hutong.api.exchange.v1 import federation_pb2
from services.kit import jurisdiction
from services.kit.authorizations.joining import join
from services.kit.context import ContextSigner
from services.kit.department import read_secret
from services.kit.errors import FailedPrecondition, Reason
from services.kit.host import Host
from services.kit.identity import Identity
from services.kit.policy.reload import PolicyFiles
from services.kit.records import catalogue
from services.kit.records.catalogue import Catalogue, nearest
from services.kit.records.pages import PageTokens
from services.kit.rpc import bind

ACCESS = Path(__file__).parent / "access.yaml"


class GatewayNode:
    """A gateway, running."""

    def __init__(self, config: GatewayConfig, host: Host) -> None:
        self.host = host
        self._config = config
        self._service: FederationService | None = None

    async def start(self) -> None:
        """Load the policies, make the clients, serve."""
        config, host = self._config, self.host
        known = catalogue.load()
        _check_owners(config, known)
        secret = read_secret(config.secret)
        pack = jurisdiction.load(config.policy.jurisdiction)
        self.policy_files = files = PolicyFiles(config.policy.files, known, pack)
        await host.open_log(secret)
        self.engine = engine = host.policies(files, config.policy, known, pack, secret)
        departments = {agency: self._department(agency) for agency in config.departments}
        self.enforcer = join(config, host, pack, discloses=False)
        signer, identity, pages = ContextSigner(host.identity, host.clock), Identity(host.files), PageTokens(secret)
        planner = Planner(known, engine, signer, host.clock, self.enforcer)
        clients = {agency: department.client for agency, department in departments.items()}
        reads = AllReads(clients, identity, signer, engine, pages)
        self._service = service = FederationService(
            known, planner, identity, departments, pages, config.limits.response_bytes, reads
        )
        host.telemetry.cache("questions", planner.questions)
        host.telemetry.cache("contexts", planner.contexts)
        host.observe_sessions(service)
        federation = federation_pb2.DESCRIPTOR.services_by_name["FederationService"]
        await host.start(bind(federation, service), [ACCESS])

    def _department(self, agency: str) -> Department:
        section = self._config.departments[agency]
        identity = SpiffeId.parse(f"spiffe://{self._config.node.zone}/{agency}/{section.system}")
        department = Department(self.host.client(section.target, identity), section.timeout.total_seconds())
        # Before the client's connections.
        self.host.on_stop(department.close)
        gauge, what = self.host.telemetry.gauge, "Questions that wait for a department"
        gauge("hutong_department_waiting", what, lambda: department.waiting, department=agency)
        return department

    async def stop(self) -> None:
        """End sessions, drain and close."""
        if self._service:
            self._service.stop()
        await self.host.stop()


def _check_owners(config: GatewayConfig, known: Catalogue) -> None:
    """Check that whom the gateway is to ask owns records; raises `FailedPrecondition` CONFIG_INVALID."""
    for agency in config.departments:
        if agency not in (owners := known.owners()):
            raise FailedPrecondition(
                Reason.CONFIG_INVALID,
                f"{config.at('departments', agency)}: departments.{agency}: nobody of that name owns records"
                f"{nearest(agency, owners)}",
            )
