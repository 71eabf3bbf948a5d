"""What can be proven of a node's store and log, taken together: after a restore, or of a backup before one is needed.

The log proves itself: every entry, every hash, the signature on the root; and against a checkpoint that somebody else
has kept, that it has only grown since. Records are checked against their digests, and each record's versions against
one another. And what the log says was given must be there to be given: so many rows, about whom, by then.
"""

import datetime as dt
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import sqlalchemy as sa

from hutong.api.log.v1 import log_pb2
from services.kit.errors import FailedPrecondition, NotFound, Reason
from services.kit.log import cosigned, merkle, reading, verifying
from services.kit.log.checkpoint import SignedCheckpoint
from services.kit.log.notes import VerifierKey
from services.kit.log.verifying import Whole
from services.kit.log.writer import read_head
from services.kit.records.catalogue import RecordType
from services.kit.records.tables import RecordTable, Tables

_SHOWN: Final = 20
_SKEW: Final = dt.timedelta(minutes=1)
"""How far the clocks of two replicas may differ: one records what the other gives."""


@dataclass(slots=True)
class Findings:
    """What was proven, and what is wrong."""

    entries: int = 0
    root: str = ""
    newest: dt.datetime | None = None
    """When the last entry was logged."""
    checkpoints: list[int] = field(default_factory=list[int])
    """Sizes of checkpoints that the log was found to continue."""
    openings: int = 0
    """Openings that are what their entries commit to."""
    records: int = 0
    """Versions of records whose digest was computed again."""
    compared: int = 0
    """Answers in the log that were compared with the records."""
    later: int = 0
    """Answers that were given after the last change there is of the records, and rest on more than there is."""
    lost: int = 0
    """Entries that a checkpoint has and the log has not."""
    unmet: int = 0
    """Checkpoints that have such entries."""
    wrong: list[str] = field(default_factory=list[str])
    """What does not agree, in words; the first few."""
    faults: int = 0
    """How many things do not agree."""

    def fault(self, what: str) -> None:
        """Note that something is wrong."""
        self.faults += 1
        if len(self.wrong) < _SHOWN:
            self.wrong.append(what)


def prove_log(
    connection: sa.Connection, key: VerifierKey, witnessed: Iterable[SignedCheckpoint], findings: Findings
) -> None:
    """Verify a log from its first entry to its last, and that it continues every checkpoint that is given.

    Where it ends before one of them, that is a finding, and not an error: what is there may be whole all the same.
    Raises `FailedPrecondition` LOG_TAMPERED where it is not, and what `verifying.verify` raises.
    """
    size = 0
    if read_head(connection).size:
        whole: Whole = verifying.verify_all(connection, key)
        size, findings.root = whole.size, whole.root.hex()
        findings.newest = _time(connection, size)
    findings.entries = size
    _prove_openings(connection, findings)
    hashes = reading.stored_hashes(connection)
    for one in (signed.checkpoint for signed in witnessed):
        if one.size > size:
            findings.lost = max(findings.lost, one.size - size)
            findings.unmet += 1
            findings.fault(f"a checkpoint of {one.size} entries was signed, and the log has {size}")
        elif merkle.root_of(one.size, hashes) != one.root:
            message = f"the log is not what was signed at {one.size} entries: it is another history"
            raise FailedPrecondition(Reason.LOG_TAMPERED, message)
        else:
            findings.checkpoints.append(one.size)


def _prove_openings(connection: sa.Connection, findings: Findings) -> None:
    """Check that what is kept beside entries is what they commit to; what was erased is not there to be checked."""
    for logged, opening in _openings(connection):
        if opening is None:
            continue
        findings.openings += 1
        committed = [sha256(opening.salt + subject.encode()).digest() for subject in opening.subjects]
        if committed != list(logged.entry.subject_commitments):
            findings.fault(f"entry {logged.index}: what is kept beside it is not what it commits to")


def kept_checkpoints(connection: sa.Connection) -> list[str]:
    """List the signed notes that lie in the log's database: its own and that of its witnesses."""
    head = read_head(connection).checkpoint
    return [note for note in (head, cosigned.newest(connection)) if note]


def _time(connection: sa.Connection, size: int) -> dt.datetime | None:
    for index in range(size - 1, max(-1, size - 1 - reading.MAX_ENTRIES), -1):
        entry = reading.entry(connection, index).entry
        if entry.HasField("time"):
            return entry.time.ToDatetime(dt.UTC)
    return None


def prove_records(connection: sa.Connection, tables: Tables, findings: Findings) -> None:
    """Compute the digest of every version of every record, and check that each record's versions make one history."""
    last = int(connection.execute(sa.select(tables.change_clock.c.seq)).scalar_one())
    for table in tables.records.values():
        _prove_table(connection, table, last, findings)


