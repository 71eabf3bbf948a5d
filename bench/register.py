"""What an authority with a history costs: a register of so many certificates, read, archived, and worked on after that.

`python -m bench.register --certificates 73000` is a year of 100 systems with certificates of 24 hours. CPU seconds.
"""

import argparse
import datetime as dt
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography import x509

from certs.agent import tend
from certs.authority import DEFAULT_TTL, Authority
from certs.issuance import whole_second
from certs.register import RevocationReason
from certs.spiffe import SpiffeId

ZONE: Final = "bench.example"
SYSTEMS: Final = 100


def _filled(folder: Path, certificates: int, now: dt.datetime) -> Path:
    """Make a zone whose systems were renewed twice a day, the last time half a life ago: all of them are due."""
    authority = Authority.create(folder / "zone", ZONE, now)
    with authority.layout.register.open("w", encoding="utf-8") as register:
        for turn in range(certificates // SYSTEMS, 0, -1):
            at = now - turn * DEFAULT_TTL / 2
            for number in range(SYSTEMS):
                line = {
                    "event": "issued",
                    "serial": f"{x509.random_serial_number():040x}",
                    "spiffe_id": str(SpiffeId.of(ZONE, f"agency-{number}", "node")),
                    "not_before": at.isoformat(),
                    "not_after": (at + DEFAULT_TTL).isoformat(),
                    "issued_at": at.isoformat(),
                }
                register.write(json.dumps(line, separators=(",", ":")) + "\n")
    return authority.layout.folder


def _show(what: str, work: Callable[[], object]) -> None:
    before = time.process_time()
    work()
    print(f"{time.process_time() - before:8.2f} s  {what}", flush=True)


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificates", type=int, default=73_000)
    certificates: int = parser.parse_args().certificates
    now = whole_second(dt.datetime.now(dt.UTC))
    with tempfile.TemporaryDirectory() as scratch:
        folder = _filled(Path(scratch), certificates, now)

        def revoke() -> None:
            authority = Authority.open(folder)
            entry = authority.current()[SpiffeId.of(ZONE, "agency-0", "node")]
            authority.revoke((entry.serial,), RevocationReason.SUPERSEDED, now)

        print(f"{certificates:,} certificates of {SYSTEMS} systems")
        _show("to read them, none of them archived", Authority.open(folder).register.entries)
        _show("to archive what ended long ago, once", lambda: Authority.open(folder).archive(now))
        _show("to read the register after that", Authority.open(folder).register.entries)
        _show("to revoke one certificate", revoke)
        _show(f"to renew the {SYSTEMS - 1} others, all due at once", lambda: tend(Authority.open(folder), now))
        _show("to look, when nothing is due", lambda: tend(Authority.open(folder), now))
        _show("to read everything, with the archives", Authority.open(folder).register.everything)


if __name__ == "__main__":
    main()
