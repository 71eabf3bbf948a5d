"""What requests say, checked: nothing of a request goes further unread."""

import re
import uuid
from typing import Final

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.kit.authorizations.tickets import LIMIT
from services.kit.errors import InvalidArgument, PermissionDenied, Reason
from services.supervision import rules
from services.supervision.quota import Wanted
from services.supervision.scope import MAX_ROWS
from services.supervision.state import State

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,63}")
_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def request_id(text: str) -> str:
    """Check the id of a request; raises `InvalidArgument` REQUEST_ID_INVALID unless it is a UUID as one writes it."""
    try:
        if str(uuid.UUID(text)) == text:
            return text
    except ValueError:
        pass
    raise InvalidArgument(Reason.REQUEST_ID_INVALID, "a request id is a UUID in small letters", field="request_id")


def authorization_id(text: str) -> str:
    """Check the id of an authorization; raises `NotFound`, since there is none with an id that is none."""
    if not _ID.fullmatch(text):
        raise rules.unknown()
    return text


def reason(text: str) -> str:
    """Check a reason's code; raises `InvalidArgument` REASON_MISSING."""
    if not _CODE.fullmatch(text):
        message = "give the reason as a code, in capitals: CASE_CLOSED"
        raise InvalidArgument(Reason.REASON_MISSING, message, field="reason_code")
    return text


def state(number: int) -> State | None:
    """Read which state is asked for; None for all. Raises `InvalidArgument` for one there is not."""
    found = pb.AuthorizationState.DESCRIPTOR.values_by_number.get(number)
    if found is None:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, f"{number} is no state", field="state")
    return State(found.name.removeprefix("AUTHORIZATION_STATE_")) if number else None


def wanted(request: pb.ReserveRowsRequest) -> Wanted:
    """Read a reservation; raises `InvalidArgument`, or `PermissionDenied` for what is too long to be a ticket."""
    if len(request.ticket) > LIMIT:
        raise PermissionDenied(Reason.TICKET_INVALID, "the ticket does not stand")
    if not _ID.fullmatch(request.reservation_id):
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "say which reservation this is", field="reservation_id")
    if not 0 <= request.rows <= MAX_ROWS:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "say how many rows", field="rows")
    return Wanted(request.reservation_id, request.rows, request.record_type)
