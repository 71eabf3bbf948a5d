"""Events while those who tell and those who hear them are killed: each is applied once, and none is lost."""

import asyncio
import contextlib
import datetime as dt
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Final

import sqlalchemy as sa

from bench import corpus
from hutong.api.recognition.v1 import case_service_pb2
from services.cli.fleet import Fleet
from services.cli.rooms import RECOGNITION, rooms
from services.cli.zone import Zone
from services.kit.errors import Unavailable
from services.kit.records import database
from tests.chaos.asking import EVERY, SUBJECTS
from tests.chaos.bed import Bed
from tests.chaos.running import Doing

PROCEDURE: Final = "AEO-CERT"
SUBMITTER: Final = "customs/release"
FOLLOWER: Final = "customs"
_METHOD: Final = "/hutong.api.recognition.v1.CaseService/SubmitCase"
_PATIENCE: Final = 20.0
_AGO: Final = dt.timedelta(days=28)


@contextlib.asynccontextmanager
async def events(doing: Doing[Bed]) -> AsyncGenerator[None]:
    """Begin cases, each until it is acknowledged, while recognition and who follows it are killed and come back."""
    fleet = doing.bed.fleet
    tries: Counter[str] = Counter()
    await fleet.kill(FOLLOWER)
    submitting = asyncio.create_task(_submit(fleet, tries))
    while tries["begun"] < SUBJECTS // 3:  # noqa: ASYNC110 - this must not hold up who submits
        await asyncio.sleep(EVERY)
    await fleet.kill(RECOGNITION)
    yield
    await asyncio.gather(fleet.restart(RECOGNITION), fleet.restart(FOLLOWER))
    cases = await submitting
    zone = doing.bed.zone
    told, heard = await _heard(zone)
    doing.notes.append(
        f"{len(cases)} cases were begun with {tries.total()} calls, {sum(map(len, told.values()))} events told of them"
    )
    if len(cases) != SUBJECTS:
        doing.problems.append(f"{SUBJECTS} were asked for, and there are {len(cases)} cases")
    if FOLLOWER not in told:
        doing.problems.append(f"there were no events for {FOLLOWER}")
    for agency, event_ids in told.items():
        counted = Counter(heard.get(agency, []))
        if set(counted) != set(event_ids):
            doing.problems.append(f"{agency} heard {len(counted)} of {len(event_ids)} events")
        doing.problems += [f"{agency} applied {name} {count} times" for name, count in counted.items() if count > 1]


async def _submit(fleet: Fleet, tries: Counter[str]) -> set[str]:
    """Begin a case for every enterprise, each as often as it takes; gives their ids."""
    client = fleet.client(SUBMITTER, RECOGNITION)
    found: set[str] = set()
    for number in range(SUBJECTS):
        request = case_service_pb2.SubmitCaseRequest(request_id=str(uuid.uuid4()), procedure_code=PROCEDURE)
        request.subject.scheme, request.subject.value = corpus.SCHEME, corpus.code(number)
        # So long ago that nobody's silence is borne any more: of each, customs is told that there is something to do.
        request.applied_at.FromDatetime(dt.datetime.now(dt.UTC) - _AGO)
        while True:
            try:
                answer = await client.unary(_METHOD, request, case_service_pb2.SubmitCaseResponse, timeout=5)
            except Unavailable as error:
                tries[error.reason] += 1
                await asyncio.sleep(EVERY)
            else:
                tries["begun"] += 1
                found.add(answer.view.case.case_id)
                break
    return found


async def _heard(zone: Zone) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Wait until everybody has heard what was told; gives the ids of both, by agency, after a while in any case."""
    until = time.monotonic() + _PATIENCE
    while True:
        told, heard = await asyncio.to_thread(_both, zone)
        everybody = all(set(told[agency]) == set(heard[agency]) for agency in told)
        if (everybody and len(told.get(FOLLOWER, ())) >= SUBJECTS) or time.monotonic() > until:
            return told, heard
        await asyncio.sleep(EVERY)


def _both(zone: Zone) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    told: dict[str, list[str]] = {}
    for audience, event_id in _rows(zone.store_url(RECOGNITION), "SELECT audience, event_id FROM outbox"):
        if audience in rooms():
            told.setdefault(audience, []).append(event_id)
    inbox = "SELECT source, event_id FROM inbox_event"
    return told, {agency: [name for _, name in _rows(zone.store_url(agency), inbox)] for agency in told}


def _rows(url: str, select: str) -> list[tuple[str, str]]:
    engine = database.engine(url, writer=False)
    try:
        with engine.connect() as connection:
            return [(str(one), str(other)) for one, other in connection.execute(sa.text(select))]
    finally:
        engine.dispose()
