"""What migrations do for events: the outbox of a source, the inbox of a receiver.

Frozen: databases exist that were made by it. Whatever changes in `outbox` or `inbox` later is a later revision, with
a function of its own here.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

_TEXT: sa.types.TypeEngine[str] = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def create_outbox_tables() -> None:
    """Create the tables of an outbox."""
    op.create_table(
        "outbox",
        _number("sequence", primary_key=True),
        *_required(_TEXT, "event_id", "audience", "kind", "key"),
        *_required(_MOMENT, "recorded_at"),
        *_required(_TEXT, "payload"),
    )
    op.create_index("outbox_event_uq", "outbox", ["event_id"], unique=True)
    op.create_index("outbox_audience_ix", "outbox", ["audience", "sequence"])
    _create_clock("outbox_clock", "sequence")


def drop_outbox_tables() -> None:
    """Drop an outbox, with all that was not sent yet."""
    for name in ("outbox_clock", "outbox"):
        op.drop_table(name)


def add_outbox_trace() -> None:
    """Add the trace that an event came of, to an outbox that has none."""
    op.add_column("outbox", sa.Column("traceparent", _TEXT, nullable=False, server_default=""))


def drop_outbox_trace() -> None:
    """Drop it again, with the traces of all events."""
    op.drop_column("outbox", "traceparent")


def create_outbox_readers() -> None:
    """Create what an outbox knows of those who read it, and of what is no longer in it."""
    op.create_table(
        "outbox_reader",
        sa.Column("node", _TEXT, primary_key=True),
        *_required(_TEXT, "audience"),
        _number("sequence"),
        *_required(_MOMENT, "first_at", "heard_at"),
    )
    op.create_table(
        "outbox_gone",
        sa.Column("audience", _TEXT, primary_key=True),
        _number("sequence"),
        _number("had"),
        *_required(_MOMENT, "had_at"),
    )


def drop_outbox_readers() -> None:
    """Drop both."""
    for name in ("outbox_gone", "outbox_reader"):
        op.drop_table(name)


def create_inbox_tables() -> None:
    """Create the tables of an inbox: every room's second revision."""
    op.create_table(
        "inbox_event",
        _number("position", primary_key=True),
        *_required(_TEXT, "source"),
        _number("sequence"),
        *_required(_TEXT, "event_id", "kind", "key"),
        *_required(_MOMENT, "recorded_at", "received_at"),
        *_required(_TEXT, "payload"),
    )
    op.create_index("inbox_event_uq", "inbox_event", ["source", "event_id"], unique=True)
    op.create_index("inbox_event_kind_ix", "inbox_event", ["kind", "position"])
    op.create_index("inbox_event_key_ix", "inbox_event", ["key", "position"])
    op.create_table("inbox_position", sa.Column("source", _TEXT, primary_key=True), _number("sequence"))
    _create_clock("inbox_clock", "position")


def drop_inbox_tables() -> None:
    """Drop an inbox, with all that it received."""
    for name in ("inbox_clock", "inbox_position", "inbox_event"):
        op.drop_table(name)


def _create_clock(name: str, column: str) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        _number(column),
        sa.CheckConstraint("id = 1", name=f"{name}_one_row"),
    )
    op.execute(f"INSERT INTO {name} (id, {column}) VALUES (1, 0)")  # noqa: S608 - names of ours


def _number(name: str, *, primary_key: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), primary_key=primary_key, autoincrement=False, nullable=False)


def _required(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names]
