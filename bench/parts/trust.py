"""What proofs and revocations take."""

import asyncio
from dataclasses import asdict
from typing import Any, Final

from bench import proofs as logs
from bench import revocation as revoking
from bench.setup import Setup
from services.cli.filling import fill
from services.cli.fleet import Fleet
from services.cli.zone import Zone

_ENTRIES: Final = (20_000, 200_000, 1_000_000)
"""Entries of a log: quick, usual, big."""
_REVOCATIONS: Final = 100


async def proofs(setup: Setup) -> dict[str, Any]:
    """Verify a whole log, and make proofs of it."""
    found = await asyncio.to_thread(logs.measure, setup.folder, _ENTRIES[setup.big + (not setup.quick)])
    return {**asdict(found), "ratio": found.ratio}


async def revocation(setup: Setup) -> dict[str, Any]:
    """Revoke authorizations while they are used."""
    zone = await asyncio.to_thread(_filled, setup)
    async with Fleet(zone) as fleet:
        return asdict(await revoking.measure(fleet, 3 if setup.quick else _REVOCATIONS))


def _filled(setup: Setup) -> Zone:
    zone = Zone.prepare(setup.folder / "revocation")
    fill(zone, None, with_sample=True, quiet=True)
    return zone
