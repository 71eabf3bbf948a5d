"""Proof that nothing was lost: every answer has a receipt, every receipt an entry, every log is whole."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from hutong.api.exchange.v1 import federation_pb2
from hutong.api.log.v1 import log_pb2
from services.cli.logs.where import Local
from services.cli.rooms import GATEWAY
from services.cli.zone import Zone
from services.kit.errors import HutongError
from services.kit.log import keys, reading, receipts, verifying
from services.kit.log.notes import VerifierKey
from services.kit.log.writer import read_head
from services.kit.records import database
from tests.chaos.asking import Outcome


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved, and what could not be."""

    answers: int
    """Answers that have their entry in the gateway's log."""
    sections: int
    """Sections with records that have an entry in their department's log."""
    logs: int
    """Logs that are whole."""
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """The log of a node, to be read beside the node."""

    url: str
    key: VerifierKey

    @contextmanager
    def reading(self) -> Generator[sa.Connection]:
        """Read it."""
        engine = database.engine(self.url, writer=False)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def kept(zone: Zone) -> dict[str, Kept]:
    """Find the logs of a zone, by node."""
    local = {name: Local.of(zone.config_file(name)) for name in zone.nodes}
    return {name: Kept(each.url, keys.find(zone.keys, each.origin)) for name, each in local.items()}


def prove(logs: Mapping[str, Kept], outcomes: Iterable[Outcome]) -> Proof:
    """Look up every answer in the log that promised it, and every section in its department's; verify every log."""
    problems = [problem for name, log in logs.items() if (problem := _verified(name, log))]
    answered = {name: _answered(log) for name, log in logs.items()}
    answers = sections = 0
    with logs[GATEWAY].reading() as gateway:
        for outcome in outcomes:
            if not outcome.raw:
                continue
            answer = federation_pb2.QueryResponse.FromString(outcome.raw)
            try:
                _look_up(gateway, logs[GATEWAY].key, outcome.raw, answer.query_id)
            except HutongError as error:
                problems.append(f"an answer is not in the log: {error.reason} {error.message}")
            answers += 1
            for section in answer.sections:
                if section.records:
                    sections += 1
                    if answer.query_id not in answered[section.agency]:
                        problems.append(f"{section.agency} gave records and its log does not say so")
    return Proof(answers, sections, len(logs), tuple(problems))


def _verified(node: str, log: Kept) -> str:
    """Verify a whole log; says what is wrong."""
    with log.reading() as connection:
        if not read_head(connection).size:
            return ""
        try:
            verifying.verify_all(connection, log.key)
        except HutongError as error:
            return f"the log of {node} is not whole: {error.reason} {error.message}"
    return ""


def _answered(log: Kept) -> set[str]:
    """List the queries that a log says its node answered."""
    found: set[str] = set()
    with log.reading() as connection:
        start = 0
        while page := reading.entries(connection, start, 4096):
            start += len(page)
            for one in page:
                entry = log_pb2.LogEntry.FromString(one.data)
                if entry.outcome == log_pb2.OUTCOME_ANSWERED:
                    found.add(entry.query_id)
    return found


def _look_up(gateway: sa.Connection, key: VerifierKey, raw: bytes, query_id: str) -> None:
    """Find an answer's entry; raises `HutongError` where it has none, or one of another answer."""
    came = receipts.split(raw, federation_pb2.QueryResponse)
    receipts.verify(came.receipt, key)
    entry = receipts.verify_entry(came.receipt, reading.entry(gateway, came.receipt.index).data)
    if (entry.answer_digest, entry.query_id, entry.outcome) != (came.digest, query_id, log_pb2.OUTCOME_ANSWERED):
        raise AssertionError(f"entry {came.receipt.index} is of another answer")
