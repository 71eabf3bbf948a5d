"""A node's log: appended to in batches and by replicas, and read; what it does not build on; when it cannot write."""

import asyncio
import datetime as dt
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hutong.api.log.v1 import log_pb2
from services.kit.config import LogSection
from services.kit.errors import (
    FailedPrecondition,
    HutongError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from services.kit.log import keys, merkle, receipts, verifying
from services.kit.log.checkpoint import open_checkpoint
from services.kit.log.export import export_tiles
from services.kit.log.merkle import Frontier, leaf_hash
from services.kit.log.nodelog import MIGRATIONS, NodeLog
from services.kit.log.notes import Signer
from services.kit.log.openings import Draft, check_opening
from services.kit.log.tables import ENTRY, HASH, HEAD, METADATA
from services.kit.log.tiles import Tile
from services.kit.records import migrations
from tests.conftest import REPOSITORY
from tests.databases import Postgres
from tests.log.bed import (
    KEY,
    ORIGIN,
    SIGNER,
    START,
    Clock,
    change,
    company,
    connected,
    draft,
    fill,
    held,
    mask,
    node_log,
    on_connect,
    opened,
    whole,
    writing,
)
from tests.zone import Zone


async def unavailable(log: NodeLog, number: int = 0) -> None:
    with pytest.raises(Unavailable) as caught:
        await log.append(draft(number))
    assert caught.value.reason is Reason.LOG_UNAVAILABLE


async def refused(url: str, reason: Reason = Reason.LOG_TAMPERED, signer: Signer = SIGNER) -> None:
    """It does not open, and lets go of what it held."""
    log = node_log(url, signer=signer)
    with pytest.raises(FailedPrecondition) as caught:
        await log.open()
    assert caught.value.reason is reason
    await log.close()


# appending


async def test_what_is_appended_is_there(any_url: str) -> None:
    clock = Clock()
    async with opened(any_url, clock) as log:
        assert (log.size, await log.checkpoint()) == (0, "")
        receipt = await log.append(draft(7, case_ref="(2026) 17", on_behalf_of="section 3"))
        receipts.verify(receipt, KEY)
        assert (receipt.origin, receipt.index, receipt.time.ToDatetime(dt.UTC)) == (ORIGIN, 0, START)
        logged = await log.entry(0)
        assert logged.leaf_hash == leaf_hash(logged.data) == receipt.leaf_hash
        assert logged.entry.time == receipt.time
        assert logged.entry.rpc == draft().entry.rpc
        opening = await log.opening(0)
        assert opening is not None
        check_opening(logged.entry, opening)
        assert list(opening.subjects) == [":".join(company(7))]
        assert (opening.case_ref, opening.on_behalf_of) == ("(2026) 17", "section 3")
        # The entry itself says none of it.
        assert not any(word.encode() in logged.data for word in (company(7)[1], "2026) 17", "section 3"))
        checkpoint = open_checkpoint(await log.checkpoint(), [KEY]).checkpoint
        assert (checkpoint.size, checkpoint.root) == (1, receipt.leaf_hash)
    assert whole(any_url).size == 1


async def test_batches_keep_the_order(any_url: str) -> None:
    async with opened(any_url) as log:
        found = await asyncio.gather(*(log.append(draft(number)) for number in range(700)))
        assert [receipt.index for receipt in found] == list(range(700))
        assert log.size == 700
        entries = await log.entries(0, 4096)
        assert [int.from_bytes(one.entry.answer_digest, "big") for one in entries] == list(range(700))
        assert [one.index for one in await log.entries(690, 20)] == list(range(690, 700))
        for receipt in found[::97]:
            proof = await log.inclusion(receipt.index)
            root = open_checkpoint(proof.checkpoint, [KEY]).checkpoint.root
            merkle.verify_inclusion(receipt.leaf_hash, receipt.index, proof.size, proof.hashes, root)
    async with opened(any_url) as log:
        assert (await log.append(draft())).index == 700
    assert whole(any_url).size == 701


async def test_one_batch_is_one_transaction_for_whoever_waited(any_url: str) -> None:
    async with opened(any_url) as log:
        signed: set[str] = set()
        async with held(log):
            waiting = [asyncio.create_task(log.append(draft(number))) for number in range(100)]
            await asyncio.sleep(0)
        for done in asyncio.as_completed(waiting):
            await done
            signed.add(await log.checkpoint())
        assert len(signed) == 1


async def test_an_append_whose_caller_is_gone_is_logged(any_url: str) -> None:
    async with opened(any_url) as log:
        tasks = [asyncio.create_task(log.append(draft(number))) for number in range(10)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in ended] == [True, False] * 5
    assert whole(any_url).size == 10


async def test_the_time_of_the_log_does_not_go_back(any_url: str) -> None:
    clock = Clock()
    async with opened(any_url, clock) as log:
        await log.append(draft())
        clock.move(days=-1)
        assert (await log.append(draft())).time.ToDatetime(dt.UTC) == START
    async with opened(any_url, clock) as log:
        assert (await log.append(draft())).time.ToDatetime(dt.UTC) == START
        clock.move(days=2)
        assert (await log.append(draft())).time.ToDatetime(dt.UTC) == START + dt.timedelta(days=1)


async def test_entries_are_found_by_time(any_url: str) -> None:
    clock = Clock()
    async with opened(any_url, clock) as log:
        for number in range(40):
            clock.move(minutes=1)
            if number % 7 == 0:
                log.text(
                    "mask", f"{number:064x}", log_pb2.MaskText(digest=number.to_bytes(32, "big")).SerializeToString()
                )
            await log.append(draft(number))
        entries = [one for one in await log.entries(0, 100) if not one.entry.HasField("mask")]
        assert len(entries) == 40
        for minutes in (-5, 0, 1, 2, 7, 8, 20, 39, 40, 41, 99):
            moment = START + dt.timedelta(minutes=minutes)
            first = await log.first_since(moment)
            later = [one.index for one in entries if one.entry.time.ToDatetime(dt.UTC) >= moment]
            # A mask right before the entry may come with it.
            assert later == [one.index for one in entries if one.index >= first]


async def test_subjects_find_their_entries(any_url: str) -> None:
    async with opened(any_url) as log:
        for number in range(12):
            await log.append(draft(number, [company(number % 3), company(99), company(99)]))
        assert await log.find_subject(*company(1)) == [10, 7, 4, 1]
        assert await log.find_subject(*company(1), before=7, limit=1) == [4]
        assert await log.find_subject(*company(99), limit=3) == [11, 10, 9]
        assert await log.find_subject("uscc", "nobody") == []
        assert len((await log.entry(0)).entry.subject_commitments) == 2


async def test_more_subjects_than_an_entry_commits_to(any_url: str) -> None:
    async with opened(any_url) as log:
        await log.append(draft(0, map(company, range(300))))
        assert len((await log.entry(0)).entry.subject_commitments) == 256
        assert await log.find_subject(*company(299)) == [0]


@pytest.mark.parametrize("value", ["", "x" * 1025, "a\0b"])
async def test_what_no_index_can_hold_is_committed_to_all_the_same(any_url: str, value: str) -> None:
    async with opened(any_url) as log:
        await log.append(draft(0, [("uscc", value)]))
        opening = await log.opening(0)
        assert opening is not None
        check_opening((await log.entry(0)).entry, opening)
        assert list(opening.subjects) == [f"uscc:{value}"]


async def test_an_entry_without_commitments_has_no_salt(any_url: str) -> None:
    async with opened(any_url) as log:
        await log.append(draft(0, ()))
        assert await log.opening(0) is None
        assert not (await log.entry(0)).entry.subject_commitments


async def test_an_opening_of_something_else() -> None:
    sealed = draft(1, case_ref="C-1")
    with pytest.raises(FailedPrecondition):
        check_opening(sealed.entry, log_pb2.Opening(salt=bytes(16), subjects=[":".join(company(1))], case_ref="C-1"))


async def test_entries_have_a_limit(any_url: str) -> None:
    async with opened(any_url) as log:
        with pytest.raises(ResourceExhausted) as caught:
            await log.append(Draft(log_pb2.LogEntry(query_id="x" * 65_600)))
        assert caught.value.reason is Reason.ANSWER_TOO_LARGE
        await log.append(Draft(log_pb2.LogEntry(query_id="x" * 65_500)))
    assert whole(any_url).size == 1


# texts


async def test_texts_are_archived_once_and_masks_are_leaves(any_url: str) -> None:
    async with opened(any_url) as log:
        indexes: list[int] = []
        for _ in range(2):
            log.text("mask", "m1", mask(1))
            log.text("policy", "v1", b"permit (...);")
            indexes.append((await log.append(draft())).index)
        assert indexes == [1, 2]
        assert (await log.entry(0)).entry == log_pb2.LogEntry(mask=log_pb2.MaskText.FromString(mask(1)))
        found = await log.texts(["v1", "m1", "none"])
        assert [(one.kind, one.name, one.text) for one in found] == [
            ("mask", "m1", mask(1)),
            ("policy", "v1", b"permit (...);"),
        ]
    async with opened(any_url) as log:
        log.text("mask", "m1", mask(1))
        assert (await log.append(draft())).index == 3
    assert whole(any_url).size == 4


async def test_texts_that_cannot_be_kept(any_url: str) -> None:
    async with opened(any_url) as log:
        with pytest.raises(InvalidArgument):
            log.text("policy", "", b"")
        with pytest.raises(InvalidArgument):
            log.text("mask", "m", b"\xff")
        with pytest.raises(ResourceExhausted):
            log.text("policy", "p", bytes(9 * 1024 * 1024))
        with pytest.raises(ResourceExhausted):
            log.text("mask", "m", log_pb2.MaskText(decisions=bytes(70_000)).SerializeToString())
        assert (await log.append(draft())).index == 0


# what is there when it opens


async def test_the_tables_are_those_of_the_migrations(any_url: str) -> None:
    migrations.upgrade(any_url, MIGRATIONS)
    with connected(any_url) as connection:
        from alembic import autogenerate  # noqa: PLC0415
        from alembic.migration import MigrationContext  # noqa: PLC0415

        found = autogenerate.compare_metadata(MigrationContext.configure(connection), METADATA)
        # Tables of the same database that other modules own.
        own = [one for one in found if not (one[0] == "remove_table" and one[1].name not in METADATA.tables)]
        assert own == []
    migrations.downgrade(any_url, MIGRATIONS)


async def test_an_old_schema_stops_the_start(any_url: str) -> None:
    log = NodeLog(any_url, SIGNER, Clock())
    with pytest.raises(FailedPrecondition) as caught:
        await log.open()
    assert caught.value.reason is Reason.STORE_NOT_MIGRATED
    assert "[log]" in caught.value.message


def other_entry() -> bytes:
    return draft(5).entry.SerializeToString()


TAMPERING = {
    "an entry changed": sa.update(ENTRY).where(ENTRY.c.index == 290).values(entry=other_entry()),
    "an entry changed with its hash": sa.update(ENTRY)
    .where(ENTRY.c.index == 290)
    .values(entry=other_entry(), leaf_hash=leaf_hash(other_entry())),
    "a hash changed": sa.update(ENTRY).where(ENTRY.c.index == 299).values(leaf_hash=bytes(32)),
    "the last entry removed": sa.delete(ENTRY).where(ENTRY.c.index == 299),
    "an entry removed": sa.delete(ENTRY).where(ENTRY.c.index == 280),
    "an entry added": sa.insert(ENTRY).values(index=300, leaf_hash=leaf_hash(b"x"), entry=b"x"),
    "all entries removed": sa.delete(ENTRY),
    "a stored hash changed": sa.update(HASH).values(hash=bytes(32)),
    "a stored hash removed": sa.delete(HASH),
    "the head removed": sa.delete(HEAD),
    "the size changed": sa.update(HEAD).values(size=299),
    "the log emptied": sa.update(HEAD).values(size=0, frontier=bytes(8), checkpoint=""),
    "a frontier of another tree": sa.update(HEAD).values(frontier=Frontier(300, [bytes(32)] * 4).to_bytes()),
    "a frontier that is none": sa.update(HEAD).values(frontier=b"x"),
    "no checkpoint": sa.update(HEAD).values(checkpoint=""),
    "a checkpoint that is none": sa.update(HEAD).values(checkpoint="x"),
}


@pytest.mark.parametrize("what", TAMPERING)
async def test_a_log_that_does_not_hold_together_does_not_open(sqlite_url: str, what: str) -> None:
    async with opened(sqlite_url) as log:
        await fill(log, 300)
    change(sqlite_url, TAMPERING[what])
    await refused(sqlite_url)


async def test_an_older_checkpoint_put_back(sqlite_url: str) -> None:
    async with opened(sqlite_url) as log:
        await fill(log, 3)
        older = await log.checkpoint()
        await fill(log, 3)
    change(sqlite_url, sa.update(HEAD).values(checkpoint=older))
    await refused(sqlite_url)


async def test_another_key_does_not_go_on(any_url: str) -> None:
    async with opened(any_url) as log:
        await fill(log, 3)
    await refused(any_url, Reason.LOG_KEY_UNKNOWN, signer=Signer(ORIGIN, Ed25519PrivateKey.generate()))
    await refused(any_url, Reason.LOG_KEY_UNKNOWN, signer=Signer("zone.example/taxation/node", SIGNER.key))
    async with opened(any_url) as log:
        assert log.size == 3


async def test_the_log_of_a_config(tmp_path: Path, sqlite_url: str) -> None:
    node = Zone(tmp_path / "z").node("customs/node")
    section = LogSection(url=sqlite_url, key=tmp_path / "log.pem", keys=tmp_path / "keys", migrate=True)
    with pytest.raises(FailedPrecondition):
        NodeLog.of(section, node, sqlite_url, Clock())
    signer = keys.create(section.key, section.keys, ORIGIN)
    log = NodeLog.of(section, node, sqlite_url, Clock())
    await log.open()
    receipts.verify(await log.append(draft()), signer.verifier)
    await log.close()
    keys.published_file(section.keys, ORIGIN).write_text(f"{KEY}\n")
    with pytest.raises(FailedPrecondition) as caught:
        NodeLog.of(section, node, sqlite_url, Clock())
    assert caught.value.reason is Reason.KEY_INVALID


# two replicas


async def test_two_replicas_write_one_log(any_url: str) -> None:
    async with opened(any_url) as one, opened(any_url) as other:
        found = await asyncio.gather(
            *((one if number % 3 else other).append(draft(number)) for number in range(400)),
        )
        later = [await log.append(draft()) for log in (one, other, one, other)]
        assert [receipt.index for receipt in later] == [400, 401, 402, 403]
        assert sorted(receipt.index for receipt in found) == list(range(400))
        one.text("mask", "m", mask(1))
        other.text("mask", "m", mask(1))
        await one.append(draft())
        assert (await other.append(draft())).index == 406
        for receipt in found:
            assert (await one.entry(receipt.index)).leaf_hash == receipt.leaf_hash
        assert (await one.head()).size == 407
    assert whole(any_url).size == 407


async def test_a_replica_opens_while_another_appends(any_url: str) -> None:
    async with opened(any_url) as one:
        tasks = [asyncio.create_task(one.append(draft(number))) for number in range(1000)]
        for _ in range(8):
            async with opened(any_url) as other:
                await other.append(draft())
        await asyncio.gather(*tasks)
    assert whole(any_url).size == 1008


async def test_two_processes_begin_one_log(any_url: str) -> None:
    async with opened(any_url) as one, opened(any_url) as other:
        await other.append(draft())
        assert (await one.append(draft())).index == 1


@pytest.mark.parametrize("size", [2, 3, 5])
async def test_a_log_that_was_put_back_is_not_gone_on_with(sqlite_url: str, tmp_path: Path, size: int) -> None:
    """A backup restored, or a history rewritten, under a running node: of the same size, or smaller."""
    forged = f"sqlite:///{tmp_path / 'forged.db'}"
    async with opened(forged, Clock(START + dt.timedelta(days=1))) as log:
        await fill(log, size)
    with connected(forged) as connection:
        head = connection.execute(sa.select(HEAD)).mappings().one()
        values = {name: head[name] for name in ("size", "frontier", "checkpoint", "time")}
    async with opened(sqlite_url) as log:
        await fill(log, 5)
        change(sqlite_url, sa.update(HEAD).values(**values))
        await unavailable(log)
        assert log.failing


async def test_a_larger_head_that_we_did_not_sign(sqlite_url: str) -> None:
    async with opened(sqlite_url) as log:
        await fill(log, 5)
        frontier = Frontier(6, [bytes(32)] * 2)
        change(sqlite_url, sa.update(HEAD).values(size=6, frontier=frontier.to_bytes()))
        await unavailable(log)


# proofs and tiles


async def test_proofs_of_trees_that_were(any_url: str) -> None:
    sizes = (1, 2, 255, 256, 257, 300, 511, 513)
    roots: dict[int, bytes] = {}
    async with opened(any_url) as log:
        for size in sizes:
            await fill(log, size - log.size)
            roots[size] = open_checkpoint(await log.checkpoint(), [KEY]).checkpoint.root
        for old in sizes:
            for new in (size for size in sizes if size >= old):
                proof = await log.consistency(old, new)
                signed = open_checkpoint(proof.checkpoint, [KEY]).checkpoint
                assert (proof.size, signed.size, signed.root) == (new, new, roots[new])
                merkle.verify_consistency(old, roots[old], new, roots[new], proof.hashes)
            inside = await log.inclusion(old - 1, old)
            leaf = (await log.entry(old - 1)).leaf_hash
            merkle.verify_inclusion(leaf, old - 1, old, inside.hashes, roots[old])
        assert (await log.consistency(0)).hashes == ()
        for index, size in ((513, 0), (0, 514), (300, 300), (-1, 0)):
            with pytest.raises((NotFound, InvalidArgument)) as caught:
                await log.inclusion(index, size)
            assert caught.value.reason is Reason.LOG_ENTRY_UNKNOWN
        for old, size in ((514, 0), (300, 299), (1, 514), (-1, 0)):
            with pytest.raises(InvalidArgument):
                await log.consistency(old, size)


async def test_no_old_tree_is_signed_that_is_not_the_beginning_of_ours(sqlite_url: str) -> None:
    async with opened(sqlite_url) as log:
        await fill(log, 300)
        change(sqlite_url, sa.update(ENTRY).where(ENTRY.c.index == 3).values(leaf_hash=bytes(32)))
        with pytest.raises(FailedPrecondition) as caught:
            await log.consistency(2, 200)
        assert caught.value.reason is Reason.LOG_TAMPERED


async def test_an_empty_log_proves_nothing(any_url: str) -> None:
    async with opened(any_url) as log:
        for ask in (log.inclusion(0), log.consistency(0), log.entry(0), log.tile(Tile(0, 0, 1))):
            with pytest.raises((NotFound, InvalidArgument)) as caught:
                await ask
            assert caught.value.reason is Reason.LOG_ENTRY_UNKNOWN
    with pytest.raises(NotFound):
        whole(any_url)


async def test_an_exported_log_is_verified_from_its_files(any_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    async with opened(any_url) as log:
        for size in (1, 256, 300, 600):
            await fill(log, size - log.size)
            with connected(any_url) as connection:
                assert export_tiles(connection, folder) == size
            assert verifying.verify_tiles(verifying.folder(folder), KEY) == whole(any_url)
    seen: list[tuple[int, int]] = []

    def progress(done: int, of: int) -> None:
        seen.append((done, of))

    verifying.verify_tiles(verifying.folder(folder), KEY, progress)
    assert seen == [(256, 600), (512, 600), (600, 600)]
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "checkpoint",
        *(f"tile/0/{name}" for name in ("000", "001", "002.p/88")),
        "tile/1/000.p/1",
        "tile/1/000.p/2",
        *(f"tile/entries/{name}" for name in ("000", "001", "002.p/88")),
    ]
    assert (folder / "tile/entries/000").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000"])
@pytest.mark.parametrize("how", ["flipped", "shorter", "longer", "gone"])
async def test_a_file_that_was_changed_is_noticed(tmp_path: Path, sqlite_url: str, name: str, how: str) -> None:
    folder = tmp_path / "tiles"
    async with opened(sqlite_url) as log:
        await fill(log, 300)
    with connected(sqlite_url) as connection:
        export_tiles(connection, folder)
    path = folder / name
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        at = len(data) // 2
        flipped = bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]])
        path.write_bytes({"flipped": flipped, "shorter": data[:-1], "longer": data + b"\0"}[how])
    with pytest.raises(HutongError):
        verifying.verify_tiles(verifying.folder(folder), KEY)


