"""A case on the screen: its stages as a timeline with lights, and its events as they came.

Every stage is two lines: what it is, and where it stands. That fits any terminal, and needs no columns to align.
"""

import datetime as dt
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hutong.api.recognition.v1 import case_pb2, case_service_pb2, stage_result_pb2
from services.cli.output import pairs
from services.kit.errors import HutongError
from services.recognition.calendars import Calendars

_LIGHTS: Final = {
    case_service_pb2.LIGHT_GREEN: Text("● green", style="green"),
    case_service_pb2.LIGHT_YELLOW: Text("● yellow", style="yellow"),
    case_service_pb2.LIGHT_RED: Text("● red", style="red"),
}
_UNITS: Final = {
    case_service_pb2.LIMIT_UNIT_WORKING_DAY: "working day",
    case_service_pb2.LIMIT_UNIT_CALENDAR_DAY: "day",
    case_service_pb2.LIMIT_UNIT_HOUR: "hour",
}
_MARKS: Final = {
    case_service_pb2.STAGE_STATUS_PASSED: ("✓", "green"),
    case_service_pb2.STAGE_STATUS_CONDITIONAL: ("✓", "green"),
    case_service_pb2.STAGE_STATUS_RECOGNISED: ("✓", "green"),
    case_service_pb2.STAGE_STATUS_DEEMED: ("✓", "yellow"),
    case_service_pb2.STAGE_STATUS_FAILED: ("✗", "red"),
    case_service_pb2.STAGE_STATUS_OPEN: ("▶", "cyan"),
    case_service_pb2.STAGE_STATUS_READY: ("▷", "cyan"),
    case_service_pb2.STAGE_STATUS_SUSPENDED: ("⏸", "yellow"),
}
_WORDS: Final = {
    case_service_pb2.STAGE_STATUS_READY: "not begun",
    case_service_pb2.STAGE_STATUS_OPEN: "at work",
    case_service_pb2.STAGE_STATUS_DEEMED: "taken for passed, its limit went by",
}
_ASIDE: Final = frozenset({case_service_pb2.STAGE_STATUS_NOT_APPLICABLE, case_service_pb2.STAGE_STATUS_WITHDRAWN})
_DAYS: Final = frozenset({case_service_pb2.LIMIT_UNIT_WORKING_DAY, case_service_pb2.LIMIT_UNIT_CALENDAR_DAY})


def status_word(status: "case_pb2.CaseStatus.ValueType") -> str:
    """Write a case's status without its prefix."""
    return case_pb2.CaseStatus.Name(status).removeprefix("CASE_STATUS_")


def stage_word(status: "case_service_pb2.StageStatus.ValueType") -> str:
    """Write a stage's status in words."""
    plain = case_service_pb2.StageStatus.Name(status).removeprefix("STAGE_STATUS_").replace("_", " ").lower()
    return _WORDS.get(status, plain)


def task_word(kind: "stage_result_pb2.TaskKind.ValueType") -> str:
    """Write what a task is for without its prefix."""
    return stage_result_pb2.TaskKind.Name(kind).removeprefix("TASK_KIND_")


def light(value: "case_service_pb2.Light.ValueType") -> Text:
    """Show a light: by colour, and by word for whoever does not see colours."""
    return _LIGHTS.get(value, Text("–", style="dim"))


def show_head(out: Console, view: case_service_pb2.CaseView) -> None:
    """Print what a case is and how it stands as a whole."""
    case = view.case
    zone = zone_of(view)
    titles = " ".join(part for part in (view.title, view.local_title) if part)
    rows = [
        ("case", case.case_id),
        ("procedure", f"{case.procedure_code}@{case.procedure_version}  {titles}"),
        ("about", case.subject_uscc or case.subject_token),
        ("led by", case.lead_agency),
        ("status", status_word(case.case_status)),
    ]
    if case.HasField("applied_at"):
        rows.append(("applied", moment(case.applied_at, zone)))
    if view.light:
        limit = f"; {_due(view.clock, zone)} for all of it" if view.HasField("clock") else ""
        rows.append(("light", f"{light(view.light)}{limit}"))
    if case.HasField("closed_at"):
        rows.append(("closed", moment(case.closed_at, zone)))
    elif view.HasField("expected_by"):
        provisional = "  (provisional: no calendar is published for it yet)" if view.provisional else ""
        rows.append(("at the latest", day(view.expected_by, zone) + provisional))
    out.print(pairs((name, value) for name, value in rows if value))


def show_stages(out: Console, view: case_service_pb2.CaseView) -> None:
    """Print the stages, in the procedure's order, each with its light and its clock."""
    zone = zone_of(view)
    timeline = _grid()
    for stage in view.stages:
        mark, style = _MARKS.get(stage.status, ("·", "dim"))
        timeline.add_row(Text(mark, style=style), Text(stage.code, style="bold"), _stage(stage, zone))
    out.print(timeline)


def _grid() -> Table:
    """Make a table without lines, of which only the last column may be wrapped."""
    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    made.add_column(no_wrap=True)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    return made


