"""On which line of a TOML file something stands: `tomllib` reads values and forgets where they were."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Final, cast

Keys = tuple[int | str, ...]
"""What leads to a value: names of keys, and positions in arrays."""

_POSITION: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")


def line_of(text: str, keys: Sequence[int | str]) -> int:
    """Say on which line something begins, or what it would stand in; 0 where nothing of it is there.

    `text` is TOML that can be read.
    """
    found = _lines(text)
    wanted = tuple(keys)
    return next((found[wanted[:end]] for end in range(len(wanted), 0, -1) if wanted[:end] in found), 0)


def located(error: tomllib.TOMLDecodeError) -> tuple[str, str]:
    """Take a reader's error apart: `LINE:COLUMN`, empty where it is at the end of the text, and what is wrong."""
    message = str(error)
    found = _POSITION.search(message)
    return (f"{found[1]}:{found[2]}", message[: found.start()]) if found else ("", message)


def _lines(text: str) -> dict[Keys, int]:
    """Read ever longer beginnings of the text: what is new in one that can be read stands in its last lines.

    One that cannot be read ends inside a value of several lines.
    """
    found: dict[Keys, int] = {}
    lines, begin = text.split("\n"), 1
    for end in range(1, len(lines) + 1):
        try:
            read = tomllib.loads("\n".join(lines[:end]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
        for keys in _keys(read, ()):
            found.setdefault(keys, begin)
        begin = end + 1
    return found


def _keys(value: object, before: Keys) -> Iterator[Keys]:
    if isinstance(value, list):
        value = dict(enumerate(cast("list[object]", value)))
    if isinstance(value, dict):
        for key, below in cast("dict[int | str, object]", value).items():
            yield (*before, key)
            yield from _keys(below, (*before, key))
