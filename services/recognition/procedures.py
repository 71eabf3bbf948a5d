"""Every version of every procedure there is. Data: `procedures/`, one file for each version."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.records.catalogue import nearest
from services.recognition.agencies import Agencies
from services.recognition.procedure import Procedure
from services.recognition.procedure_demands import Arranged, offers, offers_arranged, unmet
from services.recognition.procedure_draft import Problem
from services.recognition.procedure_file import ProcedureRefused, read

SHIPPED: Final = Path(__file__).with_name("procedures")


class Procedures:
    """Checked procedures, by label."""

    def __init__(self, procedures: Iterable[Procedure]) -> None:
        self._by_label: dict[str, Procedure] = {}
        for procedure in procedures:
            self._add(procedure)

    @classmethod
    def load(
        cls,
        folder: Path | None = None,
        extra: Iterable[Path] = (),
        agencies: Agencies | None = None,
        calendars: Iterable[str] | None = None,
        *,
        demands: bool = True,
    ) -> "Procedures":
        """Load the procedures that come with the product, those of a folder beside them, and single files.

        A file of the folder takes the place of a shipped one of the same name. `calendars` are the ids of those there
        are, if not only the shipped ones. Raises `ProcedureRefused` with every mistake of every file; also where a
        stage demands a fact that no procedure proves, unless `demands=False` leaves that to `check_demands`, once
        arrangements are known.
        """
        files = {path.name: path for place in (SHIPPED, folder) if place for path in sorted(place.glob("*.yaml"))}
        found = cls.of([*files.values(), *extra], agencies, calendars)
        if demands:
            found.check_demands()
        return found

    @classmethod
    def of(
        cls, files: Iterable[Path], agencies: Agencies | None = None, calendars: Iterable[str] | None = None
    ) -> "Procedures":
        """Load these files only, each checked for itself; raises `ProcedureRefused` with every mistake of every file.

        Raises `FailedPrecondition` with PROCEDURE_CHANGED where two of them say different things of one version.
        """
        found: list[Procedure] = []
        problems: list[Problem] = []
        ids = None if calendars is None else tuple(calendars)
        for path in dict.fromkeys(files):
            try:
                found.append(read(path, agencies, ids))
            except ProcedureRefused as refused:
                problems += refused.problems
        if problems:
            raise ProcedureRefused(problems)
        return cls(found)

    def check_demands(self, arranged: Iterable[Arranged] = ()) -> None:
        """Check that facts demanded from outside a procedure are there: by another procedure or an arrangement.

        Raises `ProcedureRefused` naming every stage whose demand nobody meets.
        """
        offered = [*offers(self), *offers_arranged(arranged)]
        problems = [
            Problem(Reason.PROCEDURE_INVALID, procedure.file, stage, message)
            for procedure in self
            for stage, message in unmet(procedure, offered)
        ]
        if problems:
            raise ProcedureRefused(problems)

    def _add(self, procedure: Procedure) -> None:
        known = self._by_label.setdefault(procedure.label, procedure)
        if known.digest != procedure.digest:
            raise FailedPrecondition(
                Reason.PROCEDURE_CHANGED,
                f"{procedure.label} is known with another text; a change needs a new version",
                procedure=procedure.label,
            )

    def get(self, label: str) -> Procedure:
        """Give a version by `CODE@version`; raises `InvalidArgument` with PROCEDURE_UNKNOWN, naming the nearest."""
        if found := self._by_label.get(label):
            return found
        hint = nearest(label, self._by_label)
        raise InvalidArgument(Reason.PROCEDURE_UNKNOWN, f"there is no procedure {label[:64]!r}{hint}")

    def versions(self, code: str) -> tuple[Procedure, ...]:
        """Give every version of a procedure, the oldest first."""
        return self._by_code.get(code, ())

    def in_force(self, code: str, now: dt.datetime) -> Procedure:
        """Give the newest version that is in force; raises `InvalidArgument` with PROCEDURE_UNKNOWN."""
        found = [procedure for procedure in self.versions(code) if procedure.effective_from <= now]
        if found:
            return found[-1]
        if later := self.versions(code):
            message = f"{code} is in force from {later[0].effective_from.isoformat()} on only"
            raise InvalidArgument(Reason.PROCEDURE_UNKNOWN, message)
        hint = nearest(code, self.codes) or f"; there are {', '.join(self.codes)}"
        raise InvalidArgument(Reason.PROCEDURE_UNKNOWN, f"there is no procedure {code[:64]!r}{hint}")

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """Every procedure's code."""
        return tuple(self._by_code)

    @cached_property
    def _by_code(self) -> Mapping[str, tuple[Procedure, ...]]:
        codes = sorted({procedure.code for procedure in self._by_label.values()})
        ordered = sorted(self._by_label.values(), key=lambda p: tuple(int(part) for part in p.version.split(".")))
        return {code: tuple(p for p in ordered if p.code == code) for code in codes}

    def __iter__(self) -> Iterator[Procedure]:
        for code in self.codes:
            yield from self._by_code[code]

    def __contains__(self, label: object) -> bool:
        return label in self._by_label

    def __len__(self) -> int:
        return len(self._by_label)
