"""`hutong` with nodes that record nothing: what recording costs is measured against it. Good for nothing else."""

from typing import Any

# Sets the TLS floor before gRPC is loaded.
import services.kit  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
from services.cli.main import app
from services.kit.errors import HutongError
from services.kit.host import Host
from services.kit.rpc import Call, Rpc


class Nothing:
    """A recorder that records nothing."""

    async def answered(self, _call: Call, _rpc: Rpc, _answer: bytes, /) -> bytes:
        """Give no receipt."""
        return b""

    async def refused(self, _call: Call, _rpc: Rpc, _error: HutongError, /) -> None:
        """Say nothing."""


def main() -> None:
    """Run any command with hosts that record nothing."""
    original = Host.__init__

    def without(self: Host, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **(options | {"recorder": Nothing()}))

    Host.__init__ = without  # type: ignore[method-assign]
    app()


if __name__ == "__main__":
    main()
