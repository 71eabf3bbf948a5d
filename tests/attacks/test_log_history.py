"""A log whose own node has turned: with the database and the log's key in hand it writes history anew, or two of them.

What is signed with the right key and holds together by itself starts and serves. What it cannot do is get away with it:
whoever holds a receipt, an older checkpoint, or a witness's cosignature convicts it.
"""

import contextlib
import datetime as dt
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.client import Client
from services.kit.config import PeerSection
from services.kit.department import DepartmentNode
from services.kit.errors import FailedPrecondition, HutongError, InvalidArgument, NotFound, PermissionDenied, Reason
from services.kit.log import keys, receipts, verifying
from services.kit.log.checkpoint import Checkpoint, open_checkpoint
from services.kit.log.merkle import Frontier, leaf_hash, verify_consistency
from services.kit.log.notes import Signer
from services.kit.log.showing import Showing, Standing
from services.kit.log.tables import ENTRY, EVIDENCE, HEAD, OPENING
from services.kit.log.tables import SUBJECT as SUBJECT_OF
from services.kit.log.tiles import Tile
from services.kit.records.database import engine
from tests.attacks.asking import REBATE, SUBJECT, TAX, refused
from tests.exchange.mesh import QUERY, ROOMS, Mesh, question
from tests.exchange.records import RECORDS
from tests.log.witnesses import ADD, History
from tests.recording.bed import PROOF, log_of, raw
from tests.zone import ZONE

CONSISTENCY = "/hutong.api.log.v1.LogService/GetConsistencyProof"
CHECKPOINT = "/hutong.api.log.v1.LogService/GetCheckpoint"
TILE = "/hutong.api.log.v1.LogService/GetTile"
WITNESS, OTHER = "taxation", "quality"
ORIGIN = f"{ZONE}/customs/node"
ANSWERS = 9


@dataclass
class Bed:
    """Customs with a log that another department witnesses, and what its callers kept."""

    mesh: Mesh
    receipts: list[log_pb2.Receipt] = field(default_factory=list[log_pb2.Receipt])
    checkpoint: str = ""
    """As somebody kept it before anything was changed."""
    address: str = "127.0.0.1:0"

    @property
    def log(self) -> Path:
        return self.mesh.folder / "logs" / "customs.node.db"

    @property
    def signer(self) -> Signer:
        return keys.read(self.mesh.folder / "logs" / "customs.node.key", ORIGIN)

    @property
    def showing(self) -> Showing:
        found = self.mesh.host("customs").showing
        assert found is not None
        return found

    async def ask(self) -> None:
        """Have something answered by customs, and keep the receipt."""
        request = question(SUBJECT, "customs.Declaration:declaration_no", **REBATE)
        await raw(self.mesh.client(TAX), QUERY, request)
        self.receipts.append(await self.receipt(log_of(self.mesh.host("customs")).size - 1))

    async def receipt(self, index: int) -> log_pb2.Receipt:
        """The receipt that went out with an entry."""
        entry = await log_of(self.mesh.host("customs")).entry(index)
        receipt = log_pb2.Receipt(
            origin=ORIGIN, index=index, leaf_hash=entry.leaf_hash, batch_start=index, batch_size=1
        )
        text = receipts.signed_text(ORIGIN, index, 1, entry.leaf_hash)
        receipt.signature = self.signer.key.sign(text)
        return receipt

    async def start(self) -> None:
        """Start customs, with its witness."""
        mesh = self.mesh
        config = mesh.config("customs", self.address)
        assert config.log is not None
        target = PeerSection(target=mesh.host(WITNESS).address)
        log = config.log.model_copy(update={"witnesses": {WITNESS: target}, "interval": dt.timedelta(hours=1)})
        config = config.model_copy(update={"log": log})
        node = DepartmentNode(ROOMS["customs"], config, mesh.url("customs"), mesh.zone.frame(config))
        await node.start()
        mesh.departments["customs"] = node
        self.address = node.host.address
        for name in [name for name in clients(mesh) if name.endswith(">customs")]:
            await clients(mesh).pop(name).close()

    async def turn(self, change: "Change") -> None:
        """Stop customs, have its history written anew, and start it again."""
        await self.mesh.departments.pop("customs").stop()
        rewrite(self.log, self.signer, change)
        await self.start()
        await self.mesh.replace_gateway()

    async def proven(self, receipt: log_pb2.Receipt) -> None:
        """Turn a receipt into a proof, as whoever has it does; raises where the log did not keep its promise."""
        client, asked = self.mesh.client(TAX, "customs"), log_service_pb2.GetInclusionProofRequest(index=receipt.index)
        proof = await client.unary(PROOF, asked, log_service_pb2.GetInclusionProofResponse, timeout=10)
        receipts.verify_inclusion(receipt, proof, self.signer.verifier)

    async def continued(self) -> None:
        """Check that the log continues the checkpoint that was kept; raises where it does not."""
        old = open_checkpoint(self.checkpoint, [self.signer.verifier]).checkpoint
        asked = log_service_pb2.GetConsistencyProofRequest(old_size=old.size)
        client, response = self.mesh.client(TAX, "customs"), log_service_pb2.GetConsistencyProofResponse
        proof = await client.unary(CONSISTENCY, asked, response, timeout=10)
        new = open_checkpoint(proof.checkpoint, [self.signer.verifier]).checkpoint
        verify_consistency(old.size, old.root, new.size, new.root, tuple(proof.hashes))

    def evidence(self, agency: str = WITNESS) -> list[str]:
        """Origins of the logs that a witness has evidence against."""
        opened = engine(f"sqlite:///{self.mesh.folder}/logs/{agency}.node.db", writer=False)
        with opened.connect() as connection:
            found = list(connection.execute(sa.select(EVIDENCE.c.origin)).scalars())
        opened.dispose()
        return found


