"""A log in memory, and calls that are recorded in it by what records calls on every node."""

import asyncio
import datetime as dt
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp

from hutong.api.exchange.v1 import record_source_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.audit import evidence
from services.kit.audit.archive import Archive
from services.kit.audit.findings import Finding
from services.kit.audit.recompute import Recomputer
from services.kit.authorizations.scope import Scope
from services.kit.caller import Caller
from services.kit.errors import HutongError
from services.kit.log import merkle, receipts
from services.kit.log.checkpoint import Checkpoint
from services.kit.log.facts import Granted
from services.kit.log.notes import Signer
from services.kit.log.openings import Sealed
from services.kit.log.recording import Recording
from services.kit.log.texts import Kind, Text
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.rpc import Call, Rpc, Shape
from tests.policy.specimen import catalogue
from tests.policy.support import LAW, NOW, TAX, TYPE, SetClock

ORIGIN = "zone.test/museum/node"
SIGNER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
FETCH = Rpc(
    method="/hutong.api.exchange.v1.RecordSourceService/Fetch",
    service="hutong.api.exchange.v1.RecordSourceService",
    name="Fetch",
    shape=Shape.UNARY,
    request=record_source_pb2.FetchRequest,
    handler=lambda: None,
    receipt=receipts.number_of(record_source_pb2.FetchResponse.DESCRIPTOR),
)


class MemoryLog:
    """What a node's log is, without a disk."""

    def __init__(self, clock: SetClock) -> None:
        self.entries: list[bytes] = []
        self.openings: dict[int, log_pb2.Opening] = {}
        self.texts: dict[tuple[str, str], bytes] = {}
        self._clock = clock

    async def record(self, sealed: Sealed, /) -> bytes:
        stamp = Timestamp()
        stamp.FromDatetime(self._clock())
        entry = log_pb2.LogEntry.FromString(sealed.entry)
        entry.time.CopyFrom(stamp)
        index = self._add(entry)
        if sealed.opening:
            self.openings[index] = log_pb2.Opening.FromString(sealed.opening)
        (receipt,) = receipts.sign(SIGNER, index, [merkle.leaf_hash(self.entries[index])], stamp, [sealed.answer_salt])
        return receipt

    def text(self, kind: Kind, name: str, text: bytes, /) -> None:
        if (kind, name) not in self.texts:
            self.texts[kind, name] = text
            if leaf := Text(kind, name, text).leaf():
                self._add(leaf)

    def _add(self, entry: log_pb2.LogEntry) -> int:
        self.entries.append(entry.SerializeToString(deterministic=True))
        return len(self.entries) - 1

    def page(self) -> log_service_pb2.SampleDecisionsResponse:
        """Everything, as an auditor gets it."""
        size = len(self.entries)
        leaves = [merkle.leaf_hash(entry) for entry in self.entries]

        def hashes(level: int, start: int, count: int) -> list[bytes]:
            assert level == 0, "the logs of these tests are small"
            return leaves[start : start + count]

        signed = Checkpoint(ORIGIN, size, merkle.root_of(size, hashes)).sign(SIGNER)
        page = log_service_pb2.SampleDecisionsResponse(checkpoint=str(signed), start=0, end=size)
        for index, entry in enumerate(self.entries):
            made = page.decisions.add(index=index, entry=entry, proof=merkle.inclusion_proof(index, size, hashes))
            if index in self.openings:
                made.opening.CopyFrom(self.openings[index])
        for (kind, name), text in self.texts.items():
            page.texts.add(kind=kind, name=name, text=text)
        return page


class Desk:
    """An engine whose decisions are logged."""

    def __init__(self, engine: PolicyEngine, clock: SetClock) -> None:
        self.engine = engine
        self.log = MemoryLog(clock)
        self.recording = Recording(self.log)
        self.recording.jurisdiction(LAW)
        self.recording.policies(engine.policies)

    def decide(
        self, context: RequestContext, fields: Iterable[str] = (), caller: Caller = TAX, opened: Scope | None = None
    ) -> ReadMask:
        authorized = opened.authorized(context.authorization_id) if opened else None
        mask = self.engine.mask(caller, context, TYPE, authorized)
        return (opened.narrow(mask) if opened else mask).restrict(fields)

    def ask(
        self,
        context: RequestContext,
        fields: Iterable[str] = (),
        caller: Caller = TAX,
        subject: tuple[str, str] | None = None,
        grant: Granted | None = None,
        opened: Scope | None = None,
    ) -> None:
        """Decide and log, as a department does."""
        call = Call(FETCH.method, caller, b"", None)
        call.facts.asked(caller, context, subject)
        call.facts.granted(grant)
        call.facts.disclosed(self.decide(context, fields, caller, opened), 1)
        asyncio.run(self.recording.answered(call, FETCH, b"an answer"))

    def refuse(self, context: RequestContext, error: HutongError, caller: Caller = TAX) -> None:
        call = Call(FETCH.method, caller, b"", None)
        call.facts.asked(caller, context)
        asyncio.run(self.recording.refused(call, FETCH, error))

    def audit(self) -> list[Finding]:
        return audit(self.log.page())


def audit(page: log_service_pb2.SampleDecisionsResponse) -> list[Finding]:
    """Audit a page with nothing but what is on it, and the log's key."""
    checkpoint = evidence.checked(page, [SIGNER.verifier]).checkpoint
    archive = Archive(catalogue())
    archive.add(page.texts)
    recomputer = Recomputer(archive)
    return [recomputer.recompute(decision, checkpoint) for decision in page.decisions]


def after(seconds: float) -> dt.datetime:
    return NOW + dt.timedelta(seconds=seconds)
