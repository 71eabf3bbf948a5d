"""Receipts of batches: each leaf's verifies by itself, and nothing but what the log has signed does."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from hutong.api.log.v1 import log_pb2
from services.kit.errors import PermissionDenied, Reason
from services.kit.log import merkle, receipts
from services.kit.log.merkle import leaf_hash
from services.kit.log.notes import Signer
from services.kit.log.receipts import MAX_BATCH
from tests.conftest import REPOSITORY
from tests.log.bed import KEY, ORIGIN, SIGNER, company, draft, held, mask, opened

TIME = Timestamp(seconds=1_772_600_767, nanos=5_000)
SIZES = st.one_of(st.integers(1, 9), st.integers(1, 70), st.sampled_from([127, 128, 129, 255, 257]))
STARTS = st.one_of(st.integers(0, 300), st.integers(0, 1 << 60))


def leaves(size: int, seed: int = 0) -> list[bytes]:
    return [sha256(f"{seed}/{number}".encode()).digest() for number in range(size)]


def signed(start: int, size: int, seed: int = 0, signer: Signer = SIGNER) -> list[log_pb2.Receipt]:
    given = receipts.sign(
        signer, start, leaves(size, seed), TIME, [bytes([number % 256]) * 16 for number in range(size)]
    )
    return list(map(log_pb2.Receipt.FromString, given))


def refused(receipt: log_pb2.Receipt) -> None:
    with pytest.raises(PermissionDenied) as caught:
        receipts.verify(receipt, KEY)
    assert caught.value.reason is Reason.RECEIPT_INVALID


@settings(max_examples=40)
@given(STARTS, SIZES)
def test_every_leaf_of_a_batch_has_a_receipt_of_its_own(start: int, size: int) -> None:
    found = signed(start, size)
    for number, (receipt, leaf) in enumerate(zip(found, leaves(size), strict=True)):
        receipts.verify(receipt, KEY)
        assert (receipt.origin, receipt.index, receipt.leaf_hash) == (ORIGIN, start + number, leaf)
        assert (receipt.batch_start, receipt.batch_size, receipt.time) == (start, size, TIME)
        assert receipt.answer_salt == bytes([number % 256]) * 16
    assert len({receipt.signature for receipt in found}) == 1


@given(SIZES)
def test_paths_are_inclusion_proofs(size: int) -> None:
    hashes = leaves(size)
    tree = merkle.Frontier()
    tree.extend(hashes)
    root, paths = merkle.paths(hashes, b"*")
    assert root == tree.root()
    for index, path in enumerate(paths):
        proof = [path[at + 1 : at + 33] for at in range(0, len(path), 33)]
        assert path == b"".join(b"*" + one for one in proof)
        merkle.verify_inclusion(hashes[index], index, size, proof, root)


def test_the_largest_batch_and_one_beyond() -> None:
    found = signed(7, MAX_BATCH)
    for receipt in (found[0], found[1234], found[-1]):
        assert len(receipt.batch_path) == 12
        receipts.verify(receipt, KEY)
    # The signature is right: it is of more than one batch can be.
    refused(signed(7, MAX_BATCH + 1)[5])


@given(STARTS, SIZES)
def test_receipts_are_written_as_protobuf_writes_them(start: int, size: int) -> None:
    """Whoever parses an answer and writes the receipt anew gets the bytes that it ends in."""
    salts = [bytes(16) if number % 3 else b"" for number in range(size)]
    for data in receipts.sign(SIGNER, start, leaves(size), TIME, salts):
        assert log_pb2.Receipt.FromString(data).SerializeToString(deterministic=True) == data


Change = Callable[[log_pb2.Receipt, st.DataObject], object]


def _set(**values: object) -> Change:
    def change(receipt: log_pb2.Receipt, _: st.DataObject) -> None:
        for name, value in values.items():
            setattr(receipt, name, value)

    return change


def _moved(name: str) -> Change:
    def change(receipt: log_pb2.Receipt, data: st.DataObject) -> None:
        by = data.draw(st.integers(-(1 << 62), 1 << 62).filter(bool))
        setattr(receipt, name, max(-(1 << 63), min((1 << 63) - 1, getattr(receipt, name) + by)))

    return change


def _slid(receipt: log_pb2.Receipt, data: st.DataObject) -> None:
    """Say that all of it lies elsewhere in the log."""
    by = data.draw(st.integers(-receipt.batch_start, 1 << 61).filter(bool))
    receipt.index += by
    receipt.batch_start += by


def _flipped(receipt: log_pb2.Receipt, data: st.DataObject) -> None:
    """Flip one bit of what is hashed or signed."""
    path = list(receipt.batch_path)
    which = data.draw(st.integers(-2, len(path) - 1))
    old = (*path, receipt.signature, receipt.leaf_hash)[which]
    bit = data.draw(st.integers(0, 8 * len(old) - 1))
    new = bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(old))
    if which == -2:
        receipt.signature = new
    elif which == -1:
        receipt.leaf_hash = new
    else:
        receipt.batch_path[which] = new


def _longer(receipt: log_pb2.Receipt, data: st.DataObject) -> None:
    receipt.batch_path.insert(data.draw(st.integers(0, len(receipt.batch_path))), data.draw(st.binary(max_size=40)))


def _shorter(receipt: log_pb2.Receipt, data: st.DataObject) -> None:
    if receipt.batch_path:
        del receipt.batch_path[data.draw(st.integers(0, len(receipt.batch_path) - 1))]
    else:
        receipt.ClearField("leaf_hash")


def _node(receipt: log_pb2.Receipt, _: st.DataObject) -> None:
    """Pass the node above a leaf off as a leaf of a smaller batch."""
    if not receipt.batch_path:
        receipt.batch_size = 2
        return
    last = receipt.index == receipt.batch_start + receipt.batch_size - 1
    sibling = receipt.batch_path.pop(0)
    right = (receipt.index - receipt.batch_start) % 2 or last
    receipt.leaf_hash = merkle.node_hash(*((sibling, receipt.leaf_hash) if right else (receipt.leaf_hash, sibling)))


def _others(receipt: log_pb2.Receipt, _: st.DataObject) -> None:
    """Take the signature of another batch of the same size, at the same place."""
    receipt.signature = signed(receipt.batch_start, receipt.batch_size, seed=1)[0].signature


def _strangers(receipt: log_pb2.Receipt, _: st.DataObject) -> None:
    receipt.signature = signed(
        receipt.batch_start, receipt.batch_size, signer=Signer(ORIGIN, Ed25519PrivateKey.generate())
    )[0].signature


CHANGES: dict[str, Change] = {
    "another index": _moved("index"),
    "another start": _moved("batch_start"),
    "another size": _moved("batch_size"),
    "elsewhere": _slid,
    "no batch": _set(batch_start=0, batch_size=0),
    "a bit": _flipped,
    "a longer path": _longer,
    "a shorter path": _shorter,
    "a node as a leaf": _node,
    "another batch's signature": _others,
    "a stranger's signature": _strangers,
    "another log": _set(origin="zone.example/taxation/node"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@given(STARTS, SIZES, st.data())
def test_nothing_else_verifies(change: Change, start: int, size: int, data: st.DataObject) -> None:
    receipt = signed(start, size)[data.draw(st.integers(0, size - 1))]
    receipts.verify(receipt, KEY)
    change(receipt, data)
    refused(receipt)


def test_a_receipt_with_a_signature_of_its_own_leaf_is_none() -> None:
    """As receipts were before entries that are written together had one signature."""
    (leaf,) = leaves(1)
    receipt = log_pb2.Receipt(origin=ORIGIN, index=7, leaf_hash=leaf)
    receipt.signature = SIGNER.key.sign(b"hutong receipt\n" + receipts.signed_text(ORIGIN, 7, 0, leaf)[16:])
    refused(receipt)
    receipt.batch_start, receipt.batch_size = 7, 1
    refused(receipt)
    receipt.signature = SIGNER.key.sign(receipts.signed_text(ORIGIN, 7, 1, leaf))
    receipts.verify(receipt, KEY)


async def test_entries_that_are_written_together_have_one_signature(any_url: str) -> None:
    async with opened(any_url) as log:
        await log.append(draft())
        async with held(log):
            # A mask is a leaf before them, and has no receipt.
            log.text("mask", "m", mask(1))
            waiting = [asyncio.create_task(log.append(draft(number, case_ref="C"))) for number in range(100)]
            await asyncio.sleep(0)
        found = await asyncio.gather(*waiting)
        assert [receipt.index for receipt in found] == list(range(2, 102))
        assert {(one.batch_start, one.batch_size, one.signature) for one in found} == {(2, 100, found[0].signature)}
        for receipt in found:
            receipts.verify(receipt, KEY)
            logged = await log.entry(receipt.index)
            assert leaf_hash(logged.data) == receipt.leaf_hash
            assert logged.entry.time == receipt.time
        alone = await log.append(draft())
        assert (alone.batch_start, alone.batch_size, list(alone.batch_path)) == (102, 1, [])
        receipts.verify(alone, KEY)


async def test_receipts_of_replicas(any_url: str) -> None:
    async with opened(any_url) as one, opened(any_url) as other:
        logs = [one, other]
        found = await asyncio.gather(*(logs[number % 2].append(draft(number)) for number in range(200)))
        batches = {(receipt.batch_start, receipt.batch_size, receipt.signature) for receipt in found}
        # No two of them overlap, and together they are the log.
        spans = sorted((start, start + size) for start, size, _ in batches)
        assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
        assert spans[-1][1] == 200
        for receipt in found:
            receipts.verify(receipt, KEY)
            assert (await other.entry(receipt.index)).leaf_hash == receipt.leaf_hash


async def test_a_leaf_s_bytes_are_those_of_the_entry(any_url: str) -> None:
    """Entries are written in pieces: the time, then the rest; together they are what protobuf writes."""
    chance = random.Random(17)
    async with opened(any_url) as log:
        for number in range(20):
            named = [company(chance.randrange(1000)) for _ in range(chance.randrange(4))]
            more = {"case_ref": chance.choice(["", "C-1"]), "on_behalf_of": chance.choice(["", "W-2"])}
            await log.append(draft(number, named, **more))
        for logged in await log.entries(0, 20):
            assert logged.entry.SerializeToString(deterministic=True) == logged.data


FORKING = """
import os
from services.kit.log.openings import new_salt
new_salt()
child = os.fork()
for _ in range(300):
    os.write(1, new_salt())
if child:
    os.wait()
"""


def test_a_process_that_is_forked_off_draws_salts_of_its_own() -> None:
    said = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True, cwd=REPOSITORY).stdout
    assert len({said[at : at + 16] for at in range(0, len(said), 16)}) == 600
