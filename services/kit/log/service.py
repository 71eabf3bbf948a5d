"""`LogService`: a log's checkpoint, proofs and tiles, for every member of the zone; whole entries for its readers."""

from collections.abc import Iterable
from typing import Protocol

from hutong.api.log.v1 import log_service_pb2
from services.kit.errors import InvalidArgument, NotFound, PermissionDenied, Reason
from services.kit.log.merkle import MAX_SIZE
from services.kit.log.nodelog import NodeLog
from services.kit.log.tiles import Tile
from services.kit.rpc import Call


class Decisions(Protocol):
    """Gives auditors decisions with what it takes to recompute them (`services.kit.log.decisions`)."""

    async def sample_decisions(
        self, request: log_service_pb2.SampleDecisionsRequest, call: Call, /
    ) -> log_service_pb2.SampleDecisionsResponse:
        """Answer the rpc."""
        ...


class LogService:
    """Serves one node's log."""

    def __init__(self, log: NodeLog, readers: Iterable[str] = (), decisions: Decisions | None = None) -> None:
        """`readers` are identities (`agency/system`) that may have entries; without `decisions` there are none."""
        self._log = log
        self._readers = frozenset(readers)
        self._decisions = decisions

    async def get_checkpoint(
        self, request: log_service_pb2.GetCheckpointRequest, call: Call
    ) -> log_service_pb2.GetCheckpointResponse:
        """Give the newest checkpoint; raises `NotFound` LOG_ENTRY_UNKNOWN before the first entry."""
        checkpoint = await self._log.checkpoint()
        if not checkpoint:
            raise NotFound(Reason.LOG_ENTRY_UNKNOWN, "the log has no entry yet")
        return log_service_pb2.GetCheckpointResponse(checkpoint=checkpoint, cosigned=await self._log.cosigned())

    async def get_inclusion_proof(
        self, request: log_service_pb2.GetInclusionProofRequest, call: Call
    ) -> log_service_pb2.GetInclusionProofResponse:
        """Prove that a leaf is in a tree."""
        _check(request.index, request.tree_size)
        proof = await self._log.inclusion(request.index, request.tree_size)
        return log_service_pb2.GetInclusionProofResponse(
            hashes=proof.hashes, tree_size=proof.size, checkpoint=proof.checkpoint
        )

    async def get_consistency_proof(
        self, request: log_service_pb2.GetConsistencyProofRequest, call: Call
    ) -> log_service_pb2.GetConsistencyProofResponse:
        """Prove that one tree is the beginning of another."""
        _check(request.old_size, request.tree_size)
        proof = await self._log.consistency(request.old_size, request.tree_size)
        return log_service_pb2.GetConsistencyProofResponse(
            hashes=proof.hashes, tree_size=proof.size, checkpoint=proof.checkpoint
        )

    async def get_tile(self, request: log_service_pb2.GetTileRequest, call: Call) -> log_service_pb2.GetTileResponse:
        """Give a tile; entries are for readers."""
        tile = Tile.parse(request.path)
        check_reader(tile, call.caller.path, self._readers)
        return log_service_pb2.GetTileResponse(tile=await self._log.tile(tile))

    async def sample_decisions(
        self, request: log_service_pb2.SampleDecisionsRequest, call: Call
    ) -> log_service_pb2.SampleDecisionsResponse:
        """Hand over to who knows about decisions."""
        if self._decisions is None:
            raise PermissionDenied(Reason.CALLER_NOT_LISTED, "this node gives nobody decisions")
        return await self._decisions.sample_decisions(request, call)


def check_reader(tile: Tile, caller: str, readers: frozenset[str]) -> None:
    """Let everybody have hashes, and readers entries; raises `PermissionDenied` CALLER_NOT_LISTED."""
    if tile.level is None and caller not in readers:
        raise PermissionDenied(Reason.CALLER_NOT_LISTED, "this caller may not read entries of the log")


def _check(*numbers: int) -> None:
    if not all(0 <= number <= MAX_SIZE for number in numbers):
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "sizes and indexes of a log are not negative")
