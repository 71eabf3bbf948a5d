"""Hive Gateway, a GraphQL gateway on Node, before bare departments."""

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence

from bench.peers import bare, contract, node
from bench.peers.running import HOST, free_port, running
from certs.tls import server_name


@contextlib.asynccontextmanager
async def gateway(behind: bare.Departments) -> AsyncGenerator[tuple[str, Sequence[int]]]:
    """Run it; gives its address and pid. Raises `PeerMissingError` where it is not installed."""
    folder, zone, port = node.installed("hive"), behind.zone, free_port()
    files = zone.credentials("gateway/main")
    agencies = [contract.agency_of(name) for name in contract.FIELDS]
    departments = [
        {
            "agency": agency,
            "name": server_name(zone.identity(f"{agency}/node")),
            "target": target,
            "proto": _only(behind, agency),
        }
        for agency, target in zip(agencies, behind.targets, strict=True)
    ]
    settings = {
        "port": port,
        "certificate": str(files.certificate),
        "bundle": str(files.bundle),
        "protos": (*node.PROTOS, str(folder / "node_modules" / "protobufjs")),
        "supergraph": str(behind.folder / "hive.graphql"),
        "departments": departments,
    }
    file = behind.folder / "hive.json"
    file.write_text(json.dumps(settings))
    environment = {"NODE_ENV": "production"}
    command = ("node", folder / "gateway.js", file)
    log = behind.folder / "hive.log"
    async with running(*command, port=port, log=log, folder=folder, environment=environment) as pid:
        yield f"{HOST}:{port}", (pid,)


def _only(behind: bare.Departments, agency: str) -> str:
    """Write the contract of one department alone: every service of a file would become part of its subgraph."""
    head, *services = (node.REPOSITORY / "bench" / "peers" / "bench.proto").read_text().split("\nservice ")
    own = next(each for each in services if each.startswith(contract.service_of(agency).rpartition(".")[2]))
    path = behind.folder / f"{agency}.proto"
    path.write_text(f"{head}\nservice {own}")
    return str(path)