def _prove_table(connection: sa.Connection, table: RecordTable, last: int, findings: Findings) -> None:
    name = table.record_type.name
    columns = (table.key, table.version, table.seq, table.superseded_at, table.digest, table.body)
    select = sa.select(*columns).order_by(table.key, table.version)
    key, version, in_force = "", 0, True
    for row in connection.execute(select.execution_options(yield_per=1000)):
        findings.records += 1
        if row[0] != key:
            if not in_force:
                findings.fault(f"{name}: a record has no version in force")
            key, version = row[0], 0
        elif in_force:
            findings.fault(f"{name}: change {row[2]} follows a version that has not ended")
        if row[1] != version + 1:
            findings.fault(f"{name}: before change {row[2]} a version is missing")
        if row[2] > last:
            findings.fault(f"{name}: change {row[2]} lies after the last one, {last}")
        if sha256(bytes(row[5])).digest() != bytes(row[4]):
            findings.fault(f"{name}: the content of change {row[2]} is not what was recorded")
        version, in_force = row[1], row[3] is None
    if not in_force:
        findings.fault(f"{name}: a record has no version in force")


class Agreement:
    """Compares what a log says was given with the records there are."""

    def __init__(self, connection: sa.Connection, tables: Tables, live: frozenset[str], findings: Findings) -> None:
        """`connection` is to the store; `live` are types of which it holds nothing."""
        self._connection = connection
        self._tables = {name: table for name, table in tables.records.items() if name not in live}
        moment = connection.execute(sa.select(tables.change_clock.c.moment)).scalar()
        self._last = moment or dt.datetime.fromtimestamp(0, dt.UTC)
        """When anything was recorded last: what was given later may rest on what is not here."""
        self._findings = findings
        self._moments: dict[tuple[str, str], list[dt.datetime]] = {}

    def compare(self, log: sa.Connection) -> None:
        """Go through the log."""
        for logged, opening in _openings(log):
            entry = logged.entry
            if entry.outcome != log_pb2.OUTCOME_ANSWERED or not entry.disclosures:
                continue
            time = entry.time.ToDatetime(dt.UTC)
            lacking = [what for given in entry.disclosures for what in self._lacking(given, time + _SKEW, opening)]
            if lacking and time > self._last:
                self._findings.later += 1
                continue
            self._findings.compared += 1
            for what in lacking:
                self._findings.fault(f"entry {logged.index}: {what}")

    def _lacking(self, given: log_pb2.Disclosure, until: dt.datetime, opening: log_pb2.Opening | None) -> Iterator[str]:
        """Say what was given of which less had been recorded by then."""
        table = self._tables.get(given.record_type)
        if table is None:
            return
        claims = [("", given.rows)]
        if opening is not None:
            subjects = opening.subjects
            claims += [(subjects[n.commitment], n.rows) for n in given.named if n.commitment < len(subjects)]
        for subject, count in claims:
            there = bisect_right(self._recorded(table, subject), until)
            if there < count:
                about = " about one subject" if subject else ""
                yield f"{count} of {given.record_type}{about} were given, and {there} had been recorded by then"

    def _recorded(self, table: RecordTable, subject: str) -> Sequence[dt.datetime]:
        """Give the moments at which versions were recorded, of all records or of those about a subject."""
        name = table.record_type.name
        if (name, subject) not in self._moments:
            select = sa.select(table.recorded_at).order_by(table.recorded_at)
            if subject:
                select = select.where(_about(table.record_type, table, subject))
            self._moments[name, subject] = list(self._connection.execute(select).scalars())
        return self._moments[name, subject]


def _about(kind: RecordType, table: RecordTable, subject: str) -> sa.ColumnElement[bool]:
    scheme, _, value = subject.partition(":")
    fields = [one.path for one in kind.subjects.get(scheme, ())]
    # Whom only the content names cannot be counted: then it is all of the type.
    if not fields or any(path not in table.columns for path in fields):
        return sa.true()
    return sa.or_(*(table.columns[path] == value for path in fields))


def _openings(log: sa.Connection) -> Iterator[tuple[reading.Logged, log_pb2.Opening | None]]:
    size, start = read_head(log).size, 0
    while start < size:
        found = reading.entries(log, start, reading.MAX_ENTRIES)
        if not found:
            raise NotFound(Reason.LOG_ENTRY_UNKNOWN, f"the log has no entry {start}")
        for one in found:
            yield one, reading.opening(log, one.index)
        start += len(found)
