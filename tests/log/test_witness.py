"""A witness co-signs what continues, remembers it, and finds out every way to show two histories."""

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import generate_latest

from hutong.api.log.v1 import log_service_pb2
from services.kit.client import Client
from services.kit.errors import (
    FailedPrecondition,
    HutongError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
)
from services.kit.log import keys, merkle, notes
from services.kit.log.checkpoint import Checkpoint, open_checkpoint
from services.kit.log.notes import Note, Signer
from services.kit.log.witnessed import MAX_EVIDENCE
from tests.log.witnesses import OWNER, WITNESS, History, Keys, Serving, add, serving
from tests.zone import ZONE, Zone

ORIGIN = f"{ZONE}/{OWNER}"
TIME = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)


class Field:
    """A zone with a witness, the log of `customs/node`, and whoever shows its checkpoints."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.zone = Zone(folder)
        self.keys = Keys(folder / "keys")
        self.stack = stack
        self.log = History(self.keys.signer(OWNER)).grown(5)
        """An honest history of five entries."""
        self.other = History.of(self.log.signer, "another").grown(7)
        """One of eight that differs from the first entry on."""

    async def serving(self, url: str) -> Serving:
        return await self.stack.enter_async_context(serving(self.zone, self.keys, url, clock=lambda: TIME))

    async def client(self, at: Serving, path: str = OWNER) -> Client:
        return await self.stack.enter_async_context(self.zone.client(at.host, path))


@pytest.fixture
async def field(tmp_path: Path) -> AsyncGenerator[Field]:
    async with AsyncExitStack() as stack:
        yield Field(tmp_path, stack)


async def refused(
    kind: type[HutongError], reason: Reason, client: Client, request: log_service_pb2.AddCheckpointRequest
) -> HutongError:
    with pytest.raises(kind) as caught:
        await add(client, request)
    assert caught.value.reason is reason
    return caught.value


async def forked(client: Client, request: log_service_pb2.AddCheckpointRequest) -> HutongError:
    return await refused(FailedPrecondition, Reason.LOG_FORKED, client, request)


async def elsewhere(client: Client, request: log_service_pb2.AddCheckpointRequest) -> int:
    error = await refused(FailedPrecondition, Reason.VERSION_CONFLICT, client, request)
    return int(error.metadata["size"])


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


async def test_what_continues_is_cosigned_and_remembered(field: Field, any_url: str) -> None:
    at = await field.serving(any_url)
    client = await field.client(at)
    longer = field.log.grown(3)
    for old, history in ((0, field.log), (5, field.log), (5, longer), (8, longer)):
        answer = await add(client, history.request(old))
        assert answer.size == len(history.leaves)
        note = notes.parse(history.note()).signed(notes.parse_signature(answer.cosignature))
        witness = field.keys.signer(WITNESS).verifier.cosigning()
        opened = open_checkpoint(str(note), [field.log.signer.verifier], [witness])
        assert [one.time for one in opened.verified] == [None, TIME]
    assert at.witnessed(ORIGIN) == (8, longer.head().root, longer.note())
    assert not at.evidence()


async def test_it_says_where_it_is(field: Field, sqlite_url: str) -> None:
    at = await field.serving(sqlite_url)
    client = await field.client(at)
    assert await elsewhere(client, field.log.request(3)) == 0
    await add(client, field.log.request(0))
    for old in (0, 1, 4, 6):
        assert await elsewhere(client, field.log.grown(3).request(old)) == 5
    assert at.witnessed(ORIGIN)[0] == 5


@pytest.mark.parametrize("caller", [OWNER, "audit/system"])
async def test_rewritten_history_is_noticed(
    field: Field, any_url: str, caller: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever shows it: the newer tree's own proof gives another beginning than the log had signed."""
    at = await field.serving(any_url)
    await add(await field.client(at), field.log.request(0))
    client = await field.client(at, caller)
    error = await forked(client, field.other.request(5))
    assert error.metadata == {"size": "5", "checkpoint": field.log.note()}
    assert at.witnessed(ORIGIN) == (5, field.log.head().root, field.log.note()), "what it knew stays"
    (kept,) = at.evidence()
    assert (kept["origin"], kept["proven"], kept["time"]) == (ORIGIN, True, TIME)
    assert kept["caller"] == f"spiffe://{ZONE}/{caller}"
    convicts(field, kept["witnessed"], kept["shown"], kept["proof"])
    assert errors(caplog) == ["A log was forked: it has signed two histories"]
    await forked(client, field.other.request(5))
    assert len(errors(caplog)) == len(at.evidence()) == 1, "said once"
    assert b"hutong_logs_forked 1.0" in generate_latest(at.host.telemetry.registry)
    answer = await add(await field.client(at), field.log.grown(1).request(5))
    assert answer.size == 6, "what does continue is still co-signed"


