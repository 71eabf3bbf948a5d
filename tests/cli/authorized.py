"""Authorizations at the command line: asked for, approved and used on a running mesh, in few words."""

import json
from pathlib import Path
from typing import Any

from services.cli.fleet import Fleet
from tests.cli.conftest import Ran, run

AML = "supervision/aml"
CUSTOMS = "customs/release"
TAX = "taxation/refund"
WHY = ("--purpose", "P-AML", "--basis", "CN-AML", "--case", "STR-2026-7")
DECLARATION = "customs.Declaration:declaration_no,trader_uscc,total_value_cny,gross_wt_kg"
ANALYST, COLLEAGUE, OWNER = "7731", "42", "c-17"


class Desks:
    """Officers of a mesh."""

    def __init__(self, mesh: Fleet) -> None:
        self.mesh = mesh
        self.folder = mesh.zone.folder

    def __call__(self, *arguments: str | Path, who: str, officer: str = "") -> Ran:
        """Run a command of `hutong authorization` as an officer of somebody's."""
        acting = ("--officer", officer) if officer else ()
        return run("authorization", *arguments, "--dir", self.folder, "--as", who, *acting)

    def read(self, *arguments: str | Path, who: str, officer: str = "") -> Any:
        """Run a command that works; gives what machines read."""
        ran = self(*arguments, "--json", who=who, officer=officer)
        assert ran.exit_code == 0, ran.stdout + ran.stderr
        return json.loads(ran.stdout)

    def told(self, *arguments: str | Path, who: str, officer: str = "") -> str:
        """Run a command that works; gives what people read."""
        ran = self(*arguments, who=who, officer=officer)
        assert ran.exit_code == 0, ran.stdout + ran.stderr
        return ran.stdout

    def refused(self, *arguments: str | Path, who: str, officer: str = "") -> str:
        """Run a command that is refused, with a word on what to do next; gives the reason."""
        ran = self(*arguments, "--json", who=who, officer=officer)
        assert ran.exit_code == 1, ran.stdout + ran.stderr
        error = json.loads(ran.stdout)["error"]
        assert error["hint"], error
        return str(error["reason"])

    def request(self, *arguments: str, select: str = DECLARATION) -> dict[str, Any]:
        """Ask for one."""
        found: dict[str, Any] = self.read("request", *WHY, "--select", select, *arguments, who=AML, officer=ANALYST)
        return found

    def active(self, *arguments: str, select: str = DECLARATION) -> str:
        """Bring one into force; gives its id."""
        found = self.request(*arguments, select=select)
        name: str = found["authorization_id"]
        for who, officer in ((AML, COLLEAGUE), (CUSTOMS, OWNER)):
            self.read("approve", name, "--digest", found["scope_digest"], who=who, officer=officer)
        return name
