"""The log over gRPC: checkpoints, proofs and tiles for every member of the zone, entries for readers."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hutong.api.log.v1 import log_service_pb2
from services.kit.client import Client
from services.kit.config import NodeConfig
from services.kit.errors import HutongError, InvalidArgument, NotFound, PermissionDenied, Reason
from services.kit.host import Host
from services.kit.log import merkle, receipts, verifying
from services.kit.log.checkpoint import open_checkpoint
from services.kit.log.keys import read_published
from services.kit.log.nodelog import NodeLog
from services.kit.log.notes import VerifierKey
from services.kit.log.service import LogService
from services.kit.log.tiles import Tile, decode_entries, decode_hashes, hashes_from
from tests.log.bed import draft, fill
from tests.zone import Zone

SERVICE = "/hutong.api.log.v1.LogService"
READER = "supervision/node"


class Mesh:
    """A node with a log, and who calls it."""

    def __init__(self, zone: Zone, host: Host, log: NodeLog, key: VerifierKey) -> None:
        self.zone = zone
        self.host = host
        self.log = log
        self.key = key

    @asynccontextmanager
    async def client(self, path: str = "taxation/node") -> AsyncGenerator[Client]:
        async with self.zone.client(self.host, path) as client:
            yield client


@pytest.fixture
async def mesh(tmp_path: Path, any_url: str) -> AsyncIterator[Mesh]:
    zone = Zone(tmp_path / "z")
    section = zone.log("customs/node").model_copy(update={"url": any_url, "readers": [READER]})
    host = zone.frame(NodeConfig(node=zone.node("customs/node"), tls=zone.tls("customs/node"), log=section))
    await host.start([], [])
    assert host.log is not None
    key = read_published(section.keys / "customs.node.vkey")
    try:
        yield Mesh(zone, host, host.log, key)
    finally:
        await host.stop()


async def ask(client: Client, rpc: str, **fields: Any) -> Any:
    request = getattr(log_service_pb2, f"{rpc}Request")(**fields)
    response = getattr(log_service_pb2, f"{rpc}Response")
    return await client.unary(f"{SERVICE}/{rpc}", request, response, timeout=10)


async def refused(client: Client, kind: type[HutongError], reason: Reason, rpc: str, **fields: Any) -> None:
    with pytest.raises(kind) as caught:
        await ask(client, rpc, **fields)
    assert caught.value.reason is reason


async def test_a_receipt_becomes_a_proof(mesh: Mesh) -> None:
    async with mesh.client() as client:
        receipt = await mesh.log.append(draft(1))
        await fill(mesh.log, 300)
        for size in (0, 1, 2, 257, 301):
            proof = await ask(client, "GetInclusionProof", index=receipt.index, tree_size=size)
            included = receipts.verify_inclusion(receipt, proof, mesh.key)
            assert included.checkpoint.checkpoint.size == (size or 301)


async def test_checkpoints_and_how_they_continue_each_other(mesh: Mesh) -> None:
    async with mesh.client() as client:
        await refused(client, NotFound, Reason.LOG_ENTRY_UNKNOWN, "GetCheckpoint")
        await fill(mesh.log, 10)
        older = await ask(client, "GetCheckpoint")
        await fill(mesh.log, 290)
        newer = await ask(client, "GetCheckpoint")
        old, new = (open_checkpoint(each.checkpoint, [mesh.key]).checkpoint for each in (older, newer))
        proof = await ask(client, "GetConsistencyProof", old_size=old.size, tree_size=new.size)
        assert (proof.tree_size, proof.checkpoint) == (300, newer.checkpoint)
        merkle.verify_consistency(old.size, old.root, new.size, new.root, proof.hashes)


async def test_hashes_are_for_everybody_and_entries_for_readers(mesh: Mesh) -> None:
    await fill(mesh.log, 300)
    async with mesh.client() as member, mesh.client(READER) as reader:
        for client in (member, reader):
            tile = await ask(client, "GetTile", path="tile/0/001.p/44")
            assert decode_hashes(tile.tile, 44)[3] == (await mesh.log.entry(259)).leaf_hash
        bundle = await ask(reader, "GetTile", path="tile/entries/000")
        assert decode_entries(bundle.tile, 256)[7] == (await mesh.log.entry(7)).data
        denied = PermissionDenied, Reason.CALLER_NOT_LISTED, "GetTile"
        # Also of bundles that there are not: nobody else learns how many there are.
        await refused(member, *denied, path="tile/entries/000")
        await refused(member, *denied, path="tile/entries/999")


async def test_a_proof_made_of_tiles_alone(mesh: Mesh) -> None:
    await fill(mesh.log, 600)
    async with mesh.client() as client:
        head = open_checkpoint((await ask(client, "GetCheckpoint")).checkpoint, [mesh.key]).checkpoint
        wanted = [
            Tile.holding(0, 0, 600),
            Tile.holding(0, 256, 600),
            Tile.holding(0, 512, 600),
            Tile.holding(1, 0, 600),
        ]
        tiles = {tile: (await ask(client, "GetTile", path=tile.path)).tile for tile in wanted}
        hashes = hashes_from(lambda tile: decode_hashes(tiles[tile], tile.width), 600)
        proof = merkle.inclusion_proof(300, 600, hashes)
        leaf = (await mesh.log.entry(300)).leaf_hash
        merkle.verify_inclusion(leaf, 300, 600, proof, head.root)


async def test_a_whole_log_is_verified_from_afar(mesh: Mesh) -> None:
    await fill(mesh.log, 300)
    async with mesh.client(READER) as client:
        files = {"checkpoint": (await ask(client, "GetCheckpoint")).checkpoint.encode()}
        for tile in ("tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"):
            files[tile] = (await ask(client, "GetTile", path=tile)).tile
        assert verifying.verify_tiles(files.__getitem__, mesh.key).size == 300


async def test_paths_of_no_tile(mesh: Mesh) -> None:
    wrong = ["", "tile", "tile/0/1", "tile/0/000.p/0", "tile/0/000.p/256", "../log.db", "tile/64/000", "tile/-1/000"]
    async with mesh.client() as client:
        for path in wrong:
            await refused(client, InvalidArgument, Reason.MALFORMED_REQUEST, "GetTile", path=path)


async def test_what_the_log_has_not(mesh: Mesh) -> None:
    await fill(mesh.log, 10)
    async with mesh.client() as client:
        unknown = Reason.LOG_ENTRY_UNKNOWN
        for path in ("tile/0/000", "tile/0/000.p/11", "tile/0/001.p/1", "tile/1/000.p/1", "tile/2/000.p/1"):
            await refused(client, NotFound, unknown, "GetTile", path=path)
        await refused(client, NotFound, unknown, "GetInclusionProof", index=10)
        await refused(client, NotFound, unknown, "GetInclusionProof", index=5, tree_size=5)
        await refused(client, InvalidArgument, unknown, "GetInclusionProof", index=5, tree_size=11)
        await refused(client, InvalidArgument, unknown, "GetConsistencyProof", old_size=11)
        await refused(client, InvalidArgument, unknown, "GetConsistencyProof", old_size=6, tree_size=5)
        for field in ("index", "tree_size"):
            await refused(client, InvalidArgument, Reason.MALFORMED_REQUEST, "GetInclusionProof", **{field: -1})
        await refused(client, InvalidArgument, Reason.MALFORMED_REQUEST, "GetConsistencyProof", old_size=-(1 << 63))


async def test_decisions_are_for_officers(mesh: Mesh) -> None:
    async with mesh.client() as client:
        with pytest.raises(HutongError) as caught:
            await ask(client, "SampleDecisions")
        assert caught.value.reason is Reason.OFFICER_MISSING


async def test_without_decisions_there_are_none(mesh: Mesh) -> None:
    service = LogService(mesh.log)
    with pytest.raises(PermissionDenied):
        await service.sample_decisions(log_service_pb2.SampleDecisionsRequest(), None)  # type: ignore[arg-type] # pyright: ignore
