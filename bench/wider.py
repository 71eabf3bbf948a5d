"""`hutong` with agencies that were made up for a measurement (`bench.agencies`): their rooms are found like any other.

Their folder is named by the environment, `HUTONG_BENCH_AGENCIES`; its contracts are on PYTHONPATH.
"""

import os
from pathlib import Path
from typing import Final

import services

# Sets the TLS floor before gRPC is loaded.
import services.kit  # pyright: ignore[reportUnusedImport]

FOLDER: Final = "HUTONG_BENCH_AGENCIES"


def widen() -> None:
    """Have rooms be found in the folder, too; to be called before any is looked for."""
    services.__path__.append(str(Path(os.environ[FOLDER]) / "services"))


if __name__ == "__main__":
    widen()
    from services.cli.main import app

    app()
