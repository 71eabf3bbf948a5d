"""Customs with its databases where a test wants them: its config as a file, for commands, and the node itself."""

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.kit import config
from services.kit.config import DepartmentConfig
from services.kit.department import DepartmentNode
from services.kit.records.database import engine
from services.recognition import node as recognition
from tests.cli.conftest import Ran, run
from tests.databases import Postgres
from tests.exchange.mesh import ROOMS, Mesh, question, records
from tests.exchange.records import RECORDS
from tests.exchange.test_query import REBATE, SUBJECT
from tests.exchange.test_query import ask as asked

LOG_MIGRATIONS = Path(config.__file__).parent / "log" / "migrations"
RECOGNITION_MIGRATIONS = recognition.MIGRATIONS
CUSTOMS_MIGRATIONS = ROOMS["customs"].migrations


@contextmanager
def two(server: Postgres) -> Generator[tuple[str, str]]:
    """Make two empty databases of a server: a store's and a log's."""
    with ExitStack() as stack:
        yield stack.enter_context(server.fresh()), stack.enter_context(server.fresh())


def user(url: str, role: str) -> str:
    """Connect as a role."""
    return sa.make_url(url).set(username=role).render_as_string(hide_password=False)


def execute(url: str, *statements: str) -> None:
    """Run statements in a database, each in a transaction of its own."""
    made = engine(url, writer=True, application="test")
    try:
        for statement in statements:
            with made.begin() as connection:
                connection.exec_driver_sql(statement)
    finally:
        made.dispose()


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Get rows of a database."""
    made = engine(url, writer=False, application="test")
    try:
        with made.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]
    finally:
        made.dispose()


def value(url: str, query: str) -> Any:
    """Get one value of a database."""
    return rows(url, query)[0][0]


@dataclass
class Bed:
    """The customs node of a mesh, with its config in a file."""

    mesh: Mesh
    file: Path

    def __init__(self, folder: Path, store: str, log: str, *, migrate: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        self.mesh = Mesh(folder)
        self.file = folder / "node.toml"
        self.put(store, log, migrate=migrate)

    def put(self, store: str, log: str, *, migrate: bool = True) -> None:
        """Write the config, with these databases."""
        self.mesh.urls["customs"] = store
        said = self.mesh.config("customs", "127.0.0.1:0")
        assert said.log is not None
        self.file.write_text(
            f"""\
secret = "{said.secret}"
[node]
zone = "{said.node.zone}"
agency = "customs"
listen = "127.0.0.1:0"
transport = "{said.node.transport}"
[tls]
certificate = "{said.tls.certificate}"
key = "{said.tls.key}"
bundle = "{said.tls.bundle}"
revoked = "{said.tls.revoked}"
[store]
url = "{store}"
migrate = {str(migrate).lower()}
[policy]
files = ["{said.policy.files[0]}"]
[log]
url = "{log}"
migrate = {str(migrate).lower()}
key = "{said.log.key}"
keys = "{said.log.keys}"
""",
            encoding="utf-8",
        )

    def run(self, *arguments: str | Path) -> Ran:
        """Run `hutong db …` with the node's config."""
        return run("db", *arguments, "--config", self.file)

    def told(self, *arguments: str | Path) -> Any:
        """Run `hutong db …` and read what it tells machines, whether or not it went well."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def reason(self, *arguments: str | Path) -> str:
        """Run `hutong db …` that is refused; gives the reason."""
        ran = self.run(*arguments, "--json")
        assert ran.exit_code == 1, ran.stdout
        return str(json.loads(ran.stdout)["error"]["reason"])

    @asynccontextmanager
    async def serving(self, *, load: bool = False) -> AsyncGenerator[Mesh]:
        """Run the node by its file, and a gateway that asks it."""
        settings = config.read(self.file, DepartmentConfig)
        url = settings.store.read_url(self.file.parent)
        node = DepartmentNode(ROOMS["customs"], settings, url, self.mesh.zone.frame(settings))
        try:
            await node.start()
            self.mesh.departments["customs"] = node
            if load:
                await self.mesh.load("customs", RECORDS["customs"])
            await self.mesh.start_gateway()
            yield self.mesh
        finally:
            await self.mesh.stop()
            self.mesh.departments.clear()


async def ask(mesh: Mesh) -> int:
    """Ask customs about an exporter; gives how many declarations came."""
    (section,) = await asked(mesh, "taxation/refund", question(SUBJECT, "customs.Declaration", **REBATE))
    return len(records(section))
