"""The fan-out gateway on Node and grpc-js, before bare departments."""

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence

from bench.peers import bare, contract, node
from bench.peers.running import HOST, free_port, running
from certs.tls import server_name


@contextlib.asynccontextmanager
async def gateway(behind: bare.Departments, *, raw: bool) -> AsyncGenerator[tuple[str, Sequence[int]]]:
    """Run it; gives its address and pid. `raw` has it join bytes instead of parsing answers.

    Raises `PeerMissingError` where it is not installed.
    """
    folder, zone, port = node.installed("grpcjs"), behind.zone, free_port()
    files = zone.credentials("gateway/main")
    departments = [
        {
            "field": field,
            "service": contract.service_of(contract.agency_of(name)).rpartition(".")[2],
            "name": server_name(zone.identity(f"{contract.agency_of(name)}/node")),
            "target": target,
        }
        for (name, field), target in zip(contract.FIELDS.items(), behind.targets, strict=True)
    ]
    settings = {
        "port": port,
        "certificate": str(files.certificate),
        "bundle": str(files.bundle),
        "protos": node.PROTOS,
        "raw": raw,
        "departments": departments,
    }
    file = behind.folder / f"grpcjs-{port}.json"
    file.write_text(json.dumps(settings))
    log = behind.folder / f"grpcjs-{port}.log"
    async with running("node", folder / "gateway.js", file, port=port, log=log, folder=folder) as pid:
        yield f"{HOST}:{port}", (pid,)
