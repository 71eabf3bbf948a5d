"""`WitnessService`: co-signs checkpoints of other nodes' logs, and finds out where one shows two histories.

Anybody in the zone may show a checkpoint. A witness co-signs it where it continues the last one co-signed of the same
log, and remembers it before it answers (C2SP tlog-witness). Where a log has signed what does not go together, both
checkpoints are kept: with them anybody can convict it.
"""

import logging
from pathlib import Path
from typing import Final, Self

from hutong.api.log.v1 import log_service_pb2
from services.kit.clock import Clock
from services.kit.config import LogSection
from services.kit.errors import FailedPrecondition, HutongError, InvalidArgument, PermissionDenied, Reason
from services.kit.log import keys, notes, witnessed
from services.kit.log.checkpoint import Checkpoint
from services.kit.log.merkle import MAX_PROOF
from services.kit.log.nodelog import NodeLog
from services.kit.log.notes import Note, Signer
from services.kit.log.witnessed import Judged, Shown, Verdict
from services.kit.records.database import Database
from services.kit.rpc import Call, Rpc, bind
from services.kit.telemetry import Telemetry

ACCESS: Final = Path(__file__).parent / "witness_access.yaml"
"""Who may call it."""

_SERVICE: Final = log_service_pb2.DESCRIPTOR.services_by_name["WitnessService"]
_log = logging.getLogger(__name__)


class Witness:
    """The witness in one node."""

    def __init__(
        self, database: Database, signer: Signer, folder: Path, clock: Clock, telemetry: Telemetry | None = None
    ) -> None:
        """`database` is the log's own; `signer` co-signs with the log's key; `folder` has the keys of all logs."""
        self._database = database
        self._signer = signer
        self._folder = folder
        self._clock = clock
        self._accused: frozenset[str] = frozenset()
        self._behind: dict[str, int] = {}
        if telemetry:
            telemetry.gauge("hutong_logs_forked", "Logs that there is evidence against", lambda: len(self._accused))

    @classmethod
    def of(cls, log: NodeLog, section: LogSection, clock: Clock, telemetry: Telemetry | None = None) -> Self:
        """Make the witness of a node whose log is open; raises as `keys.read` does."""
        return cls(log.database, keys.read(section.key, log.origin), section.keys, clock, telemetry)

    @property
    def accused(self) -> frozenset[str]:
        """Origins of the logs that there is evidence against, as this process knows."""
        return self._accused

    async def open(self) -> None:
        """Recall what there is evidence against; raises as reads of the database do."""
        self._accused = await self._database.read(witnessed.accused)
        if self._accused:
            _log.error("There is evidence of forked logs", extra={"fields": {"origins": sorted(self._accused)}})

    def rpcs(self) -> tuple[Rpc, ...]:
        """Bind the service; its access list is `ACCESS`."""
        return bind(_SERVICE, self)

    async def add_checkpoint(
        self, request: log_service_pb2.AddCheckpointRequest, call: Call
    ) -> log_service_pb2.AddCheckpointResponse:
        """Co-sign a checkpoint.

        Raises `InvalidArgument` MALFORMED_REQUEST, `NotFound` LOG_KEY_UNKNOWN for a log of no node here,
        `PermissionDenied` LOG_KEY_UNKNOWN or LOG_TAMPERED where its log did not sign it; `FailedPrecondition`
        VERSION_CONFLICT with `size` where the witness is elsewhere, LOG_PROOF_INVALID, LOG_FORKED with `size` and
        `checkpoint`, which are what was witnessed.
        """
        shown = self._read(request, call)
        judged = await self._database.write(lambda connection: witnessed.judge(connection, shown))
        if judged.verdict is Verdict.CONTINUES:
            signature = self._signer.cosign(shown.checkpoint.text, self._clock())
            return log_service_pb2.AddCheckpointResponse(cosignature=signature.line, size=judged.size)
        if judged.verdict is Verdict.FORKED:
            self._tell(shown, judged)
        elif shown.own and shown.checkpoint.size < judged.size:
            self._warn(shown, judged)
        raise _refusal(judged)

    def _read(self, request: log_service_pb2.AddCheckpointRequest, call: Call) -> Shown:
        """Read what is shown, and verify that its log signed it."""
        if len(request.proof) > MAX_PROOF:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, f"a consistency proof has at most {MAX_PROOF} hashes")
        note = notes.parse(request.checkpoint)
        checkpoint = Checkpoint.parse(note.text)
        if not 0 <= request.old_size <= checkpoint.size:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "the old size is not between 0 and the checkpoint's")
        key = self._key(checkpoint.origin)
        signed = notes.verify(note, [key])[0]
        # Further signatures are of no matter here, and may be anything.
        kept = Note(note.text, (signed.signature,))
        zone = self._signer.name.partition("/")[0]
        return Shown(
            checkpoint=checkpoint,
            note=str(kept),
            old_size=request.old_size,
            proof=tuple(request.proof),
            caller=call.caller.spiffe_id,
            own=checkpoint.origin == f"{zone}/{call.caller.path}",
            time=self._clock(),
        )

    def _key(self, origin: str) -> notes.VerifierKey:
        """Get a log's key from its file, as it is now."""
        try:
            return keys.find(self._folder, origin)
        except FailedPrecondition as error:
            # What is wrong with our files is for our operator, not for whoever asks.
            _log.error("A published key cannot be used", extra={"fields": {"origin": origin, "why": error.message}})
            raise PermissionDenied(Reason.LOG_KEY_UNKNOWN, "the key of this log cannot be used here") from None

    def _tell(self, shown: Shown, judged: Judged) -> None:
        self._accused |= {shown.checkpoint.origin}
        if not judged.new:
            return
        fields = {
            "origin": shown.checkpoint.origin,
            "witnessed": judged.size,
            "shown": shown.checkpoint.size,
            "proven": judged.proven,
            "caller": shown.caller,
        }
        _log.error("A log was forked: it has signed two histories", extra={"fields": fields})

    def _warn(self, shown: Shown, judged: Judged) -> None:
        """Say that a log's own node shows less than it did: a slow replica, or one put back to an older state."""
        head = shown.checkpoint
        if self._behind.get(head.origin) != judged.size:
            self._behind[head.origin] = judged.size
            fields = {"origin": head.origin, "shown": head.size, "witnessed": judged.size}
            _log.warning("A log shows less than was co-signed", extra={"fields": fields})


def _refusal(judged: Judged) -> HutongError:
    size = str(judged.size)
    match judged.verdict:
        case Verdict.ELSEWHERE:
            return FailedPrecondition(Reason.VERSION_CONFLICT, f"the witness is at size {size}", size=size)
        case Verdict.FORKED:
            return FailedPrecondition(
                Reason.LOG_FORKED,
                f"the checkpoint does not continue the one of size {size} that was co-signed",
                size=size,
                checkpoint=judged.witnessed,
            )
        case _:
            return FailedPrecondition(Reason.LOG_PROOF_INVALID, f"not proven to continue size {size}", size=size)
