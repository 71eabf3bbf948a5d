"""What README and docs show is run: every `sh` and `python` block, in order, against a mesh that really runs.

A block of another language whose first line is a comment `file: NAME` is written to that file first. `console` blocks
show commands that go on for long; they must at least be commands there are.
"""

import asyncio
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.core
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from gateway.config import GatewayConfig
from services.cli.filling import fill
from services.cli.fleet import Fleet
from services.cli.main import app
from services.cli.rooms import GATEWAY
from services.cli.zone import Zone
from services.kit.config import DepartmentConfig, NodeConfig
from services.kit.records.catalogue import Catalogue
from services.recognition.config import RecognitionConfig
from services.supervision.config import SupervisionConfig

REPOSITORY = Path(__file__).resolve().parents[2]


def _name(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("**/*.md"))]
_NOTHING_TO_RUN = tuple(
    REPOSITORY / "docs" / name
    for name in (
        "design.md",
        "recognition/README.md",
        "reliability.md",
        "standards.md",
        "operations/threat-model.md",
    )
)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^(?:#|//) file: (\S+)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block of a document."""

    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    return [Block(*found.groups()) for found in _BLOCK.finditer(document.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Generator[Zone]:
    """A running mesh with the synthetic zone in it."""
    zone = Zone.prepare(tmp_path_factory.mktemp("docs") / ".hutong")
    fill(zone, None, with_sample=True, quiet=True)
    started, stop = threading.Event(), threading.Event()

    async def run() -> None:
        async with Fleet(zone):
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert started.wait(60)
    yield zone
    stop.set()
    thread.join(60)


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_what_a_document_shows_works(document: Path, zone: Zone, tmp_path: Path) -> None:
    environment = os.environ | {
        "HUTONG_DIR": str(zone.folder),
        "HUTONG_CHART": str(REPOSITORY / "helm" / "hutong"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONWARNINGS": "error",
    }
    ran = 0
    for block in blocks(document):
        named = _FILE.match(block.text)
        if named:
            (tmp_path / named[1]).write_text(block.text, encoding="utf-8")
            continue
        command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}.get(block.language)
        if command:
            done = subprocess.run(
                [*command, block.text],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
            ran += 1
    assert ran or document in _NOTHING_TO_RUN


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_configs_that_are_shown_stand(document: Path, zone: Zone) -> None:
    """A whole config by itself, a part of one in the place of that part of a node's."""
    for block in blocks(document):
        if block.language == "toml":
            shown = tomllib.loads(block.text)
            of, kind = _config_of(shown)
            node = tomllib.loads(zone.config_file(of).read_text(encoding="utf-8"))
            kind.model_validate(shown if "node" in shown else node | shown)


def _config_of(shown: dict[str, object]) -> tuple[str, type[NodeConfig]]:
    if "break_glass" in shown:
        return "supervision", SupervisionConfig
    if "departments" in shown or isinstance(shown.get("zones"), dict):
        # By name: departments have a list of those they let in.
        return GATEWAY, GatewayConfig
    # Of the others only the recognition service signs anything itself.
    return ("recognition", RecognitionConfig) if "signing" in shown else ("customs", DepartmentConfig)


def test_the_contract_that_is_shown_is_one(tmp_path: Path) -> None:
    """It compiles beside the others, and a record type with everything in it can be made of it."""
    (text,) = (b.text for b in blocks(REPOSITORY / "docs" / "department.md") if b.language == "proto")
    head = 'syntax = "proto3";\npackage hutong.api.harbour.v1;\n'
    imports = "".join(f'import "hutong/api/{name}.proto";\n' for name in ("common/v1/common", "schema/v1/options"))
    (tmp_path / "permit.proto").write_text(head + imports + text, encoding="utf-8")
    image = tmp_path / "image"
    command = ["-m", "grpc_tools.protoc", f"-I{tmp_path}", f"-I{REPOSITORY / 'proto'}", f"--descriptor_set_out={image}"]
    done = subprocess.run([sys.executable, *command, "permit.proto"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pool = descriptor_pool.Default()
    for file in descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("hutong.api.harbour.v1.Permit"))
    (kind,) = Catalogue.of(message)
    assert (kind.name, kind.pattern) == ("harbour.Permit", "permits/{permit_no}")
    assert [field.path for field in kind.key_fields] == ["permit_no"]
    assert "cn.uscc" in kind.subjects


@pytest.mark.parametrize("document", [*DOCUMENTS, REPOSITORY / "bench" / "README.md"], ids=_name)
def test_long_commands_are_commands(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for block in blocks(document):
        if block.language == "console":
            program, name, *_ = block.text.split()
            if program == "make":
                assert name in targets
            else:
                done = subprocess.run(
                    [sys.executable, "-m", "services.cli.main", name, "--help"], capture_output=True, check=False
                )
                assert done.returncode == 0, block.text


def _unknown(words: list[str]) -> bool:
    """Whether words that follow `hutong` begin with no command; whatever comes after one are its arguments."""
    made: Any = typer.main.get_command(app)
    for word in words:
        if not isinstance(made, typer.core.TyperGroup):
            return False
        made = made.get_command(typer.Context(made), word)
        if made is None:
            return True
    return False


def test_commands_that_are_named_are_commands() -> None:
    named = {
        (_name(document), found)
        for document in DOCUMENTS
        for found in re.findall(r"`hutong ((?:[a-z][a-z-]*\s+)*[a-z][a-z-]*)", document.read_text(encoding="utf-8"))
    }
    assert len(named) > 50
    # The one is no command: it stands in what officers sign.
    assert {found for _, found in named if _unknown(found.split())} == {"act"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target
