"""Evidence: whether entries are in the log that a checkpoint is of, and whether openings open them."""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.errors import FailedPrecondition, Reason
from services.kit.log import merkle, openings
from services.kit.log.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from services.kit.log.notes import VerifierKey


def checked(
    page: log_service_pb2.SampleDecisionsResponse, keys: Iterable[VerifierKey], witnesses: Iterable[VerifierKey] = ()
) -> SignedCheckpoint:
    """Verify the checkpoint of a page; raises `InvalidArgument` or `PermissionDenied` where it does not stand."""
    return open_checkpoint(page.checkpoint, keys, witnesses)


def read_entry(entry: bytes) -> log_pb2.LogEntry:
    """Read an entry; raises `FailedPrecondition` LOG_TAMPERED for what is none."""
    try:
        return log_pb2.LogEntry.FromString(entry)
    except DecodeError:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the entry is none") from None


def prove(decision: log_service_pb2.Decision, checkpoint: Checkpoint) -> log_pb2.LogEntry:
    """Verify that a decision is in the log, and that its opening, where it has one, opens it; gives the entry.

    Raises `FailedPrecondition` LOG_PROOF_INVALID or LOG_TAMPERED.
    """
    leaf = merkle.leaf_hash(decision.entry)
    merkle.verify_inclusion(leaf, decision.index, checkpoint.size, tuple(decision.proof), checkpoint.root)
    entry = read_entry(decision.entry)
    if decision.HasField("opening"):
        openings.check_opening(entry, decision.opening)
    return entry


def is_mask(entry: log_pb2.LogEntry) -> bool:
    """Tell whether an entry only holds the text of a mask, and no decision of its own."""
    return entry.HasField("mask")
