"""`hutong serve`: one node, in this process, until it is asked to stop."""

import asyncio
import gc
import os
import signal
from pathlib import Path
from typing import Annotated, Protocol

import typer
import uvloop

from gateway.config import GatewayConfig
from gateway.node import GatewayNode
from services.cli.output import AsJson, print_json
from services.cli.rooms import GATEWAY, RECOGNITION, SUPERVISION, room
from services.kit import config, host
from services.kit.config import DepartmentConfig
from services.kit.department import DepartmentNode, OpenLive
from services.kit.host import Host
from services.kit.lines import configure_logging

app = typer.Typer(rich_markup_mode="rich")

_STDIN = 0


class Node(Protocol):
    """What is run: a department, the recognition service, the supervision service, or the gateway."""

    @property
    def host(self) -> Host:
        """Its frame."""
        ...

    async def start(self) -> None:
        """Serve."""
        ...

    async def stop(self) -> None:
        """Drain and close."""
        ...


@app.command()
def serve(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ROOM", help="An agency that has a room here, `recognition`, `supervision`, or `gateway`."
        ),
    ],
    file: Annotated[Path, typer.Option("--config", help="The node's config, a TOML file.", show_default=False)],
    check_config: Annotated[
        bool, typer.Option("--check-config", help="Validate config, identity and secret; start nothing.")
    ] = False,
    supervised: Annotated[
        bool,
        typer.Option("--supervised", help="Stop as well when standard input ends: when whoever started it is gone."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run one node: an agency's room, the recognition service, the supervision service, or the gateway.

    Logs are JSON lines on standard error. SIGTERM and SIGINT drain: no new calls, running ones may end, then it stops.

    \b
    Examples:
      hutong serve customs --config .hutong/customs/node.toml
      hutong serve gateway --config .hutong/gateway/node.toml --check-config
    """
    node = _node(name, file)
    if check_config:
        if as_json:
            print_json({"config": str(file), "valid": True, "identity": str(node.host.identity)})
        else:
            typer.echo(f"{file} stands: {node.host.identity} on {node.host.config.node.listen}")
        return
    configure_logging(node.host.config.telemetry.log_level, node.host.telemetry.log_handler)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(node, supervised))


async def _run(node: Node, supervised: bool) -> None:
    async def start() -> None:
        await node.start()
        # What is loaded now stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()

    if supervised:
        asyncio.get_running_loop().add_reader(_STDIN, _stop_at_end)
    await host.run(start, node.stop)


def _stop_at_end() -> None:
    """Drain when the supervisor is gone, however it went."""
    if not os.read(_STDIN, 1024):
        asyncio.get_running_loop().remove_reader(_STDIN)
        os.kill(os.getpid(), signal.SIGTERM)


def _node(name: str, file: Path) -> Node:
    if name == GATEWAY:
        return _gateway(file)
    if name == SUPERVISION:
        return _supervision(file)
    return _recognition(file) if name == RECOGNITION else _department(name, file)


def _department(agency: str, file: Path) -> DepartmentNode:
    found = room(agency)
    settings = config.read(file, DepartmentConfig)
    base = file.parent.absolute()
    return DepartmentNode(found, settings, settings.store.read_url(base), Host(settings), _open_live(settings, base))


def _open_live(settings: DepartmentConfig, base: Path) -> OpenLive | None:
    if not settings.live:
        return None
    # A node that reads nothing live need not carry the adapters.
    from services.cli import live  # noqa: PLC0415

    return live.opener(settings, base)


def _recognition(file: Path) -> Node:
    # Only this one node carries what cases and results take.
    from services.recognition.config import RecognitionConfig  # noqa: PLC0415
    from services.recognition.node import RecognitionNode  # noqa: PLC0415

    settings = config.read(file, RecognitionConfig)
    return RecognitionNode(settings, settings.store.read_url(file.parent.absolute()), Host(settings))


def _supervision(file: Path) -> Node:
    # Only this one node carries what authorizations take.
    from services.supervision.config import SupervisionConfig  # noqa: PLC0415
    from services.supervision.node import SupervisionNode  # noqa: PLC0415

    settings = config.read(file, SupervisionConfig)
    return SupervisionNode(settings, settings.store.read_url(file.parent.absolute()), Host(settings))


def _gateway(file: Path) -> GatewayNode:
    settings = config.read(file, GatewayConfig)
    return GatewayNode(settings, Host(settings))
