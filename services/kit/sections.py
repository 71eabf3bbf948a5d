"""Sections of an answer, from the decisions of a mask: what both the department and the gateway begin with."""

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import PermissionDenied, Reason
from services.kit.policy.mask import ReadMask


def begin(mask: ReadMask) -> exchange_pb2.Section:
    """Write the section of a mask, without records.

    Its status is what the answer can be at best: OK, PARTIAL where some field is refused or transformed, DENIED where
    nothing is given.
    """
    section = exchange_pb2.Section(
        record_type=mask.record_type.name,
        agency=mask.record_type.owner,
        decisions=mask.decisions,
        policy_version=mask.version,
    )
    if not mask.grants:
        section.status = exchange_pb2.SECTION_STATUS_DENIED
        section.reason = refusal(mask)
    elif all(d.verdict == exchange_pb2.VERDICT_CLEAR for d in mask.decisions):
        section.status = exchange_pb2.SECTION_STATUS_OK
    else:
        section.status = exchange_pb2.SECTION_STATUS_PARTIAL
    return section


def refusal(mask: ReadMask) -> Reason:
    """Say in one word why a mask gives nothing: the reason its fields share, or the one a caller can act on."""
    reasons = {decision.reason for decision in mask.decisions}
    for reason in (Reason.BASIS_MISMATCH, Reason.FORBIDDEN, Reason.DECISION_FAILED):
        if reason in reasons:
            return reason
    return Reason.NO_PERMIT


def require_any(mask: ReadMask) -> None:
    """Raise `PermissionDenied` where a mask gives nothing at all, whether or not there are records."""
    if not mask.grants:
        raise PermissionDenied(refusal(mask), f"nothing of {mask.record_type.name} is open to you for this")
