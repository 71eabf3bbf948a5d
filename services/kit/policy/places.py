"""Where in a policy file a mistake stands: Cedar says what is wrong, and through its bindings for Python not where.

A mistake of a policy is looked for by what its message names; where nothing of that stands in the policy, its place is
the policy's beginning. A text that is not Cedar at all is cut shorter until what is wrong is gone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cedarpy

_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|\w+|::|==|!=|<=|>=|&&|\|\||[^\w\s]', re.DOTALL)
_NAMED: Final = (re.compile(r"""(@\w+)|`([^`]+)`|'([^']+)'|"([^"]+)\""""), re.compile(r"\b(\w+(?:\.\w+)+)\b"))
"""What a message names: what it quotes, before names with dots."""
_GOES_ON: Final = "unexpected end of input"
"""What Cedar says of a beginning in which nothing is wrong yet."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line and a column of a text, both from 1 on; 0 where that is not known."""

    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join(str(number) for number in (self.line, self.column) if number)


class Text:
    """The text of a policy file, cut into its policies."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._policies = [*_policies(text)]

    def policy(self, number: int, message: str) -> Place:
        """Find what a message says of a policy; `number` counts from 0, in the order of the file."""
        if number >= len(self._policies):
            return Place()
        start, end = self._policies[number][0].start(), self._policies[number][-1].end()
        for named in (found[found.lastindex or 0] for form in _NAMED for found in form.finditer(message)):
            if there := re.compile(rf"(?<!\w){re.escape(named)}(?!\w)").search(self._text, start, end):
                return self._place(there.start())
        return self._place(start)

    def syntax(self) -> Place:
        """Find the first word that makes the text no Cedar; its end where something is missing there."""
        for number, tokens in enumerate(self._policies):
            if wrong := _wrong(self._text[tokens[0].start() : tokens[-1].end()]):
                # A mark of a text that was forgotten ends it at the next one, lines further on.
                open_text = next((t for t in tokens if t[0].startswith('"') and "\n" in t[0]), None)
                if open_text:
                    return self._place(open_text.start())
                first = self._first_wrong(tokens)
                if first == len(tokens) - 1 and tokens[first][0] not in wrong:
                    return self.policy(number, wrong)  # each word is in its place, and it is wrong as a whole
                return self._place(tokens[first].start() if first < len(tokens) else tokens[-1].end())
        return Place()

    def _first_wrong(self, tokens: list[re.Match[str]]) -> int:
        """Halve: a beginning that ends before the wrong word goes on, and every longer one is wrong."""
        start, right, wrong = tokens[0].start(), 0, len(tokens)
        while right < wrong:
            middle = (right + wrong) // 2
            if _wrong(self._text[start : tokens[middle].end()]) in {"", _GOES_ON}:
                right = middle + 1
            else:
                wrong = middle
        return right

    def _place(self, at: int) -> Place:
        return Place(self._text.count("\n", 0, at) + 1, at - self._text.rfind("\n", 0, at))


def _policies(text: str) -> Iterator[list[re.Match[str]]]:
    """Cut a text at the marks that end policies; comments are no part of any."""
    tokens: list[re.Match[str]] = []
    for token in _TOKEN.finditer(text):
        if not token[0].startswith("//"):
            tokens.append(token)
            if token[0] == ";":
                yield tokens
                tokens = []
    if tokens:
        yield tokens


def _wrong(text: str) -> str:
    """Say what is wrong with a text, empty where nothing is."""
    try:
        cedarpy.policies_to_json_str(text)
    except ValueError as wrong:
        return str(wrong)
    return ""
