"""Agencies and enterprises at the command line: cases on a running mesh, in few words."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

from services.cli.fleet import Fleet
from tests.cli.conftest import Ran, run
from tests.recognition.mesh import firm

REGISTRY = "commerce/registry"
POLICE = "publicsecurity/permits"
TAX = "taxation/refund"
CUSTOMS = "customs/release"
QUALITY = "quality/lab"


class Office:
    """Runs commands on one mesh."""

    def __init__(self, mesh: Fleet) -> None:
        self.mesh = mesh
        self.folder = mesh.zone.folder

    def __call__(self, *arguments: str | Path, who: str = REGISTRY) -> Ran:
        """Run a command as somebody."""
        return run(*arguments, "--dir", self.folder, "--as", who)

    def told(self, *arguments: str | Path, who: str = REGISTRY) -> str:
        """Run a command that works; gives what people read."""
        ran = self(*arguments, who=who)
        assert ran.exit_code == 0, ran.stderr or ran.stdout
        return ran.stdout

    def read(self, *arguments: str | Path, who: str = REGISTRY) -> Any:
        """Run a command that works; gives what machines read."""
        return json.loads(self.told(*arguments, "--json", who=who))

    def refused(self, *arguments: str | Path, who: str = REGISTRY) -> dict[str, Any]:
        """Run a command that is refused; gives the error, which has to say what to do next."""
        ran = self(*arguments, "--json", who=who)
        assert ran.exit_code == 1, ran.stdout
        error: dict[str, Any] = json.loads(ran.stdout)["error"]
        assert error["hint"], error
        return error

    def enterprise(self, code: str = "") -> str:
        """Give an enterprise's system a certificate; gives its name."""
        name = f"enterprise/{(code or firm()).lower()}"
        ran = run("certs", "issue", name, "--dir", self.folder / "certs")
        assert ran.exit_code == 0, ran.stderr
        return name

    def submit(self, code: str, *arguments: str, who: str = REGISTRY) -> str:
        """Begin an establishment; gives the case's id."""
        view = self.read("case", "submit", "FTZ-EST", "--subject", f"cn.uscc:{code}", *arguments, who=who)
        case_id: str = view["case"]["case_id"]
        return case_id

    def event(self, case_id: str, *arguments: str, who: str = REGISTRY) -> Any:
        """Append an event."""
        return self.read("case", "event", case_id, *arguments, who=who)

    def passes(self, case_id: str, stage: str, *arguments: str, who: str = REGISTRY) -> str:
        """Open a stage and pass it; gives the reference of its result."""
        self.event(case_id, stage, "start", who=who)
        ref: str = self.event(case_id, stage, "result", "pass", *arguments, who=who)["event"].get("result_ref", "")
        return ref

    def accepted(self, code: str) -> str:
        """Bring an establishment to where the identity is checked; gives the case's id."""
        case_id = self.submit(code)
        self.event(case_id, "E0", "result", "pass")
        self.passes(case_id, "E1")
        return case_id

    def overdue(self, code: str) -> str:
        """Give a case in which public security should have begun long ago."""
        applied = dt.datetime.now(dt.UTC) - dt.timedelta(days=28)
        case_id = self.submit(code, "--applied-at", applied.isoformat())
        self.event(case_id, "E0", "result", "pass", "--at", applied.isoformat())
        return case_id

    def stage(self, case_id: str, code: str, who: str = REGISTRY) -> dict[str, Any]:
        """Look at a stage of a case."""
        view = self.read("case", "show", case_id, who=who)
        return next(stage for stage in view["stages"] if stage["code"] == code)
