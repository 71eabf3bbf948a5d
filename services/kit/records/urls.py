"""Database URLs: which databases there are, how they are connected to, and whether a server proves who it is.

Whatever holds of a connection stands in its URL, so that everybody who is handed one connects in the same way: what
libpq knows (`sslmode`, `connect_timeout`, …), and beside that `pool` and `statement_timeout`, which are taken out of it
before it is used.
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import exc

from services.kit.errors import FailedPrecondition, Reason

POOL: Final = "pool"
"""Connections for reading."""
STATEMENT: Final = "statement_timeout"
"""Milliseconds that a statement may take; PostgreSQL only."""
CONNECT: Final = "connect_timeout"
"""Seconds that connecting may take; PostgreSQL only."""

_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
_SYSTEM: Final = "system"
"""As `sslrootcert`: the roots of the operating system (libpq 16 and newer)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a database is connected to."""

    pool: int = 4
    """Connections, and threads, for reading; more only help where the database has more than this to give."""
    statement_ms: int = 30_000
    connect_s: int = 5


USUAL: Final = Settings()
"""How, where nobody says otherwise."""


def parse(url: str) -> tuple[sa.URL, Settings]:
    """Read a database URL; async drivers are named by habit and mean the same database here.

    Raises `FailedPrecondition` for what is neither a SQLite file nor PostgreSQL.
    """
    parsed = _parsed(url)
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    elif backend == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        parsed = parsed.set(drivername="sqlite")
    else:
        raise _invalid("the store is a SQLite file or PostgreSQL, and nothing else")
    settings = Settings(
        _number(parsed, POOL, USUAL.pool),
        _number(parsed, STATEMENT, USUAL.statement_ms),
        _number(parsed, CONNECT, USUAL.connect_s),
    )
    return parsed.difference_update_query((POOL, STATEMENT, CONNECT)), settings


def with_settings(url: str, settings: Mapping[str, int]) -> str:
    """Write settings into a URL, where it does not say otherwise itself."""
    parsed = _parsed(url)
    new = {name: str(value) for name, value in settings.items() if name not in parsed.query}
    return parsed.update_query_dict(new).render_as_string(hide_password=False) if new else url


def located(url: str, base: Path) -> str:
    """Make the paths in a PostgreSQL URL absolute; they are relative to `base`, as those of a config file are."""
    parsed = _parsed(url)
    if parsed.get_backend_name() != "postgresql":
        return url
    found = {name: str(value) for name in _FILES if (value := parsed.query.get(name)) and value != _SYSTEM}
    moved = {name: str(base / value) for name, value in found.items() if not Path(value).is_absolute()}
    return parsed.update_query_dict(moved).render_as_string(hide_password=False) if moved else url


def check_proven(url: str) -> None:
    """Check that a server on another machine proves who it is, over TLS.

    Raises `FailedPrecondition` STORE_UNPROVEN where it need not: a SQLite file, a socket and the loopback are on this
    machine. Of databases other than PostgreSQL nobody here knows what they check.
    """
    parsed = _parsed(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite" or not (away := [host for host in _hosts(parsed) if not _is_here(host)]):
        return
    query = parsed.query
    if backend == "postgresql" and query.get("sslmode") == "verify-full" and query.get("sslrootcert"):
        return
    raise FailedPrecondition(
        Reason.STORE_UNPROVEN,
        f"the database server {away[0]} need not prove who it is: add ?sslmode=verify-full&sslrootcert=FILE to the url",
    )


def _hosts(url: sa.URL) -> list[str]:
    """List wherever a URL may lead to; what it leaves open, libpq takes from the environment."""
    said = [url.host or "", *(_listed(url, name) for name in ("host", "hostaddr", "service"))]
    if not any(said):
        said = [os.environ.get(name, "") for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE")]
    return [host for text in said for host in text.split(",") if host]


def _listed(url: sa.URL, name: str) -> str:
    value = url.query.get(name, "")
    return value if isinstance(value, str) else ",".join(value)


def _is_here(host: str) -> bool:
    if host == "localhost" or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _parsed(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        # It may hold a password: it is not repeated.
        raise _invalid("the store's url is no database URL") from None


def _number(url: sa.URL, name: str, usual: int) -> int:
    text = url.query.get(name)
    if text is None:
        return usual
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or not int(text):
        raise _invalid(f"{name} in the database url is no positive number")
    return int(text)


def _invalid(message: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.CONFIG_INVALID, message)
