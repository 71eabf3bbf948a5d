"""Writes the Python code of the contracts beside their `.proto` files, or checks that it is fresh.

`python proto/generate.py` regenerates; `python proto/generate.py --check` generates into a temporary folder instead and
fails, naming every file that is stale, missing or left over from a contract that is gone.
"""

import argparse
import filecmp
import shutil
import subprocess  # protoc's plugins are programs: this is how protoc is run at all
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

HERE = Path(__file__).resolve().parent
CONTRACTS = "hutong"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


class GenerationError(Exception):
    """Protoc refused a contract; the message is protoc's own."""


def protos() -> list[str]:
    """List every contract, relative to this folder."""
    return sorted(p.relative_to(HERE).as_posix() for p in (HERE / CONTRACTS).rglob("*.proto"))


def generated(root: Path) -> set[Path]:
    """List the generated files under a folder, relative to it."""
    return {p.relative_to(root) for pattern in GENERATED for p in (root / CONTRACTS).rglob(pattern)}


def _protoc(*arguments: str) -> None:
    includes = [f"--proto_path={HERE}", f"--proto_path={files('grpc_tools') / '_proto'}"]
    # The plugins of this very environment, whatever PATH says.
    plugins = [f"--plugin=protoc-gen-{p}={_program(f'protoc-gen-{p}')}" for p in ("mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *plugins, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if done.returncode:
        raise GenerationError(done.stderr.strip())


def _program(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise GenerationError(f"{name} is not installed: it comes with mypy-protobuf")
    return found


def _with_services(contracts: list[str]) -> list[str]:
    # gRPC's plugin writes an empty module for a file without services; ask it only for those that have some.
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "set")
        _protoc(f"--descriptor_set_out={target}", *contracts)
        found = FileDescriptorSet.FromString(target.read_bytes())
    return [f.name for f in found.file if f.service]


def generate(into: Path) -> None:
    """Write the code of every contract into a folder; raises `GenerationError` where protoc refuses one."""
    contracts = protos()
    _protoc(f"--python_out={into}", f"--mypy_out=quiet:{into}", *contracts)
    if served := _with_services(contracts):
        _protoc(f"--grpc_python_out={into}", f"--mypy_grpc_out=quiet:{into}", *served)


def differences(fresh: Path) -> Iterator[str]:
    """Name what differs between the committed code and freshly generated code."""
    committed, wanted = generated(HERE), generated(fresh)
    yield from (f"missing: {path}" for path in sorted(wanted - committed))
    yield from (f"left over: {path}" for path in sorted(committed - wanted))
    for path in sorted(wanted & committed):
        if not filecmp.cmp(HERE / path, fresh / path, shallow=False):
            yield f"stale: {path}"


def main() -> int:
    """Regenerate, or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the code is not fresh")
    check: bool = parser.parse_args().check
    try:
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder)
            generate(fresh)
            found = list(differences(fresh))
            if not check:
                for path in generated(HERE) - generated(fresh):
                    (HERE / path).unlink()
                for path in generated(fresh):
                    shutil.copyfile(fresh / path, HERE / path)
    except GenerationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if check and found:
        sys.stderr.write("\n".join(found) + "\ngenerated code is not fresh: run `make proto`\n")
        return 1
    sys.stdout.write(f"{len(protos())} contracts, {len(found)} files {'differ' if check else 'changed'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
