"""The recognition node: a host with the store of cases, the register of results, what becomes due, and the doors."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hutong.api.exchange.v1 import event_pb2, reads_pb2, record_source_pb2
from hutong.api.recognition.v1 import case_service_pb2, result_service_pb2
from services.kit import jurisdiction
from services.kit.authorizations.joining import join
from services.kit.context import ContextVerifier
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.department import read_secret
from services.kit.doors import RecordSourceService
from services.kit.errors import FailedPrecondition, Reason
from services.kit.events.outbox import Outbox
from services.kit.events.retention import Retention
from services.kit.events.seam import Event
from services.kit.events.service import EventService
from services.kit.following import Following
from services.kit.host import Host
from services.kit.log.facts import Named
from services.kit.log.reads import ReadsService
from services.kit.policy.reload import PolicyFiles
from services.kit.reader import Reader
from services.kit.records import catalogue
from services.kit.records.database import Database
from services.kit.records.pages import PageTokens, ResumeTokens
from services.kit.rpc import Rpc, bind
from services.recognition import noting, reach, registry
from services.recognition.agencies import Agencies
from services.recognition.arrangements import Arrangements
from services.recognition.calendars import Calendars
from services.recognition.cases import Cases
from services.recognition.config import RecognitionConfig
from services.recognition.door import Door, Terms
from services.recognition.procedures import Procedures
from services.recognition.publication import CalendarFiles
from services.recognition.result_service import ResultService, TaskService
from services.recognition.results import Results
from services.recognition.scheduler import Scheduler
from services.recognition.service import CaseService
from services.recognition.source import RecognitionSource
from services.recognition.tables import METADATA
from services.recognition.watching import Watching

AGENCY: Final = "recognition"
"""Under which name this service owns records, has keys and a policy."""

_HERE: Final = Path(__file__).parent
ACCESS: Final = _HERE / "access.yaml"
MIGRATIONS: Final = _HERE / "migrations"


@dataclass(frozen=True, slots=True)
class Rules:
    """What is data: what cases run on, and what counts between agencies."""

    agencies: Agencies
    procedures: Procedures
    arrangements: Arrangements

    @staticmethod
    def load(config: RecognitionConfig, calendars: Calendars) -> "Rules":
        """Load and check all of it; raises `FailedPrecondition` where anything does not hold together.

        What one says of another is checked last: procedures may demand what only an arrangement promises.
        """
        agencies = Agencies.load()
        procedures = Procedures.load(config.procedures, agencies=agencies, calendars=[*calendars], demands=False)
        arrangements = Arrangements.load(
            config.arrangements,
            agencies=agencies,
            procedures=procedures,
            jurisdiction=jurisdiction.load(config.policy.jurisdiction),
        )
        procedures.check_demands(arrangements)
        return Rules(agencies, procedures, arrangements)


class RecognitionNode:
    """The recognition node, running."""

    def __init__(self, config: RecognitionConfig, url: str, host: Host) -> None:
        """`url` is the store's; `host` is the frame it runs in."""
        if config.node.agency != AGENCY:
            raise FailedPrecondition(
                Reason.CONFIG_INVALID,
                f"{config.at('node', 'agency')}: this config is {config.node.agency}'s, not {AGENCY}'s",
            )
        self.host = host
        self._config = config
        self._url = url
        self._watching: Watching | None = None
        self._outbox: Outbox | None = None
        self._source: RecordSourceService | None = None
        self._publishers: Sequence[Following] = ()

    async def start(self) -> None:
        """Load the rules, open the store, look after what becomes due, serve."""
        config, host = self._config, self.host
        files = await asyncio.to_thread(CalendarFiles, config.calendars) if config.calendars else None
        calendars = files.calendars if files else await asyncio.to_thread(Calendars.load)
        rules = await asyncio.to_thread(Rules.load, config, calendars)
        published, signing = PublishedKeys.load(config.keys), SigningKeys.open(config.signing)
        # Now, not when the first list is asked for: a key that cannot be used, or that everybody can read.
        signing.active(host.clock())
        secret = read_secret(config.secret)
        owned, pack = catalogue.load().owned_by(AGENCY), jurisdiction.load(config.policy.jurisdiction)
        self.policy_files = policy = PolicyFiles(config.policy.files, owned, pack)
        await host.check_store(self._url, MIGRATIONS, METADATA, migrate=config.store.migrate)
        log = await host.open_log(secret)
        self.database = database = await host.open_store(self._url, MIGRATIONS, migrate=config.store.migrate)
        self._outbox = outbox = Outbox(database)
        self.cases = cases = self._cases(database, rules, calendars, published)
        cases.listeners.append(lambda _case_id, _version: outbox.ring())
        await cases.open()
        self.engine = engine = host.policies(policy, config.policy, owned, pack, secret)
        door = Door(database, engine, owned, Terms(config.agency, config.enterprise), reach.Results(rules.arrangements))
        self._watching = watching = Watching(cases, door, host.clock)
        pages = PageTokens(secret)
        results = Results(database, cases, signing, host.clock, outbox.ring)
        source = RecognitionSource(database, door.results, host.clock)
        contexts = ContextVerifier(config.gateways, config.node.zone, host.clock)
        self.enforcer = join(config, host, pack)
        reader = Reader(source, engine, pages, host.clock, self.enforcer)
        self._source = uniform = RecordSourceService(AGENCY, owned, reader, contexts, ResumeTokens(secret))
        host.telemetry.cache("requests", uniform.requests)
        host.observe_sessions(uniform)
        if files is not None:
            self.calendar_files = files
            host.on_stop(files.watch(cases, config.policy.reload.total_seconds()))
        self._look_after(cases)
        await host.start(
            [
                *_bound(
                    case_service_pb2,
                    "CaseService",
                    CaseService(cases, rules.procedures, door, watching, pages, host.clock),
                ),
                *_bound(result_service_pb2, "ResultService", ResultService(results, door, pages, host.clock)),
                *_bound(result_service_pb2, "TaskService", TaskService(results, door, pages, host.clock)),
                *_bound(event_pb2, "EventService", self._events(outbox, door)),
                *_bound(record_source_pb2, "RecordSourceService", uniform),
                *_bound(reads_pb2, "ReadsService", ReadsService(AGENCY, log, engine, contexts, pages, host.clock)),
            ],
            [ACCESS],
        )
        if config.nats is not None:
            # Loaded where a broker is used only: a client takes a while to load.
            from services.kit.events.jetstream import joining  # noqa: PLC0415

            self._publishers = joining.publishers(host, config.nats, outbox, self._about, door.terms.of)
        # A broker that is away is no reason not to serve: what is for it waits in the outbox.
        for publisher in self._publishers:
            publisher.start()

    def _cases(self, database: Database, rules: Rules, calendars: Calendars, published: PublishedKeys) -> Cases:
        return Cases(
            database,
            rules.procedures,
            calendars,
            rules.agencies,
            rules.arrangements,
            published,
            self.host.clock,
            skew=self._config.skew,
            backdating=self._config.backdating,
        )

    def _events(self, outbox: Outbox, door: Door) -> EventService:
        node, retention = f"{AGENCY}/{self._config.node.system}", self._retention()
        return EventService(outbox, node, about=self._about, why=door.terms.of, heard=retention.heard)

    def _retention(self) -> Retention:
        """Remove events that everybody has, until the node stops."""
        config, host = self._config, self.host
        readers = config.nats.readers if config.nats else ()
        made = Retention(self.database, config.outbox.keep, host.clock, required=readers, leaving=registry.leaving)
        what = "Events removed from the outbox, since everybody has them"
        host.telemetry.counter("hutong_events_removed", what, lambda: made.removed)
        host.telemetry.gauge("hutong_events_oldest_seconds", "How old the oldest event in the outbox is", made.oldest)
        host.on_stop(made.stop)
        made.start()
        return made

    async def _about(self, sent: Sequence[Event]) -> Named:
        return await self.database.read(lambda connection: noting.told(connection, sent))

    def _look_after(self, cases: Cases) -> None:
        """Look after what becomes due, until the node stops."""
        scheduler = Scheduler(cases, self.host.clock, self._config.tick)
        cases.listeners.append(lambda _case_id, _version: scheduler.wake())
        running = asyncio.create_task(scheduler.run(), name="scheduler")

        async def stop() -> None:
            scheduler.stop()
            await running

        self.host.on_stop(stop)

    async def stop(self) -> None:
        """End watches, drain, finish what is being looked after, close."""
        for part in (self._watching, self._outbox, self._source):
            if part is not None:
                part.stop()
        for publisher in self._publishers:
            await publisher.stop()
        await self.host.stop()


def _bound(module: Any, name: str, implementation: object) -> tuple[Rpc, ...]:
    return bind(module.DESCRIPTOR.services_by_name[name], implementation)
