"""Events as bytes and as messages."""

import datetime as dt
import json

from hypothesis import given
from hypothesis import strategies as st

from hutong.api.recognition.v1 import case_pb2
from services.recognition import codec
from services.recognition.events import Event, Kind, Mode, Pause, ResultCode, Submission

NOW = dt.datetime(2026, 9, 21, 2, 0, 0, 123456, tzinfo=dt.UTC)

# A surrogate by itself is no character, and stands in no text that came over the wire.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
moments = st.integers(-(10**15), 10**17).map(codec.moment)
submissions = st.builds(
    Submission,
    texts,
    texts,
    texts,
    st.sampled_from(Mode),
    st.dictionaries(texts, texts, max_size=3).map(lambda d: tuple(sorted(d.items()))),
    texts,
    texts,
    st.none() | moments,
    st.none() | moments,
)
events = st.builds(
    Event,
    id=texts,
    kind=st.sampled_from(Kind),
    stage=texts,
    agency=texts,
    at=moments,
    recorded_at=moments,
    reason=texts,
    result=st.none() | st.sampled_from(ResultCode),
    ref=texts,
    source_agency=texts,
    arrangement=texts,
    pause=st.none() | st.sampled_from(Pause),
    extension=st.integers(0, 2**31 - 1),
    approval_ref=texts,
    threshold=texts,
    addressee=texts,
    calendar=texts,
    due_before=st.none() | moments,
    due_after=st.none() | moments,
    officer=texts,
    submission=st.none() | submissions,
)


@given(events)
def test_what_is_written_is_read_again(event: Event) -> None:
    assert codec.decode(codec.encode(event)) == event


@given(events)
def test_equal_events_give_equal_bytes(event: Event) -> None:
    again = codec.decode(codec.encode(event))
    assert codec.encode(again) == codec.encode(event)


def test_moments_are_exact_and_in_utc() -> None:
    beijing = NOW.astimezone(dt.timezone(dt.timedelta(hours=8)))
    event = codec.decode(codec.encode(Event("i", Kind.START, "A", "commerce", beijing, NOW)))
    assert event.at == NOW
    assert event.at.tzinfo is dt.UTC
    assert event.at.microsecond == 123456


def test_what_is_empty_takes_no_room() -> None:
    plain = json.loads(codec.encode(Event("i", Kind.START, "A", "commerce", NOW, NOW)))
    assert plain == ["i", "START", "A", "commerce", codec.micros(NOW), codec.micros(NOW)]


def test_what_was_written_stays_readable() -> None:
    stored = b'["i","SUSPEND","A","taxation",1790000000000000,1790000000000001,{"reason":"R","pause":"INQUIRY"}]'
    event = codec.decode(stored)
    assert (event.pause, event.reason, event.at.year) == (Pause.INQUIRY, "R", 2026)


def test_an_event_as_a_message() -> None:
    event = Event(
        "i",
        Kind.RECOGNISE,
        "B",
        "recognition",
        NOW,
        NOW,
        ref="r",
        source_agency="publicsecurity",
        arrangement="X@1.0.0",
        officer="o-17",
    )
    message = codec.to_proto("DEMO-1", 3, event)
    assert (message.case_id, message.sequence, message.stage_code) == ("DEMO-1", 3, "B")
    assert message.stage_event == case_pb2.STAGE_EVENT_KIND_RECOGNISE
    assert message.event_time.ToDatetime(dt.UTC) == NOW
    assert (message.result_ref, message.source_agency, message.arrangement) == ("r", "publicsecurity", "X@1.0.0")
    assert not message.HasField("due_before")
    assert (message.officer, message.officer_pseud) == ("o-17", "o-17")


def test_every_word_has_its_place_in_the_messages() -> None:
    for kind in Kind:
        for result in (None, *ResultCode):
            for pause in (None, *Pause):
                message = codec.to_proto("c", 1, Event("i", kind, "", "a", NOW, NOW, result=result, pause=pause))
                assert case_pb2.StageEventKind.Name(message.stage_event) == f"STAGE_EVENT_KIND_{kind}"
                assert case_pb2.ResultCode.Name(message.result_code).endswith(str(result or "UNSPECIFIED"))
                assert case_pb2.PauseKind.Name(message.pause).endswith(str(pause or "UNSPECIFIED"))