def _stage(stage: case_service_pb2.StageView, zone: dt.tzinfo) -> Text:
    faint = "dim" if stage.status in _ASIDE else ""
    said = [Text(": ".join(part for part in (stage.agency, _stands(stage, zone)) if part))]
    if stage.HasField("clock"):
        said.append(light(stage.clock.light))
        if not stage.HasField("ended_at"):
            said.append(Text(_due(stage.clock, zone)))
    if stage.doubtful:
        said.append(Text("rests on a result that does not stand any more", style="red"))
    titles = " ".join(part for part in (stage.title, stage.local_title) if part)
    return Text.assemble(titles, "\n", Text("; ").join(part for part in said if part.plain), style=faint)


def _stands(stage: case_service_pb2.StageView, zone: dt.tzinfo) -> str:
    if stage.status == case_service_pb2.STAGE_STATUS_WAITING and stage.waits_for:
        return f"waits for {', '.join(stage.waits_for)}"
    if stage.pause:
        why = case_pb2.PauseKind.Name(stage.pause).removeprefix("PAUSE_KIND_").lower()
        own = f", {left(stage.pause_clock)} for it" if stage.HasField("pause_clock") else ""
        return f"the clock stands: {why}{own}"
    words = [stage_word(stage.status)]
    if stage.source_agency:
        by = f" under {stage.arrangement}" if stage.arrangement else ""
        words.append(f"from {stage.source_agency}{by}")
    if stage.HasField("ended_at"):
        words[-1] += f", {moment(stage.ended_at, zone)}{', late' if stage.late else ''}"
    return " ".join(words)


def left(clock: case_service_pb2.ClockView) -> str:
    """Say how much of a limit is left, the day that runs counted in: `3 working days left`, `1 day over`."""
    unit = _UNITS.get(clock.unit, "")
    if not unit:
        return ""
    if not clock.left:
        return "time is up"
    amount = abs(clock.left)
    return f"{amount} {unit}{'' if amount == 1 else 's'} {'over' if clock.left < 0 else 'left'}"


def _due(clock: case_service_pb2.ClockView, zone: dt.tzinfo) -> str:
    if not clock.HasField("due_at"):
        return left(clock)
    due = day(clock.due_at, zone) if clock.unit in _DAYS else moment(clock.due_at, zone)
    words = f"{left(clock)}, {'was due' if clock.left <= 0 else 'due'} {due}"
    return f"{words} (provisional)" if clock.provisional else words


def show_events(out: Console, view: case_service_pb2.CaseView) -> None:
    """Print the events the caller may see, in order."""
    zone = zone_of(view)
    made = _grid()
    made.add_column(overflow="fold")
    for event in view.events:
        made.add_row(*event_row(event, zone))
    out.print(made)


def event_row(event: case_pb2.StageEvent, zone: dt.tzinfo) -> tuple[str, str, str, str]:
    """Write an event as a row: its number, when, in which stage, and what happened."""
    when = moment(event.event_time, zone) if event.HasField("event_time") else ""
    name = case_pb2.StageEventKind.Name(event.stage_event).removeprefix("STAGE_EVENT_KIND_")
    officer = event.officer or event.officer_pseud
    words = [name, f"by {event.agency}" if event.agency else "", *_says(event), f"officer {officer}" if officer else ""]
    return str(event.sequence), when, event.stage_code, " ".join(word for word in words if word)


def _says(event: case_pb2.StageEvent) -> list[str]:
    says = [event.reason_code, event.threshold, event.result_ref]
    if event.result_code:
        says.insert(0, case_pb2.ResultCode.Name(event.result_code).removeprefix("RESULT_CODE_"))
    if event.pause:
        says.insert(0, case_pb2.PauseKind.Name(event.pause).removeprefix("PAUSE_KIND_"))
    if event.extension:
        says.insert(0, f"+{event.extension}")
    for word, value in (
        ("to", event.addressee),
        ("from", event.source_agency),
        ("under", event.arrangement),
        ("with", event.calendar_id),
    ):
        if value:
            says.append(f"{word} {value}")
    return says


def zone_of(view: case_service_pb2.CaseView) -> dt.tzinfo:
    """Find the time zone of a case: that of the calendar its clocks run by; UTC where that is not told."""
    return _zone(view.calendar.partition("@")[0]) if view.calendar else dt.UTC


@cache
def _zone(calendar: str) -> dt.tzinfo:
    try:
        found: ZoneInfo = Calendars.load().get(calendar).zone
    except HutongError:
        return dt.UTC  # a calendar of that node's own: its moments are right all the same
    return found


def day(value: Timestamp, zone: dt.tzinfo) -> str:
    """Write the day that a limit ends with: full at 24:00, it is known by the day before that moment."""
    return f"{value.ToDatetime(dt.UTC).astimezone(zone) - dt.timedelta(microseconds=1):%Y-%m-%d}"


def moment(value: Timestamp, zone: dt.tzinfo) -> str:
    """Write a moment with its offset: a zone's name may mean several."""
    return value.ToDatetime(dt.UTC).astimezone(zone).isoformat(" ", "minutes")
