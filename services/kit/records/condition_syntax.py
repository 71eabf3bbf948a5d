"""The text side of conditions: limits, tokens and the tree that sqlglot makes of them.

Nothing here trusts the text. Length, nesting and number of terms are counted on the tokens before the parser sees them,
and the language is SQL with every keyword taken away that conditions have no use for: a field may be called `limit`,
and there is no comment, no function and no statement to be had. What stays is checked node by node by
`services.kit.records.conditions`.
"""

from typing import ClassVar

import sqlglot
from sqlglot import exp, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

MAX_TEXT = 4096
"""A condition is at most this long, in bytes of UTF-8."""
MAX_DEPTH = 32
"""Parentheses and NOTs nest at most this deep."""
MAX_COMPARISONS = 64
"""At most this many comparisons; every value of an IN list counts."""


class _Language(Dialect):
    """SQL with every keyword taken away that the language has no use for, so that fields may have any name."""

    class Tokenizer(tokens.Tokenizer):
        QUOTES: ClassVar[list[str | tuple[str, str]]] = ["'", '"']
        IDENTIFIERS: ClassVar[list[str | tuple[str, str]]] = ["`"]
        COMMENTS: ClassVar[list[str | tuple[str, str]]] = []
        STRING_ESCAPES: ClassVar[list[str]] = ["'", '"']
        KEYWORDS: ClassVar[dict[str, TokenType]] = {
            "AND": TokenType.AND,
            "OR": TokenType.OR,
            "NOT": TokenType.NOT,
            "IN": TokenType.IN,
            "IS": TokenType.IS,
            "NULL": TokenType.NULL,
            "TRUE": TokenType.TRUE,
            "FALSE": TokenType.FALSE,
            "!=": TokenType.NEQ,
            "<>": TokenType.NEQ,
            "<=": TokenType.LTE,
            ">=": TokenType.GTE,
        }


_CONNECTIVES = frozenset({TokenType.AND, TokenType.OR, TokenType.COMMA})
_TOKENS = _CONNECTIVES | {
    TokenType.NOT,
    TokenType.IN,
    TokenType.IS,
    TokenType.NULL,
    TokenType.TRUE,
    TokenType.FALSE,
    TokenType.EQ,
    TokenType.NEQ,
    TokenType.LT,
    TokenType.LTE,
    TokenType.GT,
    TokenType.GTE,
    TokenType.L_PAREN,
    TokenType.R_PAREN,
    TokenType.COLON,
    TokenType.DOT,
    TokenType.DASH,
    TokenType.VAR,
    TokenType.STRING,
    TokenType.NUMBER,
}


def read(text: str) -> exp.Expr:
    """Parse a text into sqlglot's tree; raises `ValueError` saying what is wrong with it, in words for its author."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("it holds characters that are no text") from None
    if size > MAX_TEXT:
        raise ValueError(f"it is {size} bytes long; the limit is {MAX_TEXT}")
    if any(c < " " and c not in "\t\n\r" for c in text):
        raise ValueError("it holds control characters")
    if not text.strip():
        raise ValueError("it is empty")
    try:
        _limit(text)
        return sqlglot.parse_one(text, dialect=_Language)
    except (SqlglotError, RecursionError):
        raise ValueError("it cannot be read; check quotes, parentheses and operators") from None


def _limit(text: str) -> None:
    # Before parsing, so that no text makes the parser recurse deep or the tree grow large.
    depth = deepest = nots = joints = 0
    for token in _Language().tokenize(text):
        kind = token.token_type
        if kind not in _TOKENS:
            raise ValueError(f"it cannot use {token.text[:40]!r}")
        depth += (kind is TokenType.L_PAREN) - (kind is TokenType.R_PAREN)
        nots += kind is TokenType.NOT
        joints += kind in _CONNECTIVES
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH or nots > MAX_COMPARISONS:
        raise ValueError(f"it nests deeper than {MAX_DEPTH}")
    if joints >= MAX_COMPARISONS:
        raise ValueError(f"it has more than {MAX_COMPARISONS} comparisons")
