"""The text of a mask: what was decided of each field, by which policy, under a digest that entries name it by."""

from hashlib import sha256

from google.protobuf.message import DecodeError

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.errors import FailedPrecondition, Reason
from services.kit.policy.mask import ReadMask

_GIVEN = (exchange_pb2.VERDICT_CLEAR, exchange_pb2.VERDICT_TRANSFORMED)


def digest_of(record_type: str, policy_version: str, decisions: bytes) -> bytes:
    """Digest decisions: SHA-256 of record type, newline, policy version, newline, and the decisions as serialized."""
    return sha256(f"{record_type}\n{policy_version}\n".encode() + decisions).digest()


def text_of(mask: ReadMask) -> log_pb2.MaskText:
    """Write a mask as the log keeps it; in the archive it has the digest in hexadecimal as its name."""
    name, version, decisions = mask.record_type.name, mask.version, mask.decided
    digest = digest_of(name, version, decisions)
    return log_pb2.MaskText(digest=digest, record_type=name, policy_version=version, decisions=decisions)


def read(text: bytes) -> log_pb2.MaskText:
    """Read an archived text; raises `FailedPrecondition` LOG_TAMPERED where it is none, or its digest another's."""
    try:
        found = log_pb2.MaskText.FromString(text)
    except DecodeError:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the text of a mask is none") from None
    if found.digest != digest_of(found.record_type, found.policy_version, found.decisions):
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the text of a mask is not what its digest says")
    return found


def decisions_of(text: log_pb2.MaskText) -> tuple[exchange_pb2.FieldDecision, ...]:
    """Read the decisions; raises `FailedPrecondition` LOG_TAMPERED where they are none."""
    try:
        return tuple(exchange_pb2.Section.FromString(text.decisions).decisions)
    except DecodeError:
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the decisions of a mask are none") from None


def paths_given(text: log_pb2.MaskText) -> tuple[str, ...]:
    """List the fields that are given, those under a transform with its name after "~"."""
    given = (decision for decision in decisions_of(text) if decision.verdict in _GIVEN)
    return tuple(f"{d.field}~{d.transform}" if d.transform else d.field for d in given)
