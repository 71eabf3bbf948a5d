"""Backup and restore of recognition, supervision and the gateway: the log is proven, and the node goes on from it.

Of the records of these services nothing is proven but that the copy is one (docs/operations/restore.md): that limit is
tested too, and who finds what is wrong beyond it.
"""

import asyncio
import json
import shutil
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from bench import corpus, zones
from gateway.config import GatewayConfig
from gateway.node import GatewayNode
from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.exchange.v1 import federation_pb2
from hutong.api.recognition.v1 import case_service_pb2
from services.cli.fleet import Fleet
from services.cli.query import SERVICE
from services.cli.rooms import GATEWAY, RECOGNITION, SUPERVISION
from services.cli.zone import Zone
from services.kit import config
from services.kit.client import Client
from services.kit.errors import HutongError
from services.kit.host import Host
from services.recognition.node import RecognitionNode
from services.supervision.node import SupervisionNode
from tests.chaos.asking import question
from tests.cli.authorized import AML, CUSTOMS, OWNER, Desks
from tests.cli.conftest import Ran, run
from tests.exchange.records import EXPORTER
from tests.recognition.mesh import APPROVAL
from tests.state.bed import execute, value

NODES: Final = (RECOGNITION, SUPERVISION, GATEWAY)
_CASES: Final = "/hutong.api.recognition.v1.CaseService"
_AUTHORIZATIONS: Final = "/hutong.api.authorization.v1.AuthorizationService"


@dataclass
class Kept:
    """A zone whose nodes were backed up while they ran, and what they had said by then."""

    zone: Zone
    case: str
    authorization: str
    before: Path
    """Backups from before the authorization was revoked, a folder for each node."""
    backups: Path
    """And from after it."""

    def db(self, node: str, *arguments: str | Path) -> Ran:
        """Run `hutong db …` with a node's config."""
        return run("db", *arguments, "--config", self.zone.config_file(node))

    def told(self, node: str, *arguments: str | Path) -> dict[str, Any]:
        """Run `hutong db …` that goes well, and read what it tells machines."""
        ran = self.db(node, *arguments, "--json")
        assert ran.exit_code == 0, ran.stdout + ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def put(self, node: str, folder: Path) -> None:
        """Have a node's databases in a folder."""
        folder.mkdir(exist_ok=True)
        for table in ("log",) if node == GATEWAY else ("store", "log"):
            zones.configure(self.zone, node, table, {"url": f"sqlite+aiosqlite:///{folder}/{table}.db"})

    @asynccontextmanager
    async def client(self, node: str, who: str) -> AsyncGenerator[Client]:
        """Run a node in this process, and call it."""
        async with _served(self.zone, node) as host:
            made = Client(host.address, host.identity, self.zone.credentials(who))
            try:
                yield made
            finally:
                await made.close()

    async def asked(self, node: str) -> str:
        """Start a node, have it say what it is to remember, and stop it: that is one more entry in its log."""
        if node == RECOGNITION:
            async with self.client(node, "customs/release") as client:
                case = case_service_pb2.GetCaseRequest(case_id=self.case, context=APPROVAL)
                seen = await client.unary(f"{_CASES}/GetCase", case, case_service_pb2.GetCaseResponse, timeout=10)
                return str(seen.view.case.case_id)
        if node == SUPERVISION:
            async with self.client(node, AML) as client:
                wanted = authorization_pb2.GetAuthorizationRequest(authorization_id=self.authorization)
                response = authorization_pb2.GetAuthorizationResponse
                found = await client.unary(f"{_AUTHORIZATIONS}/GetAuthorization", wanted, response, timeout=10)
                return authorization_pb2.AuthorizationState.Name(found.authorization.state)
        async with self.client(node, "taxation/refund") as client:
            answer = await client.unary(f"{SERVICE}/Query", question(0), federation_pb2.QueryResponse, timeout=5)
            return f"{len(answer.sections)} sections"

    @property
    def says(self) -> dict[str, str]:
        """What each is to remember; no department runs, so that the gateway's sections are empty."""
        return {
            RECOGNITION: self.case,
            SUPERVISION: "AUTHORIZATION_STATE_REVOKED",
            GATEWAY: f"{len(corpus.TYPES)} sections",
        }


