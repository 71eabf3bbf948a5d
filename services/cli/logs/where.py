"""Where a log is looked at: in its node's database, as files in a folder, or at the node, over HTTPS or gRPC."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import sqlalchemy as sa
import typer
from pydantic import ConfigDict

from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from services.cli.logs import fetching
from services.cli.question import Door
from services.cli.rooms import GATEWAY
from services.cli.zone import Zone
from services.kit import config
from services.kit.config import LogSection, NodeConfig
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.log import cosigned, keys, merkle, notes
from services.kit.log.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint, origin_of
from services.kit.log.nodelog import MIGRATIONS
from services.kit.log.notes import VerifierKey
from services.kit.log.tiles import hashes_from
from services.kit.log.verifying import Files, Source, Stored, folder
from services.kit.records import migrations
from services.kit.records.database import engine, translated

Node = Annotated[
    str, typer.Argument(metavar="[NODE]", help="A node of the zone folder: customs, recognition, gateway.")
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A node's config elsewhere: its log is read from its database."),
]
Tiles = Annotated[
    str, typer.Option("--tiles", metavar="URL|DIR", help="Read it as files: https://HOST:PORT, or a folder.")
]
Keys = Annotated[
    Path | None,
    typer.Option("--keys", metavar="DIR", help="Published keys of logs, AGENCY.SYSTEM.vkey; else the zone folder's."),
]
Origin = Annotated[
    str, typer.Option("--log", metavar="ORIGIN", help="Which log it must be: ZONE/AGENCY/SYSTEM; else NODE's.")
]
As = Annotated[
    str, typer.Option("--as", metavar="AGENCY/SYSTEM", help="Ask the node itself, as this system, not its database.")
]

_PARTS: Final = 3


class _Config(NodeConfig):
    """Of any node's config what says where its log lies."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True, slots=True)
class Local:
    """The log of a node of this machine, through the node's config."""

    file: Path
    config: NodeConfig
    section: LogSection

    @classmethod
    def of(cls, file: Path) -> "Local":
        """Read a node's config; raises `FailedPrecondition` where it does not stand, or describes no log."""
        found = config.read(file, _Config)
        if found.log is None:
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"{file}: this node keeps no log: there is no [log]")
        return cls(file.absolute(), found, found.log)

    @property
    def origin(self) -> str:
        """What the log is called."""
        node = self.config.node
        return origin_of(node.zone, node.agency, node.system)

    @property
    def url(self) -> str:
        """Its database."""
        return self.section.read_url(self.file.parent)

    @contextmanager
    def connect(self) -> Generator[sa.Connection]:
        """Read its database; the node may run. Raises `FailedPrecondition` STORE_NOT_MIGRATED, `Unavailable`."""
        migrations.check(self.url, MIGRATIONS)
        made = engine(self.url, writer=False)
        try:
            with translated(), made.connect() as connection:
                yield connection
        finally:
            made.dispose()


@dataclass(frozen=True, slots=True)
class Opened:
    """A log, open."""

    source: Source
    cosigned: str
    """The newest checkpoint that witnesses have co-signed, as far as the source knows; empty where it does not."""

    def heads(self) -> Iterator[str]:
        """Give the checkpoints there are to prove things in: the co-signed one first, then the newest."""
        if self.cosigned:
            yield self.cosigned
        yield self.source.checkpoint()


