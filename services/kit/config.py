"""One TOML file per node, typed and checked before anything starts.

Unknown keys are refused and named with the nearest known one; paths are relative to the file; secrets are given by
path, never by value. A room composes its own config of the sections here.
"""

import datetime as dt
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from certs.svid import CREDENTIAL_BUNDLE
from services.kit import toml_lines
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records import urls
from services.kit.records.catalogue import nearest

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(value: object) -> object:
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
        if not found:
            raise ValueError(f"{value!r} is no duration; write '500ms', '5s', '2m', '24h' or '7d'")
        return dt.timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    return value


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not host or not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is no address; write '127.0.0.1:50051'")
    return value


def _absolute(value: Path, info: ValidationInfo) -> Path:
    context: dict[str, Path] = info.context or {}
    return value if value.is_absolute() else context.get("base", Path()) / value


def _in_folder(value: str, info: ValidationInfo) -> str:
    context: dict[str, Path] = info.context or {}
    scheme, found, path = value.partition(":///")
    if found and scheme.startswith("sqlite") and path and not path.startswith("/") and "base" in context:
        return f"{scheme}:///{context['base'] / path}"
    return value


Duration = Annotated[dt.timedelta, BeforeValidator(_duration)]
"""A duration as text: `500ms`, `5s`, `2m`, `24h`, `7d`."""
Address = Annotated[str, AfterValidator(_address)]
"""`host:port`."""
FilePath = Annotated[Path, AfterValidator(_absolute)]
"""A path, relative to the config file."""


class Section(BaseModel):
    """A table of a config file: frozen, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Transport = Literal["grpcio", "nghttp2"]
"""What carries calls (`services.kit.transport`); both ends of a connection need not have the same."""

TRANSPORT: Final[Transport] = "nghttp2"
"""What carries them where a config does not say."""


class NodeSection(Section):
    """Who this node is and where it listens."""

    zone: str
    """SPIFFE trust domain, for example `ftz.example`."""
    agency: str
    system: str = "node"
    listen: Address
    metrics: Address | None = None
    """Where Prometheus may scrape; absent serves no metrics."""
    transport: Transport = TRANSPORT
    """What carries calls, to this node and from it."""


class PeerSection(Section):
    """A node of another agency."""

    target: Address
    system: str = "node"
    """The identity it must prove is `spiffe://<zone>/<agency>/<system>`."""


class TlsSection(Section):
    """Where the node's identity lies, or where it comes from. Files are re-read when they change."""

    certificate: FilePath
    key: FilePath
    bundle: FilePath
    """Trust bundle: the zone's roots."""
    revoked: FilePath
    """The zone's certificate revocation list; with `longest_life` there is none to be read."""
    revocations_from: dict[str, PeerSection] = {}
    """Nodes whose newer lists count as well, within seconds, by agency: `[tls.revocations_from.gateway]`."""
    heard: FilePath = Path("heard.crl")
    """Where the node keeps the newest lists that it knows, from anywhere; absent, `heard.crl` beside the key."""
    longest_life: Duration | None = Field(default=None, gt=dt.timedelta())
    """In place of a revocation list: certificates that were made to live longer are refused."""
    workload_api: str | None = Field(default=None, pattern=r"^unix:///.+$")
    """Socket of a SPIFFE Workload API that hands out the identity, `unix:///…`; its files are then kept in `folder`."""
    folder: FilePath | None = None
    """Private folder for what the Workload API hands out."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: object) -> object:
        """Fill in where files lie that another key stands for; refuse both at once."""
        if not isinstance(given, dict):
            return given
        whole = dict(cast("dict[str, object]", given))
        if "workload_api" in whole:
            if both := {"certificate", "key", "bundle"} & whole.keys():
                raise ValueError(f"workload_api stands for {', '.join(sorted(both))}: give one or the other")
            if "folder" not in whole:
                raise ValueError("workload_api needs a folder of its own for what it hands out")
            folder = Path(str(whole["folder"]))
            whole |= {"certificate": folder / CREDENTIAL_BUNDLE, "key": folder / CREDENTIAL_BUNDLE}
            whole["bundle"] = folder / "bundle.crt"
        elif "folder" in whole:
            raise ValueError("folder is for what a workload_api hands out")
        if "longest_life" in whole:
            if both := {"revoked", "revocations_from"} & whole.keys():
                raise ValueError(f"longest_life stands for {' and '.join(sorted(both))}: give one or the other")
            whole["revoked"] = Path(str(whole.get("bundle", ""))).with_name("revoked.crl")
        elif "revoked" not in whole:
            raise ValueError("revoked is missing; where the authority publishes no lists, say longest_life = '1h'")
        whole.setdefault("heard", Path(str(whole.get("key") or "key")).with_name("heard.crl"))
        return whole


class TelemetrySection(Section):
    """What the node tells of itself."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp: str | None = None
    """OTLP/gRPC collector for traces, metrics, log lines; absent sends none. Trace ids cross the mesh all the same."""
    every: Duration = Field(default=dt.timedelta(seconds=30), gt=dt.timedelta())
    """How often it is sent metrics."""
    sample: float = Field(default=0.05, ge=0, le=1)
    """Share of traces that are recorded."""