def clients(mesh: Mesh) -> dict[str, Client]:
    """Connections that are kept, and would take their time to notice that the other side is another."""
    return mesh._clients  # pyright: ignore[reportPrivateUsage]


Change = Callable[[list[bytes]], list[bytes]]


def rewrite(path: Path, signer: Signer, change: Change) -> None:
    """Write other entries, with every hash, the head and a checkpoint that fit: the key is there."""
    opened = engine(f"sqlite:///{path}", writer=True)
    with opened.begin() as connection:
        entries = list(connection.execute(sa.select(ENTRY.c.entry).order_by(ENTRY.c.index)).scalars())
        frontier = Frontier()
        for table in (ENTRY, OPENING, SUBJECT_OF):
            connection.execute(sa.delete(table))
        for index, entry in enumerate(change(entries)):
            frontier.append(leaf := leaf_hash(entry))
            connection.execute(sa.insert(ENTRY).values(index=index, leaf_hash=leaf, entry=entry))
        signed = Checkpoint(ORIGIN, frontier.size, frontier.root()).sign(signer)
        head = {"size": frontier.size, "frontier": frontier.to_bytes(), "checkpoint": str(signed)}
        connection.execute(sa.update(HEAD).values(head))
    opened.dispose()


def last_answered(entries: list[bytes]) -> int:
    return max(n for n, e in enumerate(entries) if not log_pb2.LogEntry.FromString(e).HasField("mask"))


def altered(entries: list[bytes]) -> list[bytes]:
    """Somebody else is made to have asked."""
    at = last_answered(entries)
    entry = log_pb2.LogEntry.FromString(entries[at])
    entry.caller = f"spiffe://{ZONE}/quality/lab"
    return [*entries[:at], entry.SerializeToString(), *entries[at + 1 :]]


def inserted(entries: list[bytes]) -> list[bytes]:
    """A look that never was is made to have been."""
    entry = log_pb2.LogEntry(rpc="/x.Y/Z", caller=f"spiffe://{ZONE}/supervision/aml", purpose="P-AML")
    return [*entries[:2], entry.SerializeToString(), *entries[2:]]


REWRITING: dict[str, Change] = {
    "an entry removed": lambda entries: (
        [*entries[:-1]][: last_answered(entries)] + entries[last_answered(entries) + 1 :]
    ),
    "an entry altered": altered,
    "two entries swapped": lambda entries: [*entries[:-2], entries[-1], entries[-2]],
    "an entry slipped in": inserted,
    "none left but new ones": lambda entries: [
        log_pb2.LogEntry(rpc=f"/x.Y/{n}").SerializeToString() for n in range(40)
    ],
}


