"""A zone folder: everything a mesh on one machine needs, made when absent and never overwritten.

    ZONE/
      certs/                 the zone's authority and identities (`certs.layout`)
      AGENCY/node.toml       a department's config; beside it its secret and its store
      AGENCY/signing/        the agency's keys for signing stage results; private
      recognition/node.toml  the recognition service's config; beside it its secret, its store, signing/, and folders
                             for what the zone adds: procedures/, arrangements/, calendars/
      gateway/node.toml      the gateway's config; beside it its secret
      keys/AGENCY.jwks.json  the keys of all of these, published: what it takes to verify a result
      policy/AGENCY.cedar    each agency's policy, a copy of the room's: edit it, the nodes follow
      logs/                  what the nodes say
      sample/                the synthetic zone, where the stores were filled from it

Every step is skipped where its result is there already, so that a folder half made is completed and what somebody
edited is kept.
"""

import datetime as dt
import fcntl
import os
import re
import secrets
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from certs.authority import Authority
from certs.errors import SvidExists
from certs.files import PRIVATE, make_folder, write_atomically
from certs.layout import Layout
from certs.register import State
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from gateway.config import GatewayConfig
from services.cli.rooms import GATEWAY, RECOGNITION, policies, rooms
from services.kit import config
from services.kit.config import DepartmentConfig, NodeConfig
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import SUFFIX, issuer_uri
from services.kit.department import Room
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.recognition.config import RecognitionConfig

DEFAULT_FOLDER: Final = Path(".hutong")
DEFAULT_ZONE: Final = "ftz.example"

OPERATOR: Final = "operator/admin"
"""Who asks nodes for their health."""

GATEWAY_SYSTEM: Final = "gateway/main"

CALLERS: Final = ("taxation/refund", "customs/release", "quality/lab", "commerce/registry", "publicsecurity/permits")
"""Systems that ask, one for each agency of the demo: department systems, not nodes."""

_HOST = "127.0.0.1"
_METRICS_OFFSET = 100
"""With --base-port, the metrics of a node lie this much above its port."""


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
        """The nodes that have a config: departments, the recognition service, then the gateway."""
        return tuple(name for name in (*rooms(), RECOGNITION, GATEWAY) if self.config_file(name).exists())

    def config_file(self, node: str) -> Path:
        """Say where a node's config lies."""
        return self.folder / node / "node.toml"

    def department(self, agency: str) -> DepartmentConfig:
        """Read a department's config; raises `FailedPrecondition` where it does not stand."""
        return config.read(self.config_file(agency), DepartmentConfig)

    def recognition(self) -> RecognitionConfig:
        """Read the recognition service's config; raises `FailedPrecondition` where it does not stand."""
        return config.read(self.config_file(RECOGNITION), RecognitionConfig)

    def node(self, name: str) -> NodeConfig:
        """Read the config of a department, of the recognition service or of the gateway."""
        if name == RECOGNITION:
            return self.recognition()
        return config.read(self.config_file(name), GatewayConfig) if name == GATEWAY else self.department(name)

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
        departments = [f"{agency}/node" for agency in (*rooms(), RECOGNITION)]
        callers = [path for path in CALLERS if path.partition("/")[0] in rooms()]
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
        # The newest last: with --base-port, nodes keep the ports they had before it came.
        names = [name for name in (GATEWAY, *rooms(), RECOGNITION) if not self.config_file(name).exists()]
        free = _free_ports(2 * len(names))
        addresses = dict(zip(names, zip(free[::2], free[1::2], strict=True), strict=True))
        if RECOGNITION in addresses:
            self._write_node(RECOGNITION, _recognition_toml(self.name, *addresses[RECOGNITION]))
            for own in ("procedures", "arrangements", "calendars"):
                make_folder(self.folder / RECOGNITION / own)
        recognition = self.recognition().node.listen
        for agency, room in rooms().items():
            if agency in addresses:
                self._write_node(agency, _department_toml(self.name, room, recognition, *addresses[agency]))
        if GATEWAY in addresses:
            targets = {name: self.node(name).node.listen for name in (*rooms(), RECOGNITION)}
            self._write_node(GATEWAY, _gateway_toml(self.name, targets, *addresses[GATEWAY]))

    def _write_keys(self) -> None:
        for agency in (*rooms(), RECOGNITION):
            if not self.signing(agency).exists():
                SigningKeys.create(self.signing(agency), self.issuer(agency), _now())
            if not (self.keys / f"{agency}{SUFFIX}").exists():
                SigningKeys.open(self.signing(agency)).publish(self.keys)

    def _write_node(self, name: str, toml: str) -> None:
        path = self.config_file(name)
        make_folder(path.parent)
        secret = path.with_name("secret")
        if not secret.exists():
            write_atomically(secret, secrets.token_bytes(32))
        write_atomically(path, toml.encode())


