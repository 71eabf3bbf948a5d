"""The wheel, installed into an environment of its own and run from another folder: what users get, and nothing else.

The environment sees the dependencies that are installed here, so that no test needs a network, and sees nothing of this
repository.
"""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.cli.rooms import packages, policies
from services.kit.records import catalogue
from tests.cli.processes import gone

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("services", "gateway", "adapters", "certs")


@dataclass(frozen=True)
class Installed:
    """The wheel, and the environment it is installed in."""

    wheel: Path
    folder: Path

    @property
    def names(self) -> set[str]:
        """The files it holds."""
        with zipfile.ZipFile(self.wheel) as archive:
            return {name for name in archive.namelist() if ".dist-info/" not in name}

    def run(self, *command: str, cwd: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment from a folder, warnings being errors."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HUTONG"))}
        environment = kept | {"PYTHONWARNINGS": "error", "TMPDIR": str(cwd)}
        program = str(self.folder / "bin" / command[0])
        return subprocess.run(
            [program, *command[1:]],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def hutong(self, *arguments: str, cwd: Path) -> str:
        done = self.run("hutong", *arguments, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def build(project: Path, into: Path) -> Path:
    """Build a project's wheel with what is installed here."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(into), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = into.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Installed:
    """Make an environment with only this wheel in it, beside the dependencies."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # A folder named in a .pth file is searched, but its own .pth files, which lead to this repository, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet", "install"]
    done = subprocess.run([*pip, "--no-index", "--no-deps", wheel], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Installed(wheel, folder)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("application")
    return install(build(REPOSITORY, folder / "dist"), folder / "env")


@pytest.fixture(scope="module")
def contracts(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("contracts")
    return install(build(REPOSITORY / "proto", folder / "dist"), folder / "env")


def tracked(*paths: str) -> set[str]:
    """The files of some folders, as they are committed."""
    folders = [REPOSITORY / path for path in paths]
    return {
        file.relative_to(REPOSITORY).as_posix()
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_it_holds_the_packages_with_all_their_data_and_nothing_else(application: Installed) -> None:
    wanted = tracked(*PACKAGES) | {name.removeprefix("proto/") for name in tracked("proto/hutong")}
    assert application.names == wanted
    kinds = {Path(name).suffix for name in wanted}
    assert {".py", ".pyi", ".proto", ".cedar", ".yaml", ".mako", ".typed"} <= kinds


@pytest.mark.parametrize("agency", packages())
def test_every_room_brings_its_data(application: Installed, agency: str) -> None:
    room = f"services/{agency}"
    assert {
        f"{room}/access.yaml",
        f"{room}/policy/{agency}.cedar",
        f"{room}/policy/scenarios.yaml",
        f"{room}/migrations/versions/0001_initial.py",
    } <= application.names
    assert [name for name in application.names if name.startswith(f"{room}/mappings/")]


def test_nothing_comes_from_this_repository(application: Installed, tmp_path: Path) -> None:
    code = (
        "import adapters, certs, gateway, services, hutong.api.customs.v1.service_pb2 as pb\n"
        "print(*(m.__file__ for m in (adapters, certs, gateway, services, pb)), sep='\\n')"
    )
    done = application.run("python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert len(found) == 5
    assert all(path.startswith(str(application.folder)) for path in found)


def test_the_executable_knows_what_it_brought(application: Installed, tmp_path: Path) -> None:
    assert application.hutong("--version", cwd=tmp_path).startswith("hutong ")
    listed = json.loads(application.hutong("catalogue", "--json", cwd=tmp_path))["record_types"]
    assert [kind["name"] for kind in listed] == [kind.name for kind in catalogue.load()]
    assert json.loads(application.hutong("policy", "check", "--json", cwd=tmp_path))["ok"] is True
    tested = json.loads(application.hutong("policy", "test", "--json", cwd=tmp_path))
    assert tested["ok"] is True
    assert len(tested["files"]) == len(policies())


def test_its_sample_is_that_of_the_repository(application: Installed, tmp_path: Path) -> None:
    application.hutong("sample", str(tmp_path / "theirs"), "--json", cwd=tmp_path)
    command = [sys.executable, "-P", "-m", "services.cli.main", "sample", str(tmp_path / "ours"), "--json"]
    subprocess.run(command, check=True, capture_output=True)
    assert contents(tmp_path / "theirs") == contents(tmp_path / "ours")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_demo_passes_and_leaves_nothing(application: Installed, tmp_path: Path) -> None:
    """The main job, by the installed executable: every node a process of its own, in under a minute."""
    done = application.run("hutong", "demo", cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    assert last.startswith("demo: ")
    assert last.endswith(" checks passed")
    assert not list(tmp_path.iterdir())
    assert gone(str(tmp_path), within=0)


def test_callers_need_the_contracts_alone(contracts: Installed, tmp_path: Path) -> None:
    code = (
        "import importlib.util\n"
        "from hutong.api.exchange.v1 import federation_pb2, federation_pb2_grpc\n"
        "from hutong.api.customs.v1 import service_pb2, service_pb2_grpc\n"
        "assert federation_pb2_grpc.FederationServiceStub and service_pb2_grpc.CustomsServiceStub\n"
        "assert service_pb2.GetDeclarationRequest(name='declarations/1').SerializeToString()\n"
        "print([name for name in ('services', 'gateway', 'adapters', 'certs') if importlib.util.find_spec(name)])\n"
    )
    done = contracts.run("python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
