"""Entries are put together from serialized pieces: each is what Protocol Buffers makes of the whole."""

import asyncio
from dataclasses import dataclass
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.authorizations.scope import Scope
from services.kit.caller import Caller
from services.kit.errors import HutongError, InvalidArgument, Reason
from services.kit.log import receipts
from services.kit.log.facts import Given
from services.kit.log.openings import Sealed, check_opening
from services.kit.log.recording import Recording
from services.kit.log.texts import Kind
from services.kit.policy.engine import LIMITS
from services.kit.rpc import Call
from tests.audit.bed import FETCH

ANSWER = b"an answer"
PEERS = [Caller(f"spiffe://zone.example/{path}", *path.split("/")) for path in ("exchange/gateway", "taxation/refund")]
ID = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Grant:
    """An authorization as calls note it."""

    authorization_id: str
    scope: Scope
    scope_digest: bytes
    officer: str
    emergency: bool


class Kept:
    """Keeps what it is given to log."""

    def __init__(self) -> None:
        self.sealed: list[Sealed] = []
        self.texts: list[tuple[Kind, str, bytes]] = []

    async def record(self, sealed: Sealed, /) -> bytes:
        self.sealed.append(sealed)
        return log_pb2.Receipt(index=len(self.sealed), answer_salt=sealed.answer_salt).SerializeToString()

    def text(self, kind: Kind, name: str, text: bytes, /) -> None:
        self.texts.append((kind, name, text))


KEPT = Kept()
RECORDING = Recording(KEPT)
"""One for all examples, with all that it remembers of earlier ones."""

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CODES = st.one_of(st.sampled_from(["", "P-REBATE", "A" * 64, "A" * 65, "p-rebate", "P-REBATE\n"]), TEXTS)
IDS = st.one_of(st.sampled_from(["", ID, "01234567-89ab-cdef-0123-456789abcdef", ID + "0", ID.upper()]), TEXTS)
SUBJECTS = st.one_of(st.tuples(TEXTS, TEXTS), st.tuples(st.just("uscc"), st.integers(0, 20).map(str)))
CONTEXTS = st.builds(
    exchange_pb2.RequestContext,
    purpose=CODES,
    legal_basis=CODES,
    case_ref=st.one_of(TEXTS, st.text("äa", min_size=250, max_size=600)),
    on_behalf_of=TEXTS,
    authorization_id=IDS,
)
SCOPE = Scope.of(authorization_pb2.Scope(caller="taxation/refund", nonce=bytes(16)))
GRANTS = st.builds(Grant, st.sampled_from([ID, "A-0007"]), st.just(SCOPE), st.just(SCOPE.digest), TEXTS, st.booleans())
NAMED = st.dictionaries(SUBJECTS, st.integers(1, 1 << 40), max_size=4)
GIVEN = st.builds(
    Given,
    st.sampled_from(["", "customs.Declaration", "event"]),
    st.none(),
    st.integers(0, 1 << 40),
    st.booleans(),
    NAMED,
)


@given(
    st.permutations(PEERS),
    st.one_of(st.none(), CONTEXTS),
    st.one_of(st.none(), SUBJECTS),
    IDS,
    TEXTS,
    st.one_of(st.none(), GRANTS),
    st.lists(GIVEN, max_size=5),
    st.booleans(),
)
def test_an_entry_is_what_it_would_be_serialized_whole(
    callers: list[Caller],
    context: exchange_pb2.RequestContext | None,
    subject: tuple[str, str] | None,
    query_id: str,
    officer: str,
    grant: Grant | None,
    disclosures: list[Given],
    answered: bool,
) -> None:
    call = Call(FETCH.method, callers[0], b"", None)
    facts = call.facts
    if context is not None:
        facts.asked(callers[1], context, subject, query_id)
    facts.about(subject)
    facts.acted(officer)
    facts.granted(grant)
    facts.disclosures.extend(disclosures)
    error = None if answered else InvalidArgument(Reason.PURPOSE_UNKNOWN, "no")
    sealed, receipt = record(call, error)

    entry = log_pb2.LogEntry.FromString(sealed.entry)
    assert entry.SerializeToString(deterministic=True) == sealed.entry
    opening = log_pb2.Opening.FromString(sealed.opening)
    assert opening.SerializeToString(deterministic=True) == sealed.opening
    if sealed.opening:
        check_opening(entry, opening)
    stated = context or exchange_pb2.RequestContext()
    assert (opening.case_ref, opening.on_behalf_of) == (stated.case_ref[: LIMITS["case_ref"]], stated.on_behalf_of)
    about = [subject] if subject else []
    if answered:
        about += [named for each in disclosures for named in each.named]
        assert receipt.answer_salt == sealed.answer_salt
    about = list(dict.fromkeys(about))
    assert list(opening.subjects) == [f"{scheme}:{value}" for scheme, value in about]

    relied_on = stated.authorization_id if is_id(stated.authorization_id) else ""
    if grant is not None:
        relied_on = grant.authorization_id
        assert ("scope", SCOPE.digest.hex(), SCOPE.text) in KEPT.texts
    expected = log_pb2.LogEntry(
        rpc=FETCH.method,
        caller=callers[0 if context is None else 1].spiffe_id,
        via="" if context is None else callers[0].spiffe_id,
        purpose=stated.purpose if is_code(stated.purpose) else "",
        legal_basis=stated.legal_basis if is_code(stated.legal_basis) else "",
        authorization_id=relied_on,
        officer=(grant.officer if grant else "") or officer,
        outcome=log_pb2.OUTCOME_ANSWERED if answered else log_pb2.OUTCOME_REFUSED,
        reason="" if answered else "PURPOSE_UNKNOWN",
        query_id=query_id if context is not None and is_id(query_id) else "",
        emergency=grant is not None and grant.emergency,
        scope_digest=grant.scope_digest if grant else b"",
        answer_digest=sha256(sealed.answer_salt + ANSWER).digest() if answered else b"",
        subject_commitments=entry.subject_commitments,
        case_commitment=entry.case_commitment,
        behalf_commitment=entry.behalf_commitment,
    )
    for each in disclosures:
        made = expected.disclosures.add(record_type=each.record_type)
        if answered:
            made.rows, made.withheld = each.rows, each.withheld
            for named, rows in each.named.items():
                made.named.add(commitment=about.index(named), rows=rows)
    assert entry == expected


def record(call: Call, error: HutongError | None) -> tuple[Sealed, log_pb2.Receipt]:
    """Record a call; gives what the log was given, and the receipt that the answer got."""
    if error is not None:
        asyncio.run(RECORDING.refused(call, FETCH, error))
        return KEPT.sealed[-1], log_pb2.Receipt()
    field = asyncio.run(RECORDING.answered(call, FETCH, ANSWER))
    return KEPT.sealed[-1], receipts.split(field, record_source_pb2.FetchResponse).receipt


def is_code(text: str) -> bool:
    return 0 < len(text) <= 64 and "A" <= text[0] <= "Z" and set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")


def is_id(text: str) -> bool:
    digits = text.replace("-", "")
    shape = [len(part) for part in text.split("-")]
    return set(digits) <= set("0123456789abcdef") and shape in ([32], [8, 4, 4, 4, 12])
