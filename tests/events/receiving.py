"""A receiver in a process of its own, to be killed: `python -m tests.events.receiving ADDRESS ZONE-FOLDER URL`."""

import asyncio
import sys
from pathlib import Path

from certs.layout import Layout
from certs.spiffe import SpiffeId
from services.kit.client import Client
from services.kit.events.follower import Remote
from tests.events.bed import SOURCE, Receiver
from tests.zone import ZONE


async def run(address: str, folder: str, url: str) -> None:
    files = Layout(Path(folder)).svid(SpiffeId.parse(f"spiffe://{ZONE}/customs/node"))
    client = Client(address, SpiffeId.parse(f"spiffe://{ZONE}/{SOURCE}"), files)
    receiver = Receiver(url)
    receiver.follow(Remote(client, SOURCE))
    seen = 0
    while True:
        await receiver.until(seen + 1)
        seen = len(receiver.kept)
        print(seen, flush=True)  # noqa: T201 - how the test knows how far it is


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
