"""Schedulers that are killed at any moment, and started again, remind exactly once."""

from collections import Counter
from pathlib import Path

from services.recognition.events import Kind
from services.recognition.tables import CASE, REMINDER, TASK
from tests.killable import KILLED, Killable
from tests.recognition.desk import Bed, desk
from tests.recognition.test_cases import accepted
from tests.recognition.test_concurrency import company
from tests.recognition.ticking import tick

CASES = 24

Sent = Counter[tuple[str, str, str]]


def killed_after(bed: Bed, lines: int | None, beside: int = 0) -> int | None:
    """Run schedulers, `beside` more of them at the same time; kill all, without any warning, once one has said so much.

    Gives how it ended.
    """
    processes = [Killable(tick, bed.url, bed.folder, bed.clock()) for _ in range(beside + 1)]
    for said, _ in enumerate(processes[-1].said(), 1):
        if lines is not None and said > lines:
            for process in processes:
                process.kill()
    for process in processes:
        process.ended()
    return processes[-1].code


async def reminded(bed: Bed) -> Sent:
    """Every reminder in the events, which have to go without a gap."""
    sent: Sent = Counter()
    for row in await bed.rows(CASE):
        events = await bed.cases.events(row["case_id"])
        assert len(events) == row["version"]
        assert len({e.id for e in events}) == len(events)
        sent.update((row["case_id"], e.stage, e.threshold) for e in events if e.kind is Kind.REMIND)
    return sent


async def test_reminders_are_exactly_once(any_url: str, tmp_path: Path) -> None:
    async with desk(any_url, tmp_path) as bed:
        for number in range(0, CASES, 2):
            await accepted(bed, subject=company(number))
        # Of these, a stage is deemed passed first, and the next ones are late then.
        waiting = [(await bed.submit(subject=company(number))).case_id for number in range(1, CASES, 2)]
        bed.clock.move(days=40)
        # One that is quick is done before the blow falls; not all of them are.
        ends = [killed_after(bed, lines, beside) for lines, beside in ((0, 0), (2, 1), (3, 0), (1, 0))]
        assert KILLED in ends
        between = await reminded(bed)
        assert max(between.values(), default=1) == 1
        assert killed_after(bed, None, beside=1) == 0
        sent = await reminded(bed)
        thresholds = ("yellow", "red", "escalation-1", "escalation-2")
        stages = [(row["case_id"], stage) for row in await bed.rows(CASE) for stage in "BC"]
        assert sent == Counter((case_id, stage, t) for case_id, stage in stages for t in thresholds)
        rows = Counter((r["case_id"], r["stage"], r["threshold"]) for r in await bed.rows(REMINDER))
        assert rows == sent
        assert len(await bed.reminded()) == len(sent)
        # A stage deemed passed raises one task, for the document that is missing.
        assert Counter(r["case_id"] for r in await bed.rows(TASK)) == Counter(waiting)