@contextlib.asynccontextmanager
async def made(folder: Path) -> AsyncGenerator[Bed]:
    mesh = Mesh(folder)
    bed = Bed(mesh)
    try:
        for agency in (WITNESS, OTHER):
            await mesh.start(agency)
        await bed.start()
        await mesh.load("customs", RECORDS["customs"])
        await mesh.start_gateway()
        for _ in range(ANSWERS):
            await bed.ask()
        bed.checkpoint = await log_of(mesh.host("customs")).checkpoint()
        await bed.showing.show()
        yield bed
    finally:
        await mesh.stop()


@pytest.fixture(scope="module")
async def grown(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Bed]:
    """One for all ways to write history anew; each begins with what was."""
    async with made(tmp_path_factory.mktemp("history")) as bed:
        yield bed


@contextlib.asynccontextmanager
async def restored(bed: Bed) -> AsyncGenerator[None]:
    """Put everybody's logs back afterwards, the witness's memory too."""
    folder, kept = bed.mesh.folder / "logs", bed.mesh.folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for path in folder.glob("*.db"):
        copy(path, kept / path.name)
    try:
        yield
    finally:
        await bed.mesh.departments.pop("customs").stop()
        for path in kept.iterdir():
            copy(path, folder / path.name)
        await bed.start()
        await bed.mesh.replace_gateway()


def copy(source: Path, target: Path) -> None:
    with sqlite3.connect(source) as one, sqlite3.connect(target) as other:
        one.backup(other)
    one.close()
    other.close()


@pytest.mark.parametrize("change", REWRITING.values(), ids=REWRITING)
async def test_a_history_written_anew_is_caught_by_everybody(grown: Bed, change: Change) -> None:
    bed = grown
    for receipt in bed.receipts:
        await bed.proven(receipt)
    await bed.continued()
    assert bed.showing.standings == {f"{ZONE}/{WITNESS}/node": Standing.COSIGNS}
    assert not bed.evidence()
    async with restored(bed):
        await bed.turn(change)
        # It starts, it serves, and goes on: it is whole, and signed with its key.
        await bed.ask()
        opened = engine(f"sqlite:///{bed.log}", writer=False)
        with opened.connect() as connection:
            verifying.verify_all(connection, bed.signer.verifier)
        opened.dispose()
        await bed.proven(bed.receipts.pop())
        # By whoever kept a receipt of something that is no longer where it was,
        broken = [await outcome(bed.proven(receipt)) for receipt in bed.receipts]
        assert set(broken) - {""} <= {Reason.LOG_PROOF_INVALID, Reason.LOG_ENTRY_UNKNOWN}
        assert any(broken)
        # by whoever kept a checkpoint,
        assert await outcome(bed.continued()) in {Reason.LOG_PROOF_INVALID, Reason.LOG_ENTRY_UNKNOWN}
        # and by its witness, which does not co-sign and keeps what it was shown.
        await bed.showing.show()
        assert bed.showing.standings == {f"{ZONE}/{WITNESS}/node": Standing.FORKED}
        assert set(bed.evidence()) == {ORIGIN}


async def outcome(doing: Any) -> str:
    try:
        await doing
    except HutongError as error:
        return error.reason
    return ""


async def test_a_log_put_back_to_an_older_state_is_caught(tmp_path: Path) -> None:
    """Old and whole, signed by the right key at the time: what was answered since is gone, and that shows."""
    async with made(tmp_path) as bed:
        mesh = bed.mesh
        before = tmp_path / "before.db"
        copy(bed.log, before)
        await bed.ask()
        await bed.showing.show()
        await mesh.departments.pop("customs").stop()
        copy(before, bed.log)
        await bed.start()
        await bed.showing.show()
        assert bed.showing.standings == {f"{ZONE}/{WITNESS}/node": Standing.AHEAD}
        assert await outcome(bed.proven(bed.receipts[-1])) == Reason.LOG_ENTRY_UNKNOWN
        # As soon as it goes on from there it has two histories.
        await mesh.replace_gateway()
        for _ in range(2):
            await bed.ask()
        await bed.showing.show()
        assert bed.showing.standings == {f"{ZONE}/{WITNESS}/node": Standing.FORKED}
        assert await outcome(bed.proven(bed.receipts[ANSWERS])) == Reason.LOG_PROOF_INVALID