REWRITING: dict[str, Callable[[sa.Connection], object]] = {
    "changed": lambda c: c.execute(sa.update(ENTRY).where(ENTRY.c.index == 77).values(entry=other_entry())),
    "changed with its hash": lambda c: c.execute(
        sa.update(ENTRY).where(ENTRY.c.index == 77).values(entry=other_entry(), leaf_hash=leaf_hash(other_entry()))
    ),
    "removed": lambda c: c.execute(sa.delete(ENTRY).where(ENTRY.c.index == 77)),
    "reordered": lambda c: swap(c, 77, 78),
    "a stored hash": lambda c: c.execute(sa.update(HASH).where(HASH.c.index == 0).values(hash=bytes(32))),
}


def swap(connection: sa.Connection, one: int, other: int) -> None:
    for old, new in ((one, -1), (other, one), (-1, other)):
        connection.execute(sa.update(ENTRY).where(ENTRY.c.index == old).values(index=new))


@pytest.mark.parametrize("how", REWRITING)
async def test_a_rewritten_history_is_noticed(any_url: str, how: str) -> None:
    """All of it lies left of what is looked at when the log opens."""
    async with opened(any_url) as log:
        await fill(log, 700)
    with connected(any_url, writer=True) as connection:
        REWRITING[how](connection)
    with pytest.raises(FailedPrecondition) as caught:
        whole(any_url)
    assert caught.value.reason is Reason.LOG_TAMPERED


