"""Steps about mutual recognition: one establishment, four agencies, one clock that everybody can see."""

import datetime as dt
import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from certs.files import write_atomically
from hutong.api.exchange.v1 import event_pb2
from hutong.api.recognition.v1 import case_pb2, case_service_pb2
from services.cli.cases import timeline
from services.cli.demo.desk import Desk, refusal, stage_of
from services.cli.demo.records import LATE_FIRM
from services.cli.demo.stage import Stage, until
from services.cli.rooms import RECOGNITION
from services.cli.zone import Zone
from services.kit.credentials import results, status
from services.kit.credentials.published import PublishedKeys
from services.kit.errors import HutongError, Reason

_AGO: Final = dt.timedelta(days=28)
"""How long ago it was applied for. Over the longest holidays it takes 25 days until the last escalation of E2; and what
E0 proves holds for 30."""

_PROMISED: Final = 5.0
"""Seconds in which everybody must have heard of a revocation; it takes less than one where the machine is not busy."""

_DOUBT: Final = "RESULT_REVOKED"


@dataclass(slots=True)
class _Tale:
    """Who takes part, and what the story has come to."""

    stage: Stage
    commerce: Desk
    police: Desk
    tax: Desk
    customs: Desk
    firm: Desk
    other: Desk
    """Another enterprise."""
    case: str = ""
    twin: str = ""
    """The second application for the same, made by mistake."""
    credential: str = ""
    """What public security has proven."""


def prepare(zone: Zone) -> None:
    """Let the recognition service take events of the last weeks, so that the story need not wait for weeks."""
    path = zone.config_file(RECOGNITION)
    write_atomically(path, b'backdating = "60d"\n' + path.read_bytes())


async def establishment(stage: Stage) -> None:
    """Tell how one enterprise is established."""
    tale = _Tale(
        stage,
        commerce=Desk.of(stage, "commerce/registry"),
        police=Desk.of(stage, "publicsecurity/permits"),
        tax=Desk.of(stage, "taxation/refund"),
        customs=Desk.of(stage, "customs/release"),
        firm=Desk.of(stage, f"enterprise/{LATE_FIRM.lower()}"),
        other=Desk.of(stage, f"enterprise/{stage.exporter.uscc.lower()}"),
    )
    await _silence(tale)
    await _overdue(tale)
    await _recognised(tale)
    await _registered(tale)
    await _travels(tale)
    await _revoked(tale)


async def _silence(tale: _Tale) -> None:
    """Apply four weeks ago, and hear nothing."""
    narrator, commerce = tale.stage.narrator, tale.commerce
    narrator.step("An enterprise is to be established, and nobody answers")
    applied = dt.datetime.now(dt.UTC) - _AGO
    view = await commerce.submit("FTZ-EST", LATE_FIRM, applied)
    tale.case = view.case.case_id
    narrator.say(f"Commerce hands in an application that was made {_AGO.days} days ago: {tale.case}.")
    narrator.check(len(view.stages) == 11, f"the case runs on {_label(view)}: eleven stages of seven agencies")
    await commerce.passes(tale.case, "E0", at=applied + dt.timedelta(minutes=5), name="示例迟到有限公司")
    narrator.say("The name is reserved. Then commerce has five working days to accept the application, and is silent.")
    view = await commerce.case(tale.case)
    accepted = stage_of(view, "E1")
    narrator.check(
        accepted.status == case_service_pb2.STAGE_STATUS_DEEMED,
        f"so it counts as accepted, by law, since {timeline.moment(accepted.ended_at, timeline.zone_of(view))}",
        accepted.status,
    )
    (task,) = await commerce.tasks(tale.case)
    narrator.check(timeline.task_word(task.kind) == "DEEMED_DOCUMENT", "and commerce has a task: to issue the document")
    await commerce.passes(tale.case, "E1", form="paper")
    done = await commerce.dispose(task, "DONE", "DOCUMENT_ISSUED")
    narrator.check(done.HasField("disposed_at") and not await commerce.tasks(tale.case), "it does, and disposes of it")


