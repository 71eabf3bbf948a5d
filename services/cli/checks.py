"""What `hutong doctor` looks at, of one node: its files, its identity, its databases, its policies, whom it calls.

Nothing is changed, and nothing is sent to anybody but a question whether it serves. Every finding that is not green
says what to do.
"""

import asyncio
import datetime as dt
import resource
import shutil
import stat
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from certs.errors import CertificateError
from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from services.cli import health
from services.cli.hints import HINTS
from services.cli.statuses import Light
from services.kit import jurisdiction
from services.kit.config import DatabaseSection, NodeConfig, PolicySection
from services.kit.errors import HutongError
from services.kit.identity import Ends
from services.kit.log import keys
from services.kit.log.checkpoint import origin_of
from services.kit.log.nodelog import MIGRATIONS
from services.kit.policy import loader
from services.kit.records import catalogue, migrations
from services.kit.records.database import sync_url
from services.kit.revocations import recall

_HALF_YEAR: Final = dt.timedelta(days=180)
_HALF_DAY: Final = 12 * 3600
_FEW_HOURS: Final = 6 * 3600
_LITTLE: Final = 5 * 1024**3
_NONE: Final = 256 * 1024**2
_PER_CONNECTION: Final = 2
"""Files that a connection may need, with what else is open."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    light: Light
    what: str
    """What was looked at."""
    said: str
    """How it stands."""
    advice: str = ""
    """What to do, where it is not green."""


Findings = Generator[Finding]


async def all_of(name: str, file: Path, config: NodeConfig, stores: Path | None) -> AsyncGenerator[Finding]:
    """Look at everything of the node `name`, whose config lies in `file`; `stores` are the migrations of its store."""
    yield Finding(Light.GREEN, "config", f"{file} stands")
    for look in (_private, _identity, _authorities, _revocations, _log_key, _policies, _limits):
        for finding in look(config):
            yield finding
    for title, section, folder in _databases(config, stores):
        yield await asyncio.to_thread(_database, title, section, file.parent.absolute(), folder)
    for finding in await asyncio.to_thread(lambda: list(_calls(file))):
        yield finding


def _private(config: NodeConfig) -> Findings:
    """Files that only the node itself may read."""
    secret: Path | None = getattr(config, "secret", None)
    files = [config.tls.key, *([secret] if secret else []), *([config.log.key] if config.log else [])]
    for path in dict.fromkeys(files):
        try:
            mode = path.stat().st_mode
        except OSError as error:
            yield Finding(Light.RED, "secrets", f"{path}: {error.strerror}", HINTS["FILE_ERROR"])
            continue
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            who = "everybody" if mode & stat.S_IRWXO else "its group"
            yield Finding(Light.YELLOW, "secrets", f"{path} is open to {who}", f"chmod 600 {path}")
        else:
            yield Finding(Light.GREEN, "secrets", f"{path} is the node's alone")


def _identity(config: NodeConfig) -> Findings:
    """The certificate: whose it is, and how long it lasts."""
    tls, node = config.tls, config.node
    expected = SpiffeId.of(node.zone, node.agency, node.system)
    try:
        svid = SvidFiles(tls.certificate, tls.key, tls.bundle).load()
    except CertificateError as error:
        yield Finding(Light.RED, "certificate", f"{error.reason}: {error}", error.hint or HINTS.get(error.reason, ""))
        return
    left = (svid.not_after - dt.datetime.now(dt.UTC)).total_seconds()
    renew = f"hutong certs rotate {expected.agency}/{expected.system}; and see why nothing renews it by itself"
    if svid.spiffe_id != expected:
        advice = "give the node its own certificate, or correct zone, agency and system under [node]"
        yield Finding(Light.RED, "certificate", f"it is {svid.spiffe_id}'s, and the config says {expected}", advice)
    elif left <= 0:
        yield Finding(Light.RED, "certificate", f"it ended at {svid.not_after:%Y-%m-%d %H:%M}Z", renew)
    elif left < _FEW_HOURS:
        yield Finding(Light.YELLOW, "certificate", f"it ends in {left / 3600:.1f} h, and was not renewed", renew)
    else:
        yield Finding(Light.GREEN, "certificate", f"{svid.spiffe_id}, for {left / 3600:.0f} h")


def _authorities(config: NodeConfig) -> Findings:
    """The authorities above the certificate: somebody has to rotate them, years after they were made."""
    tls, now = config.tls, dt.datetime.now(dt.UTC)
    with suppress(CertificateError):  # which `_identity` has told
        ends = Ends.of(SvidFiles(tls.certificate, tls.key, tls.bundle).load())
        for what, end in (("its authority", ends.issuing), ("a root that it trusts", ends.roots)):
            if end is not None and end - now < _HALF_YEAR:
                advice = "hutong certs ca show; and docs/operations/rotate.md has the four steps to a new one"
                yield Finding(Light.YELLOW, "authority", f"{what} ends on {end:%Y-%m-%d}", advice)


def _revocations(config: NodeConfig) -> Findings:
    """The zone's revocation list: without one that stands nobody is let in."""
    if config.tls.longest_life is not None:
        yield Finding(Light.GREEN, "revocations", f"no list: certificates live {config.tls.longest_life} at most")
        return
    known, now = RevocationList(config.tls.revoked, config.tls.bundle), dt.datetime.now(dt.UTC)
    recall(known, config.tls.heard, lambda: now)
    advice = "publish it again with `hutong certs rotate`, and bring it to this node"
    if problem := known.problem(now):
        yield Finding(Light.RED, "revocations", f"{config.tls.revoked}: {problem}", advice)
    elif (left := known.seconds_left(now)) < _HALF_DAY:
        yield Finding(Light.YELLOW, "revocations", f"the list lapses in {left / 3600:.1f} h", advice)
    else:
        yield Finding(Light.GREEN, "revocations", f"the list is good for {left / 86_400:.1f} days")


