"""The supervision node: a host with the store of authorizations, what is in force, and the door."""

from pathlib import Path
from threading import Lock
from typing import Final

from hutong.api.authorization.v1 import authorization_pb2
from services.kit import jurisdiction
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.department import read_secret
from services.kit.errors import FailedPrecondition, Reason
from services.kit.host import Host
from services.kit.officers.seen import MemorySeen
from services.kit.officers.verifier import Officers
from services.kit.policy.reload import PolicyFiles
from services.kit.records import catalogue
from services.kit.records.pages import PageTokens
from services.kit.rpc import bind
from services.supervision import logged
from services.supervision.authorizations import Authorizations
from services.supervision.board import Board
from services.supervision.books import Books
from services.supervision.config import SupervisionConfig
from services.supervision.events import Signatures
from services.supervision.explaining import Explainer
from services.supervision.feed import Feed
from services.supervision.moments import Moments
from services.supervision.quota import Quota
from services.supervision.rules import Terms
from services.supervision.scope import Scopes
from services.supervision.seals import Seals
from services.supervision.service import AuthorizationService
from services.supervision.tables import METADATA

AGENCY: Final = "supervision"
"""Under which name this service signs, and supervisors' own systems call."""

_HERE: Final = Path(__file__).parent
ACCESS: Final = _HERE / "access.yaml"
MIGRATIONS: Final = _HERE / "migrations"

_LONGEST_POLL: Final = 0.2
"""Seconds between looks for what other replicas have done."""


class SupervisionNode:
    """The supervision node, running."""

    def __init__(self, config: SupervisionConfig, url: str, host: Host) -> None:
        """`url` is the store's; `host` is the frame it runs in."""
        if config.node.agency != AGENCY:
            raise FailedPrecondition(
                Reason.CONFIG_INVALID,
                f"{config.at('node', 'agency')}: this config is {config.node.agency}'s, not {AGENCY}'s",
            )
        self.host = host
        self._config = config
        self._url = url
        self._feed: Feed | None = None

    async def start(self) -> None:
        """Open the store, load what is in force, serve."""
        config, host = self._config, self.host
        moments = Moments(host.clock)
        signatures = self._signatures()
        secret = read_secret(config.secret)
        pack = jurisdiction.load(config.policy.jurisdiction)
        self.policy_files = files = PolicyFiles(config.policy.files, catalogue.load(), pack)
        await host.check_store(self._url, MIGRATIONS, METADATA, migrate=config.store.migrate)
        log = await host.open_log(secret)
        database = await host.open_store(self._url, MIGRATIONS, migrate=config.store.migrate)
        engine = host.policies(files, config.policy, catalogue.load(), pack, secret)
        seals = Seals(secret)
        books = self._books(signatures, seals)
        books.expect(await logged.acts(log))
        self.authorizations = authorizations = Authorizations(
            database,
            books,
            signatures,
            seals,
            moments,
            Scopes(catalogue.load(), pack, config.longest),
            Terms(config.owner_approval, config.break_glass, config.approval_within, config.review_within),
        )
        await authorizations.open()
        heartbeat = config.heartbeat.total_seconds()
        self.board = board = Board(database, books, moments, poll=min(_LONGEST_POLL, heartbeat / 2))
        await board.open()
        host.on_stop(board.stop)
        authorizations.listeners.append(board.ring)
        self._observe(board, moments)
        self._feed = feed = Feed(board, config.gateways, heartbeat)
        officers = Officers(config.officers, str(host.identity), moments.now, MemorySeen(moments.now), seals.pseudonyms)
        host.on_stop(officers.close)
        service = AuthorizationService(
            authorizations,
            officers,
            signatures,
            Quota(authorizations, AGENCY),
            feed,
            Explainer(engine, catalogue.load(), config.node.zone),
            PageTokens(secret),
            config.auditors,
        )
        descriptor = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"]
        await host.start(bind(descriptor, service), [ACCESS])

    def _signatures(self) -> Signatures:
        config = self._config
        signing, published = SigningKeys.open(config.signing), PublishedKeys.load(config.keys)
        # Now, not when the first act comes: a key that cannot be used, that everybody can read, or that nobody knows.
        key = signing.active(self.host.clock())
        if signing.agency != AGENCY or published.issuer(AGENCY) != signing.issuer:
            raise FailedPrecondition(Reason.KEY_INVALID, f"signing: these are not the published keys of {AGENCY}")
        if key.kid not in {known.kid for known in published.keys(AGENCY)}:
            raise FailedPrecondition(Reason.KEY_UNKNOWN, "signing: the active key is not published; publish it first")
        return Signatures(signing, published)

    def _books(self, signatures: Signatures, seals: Seals) -> Books:
        name, what = "hutong_authorizations_broken", "Authorizations read whose history did not verify"
        found, lock = [0], Lock()

        def broken() -> None:
            with lock:
                found[0] += 1

        self.host.telemetry.counter(name, what, lambda: found[0])
        return Books(signatures, seals, catalogue.load(), broken)

    def _observe(self, board: Board, moments: Moments) -> None:
        gauge = self.host.telemetry.gauge
        gauge("hutong_authorizations_active", "Authorizations in force", lambda: len(board.active))
        name, what = "hutong_clock_set_back_seconds", "How far the clock lies behind the latest moment known"
        gauge(name, what, moments.behind)

    async def stop(self) -> None:
        """End streams, drain, close."""
        if self._feed is not None:
            self._feed.stop()
        await self.host.stop()
