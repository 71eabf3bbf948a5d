"""The repository as a house: what stands at its top, what is pinned, which way imports run, what is never committed."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
TOP = {
    "pyproject.toml", "proto", "services", "gateway", "adapters", "certs", "tests", "helm",
    "README.md", "Makefile", "Containerfile", "docs", "bench", ".ci", "LICENSE", "CHANGELOG.md",
}  # fmt: skip
PINS = sorted((REPOSITORY / ".ci" / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def committed() -> list[Path]:
    """The files that are committed, or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout: what is committed cannot be told")
    return [REPOSITORY / name for name in done.stdout.splitlines() if (REPOSITORY / name).is_file()]


def test_the_top_level_is_the_one_that_was_agreed() -> None:
    top = {path.relative_to(REPOSITORY).parts[0] for path in committed()}
    dotfiles = {name for name in top if name.startswith(".") and (REPOSITORY / name).is_file()}
    assert top - dotfiles == TOP
    assert dotfiles <= {".gitignore", ".gitattributes", ".editorconfig", ".containerignore"}


def pins(file: Path) -> dict[str, tuple[Requirement, str]]:
    """The requirements of a file, each with the rest of its line: its hashes."""
    found: dict[str, tuple[Requirement, str]] = {}
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in (line.strip() for line in text.splitlines()):
        if line and not line.startswith("#"):
            pinned, _, rest = line.partition(" --hash=")
            requirement = Requirement(pinned)
            found[canonicalize_name(requirement.name)] = (requirement, rest)
    return found


@pytest.mark.parametrize("file", PINS, ids=lambda file: file.name)
def test_every_version_is_pinned_with_hashes_and_no_index_is_named(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(-i|-f|--index|--extra-index|--find-links|--trusted)", text, re.MULTILINE)
    assert "://" not in text
    found = pins(file)
    assert found
    for requirement, hashes in found.values():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert re.fullmatch(r"sha256:[0-9a-f]{64}(\s+--hash=sha256:[0-9a-f]{64})*\s*", hashes), requirement


def test_what_is_pinned_is_what_the_project_asks_for() -> None:
    app, build = (pins(REPOSITORY / ".ci" / "requirements" / name) for name in ("app.txt", "build.txt"))
    for text, pinned in [
        *((text, app) for text in PROJECT["project"]["dependencies"]),
        *((text, build) for text in PROJECT["build-system"]["requires"]),
    ]:
        wanted = Requirement(text)
        version = str(pinned[canonicalize_name(wanted.name)][0].specifier).removeprefix("==")
        assert wanted.specifier.contains(version, prereleases=True), (text, version)


def test_tests_run_on_the_versions_that_are_shipped() -> None:
    app, dev = (pins(REPOSITORY / ".ci" / "requirements" / name) for name in ("app.txt", "dev.txt"))
    versions = [{name: str(requirement.specifier) for name, (requirement, _) in found.items()} for found in (app, dev)]
    assert versions[0].items() <= versions[1].items()


def test_licence_and_python() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


def test_imports_run_one_way() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_two_commands_do_everything() -> None:
    """`make demo` and `make test`; what they would run on a machine where all is installed, and what the gate runs."""
    steps = {target: dry_run(target) for target in ("demo", "test")}
    assert steps["demo"][-1] == ".venv/bin/hutong demo"
    assert steps["test"][-1] == ".venv/bin/python -m tests"
    for target, files in (("demo", ("app", "build")), ("test", ("app", "build", "dev"))):
        installs = [line for line in steps[target] if "--require-hashes" in line]
        assert [line.rpartition("/")[2] for line in installs] == [f"{name}.txt" for name in files]
    gate = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert {"make lint", "make types", "make test"} <= set(gate.splitlines())


def dry_run(target: str) -> list[str]:
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", target]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_targets_named_like_folders_are_phony() -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE)[0].split())
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert phony == targets
    assert set(dry_run("help")[0].split()) >= {"sed"}


SECRET = re.compile(rb"-----BEGIN (?:[A-Z ]*PRIVATE KEY|CERTIFICATE|X509 CRL)-----\s+[A-Za-z0-9+/]{32}")


def test_nothing_of_a_test_pki_is_committed() -> None:
    found = [path for path in committed() if SECRET.search(path.read_bytes())]
    assert not found
    names = {path.suffix for path in committed()}
    assert not names & {".pem", ".key", ".crt", ".crl", ".der", ".p12", ".db", ".sqlite"}


LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def dropped(module: ast.Module) -> list[int]:
    """List the lines that log something beside the message which is no field, and so is in no line of the log."""
    return [
        call.lineno
        for call in ast.walk(module)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS
        for keyword in call.keywords
        if keyword.arg == "extra" and [ast.unparse(k) for k in getattr(keyword.value, "keys", ())] != ["'fields'"]
    ]


def test_whatever_is_logged_is_in_the_line() -> None:
    assert dropped(ast.parse("_log.info('Said', extra={'serial': 1})\nlog.error('Said', extra=more)")) == [1, 2]
    found = [path for path in committed() if path.suffix == ".py" and path.relative_to(REPOSITORY).parts[0] != "tests"]
    assert len(found) > 100
    assert {path.name: lines for path in found if (lines := dropped(ast.parse(path.read_bytes())))} == {}
