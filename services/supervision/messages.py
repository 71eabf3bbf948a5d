"""Authorizations as messages of the contract."""

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.supervision.books import Authorization
from services.supervision.events import Event
from services.supervision.state import State


def authorization(found: Authorization, state: State, *, history: bool = False) -> pb.Authorization:
    """Write an authorization as it stands, with its history where that is asked for."""
    made = pb.Authorization(
        authorization_id=found.id,
        scope=found.scope,
        scope_digest=found.digest,
        state=pb.AuthorizationState.Value(f"AUTHORIZATION_STATE_{state}"),
        rows_used=found.head.rows_used,
    )
    if found.standing.review_due is not None and not found.standing.reviewed:
        made.review_due.FromDatetime(found.standing.review_due)
    if history:
        made.events.extend(_event(*one) for one in zip(found.events, found.signatures, strict=True))
    return made


def _event(event: Event, signature: str) -> pb.AuthorizationEvent:
    made = pb.AuthorizationEvent(
        sequence=event.sequence,
        kind=event.kind.value,
        agency=event.by.agency,
        officer=event.by.pseudonym,
        reason_code=event.reason,
        signature=signature,
    )
    made.at.FromDatetime(event.at)
    return made