class QuotaSection(Section):
    """How much one caller gets in a day; what is not said has no end."""

    calls: int | None = Field(default=None, ge=0)
    """Answers."""
    records: int | None = Field(default=None, ge=0)
    """Records in them."""


class LimitsSection(Section):
    """Limits on what comes from outside."""

    request_bytes: int = Field(default=256 * 1024, ge=1024)
    response_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Largest answer accepted from another node."""
    concurrent_calls: int = Field(default=1024, ge=1)
    connections: int = Field(default=1000, ge=1)
    """Most connections at a time, of which one caller may have half."""
    connection_age: Duration = Field(default=dt.timedelta(hours=1), gt=dt.timedelta())
    """How long a connection is used before its caller is asked to open another one."""
    rate: float = Field(default=10_000, gt=0)
    """Calls a second of one caller, questions of sessions among them."""
    rates: dict[str, float] = {}
    """The same for those who need another rate, by `agency/system` or `agency/*`; the more exact one counts."""
    quota: QuotaSection | None = None
    """What one caller gets in a day, by the calendar of the jurisdiction in force; absent, as much as it asks for."""
    quotas: dict[str, QuotaSection] = {}
    """The same for those who need another quota, as with `rates`."""
    refusals: float = Field(default=100, gt=0)
    """Refusals a second of one caller, also through a gateway, for which it is to blame; ten seconds' worth at once.

    Callers of one other zone, or whom one gateway of this zone asks for, may have ten times as many together.
    """
    late: Duration = Field(default=dt.timedelta(milliseconds=500), gt=dt.timedelta())
    """How late the event loop may run before calls are turned away."""
    stalled: Duration = Field(default=dt.timedelta(seconds=30), gt=dt.timedelta())
    """How long a peer may read nothing of what it was told before its connection is cut."""
    deadline: Duration = dt.timedelta(seconds=10)
    """Deadline of calls that state none, and the longest one granted to unary calls."""
    drain: Duration = dt.timedelta(seconds=10)
    """How long running calls may go on after a stop was asked for."""


class PolicySection(Section):
    """Which policies decide."""

    files: list[FilePath] = Field(min_length=1)
    jurisdiction: str = "cn"
    reload: Duration = dt.timedelta(milliseconds=500)
    """How often the files are looked at for change."""


class DatabaseSection(Section):
    """A database, by its URL."""

    url: str = ""
    """SQLAlchemy URL without a password in it, for example `sqlite+aiosqlite:///customs.db`."""
    url_file: FilePath | None = None
    """File that holds the URL instead, where it carries a password."""
    insecure: bool = False
    """Connect to a server on another machine that need not prove who it is. For tests and closed networks."""
    _base: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _remember(self, info: ValidationInfo) -> Self:
        context: dict[str, Path] = info.context or {}
        self._base = context.get("base")
        return self

    def read_url(self, base: Path) -> str:
        """Read the URL; paths in it are relative to the config file, which lies in `base`.

        Raises `FailedPrecondition`: CONFIG_INVALID where there is none or it is no URL, STORE_UNPROVEN where it leads
        to another machine whose server need not prove who it is (`urls.check_proven`).
        """
        try:
            url = self.url_file.read_text(encoding="utf-8").strip() if self.url_file else self.url
        except (OSError, UnicodeDecodeError):
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"url_file: cannot read {self.url_file}") from None
        if not url:
            raise FailedPrecondition(Reason.CONFIG_INVALID, "a database: give url or url_file")
        scheme, found, path = url.partition(":///")
        if found and scheme.startswith("sqlite"):
            return url if path.startswith("/") else f"{scheme}:///{base / path}"
        if "://" not in url:
            return url
        if not self.insecure:
            urls.check_proven(url)
        return urls.located(url, self._base or base)


class OwnDatabaseSection(DatabaseSection):
    """A database that is the node's own."""

    migrate: bool = False
    """Bring the schema up to date at start; otherwise an old schema stops the start."""
    pool: int = Field(default=urls.USUAL.pool, ge=1, le=100)
    """Connections for reading. Beside them are a few more: one writes, and one reads what is shortest."""
    statement_timeout: Duration = Field(
        default=dt.timedelta(milliseconds=urls.USUAL.statement_ms), ge=dt.timedelta(milliseconds=100)
    )
    """How long a statement may take, waiting for locks included. PostgreSQL only."""
    connect_timeout: Duration = Field(
        default=dt.timedelta(seconds=urls.USUAL.connect_s), ge=dt.timedelta(seconds=2), le=dt.timedelta(minutes=5)
    )
    """How long connecting to a server may take, in whole seconds. PostgreSQL only."""

    def read_url(self, base: Path) -> str:
        """Read the URL as `DatabaseSection` does, and write into it how to connect where that is not the usual way."""
        said = {
            urls.POOL: self.pool,
            urls.STATEMENT: int(self.statement_timeout / dt.timedelta(milliseconds=1)),
            urls.CONNECT: int(self.connect_timeout.total_seconds()),
        }
        usual = {
            urls.POOL: urls.USUAL.pool,
            urls.STATEMENT: urls.USUAL.statement_ms,
            urls.CONNECT: urls.USUAL.connect_s,
        }
        url = super().read_url(base)
        unusual = {name: value for name, value in said.items() if value != usual[name]}
        return urls.with_settings(url, unusual) if unusual else url