# without the key


@pytest.mark.parametrize("change", [REWRITING["an entry removed"], altered], ids=["removed", "altered"])
async def test_without_the_logs_key_it_does_not_even_start(grown: Bed, change: Change) -> None:
    """Whoever has the database alone: the end of the log is not what was signed."""
    bed = grown
    async with restored(bed):
        stranger = Signer(ORIGIN, Ed25519PrivateKey.generate())
        await bed.mesh.departments.pop("customs").stop()
        rewrite(bed.log, stranger, change)
        with pytest.raises(FailedPrecondition) as caught:
            await bed.start()
        assert caught.value.reason in {Reason.LOG_TAMPERED, Reason.LOG_KEY_UNKNOWN}
        # And with the head as it was signed, which fits no other entries.
        old = bed.checkpoint

        def back(connection: sa.Connection) -> None:
            connection.execute(sa.update(HEAD).values(checkpoint=old))

        edit(bed.log, back)
        with pytest.raises(FailedPrecondition) as caught:
            await bed.start()
        assert caught.value.reason is Reason.LOG_TAMPERED
        bed.mesh.departments["customs"] = await stopped(bed.mesh)


async def stopped(mesh: Mesh) -> DepartmentNode:
    """A node that was never started, to be stopped."""
    config = mesh.config("customs", "127.0.0.1:0")
    return DepartmentNode(ROOMS["customs"], config, mesh.url("customs"), mesh.zone.frame(config))


def edit(path: Path, work: Callable[[sa.Connection], object]) -> None:
    opened = engine(f"sqlite:///{path}", writer=True)
    with opened.begin() as connection:
        work(connection)
    opened.dispose()


async def test_a_row_that_is_edited_under_a_running_node_proves_nothing(tmp_path: Path) -> None:
    """The node serves on, and its proofs say whether an entry is still the one that was answered."""
    async with made(tmp_path) as bed:
        receipt = bed.receipts[4]
        beside = await bed.receipt(receipt.index ^ 1)

        def change(connection: sa.Connection) -> None:
            (entry,) = connection.execute(sa.select(ENTRY.c.entry).where(ENTRY.c.index == receipt.index)).scalars()
            forged = log_pb2.LogEntry.FromString(entry)
            forged.caller = f"spiffe://{ZONE}/quality/lab"
            data = forged.SerializeToString()
            values = {"entry": data, "leaf_hash": leaf_hash(data)}
            connection.execute(sa.update(ENTRY).where(ENTRY.c.index == receipt.index).values(values))

        edit(bed.log, change)
        # What was answered is what its root still stands for: the entry as it lies there now is another,
        await bed.proven(receipt)
        now = await log_of(bed.mesh.host("customs")).entry(receipt.index)
        with pytest.raises(PermissionDenied) as doubted:
            receipts.verify_entry(receipt, now.data)
        assert doubted.value.reason is Reason.RECEIPT_INVALID
        # and whatever is proven by way of it no longer is.
        assert await outcome(bed.proven(beside)) == Reason.LOG_PROOF_INVALID
        await bed.ask()
        # Nor does it sign an older tree any more that is not the beginning of what it has.
        asked = log_service_pb2.GetConsistencyProofRequest(old_size=3, tree_size=receipt.index + 1)
        client, response = bed.mesh.client(TAX, "customs"), log_service_pb2.GetConsistencyProofResponse
        assert (await refused(client.unary(CONSISTENCY, asked, response, timeout=10))).reason is Reason.LOG_TAMPERED
        opened = engine(f"sqlite:///{bed.log}", writer=False)
        with opened.connect() as connection, pytest.raises(FailedPrecondition) as caught:
            verifying.verify_all(connection, bed.signer.verifier)
        opened.dispose()
        assert caught.value.reason is Reason.LOG_TAMPERED