async def _overdue(tale: _Tale) -> None:
    """Let a stage lie, until it is escalated; look at it as the enterprise, and remind."""
    narrator, police, firm = tale.stage.narrator, tale.police, tale.firm
    narrator.step("A stage is overdue: reminders go out by themselves")
    narrator.say("Public security has one working day for the identity check. It has not begun.")

    async def escalated() -> bool:
        return len(_reminders(await police.case(tale.case))) == 4

    took = await until(escalated)
    view = await police.case(tale.case)
    sent = _reminders(view)
    narrator.show(("Threshold", "Reminded"), sent)
    wanted = ["yellow", "red", "escalation-1", "escalation-2"]
    narrator.check([threshold for threshold, _ in sent] == wanted, "four reminders, each once", (took, sent))
    offices = [office for _, office in sent]
    narrator.check(
        offices == [*["publicsecurity-window"] * 2, "publicsecurity-division", "zone-supervision"],
        "they go up the line: the desk, its superior, the supervision of the zone",
        offices,
    )

    async def told() -> bool:
        return _kinds(await police.inbox(tale.case)).count("reminder") == 4

    narrator.check(await until(told) is not None, "and lie in public security's own inbox, as events")
    seen = await firm.progress(tale.case)
    late = stage_of(seen.view, "E2")
    narrator.check(
        late.clock.light == case_service_pb2.LIGHT_RED and late.clock.left < 0,
        f"the enterprise sees a red light, {timeline.left(late.clock)}, and who holds it: {', '.join(seen.held_by)}",
        (late.clock.light, late.clock.left),
    )
    narrator.check(seen.reminders == 4 and not _reminders(seen.view), "how many reminders went out, and not to whom")
    await _remind(tale)


async def _remind(tale: _Tale) -> None:
    narrator, firm = tale.stage.narrator, tale.firm
    reminded = await firm.remind(tale.case, "E2")
    again = await refusal(firm.remind(tale.case, "E2"))
    narrator.check(
        len(reminded.events) == 1 and _reason(again) == Reason.REMINDED_ALREADY,
        "it reminds once more itself; a second time on the same day is refused",
        _reason(again),
    )
    stranger = await refusal(tale.other.progress(tale.case))
    missing = await refusal(tale.firm.progress("FTZ-EST-20200101-00000000"))
    narrator.check(
        stranger is not None and missing is not None and str(stranger) == str(missing),
        "to another enterprise there is no such case: it hears what anybody hears of one that does not exist",
        stranger,
    )


async def _recognised(tale: _Tale) -> None:
    """Examine once, and count twice."""
    narrator, police = tale.stage.narrator, tale.police
    narrator.step("Examined once, it counts everywhere")
    narrator.say("Tired of waiting, the enterprise applies a second time.")
    view = await tale.firm.submit("FTZ-EST", LATE_FIRM)
    tale.twin, name = view.case.case_id, stage_of(view, "E0")
    narrator.check(
        name.status == case_service_pb2.STAGE_STATUS_RECOGNISED and name.source_agency == "commerce",
        "its name is reserved already, and is not asked for again: recognised as it is handed in",
        name.status,
    )
    await tale.commerce.event(tale.twin, "E1", "START")
    await tale.commerce.passes(tale.twin, "E1")
    await police.event(tale.twin, "E2", "START")
    narrator.say("Commerce accepts this one at once, and here public security begins its identity check.")
    told = await refusal(police.event(tale.case, "E2", "START"))
    narrator.check(
        told is not None and told.reason == Reason.EXAMINATION_OPEN and told.metadata.get("case_id") == tale.twin,
        "who opens the same examination in the first case is told of the one that is open, and where",
        _reason(told),
    )
    started = time.monotonic()
    tale.credential = await police.passes(tale.twin, "E2", officer="P-1147", method="chip", document="passport")
    took = time.monotonic() - started
    found = stage_of(await tale.firm.case(tale.case), "E2")
    narrator.check(
        found.status == case_service_pb2.STAGE_STATUS_RECOGNISED,
        f"its result satisfies the first case too, at once ({took:.2f} s): nobody is asked again",
        found.status,
    )
    narrator.check(
        (found.source_agency, found.result_ref) == ("publicsecurity", results.read(tale.credential).ref),
        f"and the case shows from where: {found.source_agency}, under {found.arrangement}",
        found.source_agency,
    )
    held = (await tale.firm.progress(tale.case)).held_by
    narrator.check(list(held) == ["commerce"], "now commerce holds it", held)
    await tale.firm.event(tale.twin, "", "WITHDRAW")
    closed = (await tale.firm.case(tale.twin)).case.case_status
    narrator.check(closed == case_pb2.CASE_STATUS_WITHDRAWN, "the enterprise withdraws its second application", closed)
    await _officers(tale)