@dataclass(frozen=True, slots=True)
class Where:
    """What the options say of a log: which one it is, and where it is read."""

    node: str = ""
    config: Path | None = None
    tiles: str = ""
    keys: Path | None = None
    log: str = ""
    folder: Path = Path()
    caller: str = ""
    cert: Path | None = None
    key: Path | None = None
    bundle: Path | None = None

    @property
    def local(self) -> Local | None:
        """The node's config, where one is named."""
        if self.config is not None:
            return Local.of(self.config)
        return Local.of(Zone.open(self.folder).config_file(self.node)) if self.node else None

    @property
    def required(self) -> Local:
        """The node's config; raises `typer.BadParameter` where none is named."""
        local = self.local
        if local is None:
            raise typer.BadParameter("say which log: NODE, or --config FILE")
        return local

    @property
    def origin(self) -> str:
        """Which log it must be; empty where nobody said."""
        local = self.local
        return self.log or (local.origin if local else "")

    @property
    def published(self) -> Path:
        """The folder of published keys."""
        if self.keys is not None:
            return self.keys
        local = self.local
        return local.section.keys if local else Zone.open(self.folder).keys

    def of(self, origin: str) -> "Where":
        """Look for the log of this name: at its node in the zone folder, where no other place was named."""
        if self.origin:
            if self.origin != origin:
                raise FailedPrecondition(Reason.LOG_KEY_UNKNOWN, f"that is of the log {origin}, not of {self.origin}")
            return self
        node = "" if self.tiles else _node_of(origin)
        return Where(
            node, None, self.tiles, self.keys, origin, self.folder, self.caller, self.cert, self.key, self.bundle
        )

    @contextmanager
    def open(self) -> Generator[Opened]:
        """Open it; raises what stands in the way."""
        if self.tiles:
            with self._files() as source:
                yield Opened(source, "")
        elif self.caller or self.cert:
            with fetching.over_grpc(self.door()) as asking:
                yield Opened(Files(asking.fetch), asking.checkpoints().cosigned)
        else:
            local = self.local
            if local is None:
                raise typer.BadParameter("say which log: NODE, --config FILE, or --tiles URL|DIR")
            with local.connect() as connection:
                yield Opened(_Complete(connection), cosigned.newest(connection))

    @contextmanager
    def _files(self) -> Generator[Source]:
        if not self.tiles.startswith("https:"):
            yield Files(folder(Path(self.tiles)))
            return
        zone, agency, system = self._parts()
        node = SpiffeId.of(zone, agency, system)
        with fetching.over_https(self.tiles, node, self._credentials()) as fetch:
            yield Files(fetch)

    def _credentials(self) -> SvidFiles:
        if self.cert is not None:
            if self.bundle is None:
                raise typer.BadParameter("--cert needs --bundle: the zone's roots")
            return SvidFiles(self.cert, self.key or self.cert, self.bundle)
        if not self.caller:
            raise typer.BadParameter("say who asks: --as AGENCY/SYSTEM, or --cert with --bundle")
        return Zone.open(self.folder).credentials(self.caller)

    def _parts(self) -> Sequence[str]:
        parts = self.origin.split("/")
        if len(parts) != _PARTS:
            raise typer.BadParameter("say which log it must be: NODE, or --log ZONE/AGENCY/SYSTEM")
        return parts

    def door(self) -> Door:
        """Find the node's gRPC door, and the certificate of who asks; raises `typer.BadParameter`."""
        local = self.local
        if local is None:
            raise typer.BadParameter("say which node to ask: NODE, or --config FILE")
        node = local.config.node
        credentials = self._credentials()
        credentials.load()
        identity = SpiffeId.of(node.zone, node.agency, node.system)
        return Door(node.listen, identity, credentials, local.config.tls.revoked)

    def signed(self, text: str) -> SignedCheckpoint:
        """Verify a checkpoint: that its log signed it, and the cosignatures of those whose keys are published.

        Where nobody said which log it must be, it is the one it names. Raises what `keys.find` and `open_checkpoint`
        raise, and `FailedPrecondition` LOG_KEY_UNKNOWN for another log's.
        """
        origin = Checkpoint.parse(notes.parse(text).text).origin
        if self.origin and origin != self.origin:
            raise FailedPrecondition(
                Reason.LOG_KEY_UNKNOWN, f"the checkpoint is of the log {origin}, not of {self.origin}"
            )
        return open_checkpoint(text, [keys.find(self.published, origin)], witnesses(self.published))


class _Complete(Stored):
    """A log in its database, its checkpoint with the cosignatures there are."""

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(connection)
        self._with = connection

    def checkpoint(self) -> str:
        """Get the newest checkpoint; raises `NotFound` where the log is empty."""
        return cosigned.complete(self._with, super().checkpoint())


class Tree:
    """The tree of one size of a log, out of its hashes."""

    def __init__(self, source: Source, size: int) -> None:
        self.size = size
        self._hashes = hashes_from(source.hashes, size)

    def inclusion(self, index: int) -> list[bytes]:
        """Prove that a leaf is in it; raises `FailedPrecondition` LOG_PROOF_INVALID where it has no such leaf."""
        return merkle.inclusion_proof(index, self.size, self._hashes)

    def consistency(self, old: int) -> list[bytes]:
        """Prove that it continues that of another size; raises `FailedPrecondition` LOG_PROOF_INVALID."""
        return merkle.consistency_proof(old, self.size, self._hashes)

    def leaf(self, index: int) -> bytes:
        """Get the hash of a leaf."""
        return self._hashes(0, index, 1)[0]

    def root(self, size: int) -> bytes:
        """Compute the root of the tree of that size, which must not be larger."""
        return merkle.root_of(size, self._hashes)


def witnesses(published: Path) -> list[VerifierKey]:
    """List the keys that witnesses co-sign with: every log's node may be one. What is no key is left out."""
    found: list[VerifierKey] = []
    for file in sorted(published.glob(f"*{keys.SUFFIX}")):
        try:
            found.append(keys.read_published(file).cosigning())
        except HutongError:
            continue
    return found


def cosigners(signed: SignedCheckpoint) -> list[str]:
    """Name the witnesses whose signatures are under a checkpoint."""
    return sorted(one.key.name for one in signed.verified if one.time is not None)


def _node_of(origin: str) -> str:
    parts = origin.split("/")
    if len(parts) != _PARTS:
        return ""
    return GATEWAY if parts[1] == GATEWAY else parts[1]