async def test_tiles_that_are_stale_or_of_another_log_are_noticed(grown: Bed) -> None:
    """Whoever serves the tiles, a cache between say, cannot have any of them pass for another."""
    bed, files = grown, dict[str, bytes]()
    log = log_of(bed.mesh.host("customs"))
    older = int((await log.checkpoint()).splitlines()[1])
    for tile in (Tile(None, 0, older), Tile(0, 0, older)):
        files[tile.path] = await log.tile(tile)
    files["checkpoint"] = (await log.checkpoint()).encode()
    await bed.ask()
    bed.receipts.pop()
    size = log.size
    fresh = {"checkpoint": (await log.checkpoint()).encode()}
    for tile in (Tile(None, 0, size), Tile(0, 0, size)):
        fresh[tile.path] = await log.tile(tile)
    key = bed.signer.verifier
    assert verifying.verify_tiles(fresh.__getitem__, key).size == size
    # What is older is whole: and older than the receipt or checkpoint that somebody has.
    assert verifying.verify_tiles(files.__getitem__, key).size == older
    stale = {path: next(iter(data for p, data in files.items() if p[:7] == path[:7])) for path in fresh}
    theirs = log_of(bed.mesh.host("gateway"))
    foreign = (await theirs.checkpoint()).encode()
    for served in (
        stale | {"checkpoint": fresh["checkpoint"]},
        *(fresh | {path: stale[path]} for path in fresh if path != "checkpoint"),
        *(fresh | {path: data[:-1] + bytes([data[-1] ^ 1])} for path, data in fresh.items() if path != "checkpoint"),
        fresh | {"checkpoint": foreign},
        fresh | {"checkpoint": fresh["checkpoint"].replace(str(size).encode(), str(older).encode(), 1)},
    ):
        with pytest.raises(HutongError):
            verifying.verify_tiles(served.__getitem__, key)


# two histories, and innocent logs


async def shown(bed: Bed, agency: str, request: log_service_pb2.AddCheckpointRequest, who: str = "audit/desk") -> Any:
    client = bed.mesh.client(who, agency)
    return await client.unary(ADD, request, log_service_pb2.AddCheckpointResponse, timeout=10)


async def test_two_heads_of_one_size_meet_when_anybody_compares(tmp_path: Path) -> None:
    """One for each witness, and each co-signs its own: until a bystander carries one to the other."""
    async with made(tmp_path) as bed:
        liar = keys.create(tmp_path / "liar.key", tmp_path / "logs" / "keys", f"{ZONE}/commerce/node")
        one = History.of(liar, "true", "told to taxation")
        two = History.of(liar, "true", "told to quality")
        for agency, history in ((WITNESS, one), (OTHER, two)):
            answer = await shown(bed, agency, history.request(0), "commerce/node")
            assert answer.size == 2
            with_both = f"{history.note()}{answer.cosignature}"
            witness = keys.find(tmp_path / "logs" / "keys", f"{ZONE}/{agency}/node").cosigning()
            assert len(open_checkpoint(with_both, [liar.verifier], [witness]).verified) == 2
        for agency, history in ((WITNESS, two), (OTHER, one)):
            for old in (2, 0, 1):
                request = log_service_pb2.AddCheckpointRequest(old_size=old, checkpoint=history.note())
                assert (await refused(shown(bed, agency, request))).reason is Reason.LOG_FORKED
            assert bed.evidence(agency) == [liar.name]
        # Nor does either co-sign what comes after: neither history can be gone on with at both.
        for agency, history in ((WITNESS, two.grown(3)), (OTHER, one.grown(3))):
            assert (await refused(shown(bed, agency, history.request(2)))).reason in {
                Reason.LOG_FORKED,
                Reason.LOG_PROOF_INVALID,
            }


