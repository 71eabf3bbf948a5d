"""A zone folder: everything a mesh on one machine needs, made when absent and never overwritten.

    ZONE/
      certs/                 the zone's authority and identities (`certs.layout`)
      AGENCY/node.toml       a department's config; beside it its secret and its store
      AGENCY/signing/        the agency's keys for signing stage results; private
      AGENCY/officers/       the keys of the agency's identity provider for officers; private
      recognition/node.toml  the recognition service's config; beside it its secret, its store, signing/, and folders
                             for what the zone adds: procedures/, arrangements/, calendars/
      supervision/node.toml  the config of the service that keeps authorizations; beside it its secret, store, signing/
      gateway/node.toml      the gateway's config; beside it its secret
      NODE/log.key           the key of the node's log; beside it the log
      keys/AGENCY.jwks.json  the signing keys of all of these, published: what it takes to verify a result or a ticket
      keys/AGENCY.SYSTEM.vkey  the keys of the logs, published: what it takes to verify a checkpoint or a receipt
      officers/AGENCY.jwks.json  the keys of the identity providers, published
      policy/AGENCY.cedar    each agency's policy, a copy of the room's: edit it, the nodes follow
      logs/                  what the nodes say
      sample/                the synthetic zone, where the stores were filled from it

Every step is skipped where its result is there already, so that a folder half made is completed and what somebody
edited is kept. A config that lacks a table gets it at its end, so that folders of older versions go on working.
"""

import datetime as dt
import errno
import re
import secrets
import socket
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from certs.authority import Authority
from certs.errors import SvidExists
from certs.files import PRIVATE, HeldElsewhere, held_alone, make_folder, write_atomically
from certs.layout import Layout
from certs.register import State
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from services.cli import configs, node_files
from services.cli.node_files import AUDIT, HOST, Place, Surroundings
from services.cli.rooms import GATEWAY, RECOGNITION, SUPERVISION, policies, rooms
from services.kit import config
from services.kit.config import DepartmentConfig, NodeConfig
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import SUFFIX, issuer_uri
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.log import keys as log_keys
from services.kit.log.checkpoint import origin_of
from services.kit.officers.issuer import Issuer, officers_uri
from services.recognition.config import RecognitionConfig
from services.supervision.config import SupervisionConfig

DEFAULT_FOLDER: Final = Path(".hutong")
DEFAULT_ZONE: Final = "ftz.example"

OPERATOR: Final = "operator/admin"
"""Who asks nodes for their health."""

GATEWAY_SYSTEM: Final = "gateway/main"

CALLERS: Final = (
    "taxation/refund",
    "customs/release",
    "quality/lab",
    "commerce/registry",
    "publicsecurity/permits",
    "publicsecurity/investigation",
    "supervision/aml",
    "audit/desk",
)
"""Systems that ask: department systems, a supervisor's and an auditor's; no nodes."""

