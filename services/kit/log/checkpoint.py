"""What a log signs: how large its tree is, and the root (C2SP tlog-checkpoint)."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from services.kit.errors import InvalidArgument, PermissionDenied, Reason
from services.kit.log import notes
from services.kit.log.merkle import EMPTY_ROOT, HASH_SIZE, MAX_SIZE
from services.kit.log.notes import KeyType, Note, Signer, Verified, VerifierKey

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_LINES: Final = 3


def origin_of(zone: str, agency: str, system: str) -> str:
    """Name the log of a node."""
    return f"{zone}/{agency}/{system}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log at one size."""

    origin: str
    """Which log."""
    size: int
    """Leaves of its tree."""
    root: bytes
    """Root of its tree (RFC 6962 §2.1)."""
    extensions: tuple[str, ...] = ()
    """Further lines, without meaning here; our own logs write none."""

    @property
    def text(self) -> str:
        """The text that is signed."""
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), root, *self.extensions))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a note; raises `InvalidArgument` MALFORMED_REQUEST."""
        lines = text.removesuffix("\n").split("\n")
        if not text.endswith("\n") or len(lines) < _LINES or not all(lines):
            raise _malformed("three lines or more, none empty")
        origin, size, root, *extensions = lines
        if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
            raise _malformed("its size is no decimal number")
        made = cls(origin, int(size), _root(root), tuple(extensions))
        if made.size == 0 and made.root != EMPTY_ROOT:
            raise _malformed("the empty tree has another root")
        return made

    def sign(self, signer: Signer) -> Note:
        """Sign it, as the log."""
        text = self.text
        return Note(text, (signer.sign(text),))


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint that its log has signed."""

    checkpoint: Checkpoint
    note: Note
    """As it came, with signatures that mean nothing here."""
    verified: tuple[Verified, ...]
    """The signatures of known keys: the log's, and cosignatures."""


def open_checkpoint(text: str, log: Iterable[VerifierKey], witnesses: Iterable[VerifierKey] = ()) -> SignedCheckpoint:
    """Read a signed checkpoint and verify that its log signed it: a key of `log` whose name is the origin.

    Signatures of keys in `witnesses` are verified too; how many are enough is the caller's to say. Raises
    `InvalidArgument` MALFORMED_REQUEST, `PermissionDenied` LOG_KEY_UNKNOWN or LOG_TAMPERED.
    """
    note = notes.parse(text)
    checkpoint = Checkpoint.parse(note.text)
    own = {key for key in log if key.name == checkpoint.origin and key.type is KeyType.ED25519}
    verified = notes.verify(note, (*own, *witnesses))
    if not any(one.key in own for one in verified):
        raise PermissionDenied(Reason.LOG_KEY_UNKNOWN, "the checkpoint is not signed by its log")
    return SignedCheckpoint(checkpoint, note, verified)


def _root(text: str) -> bytes:
    try:
        root = base64.b64decode(text, validate=True)
    except ValueError:
        raise _malformed("its root is no base64") from None
    # Base64 has several ways to write the last bits; only one of them is taken.
    if len(root) != HASH_SIZE or base64.b64encode(root).decode() != text:
        raise _malformed("its root is no hash")
    return root


def _malformed(what: str) -> InvalidArgument:
    return InvalidArgument(Reason.MALFORMED_REQUEST, f"not a checkpoint: {what}")
