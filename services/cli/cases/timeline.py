"""A case on the screen: its stages as a timeline with lights, and its events as they came."""

import datetime as dt
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.text import Text

from hutong.api.recognition.v1 import case_pb2, case_service_pb2
from services.cli.output import pairs, table
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
_DAYS: Final = frozenset({case_service_pb2.LIMIT_UNIT_WORKING_DAY, case_service_pb2.LIMIT_UNIT_CALENDAR_DAY})


def status_word(status: "case_pb2.CaseStatus.ValueType") -> str:
    """Write a case's status without its prefix."""
    return case_pb2.CaseStatus.Name(status).removeprefix("CASE_STATUS_")


def stage_word(status: "case_service_pb2.StageStatus.ValueType") -> str:
    """Write a stage's status without its prefix."""
    return case_service_pb2.StageStatus.Name(status).removeprefix("STAGE_STATUS_").replace("_", " ").lower()


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
        rows.append(("applied", _moment(case.applied_at, zone)))
    if case.HasField("closed_at"):
        rows.append(("closed", _moment(case.closed_at, zone)))
    if view.HasField("expected_by"):
        provisional = "  (provisional: no calendar is published for it yet)" if view.provisional else ""
        rows.append(("at the latest", day(view.expected_by, zone) + provisional))
    out.print(pairs((name, value) for name, value in rows if value))


def show_stages(out: Console, view: case_service_pb2.CaseView) -> None:
    """Print the stages, in the procedure's order, each with its light and its clock."""
    zone = zone_of(view)
    columns = ("", "Stage", "Held by", "Stands", "Light", "Left", "Due", "Notes")
    out.print(table("", columns, (_stage_row(stage, zone) for stage in view.stages)))


def _stage_row(stage: case_service_pb2.StageView, zone: dt.tzinfo) -> list[str | Text]:
    mark, style = _MARKS.get(stage.status, ("·", "dim"))
    title = " ".join(part for part in (stage.title, stage.local_title) if part)
    clock = stage.clock if stage.HasField("clock") else None
    due = _due(clock, zone) if clock is not None and not stage.HasField("ended_at") else ""
    return [
        Text(mark, style=style),
        f"{stage.code} {title}",
        stage.agency,
        stage_word(stage.status),
        light(clock.light) if clock is not None else Text("–", style="dim"),
        left(clock) if clock is not None and not stage.HasField("ended_at") else "",
        due,
        "; ".join(_notes(stage, zone)),
    ]


def left(clock: case_service_pb2.ClockView) -> str:
    """Say how much of a limit is left: `3 working days`, or `1 day over`."""
    unit = _UNITS.get(clock.unit, "")
    if not unit:
        return ""
    amount = abs(clock.left)
    words = f"{amount} {unit}{'' if amount == 1 else 's'}"
    return f"{words} over" if clock.left < 0 else words


def _due(clock: case_service_pb2.ClockView, zone: dt.tzinfo) -> str:
    if not clock.HasField("due_at"):
        return "stands still"
    text = day(clock.due_at, zone) if clock.unit in _DAYS else _moment(clock.due_at, zone)
    return f"{text} (provisional)" if clock.provisional else text


def _notes(stage: case_service_pb2.StageView, zone: dt.tzinfo) -> list[str]:
    notes: list[str] = []
    if stage.HasField("ended_at"):
        notes.append(f"ended {_moment(stage.ended_at, zone)}{', late' if stage.late else ''}")
    if stage.source_agency:
        by = f" under {stage.arrangement}" if stage.arrangement else ""
        notes.append(f"recognised from {stage.source_agency}{by}")
    if stage.doubtful:
        notes.append("the result it rests on does not stand any more")
    if stage.pause:
        own = f", {left(stage.pause_clock)} left for it" if stage.HasField("pause_clock") else ""
        notes.append(f"{case_pb2.PauseKind.Name(stage.pause).removeprefix('PAUSE_KIND_').lower()}{own}")
    if stage.waits_for:
        notes.append(f"waits for {', '.join(stage.waits_for)}")
    return notes


def show_events(out: Console, view: case_service_pb2.CaseView) -> None:
    """Print the events the caller may see, in order."""
    zone = zone_of(view)
    columns = ("#", "When", "Stage", "Event", "By", "Says", "Officer")
    out.print(table("", columns, (event_row(event, zone) for event in view.events)))


def event_row(event: case_pb2.StageEvent, zone: dt.tzinfo) -> list[str | Text]:
    """Write an event as a row: number, moment, stage, kind, agency, what it says, officer."""
    says = [event.reason_code, event.threshold, event.addressee, event.result_ref, event.arrangement, event.calendar_id]
    if event.result_code:
        says.insert(0, case_pb2.ResultCode.Name(event.result_code).removeprefix("RESULT_CODE_"))
    if event.pause:
        says.insert(0, case_pb2.PauseKind.Name(event.pause).removeprefix("PAUSE_KIND_"))
    if event.source_agency:
        says.insert(0, f"from {event.source_agency}")
    if event.extension:
        says.insert(0, f"+{event.extension}")
    return [
        str(event.sequence),
        _moment(event.event_time, zone) if event.HasField("event_time") else "",
        event.stage_code,
        case_pb2.StageEventKind.Name(event.stage_event).removeprefix("STAGE_EVENT_KIND_"),
        event.agency,
        " ".join(part for part in says if part),
        event.officer or event.officer_pseud,
    ]


def zone_of(view: case_service_pb2.CaseView) -> dt.tzinfo:
    """Find the time zone of a case: that of the calendar its clocks run by; UTC where none does."""
    labels = {stage.clock.calendar for stage in view.stages if stage.clock.calendar}
    return _zone(min(labels).partition("@")[0]) if labels else dt.UTC


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


def _moment(value: Timestamp, zone: dt.tzinfo) -> str:
    return f"{value.ToDatetime(dt.UTC).astimezone(zone):%Y-%m-%d %H:%M %Z}"
