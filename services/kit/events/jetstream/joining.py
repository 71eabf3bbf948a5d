"""Wiring: what a node's `[nats]` makes of its outbox, and of the nodes it follows."""

from functools import partial

from certs.spiffe import SpiffeId
from services.kit.config import NatsPublishSection, NatsSection
from services.kit.errors import FailedPrecondition, Reason
from services.kit.events.jetstream.broker import Broker, Limits
from services.kit.events.jetstream.carried import Carried
from services.kit.events.jetstream.publisher import Publisher, recorded
from services.kit.events.jetstream.way import Way
from services.kit.events.outbox import Outbox
from services.kit.events.seam import EventSource
from services.kit.events.service import About, Why
from services.kit.host import Host
from services.kit.log import keys


def carried(host: Host, section: NatsSection, source: SpiffeId, direct: EventSource) -> Carried:
    """Make the way from a node over the broker; `direct` is the node itself, for what the broker lacks.

    Raises `FailedPrecondition` CONFIG_INVALID where the config names no folder of published keys.
    """
    node, log = host.config.node, host.config.log
    if log is None:
        raise FailedPrecondition(Reason.CONFIG_INVALID, "[log]: its keys verify what a broker brings; there is none")
    way = Way.of(source, node.agency)
    made = Carried(_broker(host, section), way, partial(keys.find, log.keys, way.origin), direct, host.clock)
    telemetry, name = host.telemetry, way.source
    telemetry.gauge(
        "hutong_events_over_broker", "Whether the broker is used now", lambda: int(made.reached), source=name
    )
    telemetry.counter("hutong_events_carried", "Events that a broker brought", lambda: made.carried, source=name)
    telemetry.counter("hutong_events_fetched", "Events that it lacked", lambda: made.fetched, source=name)
    telemetry.counter("hutong_events_forged", "What it brought and nobody said", lambda: made.refused, source=name)
    return made


def publishers(
    host: Host, section: NatsPublishSection, outbox: Outbox, about: About | None = None, why: Why | None = None
) -> list[Publisher]:
    """Make what publishes, one for each reader; the log is open. Raises as reading its key does."""
    log = host.config.log
    if log is None or host.log is None or host.recording is None:
        raise FailedPrecondition(Reason.CONFIG_INVALID, "[log]: what is published is logged, and this config has none")
    signer = keys.read(log.key, host.log.origin)
    limits = Limits(section.stream_bytes, section.stream_age.total_seconds(), section.replicas)
    record = recorded(host.recording, about, why)
    made: list[Publisher] = []
    for reader in section.readers:
        agency, _, system = reader.partition("/")
        identity = SpiffeId.of(host.config.node.zone, agency, system)
        broker = _broker(host, section)
        one = Publisher(broker, host.identity, identity, outbox, signer, record, limits, host.clock)
        _observe(host, one)
        made.append(one)
    return made


def _observe(host: Host, publisher: Publisher) -> None:
    host.telemetry.gauge(
        "hutong_events_publishing",
        "Whether events for this agency reach the broker now",
        lambda: int(publisher.connected),
        audience=publisher.audience,
    )
    host.telemetry.gauge(
        "hutong_events_unpublished_seconds",
        "How long ago the broker had all events for this agency",
        publisher.behind,
        audience=publisher.audience,
    )
    host.telemetry.counter(
        "hutong_events_published",
        "Events published for this agency",
        lambda: publisher.published,
        audience=publisher.audience,
    )


def _broker(host: Host, section: NatsSection) -> Broker:
    identity = SpiffeId.of(host.config.node.zone, section.agency, section.system)
    return Broker(tuple(section.servers), identity, host.own)
