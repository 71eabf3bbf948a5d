"""What the node's own log tells of authorizations: an older copy of the store would undo revocations, and say nothing.

Store and log are both the node's, but they lie apart; and whoever puts back an older log as well is noticed by its
witnesses.
"""

from collections.abc import Mapping
from typing import Final

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.log.nodelog import NodeLog
from services.supervision.books import Act, act
from services.supervision.events import Kind

NEWEST: Final = 200_000
"""How far back the log is read at the start: what is older has long ended."""

_AT_ONCE: Final = 4096
_SERVICE: Final = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"].full_name
_KINDS: Final[Mapping[str, Kind]] = {
    f"/{_SERVICE}/ApproveAuthorization": Kind.APPROVED,
    f"/{_SERVICE}/RejectAuthorization": Kind.REJECTED,
    f"/{_SERVICE}/RevokeAuthorization": Kind.REVOKED,
    f"/{_SERVICE}/ReviewAuthorization": Kind.REVIEWED,
}


async def acts(log: NodeLog, newest: int = NEWEST) -> dict[str, frozenset[Act]]:
    """Collect the acts that the log has as done, by authorization."""
    found: dict[str, set[Act]] = {}
    for start in range(max(0, log.size - newest), log.size, _AT_ONCE):
        for one in await log.entries(start, _AT_ONCE):
            entry = one.entry
            kind = _KINDS.get(entry.rpc)
            if kind is not None and entry.outcome == log_pb2.OUTCOME_ANSWERED:
                found.setdefault(entry.authorization_id, set()).add(act(kind, entry.officer))
    return {authorization_id: frozenset(several) for authorization_id, several in found.items()}
