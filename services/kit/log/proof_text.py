"""Proofs as text that anybody can check offline, with other people's tools too (C2SP tlog-proof).

c2sp.org/tlog-proof@v1
extra BASE64            optional, not authenticated: here the receipt that was proven
index 73894
BASE64                  the inclusion proof, one hash a line, from the leaf up
…

the checkpoint, a signed note, with its cosignatures
"""

import base64
import re
from dataclasses import dataclass
from typing import Final, Self

from services.kit.errors import InvalidArgument, Reason
from services.kit.log.merkle import HASH_SIZE, MAX_PROOF, MAX_SIZE
from services.kit.log.notes import MAX_BYTES

FIRST: Final = "c2sp.org/tlog-proof@v1"
SUFFIX: Final = ".tlog-proof"
"""How files of proofs end."""

LIMIT: Final = 2 * MAX_BYTES
"""Most characters of a proof."""

_EXTRA: Final = "extra "
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ProofText:
    """A proof that a leaf is in the tree of a checkpoint; nothing of it is verified yet."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    """The signed note."""
    extra: bytes = b""

    def __str__(self) -> str:
        """Write it."""
        lines = [FIRST]
        if self.extra:
            lines.append(_EXTRA + _encode(self.extra))
        lines.append(f"index {self.index}")
        lines += map(_encode, self.hashes)
        return "".join(f"{line}\n" for line in (*lines, "")) + self.checkpoint

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one; raises `InvalidArgument` MALFORMED_REQUEST."""
        head, found, checkpoint = text.partition("\n\n")
        if len(text) > LIMIT or not found or not checkpoint:
            raise _malformed("a head, an empty line, a checkpoint")
        first, *lines = head.split("\n")
        extra = _decode(lines.pop(0).removeprefix(_EXTRA)) if lines and lines[0].startswith(_EXTRA) else b""
        index = _INDEX.fullmatch(lines.pop(0)) if lines else None
        if first != FIRST or index is None or int(index[1]) > MAX_SIZE:
            raise _malformed("its first lines")
        if len(lines) > MAX_PROOF:
            raise _malformed("too many hashes")
        hashes = tuple(map(_decode, lines))
        if any(len(each) != HASH_SIZE for each in hashes):
            raise _malformed("a hash has 32 bytes")
        return cls(int(index[1]), hashes, checkpoint, extra)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise _malformed("no base64") from None
    if not data or _encode(data) != text:
        raise _malformed("no base64")
    return data


def _malformed(what: str) -> InvalidArgument:
    return InvalidArgument(Reason.MALFORMED_REQUEST, f"not a proof of a log: {what}")
