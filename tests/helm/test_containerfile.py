"""The image's recipe: nothing builds images here, so it is linted and read, and its launcher is run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helm.chart import REPOSITORY, render, zone

TEXT = (REPOSITORY / "Containerfile").read_text(encoding="utf-8")
STEPS = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n", "", TEXT)).splitlines()


def test_lint() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("no hadolint for this machine")
    done = subprocess.run([program, REPOSITORY / "Containerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_is_not_root_and_starts_without_a_shell() -> None:
    (user,) = [step.split()[1] for step in STEPS if step.startswith("USER")]
    assert STEPS.index(f"USER {user}") > max(i for i, step in enumerate(STEPS) if step.startswith("COPY"))
    for _, spec in render(zone()).pods():
        assert user == f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
    last = STEPS[[i for i, step in enumerate(STEPS) if step.startswith("FROM")][-1] :]
    assert not [step for step in last if step.startswith("RUN")], "a distroless image has nothing to run it with"
    assert 'ENTRYPOINT ["/opt/hutong/bin/hutong"]' in last


def test_nothing_is_left_to_run_in_it_but_python_and_the_program() -> None:
    """The last stage is made of one from which shells, tools and pip were removed."""
    assert [step for step in STEPS if step.startswith("FROM")][-1] == "FROM trimmed"
    start = STEPS.index("FROM ${BUILDER} AS trimmed")
    (removing,) = [step for step in STEPS[start : STEPS.index("FROM trimmed")] if step.startswith("RUN")]
    others, last = removing.removeprefix("RUN ").split(" && ")
    assert last == "find /usr/sbin /usr/bin -mindepth 1 -delete", "with nothing after it: there is no shell any more"
    library = "/usr/local/lib/python3.11"
    gone = {f"{library}/site-packages/*", f"{library}/ensurepip", "/usr/local/bin/pip*"}
    assert gone <= {*others.removeprefix("rm -rf ").split()}
    # Where the launcher looks for Python is not among it.
    assert "ARG INTERPRETER=/usr/local/bin/python3" in STEPS


def test_whatever_is_installed_is_pinned_by_its_hash() -> None:
    installs = [part for step in STEPS if step.startswith("RUN") for part in step.split("&&") if "pip install" in part]
    for part in installs:
        assert "--require-hashes" in part or ("--no-index" in part and "--no-deps" in part), part


def test_probes_run_what_is_on_the_path() -> None:
    (path,) = re.findall(r"ENV PATH=(\S+)", TEXT)
    assert path.split(":")[0] == "/opt/hutong/bin"
    for name, spec in render(zone()).pods():
        if name.startswith("Deployment/"):
            for kind in ("startup", "readiness", "liveness"):
                assert spec["containers"][0][f"{kind}Probe"]["exec"]["command"][0] == "hutong"


def test_what_is_copied_is_what_the_wheel_is_built_of() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {Path(name).parts[0] for name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]}
    copied = {word for step in STEPS if step.startswith("COPY") and "--from" not in step for word in step.split()[1:-1]}
    assert folders <= copied
    ignored = (REPOSITORY / ".containerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied


def test_the_program_as_it_is_written_runs(tmp_path: Path) -> None:
    """The launcher of the image, with this machine's Python and packages in the place of the image's."""
    (form,) = re.findall(r"printf '(.+?)' \"", TEXT)
    launcher = tmp_path / "hutong"
    launcher.write_text(form.replace("\\n", "\n").replace("%s", sys.executable), encoding="utf-8")
    launcher.chmod(0o755)
    packages = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto"), *filter(None, sys.path)])
    env = {"PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path)}
    done = subprocess.run([launcher, "--version"], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("hutong ")
