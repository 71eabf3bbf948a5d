"""Joins a node to the service that keeps authorizations: what it follows, whom it asks for rows, whose keys count."""

from certs.spiffe import SpiffeId
from services.kit.authorizations.enforcer import Enforcer, Service
from services.kit.authorizations.feed import Feed
from services.kit.authorizations.registry import Registry
from services.kit.authorizations.reservations import Reservations
from services.kit.authorizations.tickets import Tickets
from services.kit.config import NodeConfig
from services.kit.credentials.published import PublishedKeys
from services.kit.host import Host
from services.kit.jurisdiction import Jurisdiction


def join(config: NodeConfig, host: Host, jurisdiction: Jurisdiction, *, discloses: bool = True) -> Enforcer:
    """Begin to follow the configured service, until the host stops; gives what checks authorizations by it.

    A service that is away is no reason not to start: until it is heard, authorized questions are refused. A node whose
    config names no service refuses them always. `discloses` says whether the node has records of its own. Raises
    `FailedPrecondition` where the published keys cannot be used.
    """
    section = config.authorizations
    if section is None:
        return Enforcer.without_service(jurisdiction, host.clock)
    identity = SpiffeId.of(config.node.zone, section.agency, section.system)
    client = host.client(section.target, identity)
    registry = Registry(section.silence)
    feed = Feed(client, registry, silence=section.silence.total_seconds())
    feed.start()
    host.on_stop(feed.stop)
    host.telemetry.gauge(
        "hutong_authorizations_followed", "Whether authorizations are followed now", lambda: feed.connected
    )
    host.telemetry.gauge(
        "hutong_authorizations_silent_seconds",
        "How long nothing was heard of authorizations; above `silence` authorized reads are refused",
        lambda: registry.silent_for,
    )
    reservations = Reservations(client) if discloses else None
    tickets = Tickets(PublishedKeys.load(section.keys), section.agency)
    service = Service(registry, reservations, tickets)
    return Enforcer(jurisdiction.needing_authorization, service, host.clock)