async def test_another_logs_key_verifies_nothing(sqlite_url: str) -> None:
    async with opened(sqlite_url) as log:
        await fill(log, 3)
    with connected(sqlite_url) as connection, pytest.raises(PermissionDenied):
        verifying.verify_all(connection, Signer(ORIGIN, Ed25519PrivateKey.generate()).verifier)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 40), max_size=12), st.data())
def test_the_database_gives_the_tree_of_its_entries(batches: list[int], data: st.DataObject) -> None:
    """Whatever the batches: head, frontier, stored hashes and proofs are those of a tree built leaf by leaf."""

    async def run(url: str) -> None:
        tree = Frontier()
        async with opened(url) as log:
            for count in batches:
                await fill(log, count)
            for one in await log.entries(0, 4096):
                tree.append(leaf_hash(one.data))
            head = await log.head()
            assert head.frontier == tree
            if tree.size:
                index = data.draw(st.integers(0, tree.size - 1))
                proof = await log.inclusion(index)
                merkle.verify_inclusion((await log.entry(index)).leaf_hash, index, tree.size, proof.hashes, tree.root())

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(f"sqlite:///{folder}/log.db"))


# when it cannot be written


async def test_too_much_that_waits_is_refused(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(sqlite_url, most_waiting=20) as log:
        async with held(log):
            tasks = [asyncio.create_task(log.append(draft(number))) for number in range(50)]
            await asyncio.sleep(0)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, log_pb2.Receipt) for one in ended] == [True] * 20 + [False] * 30
        assert {one.reason for one in ended if isinstance(one, HutongError)} == {Reason.LOG_UNAVAILABLE}
        await log.append(draft())
    assert whole(sqlite_url).size == 21


