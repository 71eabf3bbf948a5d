"""The tables of a node's log. Entries and hashes are only ever added; openings and subjects may be erased.

They lie in a database of their own, apart from the node's records: who may write records cannot reach the log, and a
full disk or a restored backup of the one is no trouble of the other.
"""

from typing import Final

import sqlalchemy as sa

from services.kit.records.tables import UtcDateTime, text_type

METADATA: Final = sa.MetaData()

_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite keeps a table in the order of its key only where the key is an INTEGER."""

ENTRY: Final = sa.Table(
    "log_entry",
    METADATA,
    sa.Column("index", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
    sa.Column("entry", sa.LargeBinary(), nullable=False),
)
"""The leaves, in order and without a gap: each entry's bytes and its leaf hash, which is level 0 of the tiles."""

HASH: Final = sa.Table(
    "log_hash",
    METADATA,
    sa.Column("level", sa.SmallInteger(), primary_key=True, autoincrement=False),
    sa.Column("index", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary(), nullable=False),
    sqlite_with_rowid=False,
)
"""Roots of whole subtrees of 256^level leaves, for levels from 1: the tiles' hashes (C2SP tlog-tiles)."""

HEAD: Final = sa.Table(
    "log_head",
    METADATA,
    sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
    sa.Column("size", sa.BigInteger(), nullable=False),
    sa.Column("frontier", sa.LargeBinary(), nullable=False),
    sa.Column("checkpoint", text_type(), nullable=False),
    sa.Column("time", UtcDateTime()),
    sa.CheckConstraint("id = 1", name="log_head_one_row"),
)
"""The end of the log, one row; whoever appends holds its lock. `frontier` is the tree's right edge, as
`merkle.Frontier` writes it; `checkpoint` is the signed note, empty before the first entry; `time` is that of the last
entry."""

OPENING: Final = sa.Table(
    "log_opening",
    METADATA,
    sa.Column("index", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("opening", sa.LargeBinary(), nullable=False),
)
"""What entries commit to, with the salts: a serialized `Opening` each, gone once erased."""

PART: Final = 4096
"""Entries of one part of the index of subjects."""

SUBJECT: Final = sa.Table(
    "log_part",
    METADATA,
    sa.Column("part", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("scheme", text_type(), primary_key=True),
    sa.Column("value", text_type(), primary_key=True),
    sa.Column("index", sa.BigInteger(), primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
"""Which entries are about whom, in parts of 4,096 entries that are sorted by themselves; gone once erased. One sorted
whole would have each entry change a page of its own, and writing that costs more than everything else of an entry."""

RECENT: Final = sa.Table(
    "log_recent",
    METADATA,
    sa.Column("index", sa.BigInteger(), nullable=False),
    sa.Column("scheme", text_type(), nullable=False),
    sa.Column("value", text_type(), nullable=False),
)
"""The same of the entries of the part that is not complete yet, as they came."""

TEXT: Final = sa.Table(
    "log_text",
    METADATA,
    sa.Column("kind", text_type(), primary_key=True),
    sa.Column("name", text_type(), primary_key=True),
    sa.Column("text", sa.LargeBinary(), nullable=False),
)
"""Texts that entries name by digest, kept as long as the log. That of a scope is empty once somebody was erased whom it
named."""

WITNESSED: Final = sa.Table(
    "log_witnessed",
    METADATA,
    sa.Column("origin", text_type(), primary_key=True),
    sa.Column("size", sa.BigInteger(), nullable=False),
    sa.Column("root", sa.LargeBinary(), nullable=False),
    sa.Column("checkpoint", text_type(), nullable=False),
    sa.Column("time", UtcDateTime(), nullable=False),
)
"""The last head of each other log that this node has co-signed, as its log signed it."""

EVIDENCE: Final = sa.Table(
    "log_evidence",
    METADATA,
    sa.Column("origin", text_type(), primary_key=True),
    sa.Column("size", sa.BigInteger(), primary_key=True, autoincrement=False),
    sa.Column("root", sa.LargeBinary(), primary_key=True),
    sa.Column("proven", sa.Boolean(), nullable=False),
    sa.Column("witnessed", text_type(), nullable=False),
    sa.Column("shown", text_type(), nullable=False),
    sa.Column("proof", sa.LargeBinary(), nullable=False),
    sa.Column("caller", text_type(), nullable=False),
    sa.Column("time", UtcDateTime(), nullable=False),
)
"""Heads of other logs that do not go with what was witnessed: both checkpoints as their log signed them, and the
consistency proof that was shown. `proven` where these convict the log by themselves, whoever showed them."""

COSIGNED: Final = sa.Table(
    "log_cosigned",
    METADATA,
    sa.Column("witness", text_type(), primary_key=True),
    sa.Column("size", sa.BigInteger(), nullable=False),
    sa.Column("checkpoint", text_type(), nullable=False),
    sa.Column("cosignature", text_type(), nullable=False),
)
"""The last checkpoint of this log that each witness has co-signed, and its signature line."""

TOKEN: Final = sa.Table(
    "log_token",
    METADATA,
    sa.Column("agency", text_type(), primary_key=True),
    sa.Column("digest", sa.LargeBinary(), primary_key=True),
    sa.Column("until", UtcDateTime(), nullable=False),
)
"""Officer tokens that were used for a look into the log, by the digest of their id, for all replicas of the node."""
sa.Index("log_token_until_ix", TOKEN.c.until)

QUOTA: Final = sa.Table(
    "log_quota",
    METADATA,
    sa.Column("day", sa.Date(), primary_key=True),
    sa.Column("caller", text_type(), primary_key=True),
    sa.Column("calls", sa.BigInteger(), nullable=False),
    sa.Column("records", sa.BigInteger(), nullable=False),
)
"""What each caller, by its SPIFFE id, was given on a day by all replicas of the node (`services.kit.quotas`): answers,
and the records in them."""
