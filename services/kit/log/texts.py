"""Texts that entries name by digest: archived once, in the transaction of the first entry that needs them, or before.

A mask's text becomes a leaf of the log besides: the tiles alone tell what was decided.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import sqlalchemy as sa
from google.protobuf.message import DecodeError

from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.errors import InvalidArgument, Reason, ResourceExhausted, Unavailable
from services.kit.log.tables import TEXT
from services.kit.log.tiles import MAX_ENTRY
from services.kit.records.tables import TEXT_LIMIT

Kind = Literal["mask", "policy", "scope", "jurisdiction"]
"""What a text is: a `MaskText`, the policies of a version, a `Scope`, a jurisdiction pack."""

MAX_TEXT: Final = 8 * 1024 * 1024
"""Most bytes of a text."""

_MAX_WAITING: Final = 1024
"""Most texts that wait to be written; more only come where none can be written for long."""
_REMEMBERED: Final = 65_536
"""Most names remembered as archived; of others the database is asked again."""
_LOOKUP: Final = 500
"""Names in one statement, well below the parameters it may have."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text for the archive."""

    kind: Kind
    name: str
    text: bytes

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by."""
        return self.kind, self.name

    def leaf(self) -> log_pb2.LogEntry | None:
        """Make the entry that it becomes, where it becomes one."""
        if self.kind != "mask":
            return None
        return log_pb2.LogEntry(mask=log_pb2.MaskText.FromString(self.text))


class Waiting:
    """Texts on their way into the archive. Usable from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], Text] = {}
        self._archived: dict[tuple[str, str], None] = {}

    def put(self, text: Text) -> None:
        """Have a text archived before whatever is appended from now on; one that is archived already costs nothing.

        Raises `InvalidArgument` or `ResourceExhausted` for what cannot be kept, `Unavailable` LOG_UNAVAILABLE where too
        much waits already.
        """
        with self._lock:
            if text.key in self._archived or text.key in self._waiting:
                return
            _check(text)
            if len(self._waiting) >= _MAX_WAITING:
                raise Unavailable(Reason.LOG_UNAVAILABLE, "the log cannot be written now")
            self._waiting[text.key] = text

    def snapshot(self) -> tuple[Text, ...]:
        """List what waits now, in the order it came."""
        with self._lock:
            return tuple(self._waiting.values())

    def written(self, texts: Iterable[Text]) -> None:
        """Note that these are archived now."""
        with self._lock:
            for text in texts:
                self._waiting.pop(text.key, None)
                self._archived[text.key] = None
            while len(self._archived) > _REMEMBERED:
                del self._archived[next(iter(self._archived))]


def _check(text: Text) -> None:
    if not 0 < len(text.name.encode()) <= TEXT_LIMIT or "\0" in text.name:
        raise InvalidArgument(Reason.NAME_INVALID, "a text of the log has no such name")
    if len(text.text) > MAX_TEXT:
        raise ResourceExhausted(Reason.ANSWER_TOO_LARGE, f"a text of the log has at most {MAX_TEXT} bytes")
    try:
        leaf = text.leaf()
    except DecodeError:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "the text of a mask is a MaskText") from None
    if leaf is not None and leaf.ByteSize() > MAX_ENTRY:
        raise ResourceExhausted(Reason.ANSWER_TOO_LARGE, f"an entry of the log has at most {MAX_ENTRY} bytes")


def missing(connection: sa.Connection, texts: Sequence[Text]) -> list[Text]:
    """Leave out what is archived already, by this node or a replica of it."""
    there: set[tuple[str, str]] = set()
    for start in range(0, len(texts), _LOOKUP):
        names = [text.name for text in texts[start : start + _LOOKUP]]
        select = sa.select(TEXT.c.kind, TEXT.c.name).where(TEXT.c.name.in_(names))
        there |= {(kind, name) for kind, name in connection.execute(select)}
    return [text for text in texts if text.key not in there]


def archive(connection: sa.Connection, texts: Sequence[Text]) -> None:
    """Write texts that are missing."""
    if texts:
        rows = [{"kind": text.kind, "name": text.name, "text": text.text} for text in texts]
        connection.execute(sa.insert(TEXT), rows)


def find(connection: sa.Connection, names: Iterable[str]) -> list[log_service_pb2.ArchivedText]:
    """Get the texts of these names, in the order of kind and name; what is not there is left out."""
    wanted = sorted(set(names))
    found: list[log_service_pb2.ArchivedText] = []
    for start in range(0, len(wanted), _LOOKUP):
        select = sa.select(TEXT).where(TEXT.c.name.in_(wanted[start : start + _LOOKUP]))
        found += [log_service_pb2.ArchivedText(**row) for row in connection.execute(select).mappings()]
    return sorted(found, key=lambda text: (text.kind, text.name))
