"""Follows the service that keeps authorizations, for as long as the node runs.

Every stream begins with all that are in force, then tells every change; heartbeats say that there was none. A stream
that falls silent is taken for dead and opened anew.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast

from hutong.api.authorization.v1 import authorization_pb2
from services.kit.authorizations.registry import Registry
from services.kit.client import Client
from services.kit.errors import HutongError, Reason, Unavailable

_FOLLOW: Final = "/hutong.api.authorization.v1.AuthorizationService/FollowAuthorizations"
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
"""Seconds between tries: until the service is heard again, authorized reads are refused."""

_log = logging.getLogger(__name__)


class Feed:
    """Carries what the service tells into a registry."""

    def __init__(self, client: Client, registry: Registry, *, silence: float) -> None:
        """`silence` is in seconds: after that long without a word the stream is opened anew."""
        self._client = client
        self._registry = registry
        self._silence = silence
        self._pause = _FIRST_PAUSE
        self._task: asyncio.Task[None] | None = None
        self._why = ""
        self.connected = False
        """Whether the service is heard now."""

    def start(self) -> None:
        """Begin to follow; returns at once, wherever the service is."""
        self._task = asyncio.create_task(self._run(), name="follow authorizations")

    async def stop(self) -> None:
        """Stop at once."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.connected = False

    async def _run(self) -> None:
        while True:
            self._away(await self._try())
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _try(self) -> str:
        """Follow until that ends; tells why it did."""
        try:
            await self._follow()
        except HutongError as error:
            return error.reason
        except TimeoutError:
            return Reason.DEPARTMENT_TIMEOUT
        except Exception:
            # Ours is the fault. Trying again is better than revocations that stop until somebody looks.
            _log.exception("Following authorizations failed")
            return Reason.INTERNAL
        return Reason.SHUTTING_DOWN

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

    def _heard(self) -> None:
        self._pause = _FIRST_PAUSE
        if not self.connected:
            self.connected, self._why = True, ""
            _log.info("Authorizations are followed")

    def _away(self, why: str) -> None:
        self.connected = False
        if why != self._why:
            # Once for each cause, not for each try.
            self._why = why
            _log.warning("Authorizations cannot be followed now", extra={"fields": {"reason": why}})
