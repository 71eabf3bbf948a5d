"""gRPC health and reflection, as rpcs like any other: same certificates, same access lists."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from services.kit.errors import NotFound, Reason
from services.kit.rpc import Call, Rpc, bind

# The stubs know two kinds of descriptors that are one, and not yet every message of the health contract.
HEALTH = cast("ServiceDescriptor", health_pb2.DESCRIPTOR.services_by_name["Health"])
_REFLECTION = cast("ServiceDescriptor", reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"])
_LIST = message_factory.GetMessageClass(
    cast("Descriptor", health_pb2.DESCRIPTOR.message_types_by_name["HealthListResponse"])
)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """`grpc.health.v1.Health`: the node as a whole (empty name) and each of its services."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset({"", *services})
        self._serving = False
        self._changed = asyncio.Condition()

    async def set(self, serving: bool) -> None:
        """Say whether the node serves; watchers hear of it."""
        async with self._changed:
            self._serving = serving
            self._changed.notify_all()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse:
        known = _SERVING if self._serving else _NOT_SERVING
        return health_pb2.HealthCheckResponse(status=known if service in self._services else _UNKNOWN)

    async def check(self, request: health_pb2.HealthCheckRequest, call: Call) -> health_pb2.HealthCheckResponse:
        """Tell now; raises `NotFound` for a service the node does not have."""
        if request.service not in self._services:
            raise NotFound(Reason.NAME_INVALID, "there is no such service here")
        return self._status(request.service)

    async def list(self, request: Message, call: Call) -> Message:
        """Tell of every service."""
        return _LIST(statuses={name: self._status(name) for name in self._services})

    async def watch(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Tell now and whenever it changes."""
        last = None
        while True:
            async with self._changed:
                while (status := self._status(request.service)).status == last:
                    await self._changed.wait()
            last = status.status
            yield status


class Reflection:
    """`grpc.reflection.v1alpha.ServerReflection`, for those whom the access list names."""

    def __init__(self, services: Iterable[str]) -> None:
        servicer: Any = ReflectionServicer(sorted(services))
        self._responses = servicer.ServerReflectionInfo

    def server_reflection_info(
        self, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], call: Call
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answer questions on services and their schemas."""
        # Typed as if it returned a coroutine; it is an asynchronous generator.
        return cast("AsyncIterator[reflection_pb2.ServerReflectionResponse]", self._responses(requests, None))


def rpcs(health: Health, services: Iterable[str]) -> tuple[Rpc, ...]:
    """The rpcs of health and reflection for a node that serves `services`."""
    return (
        *bind(HEALTH, health),
        *bind(_REFLECTION, Reflection(services)),
    )
