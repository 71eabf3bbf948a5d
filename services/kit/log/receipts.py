"""Receipts: a log's word that an answer was logged before it left, and what turns that word into proof.

A receipt alone shows what the log promised. With an inclusion proof and a signed checkpoint it shows that the promise
was kept; a log that does not keep it is convicted by its own receipt.

Entries that are written together have one signature: over the root of the tree that they make by themselves. Each
receipt brings the path from its leaf to that root, and says by it nothing about the other entries.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit import wire
from services.kit.errors import FailedPrecondition, PermissionDenied, Reason
from services.kit.log import merkle
from services.kit.log.checkpoint import SignedCheckpoint, open_checkpoint
from services.kit.log.notes import KeyType, Signer, VerifierKey
from services.kit.log.openings import SALT_BYTES

FIELD: Final = "receipt"
"""The field of every answer that is logged."""

MAX_BATCH: Final = 4096
"""Most entries under one signature: a path has at most twelve hashes."""

_MOST_INDEX: Final = 1 << 62
_LEAF: Final = bytes((log_pb2.Receipt.LEAF_HASH_FIELD_NUMBER << 3 | 2, merkle.HASH_SIZE))
_PATH: Final = bytes((log_pb2.Receipt.BATCH_PATH_FIELD_NUMBER << 3 | 2, merkle.HASH_SIZE))
_SALT: Final = bytes((log_pb2.Receipt.ANSWER_SALT_FIELD_NUMBER << 3 | 2, SALT_BYTES))
"""What stands before each hash, and before the salt, in a serialized receipt."""


def number_of(response: Descriptor) -> int:
    """Say which field of an answer is its receipt; 0 where it has none: such answers are not logged."""
    field = response.fields_by_name.get(FIELD)
    if field is None or field.message_type is None or field.is_repeated:
        return 0
    return int(field.number) if field.message_type.full_name == log_pb2.Receipt.DESCRIPTOR.full_name else 0


def signed_text(origin: str, start: int, size: int, root: bytes) -> bytes:
    """Write what the signature of a batch is over: the leaves from `start` on, so many, whose tree has this root."""
    return f"hutong receipts\n{origin}\n{start}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


def answer_digest(salt: bytes, answer: bytes) -> bytes:
    """Digest an answer for its entry.

    Salted: an answer says whom it is about, and who could make the same one could find out by its digest.
    """
    digest = sha256(salt)
    digest.update(answer)
    return digest.digest()


def sign(signer: Signer, start: int, leaves: Sequence[bytes], time: Timestamp, salts: Sequence[bytes]) -> list[bytes]:
    """Give receipts in the name of a log, serialized: for leaves that follow each other from index `start` on.

    `salts` are those of the answers' digests; empty for what is no answer. There are at least one and at most
    `MAX_BATCH` leaves.
    """
    root, paths = merkle.paths(leaves, _PATH)
    signature = signer.key.sign(signed_text(signer.name, start, len(leaves), root))
    origin = log_pb2.Receipt(origin=signer.name).SerializeToString()
    signed = log_pb2.Receipt(time=time, signature=signature).SerializeToString()
    batch = log_pb2.Receipt(batch_start=start, batch_size=len(leaves)).SerializeToString()
    return [
        b"".join((origin, _index(index), _LEAF, leaf, signed, _SALT + salt if salt else b"", batch, path))
        for index, (leaf, salt, path) in enumerate(zip(leaves, salts, paths, strict=True), start)
    ]


def _index(index: int) -> bytes:
    return wire.whole(2, index) if index else b""


def verify(receipt: log_pb2.Receipt, key: VerifierKey) -> None:
    """Verify that a log signed a receipt; raises `PermissionDenied` RECEIPT_INVALID.

    The time is no part of what is signed: it stands in the entry, which the leaf's hash is of.
    """
    try:
        if key.type is not KeyType.ED25519 or key.name != receipt.origin:
            raise ValueError
        text = signed_text(receipt.origin, receipt.batch_start, receipt.batch_size, _root(receipt))
        Ed25519PublicKey.from_public_bytes(key.public).verify(receipt.signature, text)
    except (InvalidSignature, FailedPrecondition, ValueError):
        raise PermissionDenied(Reason.RECEIPT_INVALID, "the receipt is not signed by the log it names") from None


def _root(receipt: log_pb2.Receipt) -> bytes:
    """Compute the root of a receipt's batch; raises `ValueError` or `FailedPrecondition` where there is no such one."""
    start, size = receipt.batch_start, receipt.batch_size
    if not 0 < size <= MAX_BATCH or not 0 <= start <= receipt.index <= _MOST_INDEX:
        raise ValueError
    return merkle.path_root(receipt.leaf_hash, receipt.index - start, size, tuple(receipt.batch_path))


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it came, and the receipt that came with it."""

    answer: bytes
    """The answer's bytes without the receipt."""
    receipt: log_pb2.Receipt

    @property
    def digest(self) -> bytes:
        """What the log's entry must have as `answer_digest`."""
        return answer_digest(self.receipt.answer_salt, self.answer)


def split(raw: bytes, response: type[Message]) -> Answered:
    """Part the bytes of an answer from its receipt; raises `PermissionDenied` RECEIPT_INVALID where it has none.

    Raises `DecodeError` for what is no such answer at all.
    """
    message: Any = response.FromString(raw)
    number = number_of(message.DESCRIPTOR)
    if number and message.HasField(FIELD):
        receipt: log_pb2.Receipt = message.receipt
        tail = wire.embedded(number, receipt.SerializeToString())
        if raw.endswith(tail):
            return Answered(raw[: -len(tail)], receipt)
    raise PermissionDenied(Reason.RECEIPT_INVALID, "the answer does not end in a receipt")


@dataclass(frozen=True, slots=True)
class Included:
    """What was promised, and the tree that it was found in."""

    receipt: log_pb2.Receipt
    checkpoint: SignedCheckpoint


def verify_inclusion(
    receipt: log_pb2.Receipt, proof: log_service_pb2.GetInclusionProofResponse, key: VerifierKey
) -> Included:
    """Verify that the leaf of a receipt is in the tree of a checkpoint, which its log signed.

    `proof` is of that very tree. Raises `PermissionDenied` RECEIPT_INVALID, what `open_checkpoint` raises, or
    `FailedPrecondition` LOG_PROOF_INVALID.
    """
    verify(receipt, key)
    signed = open_checkpoint(proof.checkpoint, [key])
    head = signed.checkpoint
    if head.origin != receipt.origin or head.size != proof.tree_size:
        raise FailedPrecondition(Reason.LOG_PROOF_INVALID, "the proof is of another tree than the checkpoint")
    merkle.verify_inclusion(receipt.leaf_hash, receipt.index, head.size, tuple(proof.hashes), head.root)
    return Included(receipt, signed)


def verify_entry(receipt: log_pb2.Receipt, entry: bytes) -> log_pb2.LogEntry:
    """Read the entry that a receipt is of; raises `PermissionDenied` RECEIPT_INVALID where it is another's."""
    if merkle.leaf_hash(entry) != receipt.leaf_hash:
        raise PermissionDenied(Reason.RECEIPT_INVALID, "the receipt is of another entry")
    return log_pb2.LogEntry.FromString(entry)
