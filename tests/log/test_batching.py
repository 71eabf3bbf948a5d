"""Group commit: what is written together, in which order, and who hears of it when."""

import asyncio
import threading
from typing import Any

import pytest

from services.kit.errors import Reason, Unavailable
from services.kit.log.batching import Batcher
from services.kit.log.openings import Sealed
from services.kit.log.receipts import MAX_BATCH


class Written:
    """What a thread was given to write."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, sealed: list[Sealed]) -> list[bytes]:
        self.go.wait()
        self.batches.append([one.entry for one in sealed])
        if b"bad" in self.batches[-1]:
            raise OSError("the disk is full")
        return [b"receipt of " + one.entry for one in sealed]


def entry(number: int) -> Sealed:
    return Sealed(b"%d" % number)


async def test_everybody_who_has_come_is_in_one_batch() -> None:
    written = Written()
    batcher = Batcher(written)
    batcher.start()
    written.go.clear()
    first = [batcher.submit(entry(number)) for number in range(3)]
    await asyncio.sleep(0)
    later = [batcher.submit(entry(number)) for number in range(3, 8)]
    written.go.set()
    assert await asyncio.gather(*first, *later) == [b"receipt of %d" % number for number in range(8)]
    assert [len(batch) for batch in written.batches] == [3, 5]
    await batcher.close()


async def test_a_batch_has_a_most() -> None:
    written = Written()
    batcher = Batcher(written)
    batcher.start()
    count = 2 * MAX_BATCH + 3
    given = [batcher.submit(entry(number)) for number in range(count)]
    assert await asyncio.gather(*given) == [b"receipt of %d" % number for number in range(count)]
    assert [len(batch) for batch in written.batches] == [MAX_BATCH, MAX_BATCH, 3]
    await batcher.close()


async def test_other_work_comes_between_batches_and_holds_up_nobody_before_it() -> None:
    written = Written()
    batcher = Batcher(written)
    batcher.start()
    go = threading.Event()
    before = [batcher.submit(entry(number)) for number in range(2)]
    work = batcher.call(lambda: (go.wait(), len(written.batches)))
    after = batcher.submit(entry(2))
    await asyncio.gather(*before)
    assert not work.done()
    assert not after.done()
    go.set()
    assert await work == (True, 1)
    await after
    assert written.batches == [[b"0", b"1"], [b"2"]]
    await batcher.close()


async def test_a_batch_that_fails_is_nobody_s_else() -> None:
    batcher = Batcher(Written())
    batcher.start()
    failed: list[asyncio.Future[Any]] = [batcher.submit(Sealed(b"bad")), batcher.submit(entry(1))]
    failed.append(batcher.call(lambda: 1 // 0))
    worked = batcher.submit(entry(2))
    for each in failed:
        with pytest.raises(Unavailable) as caught:
            await each
        assert caught.value.reason is Reason.LOG_UNAVAILABLE
    assert await worked == b"receipt of 2"
    assert not batcher.failing
    await batcher.close()


async def test_what_waits_is_written_before_it_ends() -> None:
    written = Written()
    batcher = Batcher(written)
    with pytest.raises(Unavailable):
        batcher.submit(entry(0))
    batcher.start()
    written.go.clear()
    first = batcher.submit(entry(0))
    await asyncio.sleep(0)
    rest = [batcher.submit(entry(number)) for number in range(1, 4)]
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        batcher.submit(entry(4))
    written.go.set()
    await closing
    assert await asyncio.gather(first, *rest) == [b"receipt of %d" % number for number in range(4)]
    assert written.batches == [[b"0"], [b"1", b"2", b"3"]]
