"""A process that acts on authorizations without end, and says of each act that it is done: to be killed.

python -m tests.supervision.acting URL FOLDER NAME
"""

import asyncio
import sys
from pathlib import Path

from services.kit.credentials.keys import SigningKeys
from services.kit.records.database import Database
from tests.supervision.desk import TERMS, Clock, Desk


async def act(url: str, folder: Path, name: str) -> None:
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


if __name__ == "__main__":
    asyncio.run(act(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
