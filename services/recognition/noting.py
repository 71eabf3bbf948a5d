"""What this service notes of its answers for the log: which records were given, and of which enterprise they are.

Stages as they stand are no records: they are computed from stage events, and are counted as such where the events
themselves are not given.
"""

from collections import Counter
from collections.abc import Iterable

import sqlalchemy as sa

from hutong.api.recognition.v1 import case_service_pb2, stage_result_pb2
from services.kit.caller import USCC
from services.kit.events.seam import Event
from services.kit.log.facts import Facts, Named, Subject
from services.recognition import ledger, stage_results
from services.recognition.disclosure import Disclosure
from services.recognition.ledger import Head
from services.recognition.stage_results import Result

CaseView = case_service_pb2.CaseView


def cases(facts: Facts, shown: Disclosure, given: Iterable[tuple[Head, CaseView]]) -> None:
    """Note cases with their events."""
    found: dict[Subject, int] = {}
    moves: dict[Subject, int] = {}
    count = events = 0
    for head, view in given:
        subject, parts = (head.scheme, head.subject), len(view.events) or len(view.stages)
        if view.HasField("case"):
            count += 1
            found[subject] = found.get(subject, 0) + 1
        if parts:
            events += parts
            moves[subject] = moves.get(subject, 0) + parts
    facts.disclosed(shown.case_mask, count, named=_enterprises(found))
    facts.disclosed(shown.event_mask, events, named=_enterprises(moves))


def events(facts: Facts, shown: Disclosure, head: Head, count: int) -> None:
    """Note events of one case."""
    facts.disclosed(shown.event_mask, count, named=_enterprises({(head.scheme, head.subject): count} if count else {}))


def results(facts: Facts, shown: Disclosure, given: Iterable[Result]) -> None:
    """Note results."""
    found: dict[Subject, int] = {}
    for result in given:
        found[result.scheme, result.subject] = found.get((result.scheme, result.subject), 0) + 1
    facts.disclosed(shown.result_mask, sum(found.values()), named=_enterprises(found))


def tasks(facts: Facts, shown: Disclosure, given: Iterable[stage_result_pb2.Task | None]) -> None:
    """Note tasks: they name cases and results, and nobody whom these are about."""
    facts.disclosed(shown.task_mask, sum(task is not None for task in given))


def told(connection: sa.Connection, sent: Iterable[Event]) -> Named:
    """Count the events that are about each enterprise: the one of their case, or of their result outside any case.

    The events themselves do not say: whoever gets one has to look it up, and the look-up is decided on.
    """
    keys = Counter(event.key for event in sent)
    subjects = ledger.subjects(connection, keys) | stage_results.subjects(connection, keys)
    found: Counter[Subject] = Counter()
    for key, subject in subjects.items():
        found[subject] += keys[key]
    return _enterprises(found)


def _enterprises(found: dict[Subject, int]) -> Named:
    return {subject: rows for subject, rows in found.items() if subject[0] == USCC}
