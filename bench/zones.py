"""Zones for measuring: prepared as `hutong up` does, filled with the corpus."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from bench import corpus
from certs.files import write_atomically
from services.cli.department import Department
from services.cli.zone import Zone
from services.kit.config import Transport
from services.kit.records.catalogue import load
from services.kit.records.writer import Draft

CALLER = "quality/lab"
"""Who asks."""
SOURCE = "bench"
_AT_ONCE = 1000


async def made(
    folder: Path, subjects: int, transport: Transport | Literal[""] = "", types: Sequence[str] = corpus.TYPES
) -> Zone:
    """Make a zone whose departments know `subjects` enterprises, by one record of each type.

    Its nodes have `transport` where one is given.
    """
    zone = await asyncio.to_thread(Zone.prepare, folder)
    for node in zone.nodes if transport else ():
        configure(zone, node, "node", {"transport": transport})
    await _fill(zone, subjects, types)
    return zone


async def _fill(zone: Zone, subjects: int, types: Sequence[str]) -> None:
    for name in types:
        kind = load().get(name)
        async with Department.of(kind.owner, zone.folder).store() as store:
            drafts = (Draft(kind, message, SOURCE) for message in corpus.records(name, subjects))
            while some := list(islice(drafts, _AT_ONCE)):
                await store.append(some)


def configure(zone: Zone, node: str, table: str, values: Mapping[str, object]) -> None:
    """Set plain values in a table of a node's config."""
    path = zone.config_file(node)
    text = path.read_text(encoding="utf-8")
    lines = "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())
    for key in values:
        text = re.sub(rf"(?m)(\[{table}\]\n(?:(?!\[).*\n)*?){key} = .*\n", r"\1", text)
    header = f"[{table}]\n"
    text = text.replace(header, header + lines) if header in text else f"{text}\n{header}{lines}"
    write_atomically(path, text.encode())


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
