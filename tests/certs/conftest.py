"""A zone in a temporary folder, a node of it that serves, and a caller."""

import datetime as dt
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from certs.tls import require_tls13

require_tls13()

# ruff: noqa: E402 - gRPC must not be loaded before its TLS floor is set
from certs.authority import Authority
from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.verify import PeerVerifier
from tests.certs.bogus import ZONE
from tests.certs.mesh import Node, serving, wall_clock


@dataclass
class Clock:
    """A clock that stands until it is told to move."""

    moment: dt.datetime

    def __call__(self) -> dt.datetime:
        return self.moment

    def advance(self, **by: float) -> None:
        self.moment += dt.timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock(wall_clock())


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> Authority:
    return Authority.create(tmp_path / "zone", ZONE, clock())


@pytest.fixture
def server_id() -> SpiffeId:
    return SpiffeId.of(ZONE, "customs", "node")


@pytest.fixture
def client_id() -> SpiffeId:
    return SpiffeId.of(ZONE, "taxation", "node")


@pytest.fixture
def client(authority: Authority, client_id: SpiffeId, clock: Clock) -> SvidFiles:
    authority.issue(client_id, clock())
    return authority.layout.svid(client_id)


@pytest.fixture
def revocations(authority: Authority) -> RevocationList:
    return RevocationList(authority.layout.revoked, authority.layout.bundle)


@pytest.fixture
async def node(
    authority: Authority, server_id: SpiffeId, revocations: RevocationList, clock: Clock
) -> AsyncGenerator[Node]:
    authority.issue(server_id, clock())
    verifier = PeerVerifier(ZONE, revocations, clock)
    async with serving(authority.layout.svid(server_id), server_id, verifier) as node:
        yield node