_METRICS_OFFSET = 100
_TILES_OFFSET = 200
"""With --base-port, the metrics and the tiles of a node lie this much above its port."""
_PORTS: Final = range(10_000, 32_768)
"""Where free ports are looked for: above those of well-known services, below those of connections that go out."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone folder that is there."""

    folder: Path
    name: str

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the zone in `folder`; raises `CertificateError` ZONE_MISSING where there is none."""
        return cls(folder.absolute(), Authority.open(folder / "certs").zone)

    @classmethod
    def prepare(cls, folder: Path, name: str = DEFAULT_ZONE, base_port: int = 0) -> Self:
        """Make what is missing of a zone; new nodes get free ports, or all get those from `base_port` on.

        Raises `FailedPrecondition` ZONE_IN_USE while a mesh runs from the folder.
        """
        make_folder(folder.absolute())
        certificates = folder.absolute() / "certs"
        if not Layout(certificates).intermediate_certificate.exists():
            Authority.create(certificates, name, _now())
        zone = cls.open(folder)
        with held(zone):
            zone._issue()
            zone._write_policies()
            zone._write_configs()
            zone._write_keys()
            if base_port:
                readdress(zone, base_port)
        make_folder(zone.logs)
        return zone

    @property
    def certificates(self) -> Layout:
        """Where the identities lie."""
        return Layout(self.folder / "certs")

    @property
    def logs(self) -> Path:
        """The folder of the nodes' logs."""
        return self.folder / "logs"

    @property
    def sample(self) -> Path:
        """The folder of the synthetic zone, where stores were filled from it."""
        return self.folder / "sample"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that have a config: departments, recognition, supervision, then the gateway."""
        return tuple(name for name in (*rooms(), RECOGNITION, SUPERVISION, GATEWAY) if self.config_file(name).exists())

    def config_file(self, node: str) -> Path:
        """Say where a node's config lies."""
        return self.folder / node / "node.toml"

    def department(self, agency: str) -> DepartmentConfig:
        """Read a department's config; raises `FailedPrecondition` where it does not stand."""
        return config.read(self.config_file(agency), DepartmentConfig)

    def recognition(self) -> RecognitionConfig:
        """Read the recognition service's config; raises `FailedPrecondition` where it does not stand."""
        return config.read(self.config_file(RECOGNITION), RecognitionConfig)

    def supervision(self) -> SupervisionConfig:
        """Read the supervision service's config; raises `FailedPrecondition` where it does not stand."""
        return config.read(self.config_file(SUPERVISION), SupervisionConfig)

    def node(self, name: str) -> NodeConfig:
        """Read the config of a department, of recognition, of supervision or of the gateway."""
        return configs.read(name, self.config_file(name))

    def store_url(self, agency: str) -> str:
        """Give the URL of the store of a department, or of the recognition service."""
        found = self.recognition() if agency == RECOGNITION else self.department(agency)
        return found.store.read_url(self.config_file(agency).parent)

    def policy(self, agency: str) -> Path:
        """Say where an agency's policy lies."""
        return self.folder / "policy" / f"{agency}.cedar"

    @property
    def keys(self) -> Path:
        """The folder of published signing keys."""
        return self.folder / "keys"

    def signing(self, agency: str) -> Path:
        """Say where an agency's own signing keys lie."""
        return self.folder / agency / "signing"

    def officers(self, agency: str) -> Path:
        """Say where the keys of an agency's identity provider for officers lie."""
        return self.folder / agency / "officers"

    def published_officers(self, agency: str) -> Path:
        """Say where these keys are published."""
        return self.folder / "officers" / f"{agency}{SUFFIX}"

    def log_key(self, node: str) -> Path:
        """Say where the key of a node's log lies."""
        return self.config_file(node).with_name("log.key")

    def issuer(self, agency: str) -> str:
        """Write an agency's name as the issuer of results."""
        return issuer_uri(self.name, agency)

    def identity(self, path: str) -> SpiffeId:
        """Make the identity of `agency/system`; raises `InvalidArgument` where it is not written so."""
        agency, slash, system = path.partition("/")
        if not slash:
            raise InvalidArgument(Reason.NAME_INVALID, f"{path!r} is no identity: write AGENCY/SYSTEM")
        return SpiffeId.of(self.name, agency, system)

    def credentials(self, path: str) -> SvidFiles:
        """Say where the certificate of `agency/system` lies."""
        return self.certificates.svid(self.identity(path))

    def _issue(self) -> None:
        authority = Authority.open(self.certificates.folder)
        departments = [f"{agency}/node" for agency in (*rooms(), RECOGNITION, SUPERVISION)]
        callers = [path for path in CALLERS if path.partition("/")[0] in (*rooms(), SUPERVISION, AUDIT)]
        standing = authority.current()
        for path in (*departments, GATEWAY_SYSTEM, OPERATOR, *callers):
            identity = self.identity(path)
            # What was revoked stays so: that somebody starts the mesh again is no reason to trust it again.
            if identity not in standing or standing[identity].state(_now()) is not State.REVOKED:
                with suppress(SvidExists):
                    authority.issue(identity, _now())

    def _write_policies(self) -> None:
        make_folder(self.folder / "policy")
        for agency, delivered in policies().items():
            if not self.policy(agency).exists():
                write_atomically(self.policy(agency), delivered.read_bytes(), PRIVATE)

    def _write_configs(self) -> None:
        around = self._surroundings()
        writers = {
            GATEWAY: node_files.gateway,
            RECOGNITION: node_files.recognition,
            SUPERVISION: node_files.supervision,
        }
        for place in around.everyone:
            head, tables = writers.get(place.name, node_files.department)(place, around)
            self._write_node(place.name, head, tables)
        for own in ("procedures", "arrangements", "calendars"):
            make_folder(self.folder / RECOGNITION / own)

    def _surroundings(self) -> Surroundings:
        """Say where every node listens: where its config says, at free ports where it has none or does not say."""
        order = _order()
        free = iter(_free_ports(3 * len(order)))
        places = {name: self._place(name, next(free), next(free), next(free)) for name in order}
        return Surroundings(
            self.name,
            [places[agency] for agency in rooms()],
            places[RECOGNITION],
            places[SUPERVISION],
            places[GATEWAY],
        )

    def _place(self, name: str, port: int, metrics: int, tiles: int) -> Place:
        if self.config_file(name).exists():
            there = self.node(name)
            port = _port(there.node.listen, port)
            metrics = _port(there.node.metrics, metrics)
            tiles = _port(there.log.tiles if there.log else None, tiles)
        agency, _, system = GATEWAY_SYSTEM.partition("/") if name == GATEWAY else (name, "", "node")
        return Place(name, agency, system, port, metrics, tiles)

    def _write_keys(self) -> None:
        for agency in (*rooms(), RECOGNITION, SUPERVISION):
            if not self.signing(agency).exists():
                SigningKeys.create(self.signing(agency), self.issuer(agency), _now())
            if not (self.keys / f"{agency}{SUFFIX}").exists():
                SigningKeys.open(self.signing(agency)).publish(self.keys)
        for agency in (*rooms(), RECOGNITION, SUPERVISION, AUDIT):
            if not self.officers(agency).exists():
                Issuer.create(self.officers(agency), officers_uri(self.name, agency), _now())
            if not self.published_officers(agency).exists():
                Issuer.open(self.officers(agency)).publish(self.published_officers(agency))
        for name in self.nodes:
            node = self.node(name).node
            log_keys.create(self.log_key(name), self.keys, origin_of(node.zone, node.agency, node.system))

    def _write_node(self, name: str, head: str, tables: Mapping[str, str]) -> None:
        path = self.config_file(name)
        make_folder(path.parent)
        secret = path.with_name("secret")
        if not secret.exists():
            write_atomically(secret, secrets.token_bytes(32))
        text = path.read_text(encoding="utf-8") if path.exists() else head
        if (whole := node_files.complete(text, tables)) != text:
            write_atomically(path, whole.encode())


