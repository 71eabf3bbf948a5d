"""Erasure: what an entry commits to is gone for good, and every proof stays as it was."""

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.common.v1 import common_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.errors import Reason, Unavailable
from services.kit.log import merkle, receipts
from services.kit.log.checkpoint import open_checkpoint
from services.kit.log.nodelog import ERASURE, Erased, Logged, NodeLog
from services.kit.log.openings import check_opening
from services.kit.log.tables import OPENING, RECENT
from services.kit.records import database
from tests.log.bed import KEY, company, connected, draft, fill, on_connect, opened, whole

CODES = [company(number) for number in range(2000)]
"""Every enterprise there is."""


def guessed(entry: log_pb2.LogEntry, salt: bytes) -> list[str]:
    """Try every enterprise there is against an entry's commitments."""
    known = set(entry.subject_commitments)
    tried = (f"{scheme}:{value}" for scheme, value in CODES)
    return [text for text in tried if sha256(salt + text.encode()).digest() in known]


async def test_an_erased_subject_cannot_be_found_out(any_url: str) -> None:
    async with opened(any_url) as log:
        await fill(log, 20)
        again = await log.append(draft(7, [company(7), company(8)], case_ref="(2026) 17"))
        before: dict[int, Logged] = {}
        salts: dict[int, bytes] = {}
        for index in (7, again.index):
            logged, opening = await log.entry(index), await log.opening(index)
            assert opening is not None
            before[index], salts[index] = logged, opening.salt
        # With the salt, whoever has the list of all enterprises finds it.
        assert guessed(before[7].entry, salts[7]) == [":".join(company(7))]
        assert await log.erase(*company(7)) == Erased(2)
        assert await log.find_subject(*company(7)) == []
        for index, logged in before.items():
            assert await log.entry(index) == logged
            assert await log.opening(index) is None
            # What is left of it anywhere helps nobody: no salt, an empty one, another's.
            other = await log.opening(3)
            assert other is not None
            for salt in (b"", bytes(16), other.salt):
                assert guessed(logged.entry, salt) == []
        # Others are found as before, and what is theirs alone can be opened.
        assert await log.find_subject(*company(8)) == [again.index, 8]
        opening = await log.opening(8)
        assert opening is not None
        check_opening((await log.entry(8)).entry, opening)


async def test_proofs_and_receipts_stay_valid(any_url: str) -> None:
    async with opened(any_url) as log:
        found = [await log.append(draft(number % 3)) for number in range(30)]
        older = open_checkpoint(await log.checkpoint(), [KEY]).checkpoint
        proofs = [await log.inclusion(receipt.index) for receipt in found]
        assert await log.erase(*company(1)) == Erased(10)
        for receipt, proof in zip(found, proofs, strict=True):
            receipts.verify(receipt, KEY)
            for each in (proof, await log.inclusion(receipt.index)):
                root = open_checkpoint(each.checkpoint, [KEY]).checkpoint.root
                merkle.verify_inclusion(receipt.leaf_hash, receipt.index, each.size, each.hashes, root)
        newer = await log.consistency(older.size)
        root = open_checkpoint(newer.checkpoint, [KEY]).checkpoint.root
        merkle.verify_consistency(older.size, older.root, newer.size, root, newer.hashes)
    assert whole(any_url).size == 31


async def test_an_erasure_is_logged_and_names_nobody(any_url: str) -> None:
    async with opened(any_url) as log:
        await fill(log, 3)
        asked = log_pb2.LogEntry(caller="spiffe://zone.example/customs/node", officer="officer-0123456789abcdef")
        assert await log.erase(*company(2), asked) == Erased(1)
        assert await log.erase(*company(2)) == Erased()
        for index, rows in ((3, 1), (4, 0)):
            logged = await log.entry(index)
            assert logged.entry.rpc == ERASURE
            assert [(one.record_type, one.rows) for one in logged.entry.disclosures] == [("log.Opening", rows)]
            assert logged.entry.HasField("time")
            assert company(2)[1].encode() not in logged.data
            assert not logged.entry.subject_commitments
        assert (await log.entry(3)).entry.officer == asked.officer
        assert (await log.append(draft())).index == 5
    assert whole(any_url).size == 6


def scope(*subjects: tuple[str, str], condition: str = "", case_ref: str = "STR-7") -> bytes:
    made = authorization_pb2.Scope(case_ref=case_ref, nonce=sha256(condition.encode()).digest()[:16])
    made.types.add(record_type="customs.Declaration", fields=["declaration_no"], condition=condition)
    made.subjects.extend(common_pb2.SubjectId(scheme=scheme, value=value) for scheme, value in subjects)
    return made.SerializeToString(deterministic=True)