async def _officers(tale: _Tale) -> None:
    seen: list[tuple[str, str]] = []
    for desk in (tale.police, tale.commerce, tale.firm):
        (event,) = [e for e in (await desk.case(tale.twin)).events if (e.stage_code, e.result_code) == ("E2", 1)]
        seen.append((event.officer, event.officer_pseud))
    own, commerce, firm = seen
    tale.stage.narrator.check(
        own[0] == "P-1147" and not commerce[0] and commerce[1].startswith("pn_") and firm == ("", ""),
        "who examined it: public security knows its officer, commerce a pseudonym, the enterprise nothing",
        seen,
    )


async def _registered(tale: _Tale) -> None:
    """Ask for a document, let the clock stand, and register."""
    narrator, commerce = tale.stage.narrator, tale.commerce
    narrator.step("The clock stands while the applicant is asked")
    await commerce.event(tale.case, "E4", "START")
    running = stage_of(await commerce.case(tale.case), "E4")
    narrator.check(
        running.clock.HasField("due_at"), f"commerce begins the registration: {timeline.left(running.clock)}"
    )
    await commerce.event(tale.case, "E4", "SUPPLEMENT_REQUEST", reason_code="MATERIAL_MISSING")
    seen = await tale.firm.progress(tale.case)
    asked = stage_of(seen.view, "E4")
    narrator.check(
        asked.pause == case_pb2.PAUSE_KIND_SUPPLEMENT and not asked.clock.HasField("due_at"),
        "a document is missing: the clock stands, and there is no due day while it does",
        asked.clock,
    )
    narrator.check(list(seen.held_by) == ["applicant"], "now the applicant holds it", seen.held_by)
    await tale.firm.event(tale.case, "E4", "SUPPLEMENT_RECEIVED")
    twice = await refusal(commerce.event(tale.case, "E4", "SUPPLEMENT_REQUEST", reason_code="MATERIAL_OUTDATED"))
    narrator.check(_reason(twice) == Reason.SUPPLEMENT_REPEATED, "it hands it in; to ask twice is refused", twice)
    await commerce.passes(tale.case, "E4", uscc=LATE_FIRM)
    issued = (await commerce.case(tale.case)).case.case_status
    narrator.check(issued == case_pb2.CASE_STATUS_ISSUED, "the enterprise is registered, and the licence issued")


async def _travels(tale: _Tale) -> None:
    """Verify a result with nothing but published keys."""
    narrator, keys = tale.stage.narrator, tale.stage.zone.keys
    narrator.step("A result travels, and is verified offline")
    published, now = PublishedKeys.load(keys), dt.datetime.now(dt.UTC)
    shown = results.present(tale.credential, ["method"])
    statement = results.verify(
        shown, published, at=now, issuer="publicsecurity", fact="person_verified", subject=f"cn.uscc:{LATE_FIRM}"
    )
    narrator.check(
        dict(statement.value) == {"method": "chip"} and not statement.case_id,
        f"it verifies with {keys.name}/ alone; of what it says, the holder shows how, and keeps document and case back",
        statement.value,
    )
    narrator.check(_every_byte_counts(shown, published, now), "with any one byte of it altered, it is refused")


def _every_byte_counts(credential: str, published: PublishedKeys, now: dt.datetime) -> bool:
    """Alter one byte after the other."""
    for place in range(len(credential)):
        altered = credential[:place] + ("A" if credential[place] != "A" else "B") + credential[place + 1 :]
        try:
            results.verify(altered, published, at=now)
        except HutongError:
            continue
        return False
    return True