def readdress(zone: Zone, base_port: int) -> None:
    """Move every node to ports from `base_port` on, leaving all else in the configs as it is."""
    names = zone.nodes
    order = [name for name in (GATEWAY, *rooms(), RECOGNITION) if name in names]
    moved = {zone.node(name).node.listen: f"{_HOST}:{base_port + i}" for i, name in enumerate(order)}
    metrics = {zone.node(name).node.metrics: base_port + i + _METRICS_OFFSET for i, name in enumerate(order)}
    moved |= {old: f"{_HOST}:{port}" for old, port in metrics.items() if old}
    for name in names:
        path = zone.config_file(name)
        text = re.sub(r'"([^"\n]+:\d+)"', lambda m: f'"{moved.get(m[1], m[1])}"', path.read_text(encoding="utf-8"))
        write_atomically(path, text.encode())


@contextmanager
def held(zone: Zone) -> Generator[None]:
    """Hold the zone for one mesh; raises `FailedPrecondition` ZONE_IN_USE where another one runs from it."""
    with (zone.folder / "lock").open("a+b") as file:
        # Nobody else holds it, and so keeps the mesh from starting.
        os.fchmod(file.fileno(), PRIVATE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip()
            raise FailedPrecondition(
                Reason.ZONE_IN_USE, f"a mesh already runs from {zone.folder} (process {holder})"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on: all are held at once, so that none is found twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((_HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _node_toml(zone: str, agency: str, system: str, port: int, metrics: int) -> str:
    bundle = f"../certs/svid/{agency}/{system}/credential-bundle.private-key.pem"
    return f"""
[node]
zone = "{zone}"
agency = "{agency}"
system = "{system}"
listen = "{_HOST}:{port}"
metrics = "{_HOST}:{metrics}"

[tls]
certificate = "{bundle}"
key = "{bundle}"
bundle = "../certs/bundle.crt"
revoked = "../certs/revoked.crl"
"""


def _department_toml(zone: str, room: Room, recognition: str, port: int, metrics: int) -> str:
    return f"""\
# The department {room.agency}. `hutong serve {room.agency} --config FILE --check-config` validates this file.
secret = "secret"
gateways = ["{GATEWAY_SYSTEM}"]
{_node_toml(zone, room.agency, "node", port, metrics)}
[store]
url = "sqlite+aiosqlite:///records.db"
migrate = true

[policy]
files = ["../policy/{room.agency}.cedar"]

[events.{RECOGNITION}]
target = "{recognition}"
"""


def _recognition_toml(zone: str, port: int, metrics: int) -> str:
    return f"""\
# The recognition service. `hutong serve {RECOGNITION} --config FILE --check-config` validates this file.
secret = "secret"
gateways = ["{GATEWAY_SYSTEM}"]
keys = "../keys"
signing = "signing"
procedures = "procedures"
arrangements = "arrangements"
calendars = "calendars"
{_node_toml(zone, RECOGNITION, "node", port, metrics)}
[store]
url = "sqlite+aiosqlite:///cases.db"
migrate = true

[policy]
files = ["../policy/{RECOGNITION}.cedar"]
"""


def _gateway_toml(zone: str, targets: Mapping[str, str], port: int, metrics: int) -> str:
    files = ", ".join(f'"../policy/{agency}.cedar"' for agency in targets)
    departments = "\n".join(f'[departments.{agency}]\ntarget = "{target}"\n' for agency, target in targets.items())
    agency, _, system = GATEWAY_SYSTEM.partition("/")
    return f"""\
# The gateway. `hutong serve gateway --config FILE --check-config` validates this file.
secret = "secret"
{_node_toml(zone, agency, system, port, metrics)}
[policy]
files = [{files}]

{departments}"""