def archive(log: NodeLog, text: bytes) -> str:
    """Have a scope archived; gives its name."""
    name = sha256(text).hexdigest()
    log.text("scope", name, text)
    return name


async def archived(log: NodeLog, *names: str) -> list[bytes]:
    """Get the texts of scopes, in that order."""
    found = {text.name: text.text for text in await log.texts(names)}
    return [found[name] for name in names]


async def test_scopes_that_name_it_are_erased_too(any_url: str) -> None:
    one, other = company(1), company(2)
    hers, both = scope(one), scope(other, one)
    asked, cased = scope(condition=f"trader_uscc = '{one[1].lower()}'"), scope(other, case_ref=f"17 of {one[1]}")
    longer, elsewhere = scope((one[0], one[1] + "0")), scope(("lei", one[1]))
    named, kept = (hers, both, asked, cased), (scope(other), longer, elsewhere)
    async with opened(any_url) as log:
        names = [archive(log, text) for text in (*named, *kept)]
        await fill(log, 3)
        log.text("policy", "17", one[1].encode())
        assert await log.erase(*one) == Erased(1, 4)
        assert await archived(log, *names) == [b"", b"", b"", b"", *kept]
        logged = (await log.entry(3)).entry
        assert [(each.record_type, each.rows) for each in logged.disclosures] == [("log.Opening", 1), ("log.Scope", 4)]
        assert await log.erase(*one) == Erased()
    # A node that has been started anew still works under the authorization: the text does not come back.
    async with opened(any_url) as log:
        archive(log, hers)
        await log.append(draft())
        assert await archived(log, names[0]) == [b""]
    assert whole(any_url).size == 6


MARKED = ("uscc", "MARK0ENTERPRISE0X")


async def marked(log: NodeLog) -> tuple[bytes, ...]:
    """Append an entry about an enterprise among others; gives what must not be found afterwards."""
    await fill(log, 50)
    archive(log, scope(MARKED, case_ref="MARKED SCOPE"))
    receipt = await log.append(draft(0, [MARKED], case_ref="MARKED CASE"))
    await fill(log, 50)
    opening = await log.opening(receipt.index)
    assert opening is not None
    return MARKED[1].encode(), b"MARKED CASE", b"MARKED SCOPE", opening.salt


def lying_about(folder: Path, marks: tuple[bytes, ...]) -> list[bytes]:
    """Look into the database's files, and into its write-ahead log."""
    files = [path.read_bytes() for path in folder.glob("store.db*")]
    return [mark for mark in marks if any(mark in data for data in files)]


async def test_nothing_of_it_is_left_in_the_files(sqlite_url: str, tmp_path: Path) -> None:
    async with opened(sqlite_url) as log:
        marks = await marked(log)
        assert len(lying_about(tmp_path, marks)) == 4
        assert await log.erase(*MARKED) == Erased(1, 1)
        assert lying_about(tmp_path, marks) == []


async def test_a_reader_in_the_way_is_said(sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A long read keeps the write-ahead log alive: the erasure stands, and is made good as soon as it can be."""
    async with opened(sqlite_url) as log:
        marks = await marked(log)
        reader = database.engine(sqlite_url, writer=False)
        with reader.connect() as connection:
            rows = connection.execute(sa.select(RECENT))
            rows.fetchone()
            assert await log.erase(*MARKED) == Erased(1, 1)
            assert any("still lies in" in line.message for line in caplog.records)
            assert await log.find_subject(*MARKED) == []
            await log.append(draft())
            rows.close()
        reader.dispose()
    assert lying_about(tmp_path, marks) == []


async def test_erasing_while_others_append(any_url: str) -> None:
    async with opened(any_url) as log:
        tasks = [asyncio.create_task(log.append(draft(number % 5))) for number in range(200)]
        erased = asyncio.create_task(log.erase(*company(2)))
        later = [asyncio.create_task(log.append(draft(number % 5))) for number in range(200)]
        await asyncio.gather(*tasks, *later)
        # Everything that was asked for before is erased, and nothing that came after.
        assert await erased == Erased(40)
        assert len(await log.find_subject(*company(2))) == 40
    assert whole(any_url).size == 401
    with connected(any_url) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(OPENING)).scalar() == 360


async def test_an_erasure_that_cannot_be_written_erases_nothing(sqlite_url: str) -> None:
    async with opened(sqlite_url) as log:
        await fill(log, 5)
        with on_connect(log, lambda: "PRAGMA query_only = ON"):
            with pytest.raises(Unavailable) as caught:
                await log.erase(*company(3))
            assert caught.value.reason is Reason.LOG_UNAVAILABLE
        assert await log.find_subject(*company(3)) == [3]
        assert await log.erase(*company(3)) == Erased(1)