def readdress(zone: Zone, base_port: int) -> None:
    """Move every node to ports from `base_port` on, leaving all else in the configs as it is."""
    moved: dict[str, str] = {}
    for i, name in enumerate(name for name in _order() if name in zone.nodes):
        there = zone.node(name)
        tiles = there.log.tiles if there.log else None
        for old, offset in ((there.node.listen, 0), (there.node.metrics, _METRICS_OFFSET), (tiles, _TILES_OFFSET)):
            if old:
                moved[old] = f"{HOST}:{base_port + i + offset}"
    for name in zone.nodes:
        path = zone.config_file(name)
        text = re.sub(r'"([^"\n]+:\d+)"', lambda m: f'"{moved.get(m[1], m[1])}"', path.read_text(encoding="utf-8"))
        write_atomically(path, text.encode())


def _order() -> tuple[str, ...]:
    """The newest kinds of nodes last: with --base-port, nodes keep the ports they had before these came."""
    return (GATEWAY, *rooms(), RECOGNITION, SUPERVISION)


def _port(address: str | None, otherwise: int) -> int:
    return int(address.rpartition(":")[2]) if address else otherwise


@contextmanager
def held(zone: Zone) -> Generator[None]:
    """Hold the zone for one mesh; raises `FailedPrecondition` ZONE_IN_USE where another one runs from it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held_alone(zone.folder / "lock"))
        except HeldElsewhere as other:
            raise FailedPrecondition(
                Reason.ZONE_IN_USE, f"a mesh already runs from {zone.folder} (process {other.holder})"
            ) from None
        yield


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on: all are held at once, so that none is found twice.

    None is one that the system gives to a connection going out: a node that ends and starts again finds its own free.
    """
    found: list[socket.socket] = []
    try:
        while len(found) < count:
            found.append(socket.socket())
            try:
                found[-1].bind((HOST, secrets.choice(_PORTS)))
            except OSError as error:
                found.pop().close()
                if error.errno != errno.EADDRINUSE:
                    raise
        return [int(each.getsockname()[1]) for each in found]
    finally:
        for each in found:
            each.close()
