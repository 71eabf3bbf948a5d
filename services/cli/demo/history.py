"""A step about the past: a real log of permit cases, replayed as if they had run here."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adapters import eventlog
from services.cli import importing
from services.cli import stats as figures
from services.cli.casebook import Casebook
from services.cli.demo.narrator import Narrator
from services.cli.demo.stage import Stage
from services.kit.clock import system_clock
from services.recognition import log_profiles, stats
from services.recognition.importing import Imported, Importer
from services.recognition.stats import Stats

_PROCEDURE: Final = "WABO-RECEIPT"
_LOGS: Final = ("approval/coselog_receipt.xes.gz", "approval/coselog_receipt.csv.gz")

_CASES: Final = 1434
_EVENTS: Final = 8577
_COUNTED: Final = {
    "ended after their deadline": 377,
    "ended after the planned end": 389,
    "without an end date": 105,
    "with a last event after the deadline": 92,
}
"""What was counted in the log by other means."""


async def real_log(stage: Stage) -> None:
    """Import a real log in both of its forms, and count what it is known for."""
    logs = [stage.data / path for path in _LOGS if (stage.data / path).exists()] if stage.data else []
    if not logs:
        return
    stage.narrator.step("A real log of permit cases, replayed")
    book = Casebook.of(stage.zone.folder)
    async with book.open() as database:
        procedure = importing.find(book, _PROCEDURE)
        profile = log_profiles.load(procedure)
        importer = Importer(database, book.rulebook, procedure, profile, system_clock())
        done: list[Imported] = []
        for path in logs:
            log = await asyncio.to_thread(eventlog.read, path, profile.layout)
            done.append(await importer.run(log))
        _check_import(stage.narrator, logs, done)
        (found,) = await stats.measure(database, book.rulebook, _PROCEDURE)
    _check_figures(stage.narrator, found)


def _check_import(narrator: Narrator, logs: Sequence[Path], done: Sequence[Imported]) -> None:
    columns = ("Log", "Form", "Read", "Loaded", "Unchanged", "Refused")
    narrator.show(
        columns,
        (
            (each.log, each.form, *(str(n) for n in (each.read, each.loaded, each.unchanged, len(each.refused))))
            for each in done
        ),
    )
    first, *others = done
    narrator.check(
        (first.loaded, len(first.refused)) == (_CASES, 0),
        f"{logs[0].name}: {_CASES:,} cases, every event checked against the procedure",
        first,
    )
    narrator.check(
        all(each.unchanged == _CASES for each in others), "its other form gives the very same cases: unchanged", others
    )


def _check_figures(narrator: Narrator, found: Stats) -> None:
    narrator.check((found.cases, found.events) == (_CASES, _EVENTS), f"{_EVENTS:,} events, none lost", found.events)
    late = found.deadlines
    counted = (
        late.ended_after_deadline,
        late.ended_after_planned_end,
        found.without_end,
        late.last_event_after_deadline,
    )
    for (what, expected), count in zip(_COUNTED.items(), counted, strict=True):
        narrator.check(count == expected, f"{expected} cases {what}", count)
    narrow = found.bottleneck
    if narrow is not None:
        narrator.say(
            f"The bottleneck is {narrow.title}: {narrow.share:.0%} of all time, "
            f"median {figures.span(narrow.took.median)}, P90 {figures.span(narrow.took.p90)}."
        )