async def _revoked(tale: _Tale) -> None:
    """Revoke what others have built on; see who hears of it, and what it takes to go on."""
    narrator, police, customs = tale.stage.narrator, tale.police, tale.customs
    narrator.step("A result is revoked: whoever built on it hears of it")
    await tale.tax.event(tale.case, "E5b", "START")
    await tale.tax.passes(tale.case, "E5b", taxpayer="general")
    await customs.event(tale.case, "E5c", "START")
    narrator.say(
        "Tax has registered the enterprise, customs is about to. Then public security finds an error of its own."
    )
    desks = {"publicsecurity": police, "commerce": tale.commerce, "taxation": tale.tax}
    started = time.monotonic()
    raised = await police.revoke(results.read(tale.credential).ref, "ISSUED_IN_ERROR")

    async def everybody_heard() -> bool:
        boxes = [await desk.inbox(tale.case) for desk in desks.values()]
        return all(_told_of(box) for box in boxes)

    heard = await until(everybody_heard)
    took = time.monotonic() - started
    narrator.show(
        ("Agency", "Stage", "Task", "Why"),
        [
            (agency, task.stage_code, timeline.task_word(task.kind), task.reason_code)
            for agency, desk in desks.items()
            for task in await desk.tasks(tale.case)
        ],
    )
    narrator.check(raised == 3, "three tasks: who recognised it, who registered on it, who built on that", raised)
    narrator.check(
        heard is not None and took < _PROMISED, f"they lie in three agencies' own inboxes {took:.2f} s later", took
    )
    doubtful = {s.code for s in (await tale.firm.case(tale.case)).stages if s.doubtful}
    narrator.check(
        {"E2", "E4", "E5b", "E5c"} <= doubtful, "nothing is undone; the case says what rests on it", doubtful
    )
    await _looked_up(tale)
    await _decided(tale, desks.values())


async def _looked_up(tale: _Tale) -> None:
    """Verify the revoked result offline once more, now with the list of what does not stand."""
    keys, now = PublishedKeys.load(tale.stage.zone.keys), dt.datetime.now(dt.UTC)
    uri = results.read(tale.credential).status_uri
    listed = status.verify(await tale.other.status_list(uri), keys, at=now, issuer=RECOGNITION)
    try:
        results.verify(tale.credential, keys, at=now, status=listed)
        reason = ""
    except HutongError as error:
        reason = error.reason
    tale.stage.narrator.check(
        reason == Reason.RESULT_REVOKED, "offline, with the signed status list, it does not verify any more", reason
    )


async def _decided(tale: _Tale, desks: Collection[Desk]) -> None:
    narrator, customs = tale.stage.narrator, tale.customs
    refused = await refusal(customs.passes(tale.case, "E5c", customs_code="9999960001"))
    narrator.check(
        _reason(refused) == Reason.RECOGNISED_RESULT_INVALID,
        "customs cannot decide on it: what a decision rests on is looked at again when it is made",
        refused,
    )
    narrator.say("The number of the passport was mistyped, the person is the same. The three agencies say so.")
    for desk in desks:
        for task in await desk.tasks(tale.case):
            await desk.dispose(task, "UPHELD", "DECISION_STANDS")
    left = [task for desk in desks for task in await desk.tasks(tale.case)]
    narrator.check(not left, "each disposes of its task: upheld", left)
    await customs.passes(tale.case, "E5c", customs_code="9999960001")
    decided = stage_of(await customs.case(tale.case), "E5c").status
    narrator.check(decided == case_service_pb2.STAGE_STATUS_PASSED, "and customs decides", decided)


def _label(view: case_service_pb2.CaseView) -> str:
    return f"{view.case.procedure_code}@{view.case.procedure_version}"


def _reminders(view: case_service_pb2.CaseView) -> list[tuple[str, str]]:
    reminders = (event for event in view.events if event.stage_event == case_pb2.STAGE_EVENT_KIND_REMIND)
    return [(event.threshold, event.addressee) for event in reminders if event.stage_code == "E2"]


def _kinds(events: Collection[event_pb2.Event]) -> list[str]:
    return [event.kind for event in events]


def _told_of(events: Collection[event_pb2.Event]) -> bool:
    """Tell whether a task that a revocation raised is among what was received."""
    tasks = (json.loads(event.payload) for event in events if event.kind == "task.raised")
    return any(task.get("task_kind") == _DOUBT for task in tasks)


def _reason(error: HutongError | None) -> str:
    return error.reason if error is not None else ""
