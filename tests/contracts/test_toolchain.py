"""The contracts as files: lint, format, comments, generated code, the distribution that carries them."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from tests.contracts import descriptors as d


def run(*command: str, cwd: Path = d.REPOSITORY) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False)


def buf(*arguments: str) -> bytes:
    program = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
    assert program, "buf is a test requirement (buf-bin)"
    done = run(program, *arguments)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout


def test_lint_is_clean() -> None:
    assert buf("lint", "proto") == b""


def test_format_is_clean() -> None:
    assert buf("format", "--diff", "--exit-code", "proto") == b""


def test_generated_code_is_fresh() -> None:
    done = run(sys.executable, "proto/generate.py", "--check")
    assert done.returncode == 0, done.stderr.decode()


def test_the_check_names_stale_missing_and_left_over_files(tmp_path: Path) -> None:
    # A copy with one contract: the check works on the folder it stands in.
    proto = tmp_path / "proto"
    folder = proto / "hutong/api/schema/v1"
    folder.mkdir(parents=True)
    shutil.copy(d.PROTO / "generate.py", proto)
    for source in (d.PROTO / "hutong/api/schema/v1").glob("options*"):
        shutil.copy(source, folder)
    assert run(sys.executable, "generate.py", "--check", cwd=proto).returncode == 0
    (folder / "options_pb2.pyi").unlink()
    (folder / "options_pb2.py").write_text("stale\n")
    (folder / "gone_pb2.py").write_text("left over\n")
    done = run(sys.executable, "generate.py", "--check", cwd=proto)
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["missing", "left over", "stale"]
    assert run(sys.executable, "generate.py", cwd=proto).returncode == 0
    assert not (folder / "gone_pb2.py").exists()
    assert run(sys.executable, "generate.py", "--check", cwd=proto).returncode == 0


def test_a_broken_contract_is_reported_and_changes_nothing(tmp_path: Path) -> None:
    proto = tmp_path / "proto"
    folder = proto / "hutong/api/broken/v1"
    folder.mkdir(parents=True)
    shutil.copy(d.PROTO / "generate.py", proto)
    (folder / "broken.proto").write_text('syntax = "proto3";\nmessage {')
    done = run(sys.executable, "generate.py", cwd=proto)
    assert done.returncode == 2
    assert b"broken.proto" in done.stderr
    assert [p.name for p in folder.iterdir()] == ["broken.proto"]


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    located = {tuple(loc.path): loc.leading_comments for loc in file.source_code_info.location}

    def message(found: DescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[str, str]]:
        for i, field in enumerate(found.field):
            yield f"{file.name}: {found.name}.{field.name}", located.get((*path, 2, i), "")

    for i, found in enumerate(file.message_type):
        yield f"{file.name}: {found.name}", located.get((4, i), "")
        yield from message(found, (4, i))


def test_every_message_and_field_is_explained_in_a_sentence() -> None:
    image = FileDescriptorSet.FromString(buf("build", "proto", "-o", "-"))
    ours = [f for f in image.file if f.package.startswith("hutong.")]
    assert len(ours) > 30
    for file in ours:
        for name, comment in _comments(file):
            text = " ".join(comment.split())
            assert re.match(r"[A-Z0-9\"]", text), name
            assert text.endswith((".", ")", '"')), name


def test_versions_and_floors_are_the_application_s() -> None:
    application, contracts = d.project(d.REPOSITORY / "pyproject.toml"), d.project(d.PROTO / "pyproject.toml")
    assert contracts["name"] == "hutong-api"
    assert contracts["version"] == application["version"]
    assert contracts["requires-python"] == application["requires-python"]
    assert set(contracts["dependencies"]) <= set(application["dependencies"])


def test_no_package_has_an_init_module() -> None:
    # The contracts are namespace packages: another distribution may add its own agency under hutong.api.
    assert list((d.PROTO / "hutong").rglob("__init__.py")) == []


def test_the_wheel_holds_the_contracts_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="building the wheel takes hatchling")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=d.PROTO)
    assert done.returncode == 0, done.stderr.decode()
    (wheel,) = tmp_path.glob("hutong_api-*.whl")
    names = [n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n]
    source = d.PROTO / "hutong"
    wanted = [
        p.relative_to(d.PROTO).as_posix() for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    assert sorted(names) == sorted(wanted)
    assert {"".join(Path(n).suffixes) for n in names} == {".proto", ".py", ".pyi", ".typed"}


def test_the_code_in_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (d.PROTO / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "proto/README.md", "exec"), {})


@pytest.mark.parametrize(
    ("file", "before", "after", "breaks"),
    [
        ("commerce/v1/branch.proto", "string branch_name = 4", "string branch_name = 40", True),
        ("commerce/v1/branch.proto", "string branch_name = 4", "string branch_title = 4", True),
        ("commerce/v1/branch.proto", "string branch_name = 4", "bytes branch_name = 4", True),
        ("commerce/v1/branch.proto", "BRANCH_STATUS_REVOKED = 3", "BRANCH_STATUS_REVOKED = 9", True),
        ("commerce/v1/branch.proto", "BRANCH_STATUS_REVOKED = 3;", "BRANCH_STATUS_REVOKED = 3;\n  X = 9;", False),
    ],
)
def test_a_change_that_breaks_callers_is_told(tmp_path: Path, file: str, before: str, after: str, breaks: bool) -> None:
    """What `make proto-breaking` asks of the last tag."""
    changed = tmp_path / "proto"
    shutil.copytree(d.PROTO, changed, ignore=shutil.ignore_patterns("*.py", "*.pyi"))
    contract = changed / "hutong" / "api" / file
    assert before in contract.read_text(encoding="utf-8")
    program = shutil.which("buf", path=str(Path(sys.executable).parent)) or "buf"
    against = [program, "breaking", str(changed), "--against", str(d.PROTO)]
    assert run(*against).returncode == 0
    contract.write_text(contract.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    done = run(*against)
    assert bool(done.returncode) == breaks, done.stdout.decode()
