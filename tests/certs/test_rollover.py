"""The authority's rotation: its steps, their order, what stops in the middle, and that no call notices."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from certs import authority as authority_module
from certs import rollover as rollover_module
from certs import standing as standing_module
from certs.authority import Authority
from certs.errors import AuthorityUnknown, CertificateError, CertificateRevoked, RevocationUnknown, StepRefused
from certs.files import append_at, write_atomically
from certs.register import RevocationReason
from certs.revocation import RevocationList
from certs.rollover import SETTLES, Rollover
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles, certificates_of
from certs.verify import PeerVerifier
from hutong.api.exchange.v1.exchange_pb2 import SignedContext
from services.kit.client import Client
from services.kit.config import Transport
from services.kit.errors import HutongError
from tests.certs.bogus import CLIENT, ZONE, leaf_pem
from tests.certs.conftest import Clock
from tests.transport import echo
from tests.zone import Zone

ROOTS = pytest.mark.parametrize("new_root", [False, True], ids=["same root", "new root"])
STEPS = ("prepare", "activate", "rotate", "prune")


def step(rollover: Rollover, name: str, clock: Clock, *, new_root: bool) -> None:
    clock.advance(seconds=SETTLES.total_seconds())
    if name == "prepare":
        rollover.prepare(clock(), new_root=new_root)
    elif name == "prune":
        rollover.prune(clock(), cut=True)
    elif name == "activate":
        rollover.activate(clock())
    else:
        rollover.rotate(clock())


def roots(authority: Authority) -> int:
    return len(certificates_of(authority.layout.bundle.read_bytes(), authority.layout.bundle))


@pytest.fixture
def verifier(revocations: RevocationList, clock: Clock) -> PeerVerifier:
    return PeerVerifier(ZONE, revocations, clock)


@ROOTS
def test_the_four_steps(
    authority: Authority, client: SvidFiles, verifier: PeerVerifier, clock: Clock, new_root: bool
) -> None:
    rollover, old = Rollover(authority), leaf_pem(client)
    counted = [(1, ["current"])]
    for name in STEPS:
        step(rollover, name, clock, new_root=new_root)
        clock.advance(seconds=1)
        counted.append((roots(authority), [each.role for each in rollover.known(clock())]))
        assert str(verifier.verify(leaf_pem(client))) == CLIENT
        if name != "prune":
            assert str(verifier.verify(old)) == CLIENT
    both = 2 if new_root else 1
    assert counted == [
        (1, ["current"]),
        (both, ["current", "prepared"]),
        (both, ["current", "former"]),
        (both, ["current", "former"]),
        (1, ["current"]),
    ]
    with pytest.raises(AuthorityUnknown):
        verifier.verify(old)
    assert leaf_pem(client) != old
    assert not authority.layout.authority("first").key.exists(), "the key of one that is trusted no more is gone"
    again = Authority.open(authority.layout.folder)
    again.issue(SpiffeId.of(ZONE, "quality", "lab"), clock())
    assert str(verifier.verify(leaf_pem(again.layout.svid(SpiffeId.of(ZONE, "quality", "lab"))))).endswith("lab")


@ROOTS
def test_again_and_again(authority: Authority, client: SvidFiles, clock: Clock, new_root: bool) -> None:
    for _ in range(3):
        for name in STEPS:
            step(Rollover(authority), name, clock, new_root=new_root)
            if name in {"prepare", "prune"}:
                step(Rollover(authority), name, clock, new_root=new_root)
    assert roots(authority) == 1
    entry = authority.current()[SpiffeId.parse(CLIENT)]
    assert entry.authority == authority.layout.standing().current != "first"
    assert client.load().leaf.serial_number == entry.serial


def test_nothing_is_issued_by_one_that_is_only_prepared(authority: Authority, client: SvidFiles, clock: Clock) -> None:
    before = client.load().chain[-200:]
    Rollover(authority).prepare(clock(), new_root=True)
    authority.renew(SpiffeId.parse(CLIENT), clock())
    assert client.load().chain[-200:] == before


def test_an_authority_opened_before_issues_under_the_new_one(
    authority: Authority, client: SvidFiles, clock: Clock
) -> None:
    """A process that runs through the rotation, as a fleet or an agent."""
    other = Authority.open(authority.layout.folder)
    for name in ("prepare", "activate"):
        step(Rollover(other), name, clock, new_root=True)
    authority.renew(SpiffeId.parse(CLIENT), clock())
    client.load()
    assert authority.current()[SpiffeId.parse(CLIENT)].authority == authority.layout.standing().current != "first"


def test_steps_out_of_order(authority: Authority, client: SvidFiles, clock: Clock) -> None:
    rollover = Rollover(authority)
    with pytest.raises(StepRefused, match="no authority is prepared"):
        rollover.activate(clock())
    with pytest.raises(StepRefused, match="no authority was activated"):
        rollover.rotate(clock())
    assert rollover.prune(clock()) == ""
    rollover.prepare(clock())
    with pytest.raises(StepRefused, match="last step"):
        rollover.activate(clock())
    with pytest.raises(StepRefused, match="prepared already, under the same root"):
        rollover.prepare(clock(), new_root=True)
    clock.advance(seconds=3)
    rollover.activate(clock())
    clock.advance(seconds=3)
    with pytest.raises(StepRefused, match="still trusted"):
        rollover.prepare(clock())
    with pytest.raises(StepRefused, match=f"1 certificates of authority first could be used still: {CLIENT}"):
        rollover.prune(clock(), cut=True)


def test_pruning_waits_for_what_was_replaced(authority: Authority, client: SvidFiles, clock: Clock) -> None:
    rollover, serial = Rollover(authority), client.load().leaf.serial_number
    for name in ("prepare", "activate", "rotate"):
        step(rollover, name, clock, new_root=False)
    clock.advance(hours=1)
    with pytest.raises(StepRefused, match=f"{serial:x}"[:8]) as refused:
        rollover.prune(clock())
    assert "--cut" in refused.value.hint
    clock.advance(hours=24)
    assert rollover.prune(clock()) == "first"


def test_what_is_delivered_elsewhere_must_know_it(
    authority: Authority, client: SvidFiles, clock: Clock, tmp_path: Path
) -> None:
    rollover, elsewhere, layout = Rollover(authority), tmp_path / "trust", authority.layout
    elsewhere.mkdir()
    for path in (layout.bundle, layout.revoked):
        write_atomically(elsewhere / path.name, path.read_bytes())
    rollover.prepare(clock(), new_root=True)
    clock.advance(seconds=3)
    with pytest.raises(StepRefused, match=r"does not hold its root.*holds no list of it"):
        rollover.activate(clock(), [elsewhere])
    write_atomically(elsewhere / layout.bundle.name, layout.bundle.read_bytes())
    with pytest.raises(StepRefused, match=r"revoked.crl holds no list of it"):
        rollover.activate(clock(), [elsewhere])
    write_atomically(elsewhere / layout.revoked.name, layout.revoked.read_bytes())
    rollover.activate(clock(), [elsewhere])


def test_without_the_roots_key_only_a_new_root_will_do(authority: Authority, client: SvidFiles, clock: Clock) -> None:
    authority.layout.root_key.unlink()
    rollover = Rollover(authority)
    with pytest.raises(StepRefused, match="key of the zone's root"):
        rollover.prepare(clock())
    assert [each.role for each in rollover.known(clock())] == ["current"]
    for name in STEPS:
        step(rollover, name, clock, new_root=True)


@ROOTS
def test_the_key_of_a_root_ends_with_the_trust_in_it(
    authority: Authority, client: SvidFiles, clock: Clock, new_root: bool
) -> None:
    folder = authority.layout.root_key.parent
    for name in STEPS:
        assert authority.layout.root_key.exists()
        step(Rollover(authority), name, clock, new_root=new_root)
    assert authority.layout.root_key.exists() is not new_root
    assert authority.layout.root_certificate.exists()
    assert len(list(folder.glob("*/root.key"))) == new_root
    # And with the root that is left, one goes on.
    for name in STEPS:
        step(Rollover(authority), name, clock, new_root=False)


def test_the_key_of_a_root_that_is_not_trusted_yet_stays(authority: Authority, client: SvidFiles, clock: Clock) -> None:
    """Where preparing was stopped just before the new root came into the bundle."""
    rollover, before = Rollover(authority), authority.layout.bundle.read_bytes()
    rollover.prepare(clock(), new_root=True)
    write_atomically(authority.layout.bundle, before)
    rollover.prune(clock())
    assert len(list(authority.layout.root_key.parent.glob("**/root.key"))) == 2


def test_revocations_by_either_hold(
    authority: Authority, client: SvidFiles, verifier: PeerVerifier, clock: Clock
) -> None:
    lab = SpiffeId.of(ZONE, "quality", "lab")
    authority.issue(lab, clock())
    before = {name: leaf_pem(authority.layout.svid(name)) for name in (lab, SpiffeId.parse(CLIENT))}
    for name in ("prepare", "activate", "rotate"):
        step(Rollover(authority), name, clock, new_root=True)
    after = {name: leaf_pem(authority.layout.svid(name)) for name in before}
    serials = {entry.serial: entry for entry in authority.register.entries() if entry.spiffe_id == lab}
    authority.revoke(tuple(serials), RevocationReason.KEY_COMPROMISE, clock())
    clock.advance(seconds=1)
    for pem in (before[lab], after[lab]):
        with pytest.raises(CertificateRevoked):
            verifier.verify(pem)
    for pem in (before[SpiffeId.parse(CLIENT)], after[SpiffeId.parse(CLIENT)]):
        verifier.verify(pem)


def test_who_was_revoked_is_left_behind(
    authority: Authority, client: SvidFiles, verifier: PeerVerifier, clock: Clock
) -> None:
    """By the rotation of the authority nobody comes back, and nobody who is revoked keeps it from its end."""
    lab = SpiffeId.of(ZONE, "quality", "lab")
    authority.issue(lab, clock())
    authority.revoke((authority.current()[lab].serial,), RevocationReason.KEY_COMPROMISE, clock())
    rollover = Rollover(authority)
    step(rollover, "prepare", clock, new_root=True)
    step(rollover, "activate", clock, new_root=True)
    clock.advance(seconds=SETTLES.total_seconds())
    assert [str(entry.spiffe_id) for entry in rollover.rotate(clock())] == [CLIENT]
    step(rollover, "prune", clock, new_root=True)
    clock.advance(seconds=1)
    with pytest.raises(AuthorityUnknown):
        verifier.verify(leaf_pem(authority.layout.svid(lab)))


def test_a_list_speaks_for_its_issuer_only(
    authority: Authority, client: SvidFiles, verifier: PeerVerifier, clock: Clock
) -> None:
    old, revoked = leaf_pem(client), authority.layout.revoked
    for name in ("prepare", "activate", "rotate"):
        step(Rollover(authority), name, clock, new_root=False)
    crls = revoked.read_bytes().split(b"-----BEGIN X509 CRL-----")
    # The list of the current one is gone: the former one's says nothing about it.
    write_atomically(revoked, b"-----BEGIN X509 CRL-----" + crls[2])
    clock.advance(seconds=1)
    verifier.verify(old)
    with pytest.raises(AuthorityUnknown):
        verifier.verify(leaf_pem(client))
    # One that is there and does not stand is our fault, and does not touch the other.
    write_atomically(
        revoked,
        b"-----BEGIN X509 CRL-----" + crls[1].replace(b"\nM", b"\nN", 1) + b"-----BEGIN X509 CRL-----" + crls[2],
    )
    clock.advance(seconds=1)
    verifier.verify(old)
    with pytest.raises(RevocationUnknown):
        verifier.verify(leaf_pem(client))


class Stopped(Exception):
    """The process ends here."""


@ROOTS
@pytest.mark.parametrize("name", STEPS)
def test_stopped_before_any_write(
    authority: Authority,
    client: SvidFiles,
    revocations: RevocationList,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    new_root: bool,
) -> None:
    """Wherever a step stops: the zone opens, its client stands, lists can be signed, and the step can be repeated."""
    for before in STEPS[: STEPS.index(name)]:
        step(Rollover(authority), before, clock, new_root=new_root)
    real, left = write_atomically, 0

    def go_on() -> None:
        nonlocal left
        if left == 0:
            raise Stopped
        left -= 1

    def write(path: Path, data: bytes, mode: int = 0o600) -> None:
        go_on()
        real(path, data, mode)

    def append(path: Path, at: int, data: bytes) -> None:
        go_on()
        append_at(path, at, data)

    for writes in range(20):
        left = writes
        with monkeypatch.context() as patched:
            for module in (authority_module, rollover_module, standing_module):
                patched.setattr(module, "write_atomically", write)
            patched.setattr("certs.register.append_at", append)
            try:
                step(Rollover(Authority.open(authority.layout.folder)), name, clock, new_root=new_root)
                stopped = False
            except Stopped:
                stopped = True
        clock.advance(seconds=1)
        verifier = PeerVerifier(ZONE, RevocationList(authority.layout.revoked, authority.layout.bundle), clock)
        assert str(verifier.verify(leaf_pem(client))) == CLIENT
        if not stopped:
            break
        if writes % 2:
            Authority.open(authority.layout.folder).publish_revocations(clock())
    else:
        raise AssertionError("the step never came to its end")
    for after in STEPS[STEPS.index(name) + 1 :]:
        step(Rollover(authority), after, clock, new_root=new_root)
    assert roots(authority) == 1
    clock.advance(seconds=1)
    assert str(PeerVerifier(ZONE, revocations, clock).verify(leaf_pem(client))) == CLIENT


@pytest.mark.parametrize(
    ("servers", "clients", "new_root"),
    [
        ("nghttp2", "nghttp2", True),
        ("grpcio", "grpcio", True),
        ("nghttp2", "grpcio", False),
        ("grpcio", "nghttp2", False),
    ],
)
async def test_no_call_fails_meanwhile(tmp_path: Path, servers: Transport, clients: Transport, new_root: bool) -> None:
    """Unary calls over a lasting client, calls over new connections, and a session, through all of it."""
    zone = Zone(tmp_path)
    room, done = echo.Echo(), asyncio.Event()
    answered = asyncio.Condition()
    counts: dict[str, int] = dict.fromkeys(("lasting", "fresh", "session"), 0)

    async def counted(name: str) -> None:
        async with answered:
            counts[name] += 1
            answered.notify_all()

    async def several_more() -> None:
        goals = {name: count + 3 for name, count in counts.items()}
        async with answered:
            await answered.wait_for(lambda: all(counts[name] >= goal for name, goal in goals.items()))

    async with echo.serving(zone, servers, room, echo.LIMITS) as host, asyncio.timeout(55):
        old = zone.files(echo.WHO).load()
        stolen = SvidFiles(tmp_path / "stolen.pem", tmp_path / "stolen.pem", zone.authority.layout.bundle)
        write_atomically(stolen.certificate, old.key + old.chain)

        @contextlib.asynccontextmanager
        async def connected(files: SvidFiles) -> AsyncGenerator[Client]:
            client = Client(host.address, host.identity, files, transport=clients)
            try:
                yield client
            finally:
                await client.close()

        async def ask(client: Client) -> None:
            answer = await client.unary(echo.UNARY, SignedContext(payload=b"echo"), SignedContext, timeout=10)
            assert answer.payload

        async def lasting() -> None:
            async with connected(zone.files(echo.WHO)) as client:
                while not done.is_set():
                    await ask(client)
                    await counted("lasting")

        async def fresh() -> None:
            while not done.is_set():
                async with connected(zone.files(echo.WHO)) as client:
                    await ask(client)
                await counted("fresh")

        async def session() -> None:
            """Ask on one stream, and on a new one when the certificate is another: as sessions between nodes do."""
            files = zone.files(echo.WHO)

            async def questions() -> AsyncIterator[SignedContext]:
                version = files.version()
                while not done.is_set() and files.version() == version:
                    yield SignedContext(payload=b"echo")
                    await said.acquire()

            async with connected(files) as client:
                while not done.is_set():
                    said = asyncio.Semaphore(0)
                    async for _ in client.bidi(echo.BIDI, questions(), SignedContext, timeout=None):
                        await counted("session")
                        said.release()

        async def rotation() -> None:
            rollover = Rollover(zone.authority)
            try:
                await several_more()
                for name in STEPS:
                    settles = rollover.settles_at()
                    if settles:
                        await asyncio.sleep(max(0.0, (settles - dt.datetime.now(dt.UTC)).total_seconds()))
                    now = Clock(dt.datetime.now(dt.UTC) - SETTLES)
                    await asyncio.to_thread(step, rollover, name, now, new_root=new_root)
                    await several_more()
            finally:
                done.set()

        async with asyncio.TaskGroup() as group:
            for work in (lasting, fresh, session, rotation):
                group.create_task(work())
        async with connected(zone.files(echo.WHO)) as client:
            await ask(client)
        with pytest.raises((HutongError, CertificateError)):
            # Nodes look at their list about once a second.
            while True:
                async with connected(stolen) as client:
                    await ask(client)
