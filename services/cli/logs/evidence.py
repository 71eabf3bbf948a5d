"""Evidence against logs that have signed two histories: what a node keeps of it, for people and for files."""

import base64
import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from certs.files import PUBLIC, make_folder, write_atomically
from services.kit.log import notes
from services.kit.log.checkpoint import Checkpoint
from services.kit.log.merkle import HASH_SIZE
from services.kit.log.tables import EVIDENCE


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two checkpoints that one log has signed and that do not go together."""

    origin: str
    proven: bool
    """They convict the log by themselves, with the proof where there is one."""
    witnessed: str
    """The signed checkpoint that was co-signed before."""
    shown: str
    """The one that was shown then."""
    proof: bytes
    """The consistency proof that was shown with it."""
    caller: str
    time: dt.datetime

    def as_dict(self) -> dict[str, Any]:
        """Give it as machines get it."""
        witnessed, shown = _head(self.witnessed), _head(self.shown)
        return {
            "log": self.origin,
            "size": shown.size,
            "root": shown.root.hex(),
            "witnessed_size": witnessed.size,
            "witnessed_root": witnessed.root.hex(),
            "proven": self.proven,
            "witnessed": self.witnessed,
            "shown": self.shown,
            "shown_by": self.caller,
            "time": iso(self.time),
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """Give it as people get it."""
        yield "Log", self.origin
        yield "When", iso(self.time)
        for name, text in (("Witnessed", self.witnessed), ("Shown", self.shown)):
            yield name, f"{_head(text).size} entries, root {_head(text).root.hex()}"
        yield "Shown by", self.caller
        yield "Convicts by itself", "yes" if self.proven else "no"

    def files(self) -> Iterator[tuple[str, str]]:
        """Name the files that say it, with what is in them."""
        shown = _head(self.shown)
        name = f"{'.'.join(self.origin.split('/')[1:])}.{shown.size}.{shown.root.hex()[:8]}"
        yield f"{name}.witnessed.checkpoint", self.witnessed
        yield f"{name}.shown.checkpoint", self.shown
        if self.proof:
            hashes = (self.proof[at : at + HASH_SIZE] for at in range(0, len(self.proof), HASH_SIZE))
            yield f"{name}.proof", "".join(f"{base64.b64encode(one).decode()}\n" for one in hashes)


def read(connection: sa.Connection) -> list[Evidence]:
    """Read what a node keeps, log by log, the oldest first."""
    rows = connection.execute(sa.select(EVIDENCE).order_by(EVIDENCE.c.origin, EVIDENCE.c.time))
    return [
        Evidence(row.origin, row.proven, row.witnessed, row.shown, bytes(row.proof), row.caller, row.time)
        for row in rows
    ]


def write(found: Iterable[Evidence], folder: Path) -> list[Path]:
    """Write both checkpoints of each, as their log has signed them, and the proof; gives the files."""
    make_folder(folder)
    written: list[Path] = []
    for name, text in (file for each in found for file in each.files()):
        written.append(folder / name)
        write_atomically(folder / name, text.encode(), PUBLIC)
    return written


def iso(moment: dt.datetime) -> str:
    """Write a moment for people."""
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}Z"


def _head(text: str) -> Checkpoint:
    return Checkpoint.parse(notes.parse(text).text)
