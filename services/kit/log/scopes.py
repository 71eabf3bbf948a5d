"""Scopes in a log's archive: of all that a log keeps beside openings, only they name whom something is about.

A scope that is erased leaves its name, a digest that its nonce keeps from being guessed, and no text: so it is not
archived again by a node that still uses the authorization, and an auditor is told why it is not there.
"""

import re

import sqlalchemy as sa
from google.protobuf.message import DecodeError

from hutong.api.authorization.v1 import authorization_pb2
from services.kit.log.tables import TEXT

_BATCH = 100
_THERE = sa.select(TEXT.c.name, TEXT.c.text).where(TEXT.c.kind == "scope", sa.func.length(TEXT.c.text) > 0)


def erase(connection: sa.Connection, scheme: str, value: str) -> int:
    """Empty every archived scope that names a subject; gives how many there were."""
    rows = connection.execute(_THERE.execution_options(yield_per=_BATCH))
    found = [name for name, text in rows if _names(bytes(text), scheme, value)]
    for name in found:
        one = (TEXT.c.kind == "scope") & (TEXT.c.name == name)
        connection.execute(sa.update(TEXT).where(one).values(text=b""))
    return len(found)


def _names(text: bytes, scheme: str, value: str) -> bool:
    """Tell whether a scope names somebody: among its subjects, or in what it says in words."""
    try:
        scope = authorization_pb2.Scope.FromString(text)
    except DecodeError:
        # Whatever it is, it is not to name anybody either.
        return value.encode() in text
    if any((subject.scheme, subject.value) == (scheme, value) for subject in scope.subjects):
        return True
    word = re.compile(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", re.IGNORECASE)
    return any(word.search(said) for said in (scope.case_ref, *(part.condition for part in scope.types)))
