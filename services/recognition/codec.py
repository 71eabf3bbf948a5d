"""Events as bytes for the store, and as messages for the wire.

The stored form is JSON: a list of what every event has, then one object with what else this one has, in a fixed order.
So equal events give equal bytes, and a field added later has its default in everything written before. Moments are
microseconds since 1970 in UTC.
"""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from operator import attrgetter
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from hutong.api.recognition.v1 import case_pb2
from services.recognition.events import Event, Kind, Mode, Pause, ResultCode, Submission

_EPOCH: Final = dt.datetime.fromtimestamp(0, dt.UTC)
_DAY: Final = 86_400_000_000
_SECOND: Final = 1_000_000
_delta: Final = dt.timedelta

_quote: Final[Callable[[str], str]] = encode_basestring
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
_read = json.JSONDecoder().raw_decode
"""Reads what begins with JSON; our own bytes need no look at what follows."""

# Looking a member up in a dict is several times faster than calling the enumeration.
_KINDS: Final[Mapping[str, Kind]] = {k.value: k for k in Kind}
_RESULTS: Final[Mapping[str, ResultCode]] = {r.value: r for r in ResultCode}
_PAUSES: Final[Mapping[str, Pause]] = {p.value: p for p in Pause}

_RARELY: Final = (
    "source_agency",
    "arrangement",
    "pause",
    "extension",
    "approval_ref",
    "threshold",
    "addressee",
    "calendar",
    "due_before",
    "due_after",
    "submission",
)
_RARE: Final = attrgetter(*_RARELY)
_FREQUENT: Final = frozenset({"reason", "result", "ref", "officer"})
_NOTHING: Final = ("", "", None, 0, "", "", "", "", None, None, None)


def micros(moment: dt.datetime) -> int:
    """Count the microseconds since 1970."""
    since = moment - _EPOCH
    return since.days * _DAY + since.seconds * _SECOND + since.microseconds


def moment(count: int) -> dt.datetime:
    """Give the moment that many microseconds after 1970."""
    return _EPOCH + _delta(0, 0, count)


def encode(event: Event) -> bytes:
    """Write an event as the store keeps it."""
    # Written by hand: that takes half the time, and a long log has hundreds of thousands of events.
    more: list[str] = []
    if event.reason:
        more.append(f'"reason":{_quote(event.reason)}')
    if event.result is not None:
        more.append(f'"result":{_quote(event.result)}')
    if event.ref:
        more.append(f'"ref":{_quote(event.ref)}')
    if event.officer:
        more.append(f'"officer":{_quote(event.officer)}')
    # One look at most: the events of a long log have none of these.
    if _RARE(event) != _NOTHING:
        rare: dict[str, Any] = {}
        _encode_rare(event, rare)
        more.append(_write(rare)[1:-1])
    last = f",{{{','.join(more)}}}]" if more else "]"
    plain = f"[{_quote(event.id)},{_quote(event.kind)},{_quote(event.stage)},{_quote(event.agency)}"
    return f"{plain},{micros(event.at)},{micros(event.recorded_at)}{last}".encode()


def _encode_rare(event: Event, more: dict[str, Any]) -> None:
    for name, value in zip(_RARELY, _RARE(event), strict=True):
        if isinstance(value, dt.datetime):
            more[name] = micros(value)
        elif isinstance(value, Submission):
            more[name] = _plain_submission(value)
        elif value:
            more[name] = value


def _plain_submission(said: Submission) -> dict[str, Any]:
    return {
        "procedure": said.procedure,
        "scheme": said.scheme,
        "subject": said.subject,
        "mode": said.mode,
        "answers": dict(said.answers),
        "commitment_id": said.commitment_id,
        "explicit_request_id": said.explicit_request_id,
        "deadline": None if said.deadline is None else micros(said.deadline),
        "planned_end": None if said.planned_end is None else micros(said.planned_end),
    }


def decode(body: bytes) -> Event:
    """Read an event as `encode` wrote it."""
    number, kind, stage, agency, at, recorded, *rest = _read(body.decode())[0]
    if not rest:
        return Event(number, _KINDS[kind], stage, agency, moment(at), moment(recorded))
    more = rest[0]
    if "result" in more:
        more["result"] = _RESULTS[more["result"]]
    if not _FREQUENT.issuperset(more):
        _decode_rare(more)
    return Event(number, _KINDS[kind], stage, agency, moment(at), moment(recorded), **more)


def _decode_rare(more: dict[str, Any]) -> None:
    if "pause" in more:
        more["pause"] = _PAUSES[more["pause"]]
    for name in ("due_before", "due_after"):
        if name in more:
            more[name] = moment(more[name])
    if "submission" in more:
        said = more["submission"]
        for name in ("deadline", "planned_end"):
            said[name] = None if said[name] is None else moment(said[name])
        more["submission"] = Submission(
            **said | {"mode": Mode(said["mode"]), "answers": tuple(sorted(said["answers"].items()))}
        )


def to_proto(case_id: str, sequence: int, event: Event) -> case_pb2.StageEvent:
    """Make the message of an event.

    The officer stands in it twice, plain and to be made a pseudonym: the field policy leaves each reader one of them.
    """
    result, pause = event.result or "UNSPECIFIED", event.pause or "UNSPECIFIED"
    return case_pb2.StageEvent(
        case_id=case_id,
        sequence=sequence,
        stage_event_id=event.id,
        stage_code=event.stage,
        agency=event.agency,
        stage_event=case_pb2.StageEventKind.Value(f"STAGE_EVENT_KIND_{event.kind}"),
        event_time=timestamp(event.at),
        recorded_at=timestamp(event.recorded_at),
        reason_code=event.reason,
        result_code=case_pb2.ResultCode.Value(f"RESULT_CODE_{result}"),
        result_ref=event.ref,
        source_agency=event.source_agency,
        arrangement=event.arrangement,
        pause=case_pb2.PauseKind.Value(f"PAUSE_KIND_{pause}"),
        extension=event.extension,
        approval_ref=event.approval_ref,
        threshold=event.threshold,
        addressee=event.addressee,
        calendar_id=event.calendar,
        due_before=timestamp(event.due_before),
        due_after=timestamp(event.due_after),
        officer=event.officer,
        officer_pseud=event.officer,
    )


def timestamp(moment: dt.datetime | None) -> Timestamp | None:
    """Make the message of a moment; none of none."""
    if moment is None:
        return None
    seconds, rest = divmod(micros(moment), _SECOND)
    return Timestamp(seconds=seconds, nanos=rest * 1000)