class StoreSection(OwnDatabaseSection):
    """Where records lie."""


class LiveSection(DatabaseSection):
    """A record type that is read from a legacy table at the moment of the question, and not from the store."""

    mapping: FilePath
    """The mapping of the table, a YAML file."""


class EventsSection(PeerSection):
    """A node whose events are followed."""

    carrier: Literal["grpc", "nats"] = "grpc"
    """What brings them: the node itself, or the broker of `[nats]`, whose gaps the node fills."""


class OutboxSection(Section):
    """The events that a node has for others."""

    keep: Duration = Field(default=dt.timedelta(days=90), ge=dt.timedelta(days=1))
    """How old a backup of a node that follows may be: they are kept for that long at least after all of their agency's
    known nodes have them, and for twice that at most."""


_NODE_PATH: Final = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9-]*[a-z0-9])?$"


class NatsSection(Section):
    """The broker that carries events, NATS JetStream."""

    servers: list[Address] = Field(min_length=1)
    """Where it listens; the first that answers is taken."""
    agency: str = "broker"
    system: str = "nats"
    """The identity each of its servers must prove is `spiffe://<zone>/<agency>/<system>`."""


class NatsPublishSection(NatsSection):
    """The broker, of a node that publishes."""

    readers: list[Annotated[str, Field(pattern=_NODE_PATH)]] = Field(min_length=1)
    """The nodes (`agency/system`) that get their agencies' events over it; for nobody else is anything published."""
    stream_bytes: int = Field(default=1024**3, ge=1024**2)
    """Most bytes that it keeps for each reader; the oldest go first."""
    stream_age: Duration = Field(default=dt.timedelta(days=7), ge=dt.timedelta(seconds=1))
    """How long it keeps them."""
    replicas: int = Field(default=1, ge=1, le=5)
    """On how many of its servers."""

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        agencies = [reader.partition("/")[0] for reader in self.readers]
        if len(set(agencies)) != len(agencies):
            raise ValueError("readers: one node of each agency")
        return self


class LogSection(OwnDatabaseSection):
    """The node's log of answers and refusals."""

    url: Annotated[str, AfterValidator(_in_folder)] = ""
    """SQLAlchemy URL of a database of its own; a relative SQLite path is relative to the config file."""
    key: FilePath
    """The log's private key (Ed25519, PEM): it signs checkpoints and receipts."""
    keys: FilePath
    """Folder of the published keys of all logs of the zone, `AGENCY.SYSTEM.vkey` (C2SP signed-note verifier keys)."""
    witnesses: dict[str, PeerSection] = {}
    """Nodes that co-sign this log's checkpoints, by agency."""
    interval: Duration = Field(default=dt.timedelta(seconds=5), gt=dt.timedelta())
    """How often witnesses are shown the newest checkpoint."""
    tiles: Address | None = None
    """Where the log is served as static tiles over HTTPS, to members of the zone only; absent serves none."""
    readers: list[str] = []
    """Identities (`agency/system`) that may read whole entries as tiles; hashes alone are for every member."""


class IssuerSection(Section):
    """An agency's identity provider: who signs the tokens of its officers."""

    issuer: str = Field(min_length=1)
    """What tokens have as `iss`."""
    jwks: FilePath | None = None
    """File of its keys (RFC 7517), looked at again when it changes."""
    jwks_url: str | None = Field(default=None, pattern=r"^https://")
    """Where its keys are fetched instead."""
    jwks_ca: FilePath | None = None
    """Roots that the server at `jwks_url` has to prove itself under, PEM; absent, those of the system."""
    algorithms: list[Literal["Ed25519", "ES256", "PS256"]] = Field(default=["Ed25519"], min_length=1)
    """Algorithms it signs with; no other is taken, whatever a token says."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.jwks is None) == (self.jwks_url is None):
            raise ValueError("give either jwks, a file, or jwks_url")
        if self.jwks_ca is not None and self.jwks_url is None:
            raise ValueError("jwks_ca is for jwks_url")
        return self


class AuthorizationsSection(Section):
    """The service that keeps authorizations."""

    target: Address
    agency: str = "supervision"
    system: str = "node"
    """The identity it must prove is `spiffe://<zone>/<agency>/<system>`."""
    keys: FilePath
    """Folder of published signing keys, `AGENCY.jwks.json`: tickets are checked with the service's."""
    silence: Duration = Field(default=dt.timedelta(seconds=3), gt=dt.timedelta())
    """How long the node goes on without hearing of revocations; after that it refuses authorized reads."""