async def test_a_closed_log_takes_nothing(any_url: str) -> None:
    log = node_log(any_url)
    await unavailable(log)
    await log.open()
    waiting = [asyncio.create_task(log.append(draft(number))) for number in range(30)]
    await asyncio.sleep(0)
    await log.close()
    # What waited was written.
    assert [task.result().index for task in waiting] == list(range(30))
    await unavailable(log)
    with pytest.raises(Unavailable):
        await log.entry(0)
    assert whole(any_url).size == 30


async def test_a_full_disk_refuses_until_there_is_room(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The database may not grow; what was acknowledged stays, and it goes on by itself."""
    async with opened(sqlite_url) as log:
        acknowledged = [await log.append(draft(number)) for number in range(10)]
        log.text("mask", "m", mask(1))
        refusals = 0
        # As many pages as there are, in which there is a little room still.
        with on_connect(log, lambda: "PRAGMA max_page_count = 1"), caplog.at_level(logging.WARNING):
            while refusals < 3:
                try:
                    acknowledged.append(await log.append(draft(1, case_ref="x" * 3000)))
                except Unavailable:
                    refusals += 1
            with pytest.raises(Unavailable) as caught:
                await log.append(draft(1, case_ref="x" * 30_000))
            assert caught.value.reason is Reason.LOG_UNAVAILABLE
        failed = log.failing
        assert failed
        assert sum("cannot be written" in line.message for line in caplog.records) == 1
        assert "x" * 3000 not in caplog.text
        for receipt in acknowledged:
            assert (await log.entry(receipt.index)).leaf_hash == receipt.leaf_hash
        size = (await log.head()).size
        after = await log.append(draft())
        # The text that waited has come before it, if it had not before.
        assert after.index in {size, size + 1}
        assert [one.name for one in await log.texts(["m"])] == ["m"]
        assert not log.failing
    assert whole(sqlite_url).size == after.index + 1


FILLING = """
import asyncio, resource, sys
from services.kit.errors import Unavailable
from tests.log.bed import draft, node_log

async def main():
    log = node_log(sys.argv[1])
    await log.open()
    indexes = [(await log.append(draft(number))).index for number in range(20)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
    refused = 0
    while refused < 5:
        try:
            indexes.append((await log.append(draft(1, case_ref="x" * 2000))).index)
        except Unavailable:
            refused += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    indexes.append((await log.append(draft())).index)
    await log.close()
    print(*indexes)

asyncio.run(main())
"""


def test_a_disk_that_takes_no_more_bytes(sqlite_url: str) -> None:
    """The kernel refuses to let the files grow (RLIMIT_FSIZE), in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-c", FILLING, sqlite_url, "400000"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    indexes = list(map(int, ran.stdout.split()))
    assert indexes == sorted(set(indexes))
    assert len(indexes) > 21
    assert whole(sqlite_url).size >= len(indexes)
    assert "cannot be written" not in ran.stdout


async def test_a_database_that_may_only_be_read(sqlite_url: str) -> None:
    async with opened(sqlite_url) as log:
        await log.append(draft())
        with on_connect(log, lambda: "PRAGMA query_only = ON"):
            await unavailable(log)
        assert (await log.append(draft())).index == 1
    assert whole(sqlite_url).size == 2


async def test_a_server_that_is_away(tmp_path: Path, postgres_server: Postgres) -> None:
    """Connections are cut and refused; once the database may be reached again, the log goes on."""
    with postgres_server.fresh() as url:
        name = sa.make_url(url).database
        async with opened(url) as log:
            await fill(log, 5)
            # Idle connections that were cut cost nobody anything.
            cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            postgres_server.execute(cut)
            assert (await log.append(draft())).index == 5
            postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false", cut)
            await unavailable(log)
            with pytest.raises(Unavailable) as caught:
                await log.entry(0)
            assert caught.value.reason is Reason.LOG_UNAVAILABLE
            postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            assert (await log.append(draft())).index == 6
        assert whole(url).size == 7
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        log = node_log(url)
        with pytest.raises(Unavailable):
            await log.open()
        await log.close()
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


# how it is written


async def test_what_is_acknowledged_is_synced(any_url: str) -> None:
    async with opened(any_url) as log:
        with writing(log).connect() as connection:
            if connection.dialect.name == "sqlite":
                assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 2
                assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
                assert connection.execute(sa.text("PRAGMA secure_delete")).scalar() == 1
            else:
                assert connection.execute(sa.text("SHOW synchronous_commit")).scalar() == "on"


async def test_a_server_that_acknowledges_early_is_told_not_to(postgres_server: Postgres) -> None:
    with postgres_server.fresh() as url:
        name = sa.make_url(url).database
        postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        async with opened(url) as log:
            await log.append(draft())
            with writing(log).connect() as connection:
                assert connection.execute(sa.text("SHOW synchronous_commit")).scalar() == "on"