@asynccontextmanager
async def _served(zone: Zone, name: str) -> AsyncGenerator[Host]:
    file = zone.config_file(name)
    node: RecognitionNode | SupervisionNode | GatewayNode
    if name == RECOGNITION:
        cases = zone.recognition()
        node = RecognitionNode(cases, cases.store.read_url(file.parent), Host(cases))
    elif name == SUPERVISION:
        acts = zone.supervision()
        node = SupervisionNode(acts, acts.store.read_url(file.parent), Host(acts))
    else:
        settings = config.read(file, GatewayConfig)
        node = GatewayNode(settings, Host(settings))
    try:
        await node.start()
        yield node.host
    finally:
        await node.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("services")
    zone = Zone.prepare(folder / "zone")
    made = Kept(zone, "", "", folder / "before", folder / "backups")
    desks = Desks(Fleet(zone))
    made.before.mkdir()
    made.backups.mkdir()
    request = case_service_pb2.SubmitCaseRequest(request_id=str(uuid.uuid4()), procedure_code="AEO-CERT")
    request.subject.scheme, request.subject.value = corpus.SCHEME, corpus.code(1)
    async with made.client(RECOGNITION, "customs/release") as client:
        answer = await client.unary(f"{_CASES}/SubmitCase", request, case_service_pb2.SubmitCaseResponse, timeout=10)
        made.case = answer.view.case.case_id
        _back_up(made, RECOGNITION)
    async with made.client(SUPERVISION, AML):
        subject = f"{corpus.SCHEME}:{EXPORTER}"
        made.authorization = await asyncio.to_thread(desks.active, "--subject", subject)
        assert made.db(SUPERVISION, "backup", "--to", made.before / SUPERVISION).exit_code == 0
        revoke = ("revoke", made.authorization, "--reason", "MISTAKE")
        await asyncio.to_thread(desks.told, *revoke, who=CUSTOMS, officer=OWNER)
        _back_up(made, SUPERVISION)
    assert await made.asked(GATEWAY) == made.says[GATEWAY]
    _back_up(made, GATEWAY)
    return made


def _back_up(kept: Kept, node: str) -> None:
    ran = kept.db(node, "backup", "--to", kept.backups / node)
    assert ran.exit_code == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("node", NODES)
async def test_a_service_goes_on_from_what_was_restored(kept: Kept, node: str, tmp_path: Path) -> None:
    backup = kept.backups / node
    found = kept.told(node, "verify", "--from", backup)
    assert found["ok"]
    assert found["entries"] == value(f"sqlite:///{backup}/log.db", "SELECT size FROM log_head") > 0
    assert found["checkpoints"] == [found["entries"]]
    # The limit: of these services' records nothing is proven.
    assert (found["records"], found["compared"]) == (0, 0)
    kept.put(node, tmp_path / "new")
    assert kept.told(node, "restore", "--from", backup) == found
    # What the node itself checks at its start and reads of its records, stands.
    assert await kept.asked(node) == kept.says[node]
    after = kept.told(node, "verify")
    assert after["ok"]
    assert after["entries"] == found["entries"] + 1


async def test_an_older_store_is_found_by_the_supervision_service_itself(kept: Kept, tmp_path: Path) -> None:
    """`verify` does not see that the store knows nothing of the revocation; the service does, by its log."""
    kept.put(SUPERVISION, tmp_path)
    shutil.copy(kept.before / SUPERVISION / "store.db", tmp_path)
    shutil.copy(kept.backups / SUPERVISION / "log.db", tmp_path)
    assert kept.told(SUPERVISION, "verify")["ok"]
    with pytest.raises(HutongError) as caught:
        await kept.asked(SUPERVISION)
    assert caught.value.reason == "AUTHORIZATION_UNKNOWN"


@pytest.mark.parametrize(("node", "table"), [(RECOGNITION, "stage_event"), (SUPERVISION, "authorization_event")])
def test_of_records_the_copy_is_proven_and_nothing_else(kept: Kept, node: str, table: str, tmp_path: Path) -> None:
    """In a backup what was changed is found by the file's digest; in the database itself, by nobody here."""
    shutil.copytree(kept.backups / node, tmp_path / "copy")
    execute(f"sqlite:///{tmp_path}/copy/store.db", f"DELETE FROM {table}")
    ran = kept.db(node, "verify", "--from", tmp_path / "copy", "--json")
    assert (ran.exit_code, "BACKUP_INVALID" in ran.stdout) == (1, True)
    kept.put(node, tmp_path / "copy")
    assert kept.told(node, "verify")["ok"]
