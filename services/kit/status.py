"""`NodeService`: how a node does, told to those who run it. Nothing in it is of any caller or record."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from importlib import metadata
from typing import Final

from hutong.api.node.v1 import node_pb2
from services.kit.rpc import Call, Rpc, bind
from services.kit.telemetry import Telemetry

MOST_REFUSALS: Final = 50
"""Most kinds of refusals that are told."""

Response = node_pb2.GetStatusResponse
Watch = Callable[[node_pb2.WatchRevocationsRequest, Call], AsyncIterator[node_pb2.WatchRevocationsResponse]]


class NodeService:
    """What every node tells of itself."""

    def __init__(self, status: Callable[[], Response], watch: Watch) -> None:
        """`status` says how the node does; `watch` tells its revocation lists."""
        self._status = status
        self.watch_revocations = watch

    async def get_status(self, request: node_pb2.GetStatusRequest, call: Call) -> Response:
        """Tell how the node does, now."""
        return self._status()


def of(
    telemetry: Telemetry,
    *,
    identity: str,
    transport: str,
    policies: str,
    started: dt.datetime,
    now: dt.datetime,
    certified_until: dt.datetime,
) -> Response:
    """Put together how a node does; `policies` is their version."""
    status = Response(
        identity=identity,
        version=metadata.version("hutong"),
        transport=transport,
        policy_version=policies,
    )
    status.started_at.FromDatetime(started)
    status.now.FromDatetime(now)
    status.certified_until.FromDatetime(certified_until)
    for name, labels, value in telemetry.readings():
        status.readings.add(name=name, labels=labels, value=value)
    refusals = sorted(telemetry.calls.refusals.items(), key=lambda each: (-each[1], each[0]))
    for (rpc, reason), count in refusals[:MOST_REFUSALS]:
        status.refusals.add(rpc=rpc, reason=reason, count=count)
    return status


def rpcs(status: Callable[[], Response], watch: Watch) -> tuple[Rpc, ...]:
    """The rpcs of a node that says so how it does, and tells so its revocation lists."""
    return bind(node_pb2.DESCRIPTOR.services_by_name["NodeService"], NodeService(status, watch))
