"""A log of a million entries: verified whole, beside bare hashing of the same bytes, and proofs made from it."""

import random
import secrets
import statistics
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import sqlalchemy as sa

from hutong.api.log.v1 import log_pb2
from services.kit.clock import system_clock
from services.kit.log import keys, merkle, reading, verifying
from services.kit.log.checkpoint import origin_of
from services.kit.log.nodelog import MIGRATIONS
from services.kit.log.notes import Signer
from services.kit.log.openings import Draft, seal
from services.kit.log.writer import Writer
from services.kit.records import migrations
from services.kit.records.database import engine

BATCH = 4096
PROOFS = 200


@dataclass(frozen=True)
class Proofs:
    """What a log of one size costs to whoever checks it."""

    entries: int
    append_us: float
    """Per entry, in batches."""
    verify_s: float
    bare_s: float
    """Reading the same entries and hashing each, and nothing else."""
    inclusion_ms: float
    inclusion_worst_ms: float
    consistency_ms: float
    check_ms: float
    """Checking an inclusion proof."""

    @property
    def ratio(self) -> float:
        """Time over the yardstick's."""
        return self.verify_s / self.bare_s


def measure(folder: Path, entries: int) -> Proofs:
    """Make a log of `entries` in `folder`, verify it, prove from it."""
    signer = keys.create(folder / "log.key", folder / "keys", origin_of("zone.example", "customs", "node"))
    url = f"sqlite:///{folder / 'log.db'}"
    migrations.upgrade(url, MIGRATIONS)
    writer = Writer(url, signer, system_clock)
    started = time.perf_counter()
    for start in range(0, entries, BATCH):
        writer.write([seal(_draft()) for _ in range(min(BATCH, entries - start))])
    append = time.perf_counter() - started
    writer.close()
    reader = engine(url, writer=False)
    with reader.connect() as connection:
        started = time.perf_counter()
        whole = verifying.verify_all(connection, signer.verifier)
        verify = time.perf_counter() - started
        bare = _bare(connection, entries)
        proving, checking = _inclusion(connection, signer, whole)
        consistency = _consistency(connection, signer, entries)
    reader.dispose()
    return Proofs(
        entries,
        append / entries * 1e6,
        verify,
        bare,
        statistics.median(proving) * 1e3,
        max(proving) * 1e3,
        consistency * 1e3,
        statistics.median(checking) * 1e3,
    )


def _draft() -> Draft:
    """An entry of the size that a federated answer of five agencies has."""
    entry = log_pb2.LogEntry(
        rpc="/hutong.api.exchange.v1.FederationService/Query",
        caller="spiffe://zone.example/taxation/refund",
        purpose="P-REBATE",
        legal_basis="CN-VAT-REBATE",
        outcome=log_pb2.OUTCOME_ANSWERED,
        answer_digest=secrets.token_bytes(32),
        query_id=secrets.token_hex(16),
    )
    for name in ("commerce.Enterprise", "taxation.TaxpayerStatus", "customs.Operator"):
        entry.disclosures.add(record_type=name, mask_digest=bytes(32), rows=1)
    return Draft(entry, (("cn.uscc", secrets.token_hex(9).upper()),), "CASE-1")


def _bare(connection: sa.Connection, entries: int) -> float:
    started = time.perf_counter()
    for start in range(0, entries, BATCH):
        for one in reading.entries(connection, start, min(BATCH, entries - start)):
            sha256(b"\0" + one.data).digest()
    return time.perf_counter() - started


def _inclusion(connection: sa.Connection, signer: Signer, whole: verifying.Whole) -> tuple[list[float], list[float]]:
    proving: list[float] = []
    checking: list[float] = []
    dice = random.Random(7)
    for index in (dice.randrange(whole.size) for _ in range(PROOFS)):
        leaf = merkle.leaf_hash(reading.entry(connection, index).data)
        started = time.perf_counter()
        proof = reading.inclusion(connection, signer, index)
        made = time.perf_counter()
        merkle.verify_inclusion(leaf, index, whole.size, proof.hashes, whole.root)
        checking.append(time.perf_counter() - made)
        proving.append(made - started)
    return proving, checking


def _consistency(connection: sa.Connection, signer: Signer, entries: int) -> float:
    dice = random.Random(11)
    times: list[float] = []
    for old in (dice.randrange(1, entries) for _ in range(PROOFS)):
        started = time.perf_counter()
        reading.consistency(connection, signer, old)
        times.append(time.perf_counter() - started)
    return statistics.median(times)
