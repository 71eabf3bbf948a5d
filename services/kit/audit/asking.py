"""The question behind an entry of a log, put together again: who asked what, why, and under which authorization."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from certs.errors import CertificateError
from certs.spiffe import SpiffeId
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.audit.archive import Archive, Missing
from services.kit.audit.evidence import read_entry
from services.kit.authorizations.scope import Scope
from services.kit.caller import Caller
from services.kit.log import masks
from services.kit.policy.diffing import Answers, Asked

_OUTSIDE = "AUTHORIZATION_SCOPE"


def scope_of(entry: log_pb2.LogEntry, archive: Archive) -> Scope | None:
    """Get the scope of the authorization that an entry relied on; None where there was none, or it was not verified.

    Raises `Missing`, or `FailedPrecondition` LOG_TAMPERED.
    """
    return archive.scope(entry.scope_digest) if entry.scope_digest else None


def asked(
    entry: log_pb2.LogEntry,
    opening: log_pb2.Opening | None,
    scope: Scope | None,
    record_type: str,
    fields: tuple[str, ...],
) -> Asked:
    """Put a question together, of one record type; raises `Missing` where the caller's name cannot be read."""
    try:
        identity = SpiffeId.parse(entry.caller)
        caller = Caller.abroad(identity) if entry.abroad else Caller.of(identity)
    except CertificateError:
        raise Missing("the entry names no caller of a zone") from None
    return Asked(
        caller=caller,
        purpose=entry.purpose,
        legal_basis=entry.legal_basis,
        record_type=record_type,
        fields=fields,
        case_ref=_case(entry, opening, scope),
        on_behalf_of=_opened(entry.behalf_commitment, opening.on_behalf_of if opening else None),
        authorization=scope.authorized(entry.authorization_id) if scope else None,
    )


def answers(decision: log_service_pb2.Decision, entry: log_pb2.LogEntry, archive: Archive) -> Iterator[Answers]:
    """List what was asked in one entry, once for each record type.

    Fields that only the authorization kept back are left out: no policy opens them. Raises `Missing`, or
    `FailedPrecondition` LOG_TAMPERED.
    """
    opening = decision.opening if decision.HasField("opening") else None
    scope = scope_of(entry, archive)
    for each in entry.disclosures:
        if each.mask_digest:
            text = archive.mask(each.mask_digest)
            fields = tuple(made.field for made in masks.decisions_of(text) if not _outside(made))
            yield Answers(asked(entry, opening, scope, text.record_type, fields), 1)


def questions(
    decisions: Iterable[log_service_pb2.Decision], archive: Archive
) -> tuple[Mapping[Asked, int], Mapping[str, int]]:
    """Count the questions behind entries, and those that cannot be put together again, by why.

    Nothing is proven here. Raises `FailedPrecondition` LOG_TAMPERED where a text is not what it is called.
    """
    found: Counter[Asked] = Counter()
    left_out: Counter[str] = Counter()
    for decision in decisions:
        entry = read_entry(decision.entry)
        try:
            found.update(each.asked for each in answers(decision, entry, archive))
        except Missing as missing:
            left_out[str(missing)] += 1
    return found, left_out


def _outside(decision: exchange_pb2.FieldDecision) -> bool:
    return decision.reason == _OUTSIDE


def _case(entry: log_pb2.LogEntry, opening: log_pb2.Opening | None, scope: Scope | None) -> str | None:
    case = _opened(entry.case_commitment, opening.case_ref if opening else None)
    # Under an authorization only its own case may be stated: where the opening was erased, the scope remembers it.
    return scope.case_ref if case is None and scope else case


def _opened(commitment: bytes, text: str | None) -> str | None:
    return text if commitment else ""
