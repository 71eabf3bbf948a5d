"""Whoever would find out what was erased, with all that is left: every entry, every record, and any time it takes."""

import hashlib

import pytest

from hutong.api.customs.v1 import service_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.host import Host
from services.kit.log import receipts
from tests.attacks.asking import CUSTOMS, REBATE, TAX, ask, why
from tests.exchange.mesh import Mesh, question
from tests.exchange.records import CLEARED, EXPORTER, OTHER
from tests.recording.bed import everything, log_of, raw


@pytest.fixture
async def read(own: Mesh) -> Mesh:
    """Somebody has read a declaration of an enterprise by its key; then the enterprise was erased from the log."""
    await got(own)
    await ask(own, TAX, question(f"cn.uscc:{EXPORTER}", "customs.Declaration", **REBATE))
    erased = await log_of(customs(own)).erase("cn.uscc", EXPORTER)
    if erased.entries != 2:
        raise ValueError("there was something else to erase")
    return own


def customs(mesh: Mesh) -> Host:
    return mesh.departments["customs"].host


async def got(mesh: Mesh) -> receipts.Answered:
    request = service_pb2.GetDeclarationRequest(name=f"declarations/{CLEARED}", context=why(**REBATE))
    answer = await raw(mesh.client(TAX, "customs"), f"{CUSTOMS}/GetDeclaration", request)
    return receipts.split(answer, service_pb2.GetDeclarationResponse)


def mentions(entry: log_pb2.LogEntry, text: str) -> bool:
    data = entry.SerializeToString()
    return any(part in data for part in (text.encode(), text.lower().encode(), bytes(reversed(text.encode()))))


async def test_no_guess_fits_a_commitment(read: Mesh) -> None:
    """Every identifier there is, with and without what the entry itself says."""
    entries = [entry for entry in await everything(customs(read)) if entry.subject_commitments]
    assert len(entries) >= 2
    for entry in entries:
        assert not mentions(entry, EXPORTER)
        for subject in (f"cn.uscc:{EXPORTER}", f"cn.uscc:{OTHER}", EXPORTER):
            for salt in (b"", bytes(16), entry.answer_digest, entry.query_id.encode()):
                guess = hashlib.sha256(salt + subject.encode()).digest()
                assert guess not in entry.subject_commitments
    assert await log_of(customs(read)).find_subject("cn.uscc", EXPORTER) == []


async def test_no_answer_fits_an_entry(read: Mesh) -> None:
    """Records are asked for one after the other, until an answer is word for word the one that was logged."""
    erased = next(entry.answer_digest for entry in await everything(customs(read)) if entry.answer_digest)
    assert (await got(read)).digest != erased
