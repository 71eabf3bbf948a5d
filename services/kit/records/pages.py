"""Page tokens and resume tokens: opaque, and good for nothing but the question they were given out for.

AIP-158 asks for opaque tokens. These are sealed with AES-SIV: nobody can read them (they hold a record's key, which
the caller may not be allowed to see) or change them, equal content gives equal tokens, and there is no nonce that a
node could use twice after a restart. A token is bound to its question by a digest inside: so a token from another
question can be told from one that was tampered with.
"""

import base64
import binascii
import datetime as dt
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.kit.errors import InvalidArgument, Reason

DEFAULT_SIZE = 20
"""Records on a page where the caller does not say."""

MAX_SIZE = 200
"""Most records on a page; who asks for more gets this many (AIP-158)."""

MAX_TOKEN = 4096
"""Longest token that is looked at; longer ones are none of ours."""

_EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended."""

    key: str
    as_of: dt.datetime | None
    """The moment the first page froze."""


class _Sealed:
    """Seals small values to what they belong to."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        key = HKDF(hashes.SHA256(), 64, None, f"hutong {purpose} 1".encode()).derive(secret)
        self._cipher = AESSIV(key)
        self._purpose = purpose.encode()

    def seal(self, content: list[Any], binding: tuple[str, ...]) -> str:
        plain = _digest(binding) + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._cipher.encrypt(plain, [self._purpose])).rstrip(b"=").decode()

    def open(self, token: str, binding: tuple[str, ...]) -> tuple[list[Any], bool]:
        """Open a token; gives what is in it and whether it belongs to `binding`; raises `ValueError`."""
        if len(token) > MAX_TOKEN:
            raise ValueError("too long")
        try:
            sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            plain = self._cipher.decrypt(sealed, [self._purpose])
        except (binascii.Error, InvalidTag, ValueError):
            raise ValueError("not one of ours") from None
        if base64.urlsafe_b64encode(sealed).rstrip(b"=").decode() != token:
            raise ValueError("not written as ours are")  # spare bits of the last character
        content: list[Any] = json.loads(plain[_DIGEST:])
        return content, plain[:_DIGEST] == _digest(binding)


_DIGEST = 16


def _digest(binding: tuple[str, ...]) -> bytes:
    return hashlib.sha256(json.dumps(binding).encode()).digest()[:_DIGEST]


class PageTokens:
    """Tokens of one node, or of several that share its secret."""

    def __init__(self, secret: bytes) -> None:
        self._sealed = _Sealed(secret, "page token")

    def size(self, asked: int) -> int:
        """Decide how many records a page has; raises `InvalidArgument` for a negative number."""
        if asked < 0:
            raise InvalidArgument(Reason.PAGE_SIZE_INVALID, "page_size is negative")
        return min(asked or DEFAULT_SIZE, MAX_SIZE)

    def seal(self, key: str, as_of: dt.datetime | None, binding: tuple[str, ...]) -> str:
        """Make the token for the page after `key`; `binding` is all that the next request must repeat."""
        return self._sealed.seal([key, None if as_of is None else (as_of - _EPOCH) // _MICROSECOND], binding)

    def open(self, token: str, binding: tuple[str, ...]) -> Cursor:
        """Read a token.

        Raises `InvalidArgument`: PAGE_TOKEN_INVALID for what this node never gave out, PAGE_TOKEN_MISMATCH for a token
        of another question.
        """
        try:
            (key, moment), ours = self._sealed.open(token, binding)
        except ValueError:
            raise InvalidArgument(Reason.PAGE_TOKEN_INVALID, "this is no page token of this node") from None
        if not ours:
            raise InvalidArgument(
                Reason.PAGE_TOKEN_MISMATCH,
                "the page token belongs to another question; repeat everything but page_size",
            )
        return Cursor(key, None if moment is None else _EPOCH + moment * _MICROSECOND)


class ResumeTokens:
    """Tokens to go on watching from."""

    def __init__(self, secret: bytes) -> None:
        self._sealed = _Sealed(secret, "resume token")

    def seal(self, seq: int, binding: tuple[str, ...]) -> str:
        """Make the token for the changes after `seq`."""
        return self._sealed.seal([seq], binding)

    def open(self, token: str, binding: tuple[str, ...]) -> int:
        """Read a token; raises `InvalidArgument` with RESUME_TOKEN_INVALID unless it was given out for `binding`."""
        try:
            (seq,), ours = self._sealed.open(token, binding)
        except ValueError:
            ours, seq = False, 0
        if not ours:
            raise InvalidArgument(Reason.RESUME_TOKEN_INVALID, "this is no resume token for this question")
        return int(seq)