async def test_nobody_frames_an_innocent_log(grown: Bed) -> None:
    """With all that is public of it: its checkpoints, its proofs, its name, and keys of one's own."""
    bed = grown
    log, own = log_of(bed.mesh.host("customs")), f"{ZONE}/{WITNESS}/node"
    await bed.ask()
    bed.receipts.pop()
    await bed.showing.show()
    assert bed.showing.standings == {own: Standing.COSIGNS}
    older, newer = bed.checkpoint, await log.checkpoint()
    old, new = (open_checkpoint(text, [bed.signer.verifier]).checkpoint for text in (older, newer))
    proof = list((await log.consistency(old.size)).hashes)
    stranger = Signer(ORIGIN, Ed25519PrivateKey.generate())
    made_up = Checkpoint(ORIGIN, new.size, bytes(32)).sign(stranger)
    body = newer.split("\n\n")[0]
    again = newer.replace(body.splitlines()[2], older.splitlines()[2])
    show = log_service_pb2.AddCheckpointRequest
    for request, kinds in (
        # What is old, as if it were new.
        (show(old_size=old.size, checkpoint=older), FailedPrecondition),
        (show(old_size=0, checkpoint=older), FailedPrecondition),
        # Proofs that lead nowhere.
        (show(old_size=new.size, checkpoint=newer, proof=[bytes(32)]), FailedPrecondition),
        (show(old_size=old.size, checkpoint=newer, proof=proof[::-1]), FailedPrecondition),
        (show(old_size=new.size, checkpoint=newer, proof=proof), FailedPrecondition),
        # What it has not signed.
        (show(old_size=new.size, checkpoint=str(made_up)), PermissionDenied),
        (show(old_size=new.size, checkpoint=again), PermissionDenied),
        (show(old_size=new.size, checkpoint=newer.replace(ORIGIN, own)), HutongError),
        # Logs that nobody knows, and names that lead elsewhere.
        (show(old_size=0, checkpoint=named("nobody/node")), NotFound),
        (show(old_size=0, checkpoint=named("../customs.node.key")), HutongError),
        (show(old_size=0, checkpoint=named("../../secret")), HutongError),
        (show(old_size=0, checkpoint=named("customs/node\u200b")), HutongError),
        # What is no checkpoint.
        (show(old_size=-1, checkpoint=newer), InvalidArgument),
        (show(old_size=2**62, checkpoint=newer), InvalidArgument),
        (show(checkpoint=""), InvalidArgument),
        (show(checkpoint="x" * 200_000), InvalidArgument),
        (show(old_size=new.size, checkpoint=newer, proof=[bytes(32)] * 10_000), HutongError),
    ):
        for who in ("audit/desk", "enterprise/91990000ma00000100", "quality/node"):
            error = await refused(shown(bed, WITNESS, request, who))
            assert isinstance(error, kinds), request
            assert error.reason is not Reason.LOG_FORKED
    assert not bed.evidence()
    await bed.ask()
    bed.receipts.pop()
    await bed.showing.show()
    assert bed.showing.standings == {own: Standing.COSIGNS}


def named(path: str) -> str:
    signer = Signer("zone.example/x/y", Ed25519PrivateKey.generate())
    text = str(Checkpoint("zone.example/x/y", 1, bytes(32)).sign(signer))
    return text.replace("zone.example/x/y", f"{ZONE}/{path}")


async def test_entries_are_nobodys_whose_log_it_is_not(grown: Bed) -> None:
    """Hashes are for every member; whole entries are not, however the tile is called."""
    bed = grown
    for who in (TAX, "gateway/main", "enterprise/91990000ma00000100"):
        client = bed.mesh.client(who, "customs")
        for path in ("tile/entries/000", "tile/entries/000.p/1", "tile/entries/x000/000"):
            request = log_service_pb2.GetTileRequest(path=path)
            error = await refused(client.unary(TILE, request, log_service_pb2.GetTileResponse, timeout=10))
            assert error.reason in {Reason.CALLER_NOT_LISTED, Reason.MALFORMED_REQUEST, Reason.LOG_ENTRY_UNKNOWN}
        for path in (
            "tile/ENTRIES/000",
            "/tile/entries/000.p/1",
            "tile//entries/000",
            "tile/0/../entries/000",
            "x" * 999,
        ):
            request = log_service_pb2.GetTileRequest(path=path)
            error = await refused(client.unary(TILE, request, log_service_pb2.GetTileResponse, timeout=10))
            assert error.reason in {Reason.MALFORMED_REQUEST, Reason.NAME_INVALID, Reason.LOG_ENTRY_UNKNOWN}
