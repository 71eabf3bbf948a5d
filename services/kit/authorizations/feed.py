"""Follows the service that keeps authorizations, for as long as the node runs.

Every stream begins with all that are in force, then tells every change; heartbeats say that there was none. A stream
that falls silent is taken for dead and opened anew.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast

from hutong.api.authorization.v1 import authorization_pb2
from services.kit.authorizations.registry import Registry
from services.kit.client import Client
from services.kit.errors import Reason, Unavailable
from services.kit.following import Following

_FOLLOW: Final = "/hutong.api.authorization.v1.AuthorizationService/FollowAuthorizations"
_LONGEST_PAUSE: Final = 0.5
"""Seconds between tries: until the service is heard again, authorized reads are refused."""


class Feed(Following):
    """Carries what the service tells into a registry."""

    def __init__(self, client: Client, registry: Registry, *, silence: float) -> None:
        """`silence` is in seconds: after that long without a word the stream is opened anew."""
        super().__init__("Authorizations", longest_pause=_LONGEST_PAUSE)
        self._client = client
        self._registry = registry
        self._silence = silence

    async def _follow(self) -> None:
        request, response = (
            authorization_pb2.FollowAuthorizationsRequest(),
            authorization_pb2.FollowAuthorizationsResponse,
        )
        messages = self._client.stream(_FOLLOW, request, response, timeout=None)
        following = cast("AsyncGenerator[authorization_pb2.FollowAuthorizationsResponse]", messages)
        async with aclosing(following) as stream:
            first = True
            while True:
                async with asyncio.timeout(self._silence):
                    told = await anext(stream, None)
                if told is None:
                    return
                if first and not told.snapshot:
                    # What was missed since the last stream would be missed for good.
                    raise Unavailable(Reason.AUTHORIZATION_STATE_UNKNOWN, "the stream did not begin with all there are")
                first = False
                self._registry.apply(told)
                self._heard()
