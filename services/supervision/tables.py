"""The tables of the supervision service. Events are the truth; what else stands here can be computed from them again.

Rows of `authorization_event` are only ever added. Moments are aware and in UTC.
"""

from typing import Final

import sqlalchemy as sa

from services.kit.records.tables import UtcDateTime, text_type

METADATA: Final = sa.MetaData()


def _text(name: str, *, primary_key: bool = False) -> "sa.Column[str]":
    return sa.Column(name, text_type(), primary_key=primary_key, nullable=False)


HEAD: Final = sa.Table(
    "authorization_head",
    METADATA,
    _text("authorization_id", primary_key=True),
    _text("system"),
    _text("request_id"),
    _text("requester"),
    sa.Column("emergency", sa.Boolean(), nullable=False),
    sa.Column("scope", sa.LargeBinary(), nullable=False),
    sa.Column("requested_at", UtcDateTime(), nullable=False),
    sa.Column("not_after", UtcDateTime(), nullable=False),
    sa.Column("touched_at", UtcDateTime(), nullable=False),
    sa.Column("sequence", sa.BigInteger(), nullable=False),
    sa.Column("tip", sa.LargeBinary(), nullable=False),
    sa.Column("rows_used", sa.BigInteger(), nullable=False),
    sa.Column("seal", sa.LargeBinary(), nullable=False),
    sa.Column("over", sa.Boolean(), nullable=False),
    sa.Column("change", sa.BigInteger(), nullable=False),
)
"""One row per authorization, locked by whoever changes it: `tip` is the digest of its last event, `seal` holds event
and rows together under the node's secret, `change` says when nodes have to hear of it, in order of the commits."""
sa.Index("authorization_head_request_uq", HEAD.c.system, HEAD.c.request_id, unique=True)
sa.Index("authorization_head_requested_ix", HEAD.c.requested_at, HEAD.c.authorization_id)
sa.Index("authorization_head_change_ix", HEAD.c.change)
sa.Index("authorization_head_over_ix", HEAD.c.over, HEAD.c.not_after)
sa.Index("authorization_head_requester_ix", HEAD.c.requester, HEAD.c.emergency)

EVENT: Final = sa.Table(
    "authorization_event",
    METADATA,
    _text("authorization_id", primary_key=True),
    sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
    _text("kind"),
    sa.Column("at", UtcDateTime(), nullable=False),
    _text("agency"),
    _text("officer"),
    _text("reason_code"),
    _text("signature"),
)
"""The events, each signed and chained to the one before by `signature`, which says all of it."""

REACH: Final = sa.Table(
    "authorization_agency",
    METADATA,
    _text("agency", primary_key=True),
    _text("authorization_id", primary_key=True),
)
"""Which agencies may see an authorization: the one that asked, and those that own records in its scope."""

RESERVATION: Final = sa.Table(
    "reservation",
    METADATA,
    _text("node", primary_key=True),
    _text("reservation_id", primary_key=True),
    _text("authorization_id"),
    _text("record_type"),
    sa.Column("rows", sa.BigInteger(), nullable=False),
    sa.Column("at", UtcDateTime(), nullable=False),
)
"""Rows that were taken off a quota; kept for a day, so that one that is sent again counts once."""
sa.Index("reservation_rate_ix", RESERVATION.c.authorization_id, RESERVATION.c.at)
sa.Index("reservation_at_ix", RESERVATION.c.at)

TOKEN: Final = sa.Table(
    "officer_token",
    METADATA,
    _text("issuer", primary_key=True),
    _text("jti", primary_key=True),
    sa.Column("expires_at", UtcDateTime(), nullable=False),
)
"""Officer tokens that were used: none is taken twice."""
sa.Index("officer_token_expires_ix", TOKEN.c.expires_at)

CLOCK: Final = sa.Table(
    "authorization_clock",
    METADATA,
    sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
    sa.Column("change", sa.BigInteger(), nullable=False),
    sa.Column("latest", UtcDateTime(), nullable=False),
    sa.CheckConstraint("id = 1", name="authorization_clock_one_row"),
)
"""The number of the last change, taken under the lock of this row and last of all; and the latest moment known."""
