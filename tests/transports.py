"""Which transport nodes and clients of the tests have: `pytest --transport NAME` runs any tests over another one.

With `--clients NAME` beside it, clients that belong to no node have that one: so either end may have either.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, get_args

from services.cli.zone import Zone
from services.kit.client import Client
from services.kit.config import TRANSPORT, Transport

NAMES: Final[tuple[Transport, ...]] = get_args(Transport)

_chosen: list[Transport] = [TRANSPORT]


def chosen() -> Transport:
    """The transport of this run."""
    return _chosen[0]


def use(name: Transport, clients: Transport) -> None:
    """Have nodes that `tests.zone` makes run over `name` from now on, and clients over `clients` wherever they are."""
    _chosen[0] = name
    defaults = Client.__init__.__kwdefaults__
    assert defaults is not None
    defaults["transport"] = clients


@contextmanager
def using(name: Transport) -> Generator[None]:
    """Make nodes with another transport meanwhile; clients keep theirs."""
    before, _chosen[0] = _chosen[0], name
    try:
        yield
    finally:
        _chosen[0] = before


def write(zone: Zone) -> None:
    """Write the transport of this run into the configs of a zone, for nodes that are processes of their own."""
    for node in zone.nodes:
        path = zone.config_file(node)
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("[node]\n", f'[node]\ntransport = "{chosen()}"\n', 1), encoding="utf-8")
