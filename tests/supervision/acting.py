"""Acts on authorizations without end, and says of each act that it is done, until the process is killed."""

import asyncio
from pathlib import Path

from services.kit.credentials.keys import SigningKeys
from services.kit.records.database import Database
from tests.supervision.desk import TERMS, Clock, Desk


def act(url: str, folder: Path, name: str) -> None:
    """Act without end."""
    asyncio.run(_act(url, folder, name))


async def _act(url: str, folder: Path, name: str) -> None:
    desk = Desk(folder, url, Database(url), SigningKeys.open(folder / "signing"), Clock(), TERMS)
    await desk.authorizations.open()
    number = 0
    while True:
        number += 1
        found = await desk.request(by=f"{name}-{number}", row_quota=3)
        print(found.id, "requested", flush=True)  # noqa: T201
        await desk.approve(found, "supervision", "chief")
        print(found.id, "approved", flush=True)  # noqa: T201
        await desk.approve(found, "customs", "owner")
        print(found.id, "approved", flush=True)  # noqa: T201
        await desk.use(found, by=f"{name}-{number}")
        print(found.id, "used", flush=True)  # noqa: T201
        for _ in range(3):
            await desk.reserve(found, 1)
            print(found.id, "reserved", flush=True)  # noqa: T201
        print(found.id, "exhausted", flush=True)  # noqa: T201
