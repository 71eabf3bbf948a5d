"""What a node with a log serves of it, and to whom it shows it.

Proofs and tiles are for every member of the zone, over gRPC always and over HTTPS where the config says at which
address; decisions are for auditors; other nodes' checkpoints are co-signed; its own are shown to its witnesses.
"""

from pathlib import Path
from typing import Final

from certs.svid import SvidFiles
from hutong.api.log.v1 import log_service_pb2
from services.kit.clock import Clock
from services.kit.config import LogSection, NodeConfig
from services.kit.log import witness
from services.kit.log.decisions import Decisions
from services.kit.log.https import TileServer, Verifier
from services.kit.log.nodelog import NodeLog
from services.kit.log.seen import StoredSeen
from services.kit.log.service import LogService
from services.kit.log.showing import Showing
from services.kit.log.witness import Witness
from services.kit.officers.pseudonyms import Pseudonyms
from services.kit.officers.verifier import Officers
from services.kit.rpc import Rpc, bind
from services.kit.telemetry import Telemetry

ACCESS: Final = (Path(__file__).parent / "access.yaml", witness.ACCESS)
"""Who may call what every node with a log serves."""


class Serving:
    """One node's log, as others meet it."""

    def __init__(
        self,
        log: NodeLog,
        section: LogSection,
        config: NodeConfig,
        files: SvidFiles,
        verifier: Verifier,
        clock: Clock,
        telemetry: Telemetry,
        pseudonyms: Pseudonyms,
    ) -> None:
        """`log` is open; `files` are the node's own identity, and `verifier` verifies others'; the log calls
        officers by `pseudonyms`.

        Raises `FailedPrecondition` where the log's key, or keys of an identity provider, cannot be used.
        """
        node = config.node
        audience = f"spiffe://{node.zone}/{node.agency}/{node.system}"
        officers = Officers(config.officers, audience, clock, StoredSeen(log, clock), pseudonyms)
        self._service = LogService(log, section.readers, Decisions(log, officers, node.agency))
        self._witness = Witness.of(log, section, clock, telemetry)
        self.showing = Showing.of(log, section, node, files, telemetry)
        """What shows the log to its witnesses."""
        self._tiles = TileServer(section.tiles, log, files, verifier, section.readers) if section.tiles else None

    @property
    def rpcs(self) -> tuple[Rpc, ...]:
        """What is served over gRPC, under the lists in `ACCESS`."""
        service = log_service_pb2.DESCRIPTOR.services_by_name["LogService"]
        return (*bind(service, self._service), *self._witness.rpcs())

    @property
    def tiles_port(self) -> int:
        """The port that tiles are served on over HTTPS; 0 where none are."""
        return self._tiles.port if self._tiles else 0

    async def open(self) -> None:
        """Recall what was found out about other logs; before anything is served."""
        await self._witness.open()

    async def start(self) -> None:
        """Serve tiles, and begin to show the log to its witnesses; raises `FailedPrecondition` ADDRESS_IN_USE."""
        if self._tiles:
            await self._tiles.start()
        await self.showing.start()

    async def stop(self) -> None:
        """Stop both at once."""
        await self.showing.stop()
        if self._tiles:
            await self._tiles.stop()
