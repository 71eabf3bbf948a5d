"""Peers on Node: where they are installed, and how they are run.

`make bench-peers` installs what `package.json` and its lock file pin into `.venv/peers/NAME`, beside a copy of the
peer's own few files, for that is where Node looks for packages.
"""

import shutil
from pathlib import Path
from typing import Final

from bench.peers.running import PeerMissingError

REPOSITORY: Final = Path(__file__).resolve().parents[2]
INSTALLED: Final = REPOSITORY / ".venv" / "peers"
PROTOS: Final = (str(REPOSITORY / "bench" / "peers"), str(REPOSITORY / "proto"))


def installed(name: str) -> Path:
    """Find a peer, with its own files as they are now; raises `PeerMissingError` where it is not installed."""
    folder = INSTALLED / name
    if shutil.which("node") is None:
        raise PeerMissingError("node is not installed")
    if not (folder / "node_modules").is_dir():
        raise PeerMissingError(f"{name} is not installed: make bench-peers")
    for pattern in ("*.js", "*.ts"):
        for file in (REPOSITORY / "bench" / "peers" / name).glob(pattern):
            shutil.copy(file, folder)
    return folder
