"""What keeps a zone's certificates fresh where nothing else does: `hutong certs agent`, one process beside the folder.

Everything it does is a step of `certs.authority`, each of which leaves a folder that works; so it may be killed at any
moment, and the next one goes on. That only one runs is held by a lock, which ends with its process.
"""

import contextlib
import datetime as dt
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from certs.authority import Authority
from certs.errors import AgentRunning, CertificateError, RevocationRefused
from certs.files import HeldElsewhere, held_alone
from certs.layout import Layout
from certs.revocation import LIST_LIFE, RevocationList
from certs.rotation import due, rotate


@dataclass(frozen=True, slots=True)
class Turn:
    """What one look at the zone led to."""

    renewed: tuple[str, ...] = ()
    """SPIFFE IDs."""
    published: bool = False
    """Whether the revocation list was signed anew, though nothing was renewed."""
    problem: str = ""
    """What failed; it is tried again at the next look."""


@dataclass(frozen=True, slots=True)
class _Ask:
    """Sets an event where a signal comes."""

    event: threading.Event

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.event.set()


def tend(authority: Authority, now: dt.datetime) -> Turn:
    """Look at a zone once: renew what is due, sign its revocation list again where half of its life is over.

    What ended long ago is moved to the register's archive.

    Raises `ZoneDamaged`; what fails of one certificate does not keep the others from being renewed.
    """
    renewed: list[str] = []
    problems: list[str] = []
    for entry in due(authority, now):
        try:
            renewed.append(str(rotate(authority, entry, now).spiffe_id))
        except RevocationRefused:
            continue  # it was revoked meanwhile
        except (CertificateError, OSError) as error:
            problems.append(f"{entry.spiffe_id}: {error}")
    published = False
    layout = authority.layout
    if RevocationList(layout.revoked, layout.bundle).seconds_left(now) <= LIST_LIFE.total_seconds() / 2:
        authority.publish_revocations(now)
        published = True
    try:
        authority.archive(now)
    except (CertificateError, OSError) as error:
        problems.append(f"{authority.register.path}: {error}")
    return Turn(tuple(renewed), published, "; ".join(problems))


def keep(folder: Path, every: dt.timedelta, *, once: bool, said: Callable[[Turn], None]) -> None:
    """Tend a zone again and again, until SIGTERM or SIGINT; with `once`, one time.

    `said` hears of every turn that did or failed something. Raises what opening the zone and `tend` raise, at the first
    turn only.
    """
    asked = threading.Event()
    if not once:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _Ask(asked))
    turn = tend(Authority.open(folder), _now())
    while True:
        if turn != Turn():
            said(turn)
        if once or asked.wait(every.total_seconds()):
            return
        try:
            turn = tend(Authority.open(folder), _now())
        except (CertificateError, OSError) as error:
            turn = Turn(problem=str(error))


@contextlib.contextmanager
def held(folder: Path) -> Generator[None]:
    """Be the only agent of a zone's folder; raises `AgentRunning` where there is another, `ZoneMissing` for no zone."""
    Authority.open(folder)
    path = Layout(folder).register.with_name("agent.lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held_alone(path))
        except HeldElsewhere as other:
            message = f"an agent already keeps {folder} (process {other.holder})"
            raise AgentRunning(message, "one is enough") from None
        yield


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
