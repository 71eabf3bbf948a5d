"""Takes rows off an authorization's quota before they are disclosed: what the service does not grant does not leave."""

import uuid
from typing import Final

from hutong.api.authorization.v1 import authorization_pb2
from services.kit.authorizations.registry import REASONS
from services.kit.client import Client
from services.kit.errors import DeadlineExceeded, HutongError, Reason, Unavailable
from services.kit.lines import traceparent

_RESERVE: Final = "/hutong.api.authorization.v1.AuthorizationService/ReserveRows"
_TIMEOUT: Final = 5.0
"""Seconds for one try."""


class Reservations:
    """The service of authorizations, asked for rows."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reserve(self, ticket: str, record_type: str, rows: int) -> None:
        """Take rows off the quota of the authorization that a ticket is for; none need not be asked for.

        Raises `ResourceExhausted` AUTHORIZATION_EXHAUSTED or AUTHORIZATION_RATE, `PermissionDenied` where it has ended,
        and `Unavailable` AUTHORIZATION_STATE_UNKNOWN where the service cannot be asked. It is asked twice under one
        id: of a first try whose answer was lost nobody knows whether it counted, and it counts once.
        """
        if not rows:
            return
        request = authorization_pb2.ReserveRowsRequest(
            reservation_id=str(uuid.uuid4()), ticket=ticket, rows=rows, record_type=record_type
        )
        try:
            try:
                await self._ask(request)
            except (Unavailable, DeadlineExceeded):
                await self._ask(request)
        except HutongError as error:
            if error.reason in REASONS:
                raise
            raise Unavailable(
                Reason.AUTHORIZATION_STATE_UNKNOWN, "the quota of the authorization cannot be counted now"
            ) from error

    async def _ask(self, request: authorization_pb2.ReserveRowsRequest) -> None:
        response = authorization_pb2.ReserveRowsResponse
        await self._client.unary(_RESERVE, request, response, timeout=_TIMEOUT, traceparent=traceparent())
