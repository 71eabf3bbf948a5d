"""What every step of the story works with: the zone, the mesh, whom it is about, and how to ask."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli import answer, question
from services.cli.demo.narrator import Narrator
from services.cli.fleet import Fleet
from services.cli.query import SERVICE
from services.cli.rooms import GATEWAY
from services.cli.sample import Subject
from services.cli.zone import Zone
from services.kit.client import Client
from services.kit.errors import HutongError
from services.kit.records import catalogue

Sections = Mapping[str, exchange_pb2.Section]
"""Sections of an answer, by record type."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, why, and on which basis."""

    caller: str
    purpose: str
    basis: str

    def __str__(self) -> str:
        return f"{self.caller} for {self.purpose}"


_WITHIN = 20.0
"""Seconds in which a change must count, on the slowest machine; half a second is usual."""

REFUND = Asker("taxation/refund", "P-REBATE", "CN-VAT-REBATE")
REGISTER = Asker("taxation/refund", "P-PUBLIC-REG", "CN-PUBLIC-REGISTER")
CREDIT = Asker("customs/release", "P-AEO", "CN-CUSTOMS-CREDIT")
RISK = Asker("customs/release", "P-RISK", "CN-CUSTOMS-RISK")


@dataclass(slots=True)
class Stage:
    """The mesh the story is told on."""

    narrator: Narrator
    zone: Zone
    fleet: Fleet
    data: Path | None
    """Folder of real sources, where they are used."""
    exporter: Subject
    clients: dict[str, Client] = field(default_factory=dict[str, Client])

    def client(self, caller: str, node: str = GATEWAY) -> Client:
        """Connect a system to a node, once."""
        name = caller if node == GATEWAY else f"{caller}>{node}"
        if name not in self.clients:
            self.clients[name] = self.fleet.client(caller, node)
        return self.clients[name]

    async def ask(
        self, asker: Asker, selects: Sequence[str], *, subject: str = "", deadline: float = 5, page_size: int = 0
    ) -> Sections:
        """Ask the gateway; raises the `HutongError` it answered with."""
        client = self.client(asker.caller)
        made = question.request(
            [asker.purpose], asker.basis, subject or self.exporter.text, selects, page_size=page_size
        )
        response = await client.unary(f"{SERVICE}/Query", made, federation_pb2.QueryResponse, timeout=deadline)
        return {section.record_type: section for section in response.sections}

    async def refusal(self, asker: Asker, selects: Sequence[str]) -> str:
        """Ask what must be refused as a whole; gives the reason, empty where it was answered."""
        try:
            await self.ask(asker, selects)
        except HutongError as error:
            return error.reason
        return ""

    def forget(self, caller: str) -> None:
        """Connect anew for the next question of a caller."""
        self.clients.pop(caller, None)


async def until(holds: Callable[[], Awaitable[bool]]) -> float | None:
    """Look until something holds; gives the seconds it took, or None where it never did.

    Looking is asking: every look is a question over the wire and takes its time, so nothing spins.
    """
    started = time.monotonic()
    try:
        async with asyncio.timeout(_WITHIN):
            while not await holds():
                pass
    except TimeoutError:
        return None
    return time.monotonic() - started


def given(section: exchange_pb2.Section) -> set[str]:
    """List the fields a section gives, in clear or transformed."""
    return {d.field for d in section.decisions if d.verdict != exchange_pb2.VERDICT_REFUSED}


def transforms(section: exchange_pb2.Section) -> dict[str, str]:
    """List the fields a section gives transformed, and how."""
    return {d.field: d.transform for d in section.decisions if d.verdict == exchange_pb2.VERDICT_TRANSFORMED}


def refused(section: exchange_pb2.Section) -> dict[str, str]:
    """List the fields a section refuses, with the reasons."""
    return {d.field: d.reason for d in section.decisions if d.verdict == exchange_pb2.VERDICT_REFUSED}


def values(section: exchange_pb2.Section, path: str) -> list[str]:
    """List the values of a field in a section's records."""
    kind = catalogue.load().get(section.record_type)
    found: list[str] = []
    for record in section.records:
        message = kind.message()
        record.Unpack(message)
        found.extend(text for text in answer.values_at(message, path) if text)
    return found


def shown(section: exchange_pb2.Section, path: str) -> str:
    """Write what a caller sees of a field: the first value, or why there is none."""
    reason = refused(section).get(path)
    if reason:
        return f"– {reason}"
    found = values(section, path)
    transform = transforms(section).get(path)
    text = found[0] if found else "(empty)"
    return f"{text}  ~{transform}" if transform else text


def status(section: exchange_pb2.Section) -> str:
    """Write how a section came out."""
    return answer.status_name(section)