def _log_key(config: NodeConfig) -> Findings:
    """The log's key, and whether others know it by the same."""
    section, node = config.log, config.node
    if section is None:
        yield Finding(Light.YELLOW, "log", "there is none", "a node that gives data does not start without [log]")
        return
    try:
        signer = keys.read(section.key, origin_of(node.zone, node.agency, node.system))
        published = keys.published_file(section.keys, signer.name)
        known = keys.read_published(published) if published.exists() else None
    except HutongError as error:
        yield _refused("log key", error)
        return
    if known is None:
        advice = f"bring the zone's published keys to {section.keys}, this one among them"
        yield Finding(Light.YELLOW, "log key", f"{published} is not there: nobody can check this log", advice)
    elif known != signer.verifier:
        advice = "put the log's own key back: a log has one key for ever"
        yield Finding(Light.RED, "log key", f"{published} has another key for {signer.name}", advice)
    else:
        yield Finding(Light.GREEN, "log key", f"published as {signer.name}")


def _policies(config: NodeConfig) -> Findings:
    """The policies, as the node would load them."""
    section: PolicySection | None = getattr(config, "policy", None)
    if section is None:
        return
    try:
        pack = jurisdiction.load(section.jurisdiction)
        loaded = loader.load(section.files, catalogue.load(), pack)
    except HutongError as error:
        yield _refused("policy", error)
        return
    now, count = dt.datetime.now(dt.UTC), sum(1 for _ in loaded)
    over = [policy.id for policy in loaded if policy.until is not None and policy.until <= now]
    if over:
        advice = "hutong policy check; renew what is still wanted, and take the rest out"
        yield Finding(Light.YELLOW, "policy", f"{len(over)} of {count} have ended: {', '.join(over[:5])}", advice)
    else:
        yield Finding(Light.GREEN, "policy", f"{count} policies, version {loaded.version[:12]}")


def _limits(config: NodeConfig) -> Findings:
    """Whether the system lets the node have as many connections as its config does."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = config.limits.connections * _PER_CONNECTION
    if most < wanted:
        advice = f"let the node have {wanted} open files (LimitNOFILE, ulimit -n), or lower [limits] connections"
        yield Finding(
            Light.YELLOW, "open files", f"{most} are allowed; {config.limits.connections} connections", advice
        )
    else:
        yield Finding(Light.GREEN, "open files", f"{most} are allowed")


def _databases(config: NodeConfig, stores: Path | None) -> Generator[tuple[str, DatabaseSection, Path]]:
    store: DatabaseSection | None = getattr(config, "store", None)
    if store is not None and stores is not None:
        yield "store", store, stores
    if config.log is not None:
        yield "log database", config.log, MIGRATIONS


def _database(title: str, section: DatabaseSection, base: Path, folder: Path) -> Finding:
    """Look whether a database answers, has this version's tables, and has room."""
    try:
        url = section.read_url(base)
        migrations.check(url, folder)
        where = sync_url(url)
    except HutongError as error:
        if getattr(section, "migrate", False) and error.reason == "STORE_NOT_MIGRATED":
            return Finding(Light.GREEN, title, "its tables are brought up to date at the next start")
        return _refused(title, error)
    if where.get_backend_name() != "sqlite" or not where.database:
        return Finding(Light.GREEN, title, f"PostgreSQL at {where.host or 'this machine'} answers; tables fit")
    free = shutil.disk_usage(Path(where.database).parent).free
    said = f"{where.database}: {free / 1024**3:.1f} GiB free on its disk"
    advice = "make room: once a log cannot be written, its node answers nothing"
    light = Light.RED if free < _NONE else Light.YELLOW if free < _LITTLE else Light.GREEN
    return Finding(light, title, said, "" if light is Light.GREEN else advice)


def _calls(file: Path) -> Findings:
    """Whether the node serves, and everyone whom it calls."""
    try:
        answers = health.answers(file, peers=True)
    except (HutongError, CertificateError) as error:
        yield Finding(Light.RED, "calls", str(error), HINTS.get(error.reason, ""))
        return
    for number, (asked, wrong) in enumerate(answers):
        what = "serves" if number == 0 else "calls"
        if wrong:
            advice = "start it, or see its log; then its address, its certificate, and what lies between"
            yield Finding(Light.RED, what, f"{asked.identity} {wrong}", advice)
        else:
            yield Finding(Light.GREEN, what, f"{asked.identity} at {asked.target}")


def _refused(what: str, error: HutongError) -> Finding:
    return Finding(Light.RED, what, f"{error.reason}: {error.message}", HINTS.get(error.reason, ""))