def convicts(field: Field, witnessed: str, shown: str, proof: bytes) -> None:
    """Check, with the log's published key alone, that it signed two histories."""
    key = keys.find(field.keys.folder, ORIGIN)
    old, new = (open_checkpoint(note, [key]).checkpoint for note in (witnessed, shown))
    hashes = [proof[start : start + 32] for start in range(0, len(proof), 32)]
    assert merkle.prefix_root(old.size, new.size, new.root, hashes) not in {None, old.root}


@pytest.mark.parametrize("caller", [OWNER, "audit/system"])
@pytest.mark.parametrize("old", [0, 3, 5])
async def test_two_heads_of_one_size_are_noticed(field: Field, sqlite_url: str, caller: str, old: int) -> None:
    """Whatever the caller believes of the witness: two signatures are all it takes."""
    at = await field.serving(sqlite_url)
    await add(await field.client(at), field.log.request(0))
    client = await field.client(at, caller)
    error = await forked(client, field.other.request(old, 5))
    assert open_checkpoint(error.metadata["checkpoint"], [field.log.signer.verifier]).checkpoint == field.log.head()
    (kept,) = at.evidence()
    assert (kept["proven"], kept["shown"]) == (True, field.other.note(5))


async def test_a_made_up_proof_convicts_nobody(field: Field, sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Anybody can show a real checkpoint with a false proof; the log's own node says by it that it has no other."""
    at = await field.serving(sqlite_url)
    own, anybody = await field.client(at), await field.client(at, "enterprise/91350200ma2xxxxx0x")
    await add(own, field.log.request(0))
    longer = field.log.grown(3)
    proof = longer.proof(5)
    made_up = [
        [],
        proof[:-1],
        [*proof, proof[0]],
        [bytes(32), *proof[1:]],
        [b"short", *proof[1:]],
        field.other.proof(5),
    ]
    for wrong in made_up:
        request = log_service_pb2.AddCheckpointRequest(old_size=5, proof=wrong, checkpoint=longer.note())
        error = await refused(FailedPrecondition, Reason.LOG_PROOF_INVALID, anybody, request)
        assert error.metadata == {"size": "5"}
    assert not at.evidence()
    assert not errors(caplog)
    await forked(own, log_service_pb2.AddCheckpointRequest(old_size=5, proof=made_up[0], checkpoint=longer.note()))
    assert [kept["proven"] for kept in at.evidence()] == [False]
    assert len(errors(caplog)) == 1


async def test_what_is_proven_takes_the_place_of_what_is_not(field: Field, any_url: str) -> None:
    at = await field.serving(any_url)
    client = await field.client(at)
    await add(client, field.log.request(0))
    await forked(client, log_service_pb2.AddCheckpointRequest(old_size=5, checkpoint=field.other.note()))
    assert [kept["proven"] for kept in at.evidence()] == [False]
    await forked(await field.client(at, "audit/system"), field.other.request(5))
    await forked(client, log_service_pb2.AddCheckpointRequest(old_size=5, checkpoint=field.other.note()))
    assert [kept["proven"] for kept in at.evidence()] == [True]


async def test_a_perfect_tree_that_was_rewritten(field: Field, sqlite_url: str) -> None:
    """Of a tree of 2**n leaves a proof leaves the old root out: only the log's own node convicts it that way."""
    at = await field.serving(sqlite_url)
    own, anybody = await field.client(at), await field.client(at, "audit/system")
    await add(own, field.log.request(0, 4))
    await refused(FailedPrecondition, Reason.LOG_PROOF_INVALID, anybody, field.other.request(4))
    await forked(own, field.other.request(4))
    await forked(anybody, field.other.request(4, 4))
    assert [(kept["size"], kept["proven"]) for kept in at.evidence()] == [(4, True), (8, False)]


async def test_less_than_before_is_not_cosigned(
    field: Field, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A log put back to an older state shows it as long as it is shorter, and is forked once it is not."""
    at = await field.serving(sqlite_url)
    own, anybody = await field.client(at), await field.client(at, "audit/system")
    await add(own, field.log.request(0))
    assert await elsewhere(anybody, field.log.request(0, 3)) == 5
    assert not caplog.records, "anybody may show what is old"
    for _ in range(2):
        assert await elsewhere(own, field.log.request(3, 3)) == 5
    assert [record.message for record in caplog.records] == ["A log shows less than was co-signed"]
    rewritten = History(field.log.signer, field.log.leaves[:3]).grown(5, "later")
    await forked(own, rewritten.request(5))
    assert at.witnessed(ORIGIN) == (5, field.log.head().root, field.log.note())


async def test_a_restart_keeps_what_was_witnessed(field: Field, any_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(field.zone, field.keys, any_url) as at, field.zone.client(at.host, OWNER) as client:
        await add(client, field.log.request(0))
    async with serving(field.zone, field.keys, any_url) as at, field.zone.client(at.host, OWNER) as client:
        assert await elsewhere(client, field.other.request(0)) == 5
        await forked(client, field.other.request(5))
        assert (await add(client, field.log.grown(1).request(5))).size == 6
    caplog.clear()
    async with serving(field.zone, field.keys, any_url) as at:
        assert at.witness.accused == {ORIGIN}
        assert at.witnessed(ORIGIN)[0] == 6
        assert errors(caplog) == ["There is evidence of forked logs"], "and said again"
        assert b"hutong_logs_forked 1.0" in generate_latest(at.host.telemetry.registry)


async def test_of_many_at_once_one_is_first(field: Field, any_url: str) -> None:
    """Two replicas of a witness, and everybody showing something: never does it go back, nor sign two first heads."""
    longer = field.log.grown(20)
    first, second = await field.serving(any_url), await field.serving(any_url)
    clients = [await field.client(at) for at in (first, second)]

    calls = [add(clients[number % 2], longer.request(0, 1 + number)) for number in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    sizes = [answer.size for answer in answers if isinstance(answer, log_service_pb2.AddCheckpointResponse)]
    reasons = [answer.reason for answer in answers if isinstance(answer, FailedPrecondition)]
    assert sizes == [first.witnessed(ORIGIN)[0]]
    assert reasons == [Reason.VERSION_CONFLICT] * 19


async def test_whoever_grows_it_at_once_it_never_shrinks(field: Field, any_url: str) -> None:
    longer = field.log.grown(25)
    first, second = await field.serving(any_url), await field.serving(any_url)
    clients = [await field.client(at) for at in (first, second)]
    await add(clients[0], longer.request(0, 1))

    async def grow(number: int) -> None:
        """Bring the witness to a size, from wherever it is."""
        at, size = 1, 5 + number
        while at < size:
            try:
                now = (await add(clients[number % 2], longer.request(at, size))).size
            except FailedPrecondition as error:
                now = int(error.metadata["size"])
            assert now > at, "it only ever grows"
            at = now

    await asyncio.gather(*map(grow, range(20)))
    assert first.witnessed(ORIGIN) == (24, longer.head(24).root, longer.note(24))
    assert not first.evidence()


async def test_only_what_its_log_signed_is_looked_at(field: Field, sqlite_url: str) -> None:
    at = await field.serving(sqlite_url)
    client = await field.client(at)
    head = field.log.head()
    stranger = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
    other = field.keys.signer("audit/system")
    own = field.log.signer
    unsigned = [
        Note(head.text, (stranger.sign(head.text),)),
        Note(head.text, (other.sign(head.text),)),
        Note(head.text, (own.cosign(head.text, TIME),)),
    ]
    for note in unsigned:
        request = log_service_pb2.AddCheckpointRequest(checkpoint=str(note))
        await refused(PermissionDenied, Reason.LOG_KEY_UNKNOWN, client, request)
    elsewhere_signed = Note(head.text, (own.sign(field.log.head(4).text),))
    request = log_service_pb2.AddCheckpointRequest(checkpoint=str(elsewhere_signed))
    await refused(PermissionDenied, Reason.LOG_TAMPERED, client, request)
    unknown = Checkpoint(f"{ZONE}/nobody/node", 5, head.root).sign(Signer(f"{ZONE}/nobody/node", own.key))
    request = log_service_pb2.AddCheckpointRequest(checkpoint=str(unknown))
    await refused(NotFound, Reason.LOG_KEY_UNKNOWN, client, request)
    for origin in ("../x", f"{ZONE}/../node", "a\x7f", "go.sum", f"{ZONE}/customs/node/more"):
        signer = Signer(origin, own.key)
        request = log_service_pb2.AddCheckpointRequest(checkpoint=str(Checkpoint(origin, 5, head.root).sign(signer)))
        await refused(NotFound, Reason.LOG_KEY_UNKNOWN, client, request)


async def test_what_is_no_request(field: Field, sqlite_url: str) -> None:
    at = await field.serving(sqlite_url)
    client = await field.client(at)
    note = field.log.note()
    wrong: list[tuple[int, list[bytes], str]] = [
        (0, [], ""),
        (0, [], "no note"),
        (0, [], field.log.head().text),
        (0, [], note.replace("\n5\n", "\n05\n")),
        (-1, [], note),
        (6, [], note),
        (0, [bytes(32)] * 64, note),
    ]
    for old, proof, checkpoint in wrong:
        request = log_service_pb2.AddCheckpointRequest(old_size=old, proof=proof, checkpoint=checkpoint)
        await refused(InvalidArgument, Reason.MALFORMED_REQUEST, client, request)
    for old in (0, 5):
        # Where there is nothing to prove, a proof is a mistake, and no fork.
        request = log_service_pb2.AddCheckpointRequest(old_size=old, proof=[bytes(32)], checkpoint=note)
        await refused(FailedPrecondition, Reason.LOG_PROOF_INVALID, client, request)
        await add(client, field.log.request(old))
    assert not at.evidence()


async def test_keys_are_read_as_they_are_now(field: Field, sqlite_url: str) -> None:
    at = await field.serving(sqlite_url)
    client = await field.client(at)
    published = keys.published_file(field.keys.folder, ORIGIN)
    text = published.read_text()
    published.unlink()
    await refused(NotFound, Reason.LOG_KEY_UNKNOWN, client, field.log.request(0))
    published.write_text("no key")
    await refused(PermissionDenied, Reason.LOG_KEY_UNKNOWN, client, field.log.request(0))
    published.write_text(str(field.keys.signer(WITNESS).verifier))
    await refused(PermissionDenied, Reason.LOG_KEY_UNKNOWN, client, field.log.request(0))
    published.write_text(text)
    assert (await add(client, field.log.request(0))).size == 5


async def test_no_more_is_kept_than_the_log_signed(field: Field, sqlite_url: str) -> None:
    """Signatures of unknown keys may be anything: they are neither looked at nor kept."""
    at = await field.serving(sqlite_url)
    client = await field.client(at)
    junk = [notes.Signature(f"junk-{number}", b"junk", bytes(1000)) for number in range(50)]
    note = str(notes.parse(field.log.note()).signed(*junk))
    await add(client, log_service_pb2.AddCheckpointRequest(checkpoint=note))
    assert at.witnessed(ORIGIN)[2] == field.log.note()


async def test_evidence_is_bounded(field: Field, sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A log that forks itself by the thousand is convicted a hundred times, and refused each time."""
    at = await field.serving(sqlite_url)
    client = await field.client(at)
    await add(client, field.log.request(0))
    for number in range(MAX_EVIDENCE + 5):
        await forked(client, History.of(field.log.signer, f"fork {number}").grown(4).request(0))
    assert len(at.evidence()) == len(errors(caplog)) == MAX_EVIDENCE


async def test_logs_are_told_apart(field: Field, sqlite_url: str) -> None:
    at = await field.serving(sqlite_url)
    client = await field.client(at)
    await add(client, field.log.request(0))
    audit = History(field.keys.signer("audit/system")).grown(3)
    assert (await add(client, audit.request(0))).size == 3
    assert at.witnessed(ORIGIN)[0] == 5
    assert not at.evidence()
