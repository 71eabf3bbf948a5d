"""Processes that are killed at any moment: what was said to be done is done, and what is there verifies."""

from collections import Counter
from itertools import islice
from pathlib import Path

from services.supervision.tables import HEAD, RESERVATION
from tests.killable import KILLED, Killable
from tests.supervision.acting import act
from tests.supervision.desk import Desk

LINES = 12


def killed_after(desk: Desk, name: str, lines: int) -> list[tuple[str, str]]:
    """Let two act at once; kill both without any warning once one has said so much. Gives what it said."""
    processes = [Killable(act, desk.url, desk.folder, who) for who in (name, f"{name}-other")]
    said = list(islice(processes[0].said(), lines))
    for process in processes:
        process.kill()
    said += processes[0].ended()
    processes[1].ended()
    assert {process.code for process in processes} == {KILLED}
    # A line without its end was not said.
    spoken = (line.split() for line in said if line.endswith("\n"))
    return [(authorization_id, what) for authorization_id, what in spoken]


async def test_nothing_that_was_said_is_lost(any_desk: Desk, tmp_path: Path) -> None:
    desk = any_desk
    said: Counter[tuple[str, str]] = Counter()
    for number in range(3):
        said.update(killed_after(desk, f"p{number}", LINES + number))
    fresh = await desk.other()
    reserved = Counter(row["authorization_id"] for row in await desk.rows(RESERVATION))
    for head in await desk.rows(HEAD):
        found = await fresh.authorizations.get(head["authorization_id"], None)
        assert found.head.rows_used == reserved[found.id]
        kinds = Counter(event.kind.value for event in found.events)
        for (authorization_id, what), times in said.items():
            if authorization_id == found.id:
                assert (reserved[found.id] if what == "reserved" else kinds[what]) >= times
    assert {authorization_id for authorization_id, _ in said} <= {
        row["authorization_id"] for row in await desk.rows(HEAD)
    }
    assert not fresh.broken
