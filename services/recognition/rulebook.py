"""What cases are judged by: procedures, calendars, agencies, arrangements, keys, reasons.

A case stays on the version of the procedure that it began with, also when no file has that version any more: the store
keeps the text of every version that a case runs on.
"""

import datetime as dt
from dataclasses import dataclass, field, replace
from typing import Final

import sqlalchemy as sa

from services.kit.credentials.keys import PublishedKeys
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records.inserts import insert_or_ignore
from services.recognition.agencies import Agencies
from services.recognition.arrangements import Arrangements
from services.recognition.calendars import Calendars
from services.recognition.procedure import Procedure
from services.recognition.procedure_file import restore
from services.recognition.procedures import Procedures
from services.recognition.reasons import Reasons
from services.recognition.tables import PROCEDURE
from services.recognition.tasks import Desk

SKEW: Final = dt.timedelta(seconds=60)
"""How far an event may lie in the future: clocks differ."""

BACKDATING: Final = dt.timedelta(days=3)
"""How far an event may lie in the past: agencies record what has happened, and not always at once."""


@dataclass(frozen=True, slots=True)
class Rulebook:
    """What cases are judged by."""

    procedures: Procedures
    calendars: Calendars
    agencies: Agencies
    arrangements: Arrangements
    published: PublishedKeys
    """Keys that agencies sign results with."""
    desk: Desk
    """When tasks are due."""
    reasons: Reasons
    skew: dt.timedelta = SKEW
    backdating: dt.timedelta = BACKDATING
    _kept: dict[str, Procedure] = field(default_factory=dict[str, Procedure], repr=False, compare=False)
    """Versions that no file has any more, from the store."""
    _agencies: dict[str, Agencies] = field(default_factory=dict[str, Agencies], repr=False, compare=False)

    def on(self, calendars: Calendars) -> "Rulebook":
        """Give the same rules with other calendars; tasks are due by them too."""
        return replace(self, calendars=calendars, desk=replace(self.desk, calendars=calendars))

    def agencies_of(self, procedure: Procedure) -> Agencies:
        """Give all agencies that a procedure knows, its own ones too."""
        if procedure.label not in self._agencies:
            self._agencies[procedure.label] = self.agencies.plus(procedure.agencies.values())
        return self._agencies[procedure.label]

    def procedure(self, connection: sa.Connection, label: str) -> Procedure:
        """Give a version of a procedure by its label, from the files or from the store.

        Raises `FailedPrecondition` with PROCEDURE_UNKNOWN where neither has it.
        """
        if label in self.procedures:
            return self.procedures.get(label)
        if (found := self._kept.get(label)) is not None:
            return found
        code, _, version = label.partition("@")
        select = sa.select(PROCEDURE.c.text).where(PROCEDURE.c.code == code, PROCEDURE.c.version == version)
        text: str | None = connection.execute(select).scalar_one_or_none()
        if text is None:
            raise FailedPrecondition(Reason.PROCEDURE_UNKNOWN, f"neither files nor store have {label}", procedure=label)
        self._kept[label] = restore(text, self.agencies)
        return self._kept[label]

    def keep(self, connection: sa.Connection, procedure: Procedure, now: dt.datetime) -> None:
        """Store a procedure's text with the first case that runs on it.

        Raises `FailedPrecondition` with PROCEDURE_CHANGED where cases run on another text of the same version.
        """
        connection.execute(
            insert_or_ignore(connection, PROCEDURE).values(
                code=procedure.code,
                version=procedure.version,
                digest=procedure.digest,
                text=procedure.text,
                first_used=now,
            )
        )
        select = sa.select(PROCEDURE.c.digest)
        here = select.where(PROCEDURE.c.code == procedure.code, PROCEDURE.c.version == procedure.version)
        if connection.execute(here).scalar_one() != procedure.digest:
            raise changed(procedure.label)

    def check_unchanged(self, connection: sa.Connection) -> None:
        """Compare the files with what cases run on; raises `FailedPrecondition` with PROCEDURE_CHANGED."""
        rows = connection.execute(sa.select(PROCEDURE.c.code, PROCEDURE.c.version, PROCEDURE.c.digest))
        for code, version, digest in rows.all():
            found = self.procedure(connection, f"{code}@{version}")
            if found.digest != digest:
                raise changed(found.label)


def changed(label: str) -> FailedPrecondition:
    """Word the error of a procedure whose text is another than the one that cases run on."""
    return FailedPrecondition(
        Reason.PROCEDURE_CHANGED,
        f"cases run on another text of {label}: a version is never changed, put the new text under a new version",
        procedure=label,
    )
