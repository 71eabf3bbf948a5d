"""Limits on the text of policies, checked before Cedar sees it.

Cedar's parser works by recursion, and a text that nests some thousand levels deep ends the whole process, not just the
load. A file that is reloaded while a node runs must not be able to do that, so depth is counted on plain tokens first.
"""

import re

MAX_DEPTH = 64
"""Brackets nest, members chain and `if` repeats at most this often in one policy."""
MAX_TERMS = 512
"""At most this many terms are joined by operators in one policy."""

_TOKEN = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|\w+|[^\w\s]', re.DOTALL)
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")
_BREAKS = frozenset("&|=<>!+-*,;")
_JOINTS = frozenset("&|+-*!")


class TooDeep(ValueError):
    """A policy nests too deep; `line` is where."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} nests deeper than {MAX_DEPTH} levels, or joins more than {MAX_TERMS} terms")
        self.line = line


def check(text: str) -> None:
    """Raise `TooDeep` where a policy in the text nests too deep."""
    depth = chain = branches = joints = 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        depth += (token in _OPEN) - (token in _CLOSE)
        branches += token == "if"  # noqa: S105 - a keyword
        joints += token in _JOINTS
        chain = 0 if token in _BREAKS else chain + (token == ".")  # noqa: S105 - a mark
        if max(depth, chain, branches) > MAX_DEPTH or joints > 2 * MAX_TERMS:
            raise TooDeep(text.count("\n", 0, found.start()) + 1)
        if token == ";":  # noqa: S105 - a mark
            branches = joints = 0
