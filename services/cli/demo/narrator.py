"""Who tells the story: headings, sentences, small tables and checks, for people; a report of the same for machines."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.padding import Padding
from rich.text import Text

from services.cli.output import console, print_json, table


class CheckFailed(Exception):
    """A step did not come out as told: the story ends here."""


@dataclass(slots=True)
class Step:
    """One step of the story."""

    title: str
    checks: list[str] = field(default_factory=list[str])


class Narrator:
    """Tells the story step by step and keeps count of its checks."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._out = console()
        self.steps: list[Step] = []

    @property
    def passed(self) -> int:
        """How many checks have passed."""
        return sum(len(step.checks) for step in self.steps)

    def step(self, title: str) -> None:
        """Begin a step."""
        self.steps.append(Step(title))
        if not self._as_json:
            self._out.print(Text(f"\n{len(self.steps)}. {title}", style="bold cyan"))

    def say(self, text: str) -> None:
        """Say what happens, in plain words."""
        if not self._as_json:
            self._out.print(Padding(Text(text), (0, 0, 0, 3), expand=False))

    def show(self, columns: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> None:
        """Show a small table."""
        if not self._as_json:
            self._out.print(Padding(table("", columns, rows), (0, 0, 0, 3), expand=False))

    def check(self, holds: bool, text: str, found: object = "") -> None:
        """Count a check; raises `CheckFailed` where it does not hold. `found` says what was there instead."""
        if not holds:
            raise CheckFailed(f"{text}: {found}" if found != "" else text)
        self.steps[-1].checks.append(text)
        if not self._as_json:
            self._out.print(Padding(Text.assemble(("✓ ", "green"), text), (0, 0, 0, 3), expand=False))

    def end(self, failure: str = "") -> None:
        """Tell how it ended."""
        if self._as_json:
            steps = [{"title": step.title, "checks": step.checks} for step in self.steps]
            print_json({"passed": not failure, "checks": self.passed, "failure": failure or None, "steps": steps})
            return
        if failure:
            self._out.print(Padding(Text.assemble(("✗ ", "red"), failure), (0, 0, 0, 3), expand=False))
        # The last line is a contract: scripts look for it.
        self._out.print(Text(f"\ndemo: {self.passed} checks passed" + (", 1 failed" if failure else "")))
