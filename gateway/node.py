"""The gateway's node: a host with the departments' policies, clients to departments and zones, and its two doors."""

from functools import partial
from pathlib import Path

from certs.foreign import ForeignPeers, ForeignZone, JoinedFiles
from certs.peer import Revocations
from certs.revocation import RevocationList, ShortLives
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.verify import ServerVerifier
from gateway.abroad import Abroad
from gateway.config import GatewayConfig, ZoneSection
from gateway.departments import Department
from gateway.door import SERVICE, ZoneService
from gateway.plan import Planner
from gateway.reads import AllReads
from gateway.service import FederationService
from gateway.trust import Trust, kept
from gateway.words import Listener, Speaker
from gateway.zones import Errands, Road
from hutong.api.exchange.v1 import federation_pb2, zone_pb2
from services.kit import jurisdiction
from services.kit.authorizations.joining import join
from services.kit.caller import Caller
from services.kit.client import Client
from services.kit.context import ContextSigner
from services.kit.department import read_secret
from services.kit.errors import FailedPrecondition, Reason
from services.kit.host import Host, Peers
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
        self.door_address = ""
        """`host:port` where other zones ask, once started; empty where none may."""
        zones = {name: kept(name, zone) for name, zone in config.zones.items()}
        self._config = config.model_copy(update={"zones": zones})
        self._service: FederationService | None = None
        self._known: dict[str, ForeignZone] = {}

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
        signer, identity, pages = ContextSigner(host.identity, host.clock), host.own, PageTokens(secret)
        planner = Planner(known, engine, signer, host.clock, self.enforcer, Abroad(config.zones))
        clients = {agency: department.client for agency, department in departments.items()}
        reads = AllReads(clients, identity, signer, engine, pages)
        listener, speaker = self._listener(), Speaker(host.clock)
        errands = self._errands(listener, speaker)
        self._service = service = FederationService(
            known, planner, identity, departments, pages, config.limits.response_bytes, reads, errands
        )
        host.telemetry.cache("questions", planner.questions)
        host.telemetry.cache("contexts", planner.contexts)
        host.observe_sessions(service)
        federation = federation_pb2.DESCRIPTOR.services_by_name["FederationService"]
        await host.start(bind(federation, service), [ACCESS])
        await self._open_door(service, planner, listener, speaker, errands, identity)

    def _department(self, agency: str) -> Department:
        section = self._config.departments[agency]
        identity = SpiffeId.parse(f"spiffe://{self._config.node.zone}/{agency}/{section.system}")
        department = Department(agency, self.host.client(section.target, identity), section.timeout.total_seconds())
        # Before the client's connections.
        self.host.on_stop(department.close)
        gauge, what = self.host.telemetry.gauge, "Questions that wait for a department"
        gauge("hutong_department_waiting", what, lambda: department.waiting, department=agency)
        return department

    def _listener(self) -> Listener:
        zones = self._config.zones
        self._known = {name: ForeignZone(name, zone.bundle, _revocations(zone)) for name, zone in zones.items()}
        gateways = {name: _gateway(name, zone) for name, zone in zones.items()}
        return Listener(self._config.node.zone, self._known, gateways, self.host.clock)

    def _errands(self, listener: Listener, speaker: Speaker) -> Errands:
        """Make the ways to other zones, and follow what it takes to believe them."""
        zones = self._config.zones
        roads = {name: self._road(name, zone, listener, speaker) for name, zone in zones.items() if zone.target}
        errands = Errands(
            {
                name: (roads[zone.via or name], zone.timeout.total_seconds())
                for name, zone in zones.items()
                if zone.target or zone.via
            }
        )
        self.host.on_stop(errands.close)
        gauge, what = self.host.telemetry.gauge, "Questions that wait for another zone"
        for name in zones:
            gauge("hutong_zone_waiting", what, partial(errands.waiting, name), zone=name)
        return errands

    def _road(self, name: str, zone: ZoneSection, listener: Listener, speaker: Speaker) -> Road:
        host, tls, target = self.host, self._config.tls, zone.target
        assert target is not None, "asked itself"  # noqa: S101 - the caller's promise
        own = Identity(SvidFiles(tls.certificate, tls.key, zone.bundle))
        limits, transport = self._config.limits, self._config.node.transport
        gateway = _gateway(name, zone)
        vouch = ServerVerifier(_revocations(zone), host.clock).verify
        client = Client(target, gateway, own, response_bytes=limits.response_bytes, transport=transport, vouch=vouch)
        host.on_stop(client.close)
        trust = Trust(name, zone, client, host.clock)
        host.on_stop(trust.follow())
        what = "Time since another zone told of its roots and revocations"
        host.telemetry.gauge("hutong_zone_unheard_seconds", what, lambda: trust.unheard, zone=name)
        return Road(name, gateway, client, own, speaker, listener)

    async def _open_door(
        self,
        federation: FederationService,
        planner: Planner,
        listener: Listener,
        speaker: Speaker,
        errands: Errands,
        identity: Identity,
    ) -> None:
        config, host = self._config, self.host
        if config.door is None or not config.zones:
            return
        own, tls = config.node.zone, config.tls
        service = ZoneService(
            own, federation, planner, listener, speaker, errands, config.zones, identity, lambda: host.revocations
        )
        described = zone_pb2.DESCRIPTOR.services_by_name["ZoneService"]
        allowed = [Caller.abroad(_gateway(name, zone)).path for name, zone in config.zones.items()]
        files = JoinedFiles(tls.certificate, tls.key, tls.bundle, tuple(zone.bundle for zone in config.zones.values()))
        self.door_address = await host.open_door(
            config.door.listen,
            bind(described, service),
            {SERVICE: dict.fromkeys(described.methods_by_name, allowed)},
            Peers(ForeignPeers(self._known, host.clock), files),
        )

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


def _revocations(zone: ZoneSection) -> Revocations:
    if zone.longest_life is not None:
        return ShortLives(zone.longest_life)
    assert zone.revoked is not None, "either of the two is given"  # noqa: S101 - by its config
    return RevocationList(zone.revoked, zone.bundle)


def _gateway(name: str, zone: ZoneSection) -> SpiffeId:
    return SpiffeId.of(name, zone.agency, zone.system)