class NodeConfig(Section):
    """What every node's config has; rooms add their own sections."""

    node: NodeSection
    tls: TlsSection
    log: LogSection | None = None
    """Required of every node that gives data: it does not start without."""
    officers: dict[str, IssuerSection] = {}
    """Identity providers by agency, for example `[officers.customs]`; officers of others are not known here."""
    authorizations: AuthorizationsSection | None = None
    """Absent refuses every question under an authorization."""
    access: FilePath | None = None
    """An access list that counts instead of the one that comes with the service, where a zone has other agencies."""
    telemetry: TelemetrySection = TelemetrySection()
    limits: LimitsSection = LimitsSection()
    _file: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _remember(self, info: ValidationInfo) -> Self:
        context: dict[str, Path] = info.context or {}
        self._file = context.get("file")
        return self

    def at(self, *keys: str) -> str:
        """Say where something stands, for messages: `FILE:LINE`; its name where the config was read from no file."""
        text = _text(self._file) if self._file else ""
        line = toml_lines.line_of(text, keys) if text else 0
        return f"{self._file}:{line}" if line else f"[{'.'.join(keys)}]"


def _text(path: Path) -> str:
    """Read a file that was read before; empty where it is gone or another by now."""
    try:
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)
    except (OSError, ValueError):
        return ""
    return text


class DepartmentConfig(NodeConfig):
    """The config of a department's node."""

    store: StoreSection
    policy: PolicySection
    secret: FilePath
    """File with at least 32 random bytes: keys of page tokens and pseudonyms are derived from it."""
    gateways: list[str] = Field(default=["gateway/main"])
    """Identities (`agency/system`) whose signed word on a caller is accepted."""
    zones: list[str] = []
    """Other zones whose callers they may ask for; policy decides what those get. None where it is absent."""
    live: dict[str, LiveSection] = {}
    """Record types that are read live, by name."""
    events: dict[str, EventsSection] = {}
    """Whose events for this agency are followed, by the agency they come from, for example `[events.recognition]`."""
    nats: NatsSection | None = None
    """Absent, no events come over a broker."""

    @model_validator(mode="after")
    def _broker(self) -> Self:
        for agency, followed in self.events.items():
            if followed.carrier == "nats" and self.nats is None:
                raise ValueError(f"events.{agency}: carrier is nats, but there is no [nats]")
        return self


C = TypeVar("C", bound=NodeConfig)


def read(path: Path, model: type[C]) -> C:
    """Read a node's config.

    Raises `FailedPrecondition`: CONFIG_FILE_MISSING, CONFIG_UNKNOWN_KEY (naming the nearest), or CONFIG_INVALID with
    every mistake on a line of its own, which begins with the file and the line that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw: dict[str, Any] = tomllib.loads(text)
    except FileNotFoundError:
        raise FailedPrecondition(Reason.CONFIG_FILE_MISSING, f"there is no config file {path}") from None
    except tomllib.TOMLDecodeError as error:
        place, wrong = toml_lines.located(error)
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}{place and ':'}{place}: {wrong}") from None
    except UnicodeDecodeError as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}: {error}") from None
    try:
        return model.model_validate(raw, context={"base": path.parent.absolute(), "file": path})
    except ValidationError as error:
        raise _refused(path, text, model, error) from None


def _refused(path: Path, text: str, model: type[BaseModel], error: ValidationError) -> FailedPrecondition:
    lines: list[str] = []
    unknown = False
    for item in error.errors(include_url=False, include_input=False):
        line = toml_lines.line_of(text, item["loc"])
        place, name = f"{path}:{line}" if line else str(path), ".".join(str(part) for part in item["loc"])
        where = f"{place}: {name}" if name else place
        if item["type"] == "extra_forbidden":
            unknown = True
            lines.append(f"{where}: unknown key{nearest(str(item['loc'][-1]), _keys(model, item['loc'][:-1]))}")
        else:
            lines.append(f"{where}: {item['msg']}")
    reason = Reason.CONFIG_UNKNOWN_KEY if unknown else Reason.CONFIG_INVALID
    return FailedPrecondition(reason, "\n".join(lines))


def _keys(model: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    for part in where:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)
