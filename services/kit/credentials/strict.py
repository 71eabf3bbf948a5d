"""Base64url and JSON without leniency: one value has one text, and what other readers might read differently fails.

Everything here raises `ValueError`, with words that quote nothing of what was read.
"""

import base64
import json
import math
from typing import Any, Final, NoReturn, TypeGuard

DEPTH: Final = 32
"""Deepest nesting of arrays and objects."""

_ALPHABET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def encode(data: bytes) -> str:
    """Write base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Read base64url without padding; raises `ValueError` unless `encode` would write the very same text."""
    raw = text.encode("ascii")
    if len(raw) % 4 == 1 or not _ALPHABET.issuperset(raw):
        raise ValueError("not base64url")
    data = base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    # The last character may hold bits that nobody reads: a text altered there must not pass for the same.
    if encode(data) != text:
        raise ValueError("not canonical base64url")
    return data


def dumps(value: Any) -> bytes:
    """Write JSON, compact, in UTF-8; raises `ValueError` for what is no JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def loads(data: bytes, depth: int = DEPTH) -> Any:
    """Read JSON in UTF-8; raises `ValueError` for duplicate names, numbers without end, lone surrogates, depth."""
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    _check(value, depth)
    return value


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Tell whether a value that was read is an object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[Any]]:
    """Tell whether a value that was read is an array."""
    return isinstance(value, list)


def _check(value: Any, depth: int) -> None:
    layer = [value]
    for _ in range(depth + 1):
        below: list[Any] = []
        for one in layer:
            if is_object(one):
                below.extend(one)
                below.extend(one.values())
            elif is_array(one):
                below.extend(one)
            elif isinstance(one, str):
                one.encode()
        if not below:
            return
        layer = below
    raise ValueError("nested too deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number without end")
    return number


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not a number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
