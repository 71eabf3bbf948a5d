"""What may be put into an outbox, and what putting something twice does."""

import datetime as dt
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import autogenerate
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kit.config import TelemetrySection
from services.kit.errors import InvalidArgument, Reason
from services.kit.events import inbox, outbox
from services.kit.events.outbox import NewEvent
from services.kit.events.seam import MAX_NAME, MAX_PAYLOAD, Event
from services.kit.records import migrations
from services.kit.records.database import engine
from services.kit.telemetry import Telemetry
from tests.events.bed import create, event, numbers

NOW = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)
MIGRATION = '''"""An outbox and an inbox."""

from services.kit.events import revisions

revision: str = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Create them."""
    revisions.create_outbox_tables()
    revisions.add_outbox_trace()
    revisions.create_outbox_readers()
    revisions.create_inbox_tables()


def downgrade() -> None:
    """Drop them."""
    revisions.drop_outbox_readers()
    revisions.drop_outbox_trace()
    revisions.drop_outbox_tables()
    revisions.drop_inbox_tables()
'''


@pytest.fixture
def made(any_url: str) -> Iterator[sa.Engine]:
    create(any_url, outbox.METADATA)
    made = engine(any_url, writer=True)
    yield made
    made.dispose()


def put(made: sa.Engine, *events: NewEvent) -> None:
    with made.begin() as connection:
        outbox.put(connection, events, NOW)


def there(made: sa.Engine) -> list[Event]:
    with made.begin() as connection:
        return [e for agency in ("customs", "taxation") for e in outbox.waiting(connection, agency, 0, 1000).events]


def refused(made: sa.Engine, *events: NewEvent) -> Reason:
    with pytest.raises(InvalidArgument) as caught:
        put(made, *events)
    return caught.value.reason


def test_an_event_with_an_id_of_ones_own_happens_once(made: sa.Engine) -> None:
    one, other = event(1, event_id="task-1"), event(2, event_id="task-2")
    put(made, one, one, event(3))
    put(made, other, one)
    put(made, one)
    found = there(made)
    assert numbers(found) == [1, 3, 2]
    assert [e.sequence for e in found] == [1, 2, 3]


@pytest.mark.parametrize(
    "again", [event(2, event_id="a"), event(1, "taxation", event_id="a"), event(1, event_id="a", key="k")]
)
def test_an_id_stands_for_one_event(made: sa.Engine, again: NewEvent) -> None:
    put(made, event(1, event_id="a"))
    assert refused(made, event(7), again) is Reason.EVENT_ID_REUSED
    assert refused(made, event(8, event_id="b"), event(9, event_id="b")) is Reason.EVENT_ID_REUSED
    assert numbers(there(made)) == [1]


def test_one_event_put_by_many_at_once(any_url: str) -> None:
    create(any_url, outbox.METADATA)
    gate = threading.Barrier(6)
    failed: list[BaseException] = []

    def work() -> None:
        own = engine(any_url, writer=True)
        try:
            gate.wait(10)
            put(own, event(1, event_id="task-1"))
        except BaseException as error:
            failed.append(error)
        finally:
            own.dispose()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    reader = engine(any_url, writer=True)
    assert numbers(there(reader)) == [1]
    reader.dispose()


def test_nothing_at_all_is_fine(made: sa.Engine) -> None:
    put(made)
    assert there(made) == []


@pytest.mark.parametrize("bad", ["", " ", "two\nlines", "nul\x00", "\u200b", "\ud800", "x" * (MAX_NAME + 1)])
@pytest.mark.parametrize("where", ["audience", "kind", "event_id"])
def test_names_are_printable(made: sa.Engine, where: str, bad: str) -> None:
    if where == "event_id" and not bad:
        return  # means a new one
    fields: dict[str, Any] = {"audience": "customs", "kind": "k", "key": "c", "payload": {}, where: bad}
    assert refused(made, NewEvent(**fields)) is Reason.EVENT_INVALID
    assert there(made) == []


@pytest.mark.parametrize("bad", ["two\nlines", "nul\x00", "\ud800", "x" * (MAX_NAME + 1)])
def test_keys_are_printable_too_but_may_be_absent(made: sa.Engine, bad: str) -> None:
    assert refused(made, NewEvent("customs", "k", bad, {})) is Reason.EVENT_INVALID
    put(made, NewEvent("customs", "k", "", {}), NewEvent("customs", "审批", "编号 1", {"原因": "过期"}))
    assert [(e.kind, e.key, e.payload) for e in there(made)] == [("k", "", "{}"), ("审批", "编号 1", '{"原因":"过期"}')]


@pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}, {"a": NOW}, {"a": {1, 2}}])
def test_payloads_are_json(made: sa.Engine, bad: dict[str, Any]) -> None:
    assert refused(made, NewEvent("customs", "k", "c", bad)) is Reason.EVENT_INVALID


@pytest.mark.parametrize("letter", ["x", "海"])
def test_payloads_have_a_limit(made: sa.Engine, letter: str) -> None:
    room = (MAX_PAYLOAD - len('{"a":""}')) // len(letter.encode())
    put(made, NewEvent("customs", "k", "c", {"a": letter * room}))
    too_long = NewEvent("customs", "k", "c", {"a": letter * (room + 1)})
    assert refused(made, too_long) is Reason.EVENT_TOO_LARGE
    assert len(there(made)) == 1


def test_a_refusal_quotes_nothing(made: sa.Engine) -> None:
    secret = "911101020000000000"
    for bad in (NewEvent("customs", "k", "c", {"a": {secret}}), NewEvent("customs", "k", f"{secret}\n", {"b": secret})):
        with pytest.raises(InvalidArgument) as caught:
            put(made, bad)
        assert secret not in caught.value.message + str(caught.value.metadata)
        assert caught.value.__cause__ is None


def test_an_event_has_the_trace_of_its_call_and_is_the_same_without(made: sa.Engine) -> None:
    telemetry = Telemetry("recognition/node", TelemetrySection())
    one, other = (f"00-{letter * 32}-{letter * 16}-01" for letter in "ab")
    mine = event(1, event_id="mine")
    with telemetry.resumed(one, "a call", 0):
        put(made, mine, event(2))
    # Put again by another call, and by nobody's.
    with telemetry.resumed(other, "another", 0):
        put(made, mine)
    put(made, mine, event(3))
    telemetry.close()
    first, second, third = there(made)
    assert numbers([first, second, third]) == [1, 2, 3]
    assert (first.traceparent[:36], first.traceparent[-3:]) == (one[:36], "-01")
    assert (second.traceparent, third.traceparent) == (first.traceparent, "")


SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(), st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3), max_leaves=6), max_size=4
    )
)
def test_any_payload_comes_out_as_it_went_in(made: sa.Engine, payload: dict[str, Any]) -> None:
    with made.begin() as connection:
        before = outbox.last(connection)
        outbox.put(connection, [NewEvent("customs", "k", "c", payload)], NOW)
        (found,) = outbox.waiting(connection, "customs", before).events
    assert json.loads(found.payload) == payload


def test_the_migration_is_the_tables(any_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "versions" / "0001_initial.py").write_text(MIGRATION)
    both = sa.MetaData()
    for metadata in (outbox.METADATA, inbox.METADATA):
        for table in metadata.tables.values():
            table.to_metadata(both)
    for _ in range(2):
        assert migrations.upgrade(any_url, folder)
        made = engine(any_url, writer=True)
        with made.begin() as connection:
            assert autogenerate.compare_metadata(MigrationContext.configure(connection), both) == []
            outbox.put(connection, [event(1)], NOW)
        made.dispose()
        migrations.downgrade(any_url, folder)
