"""Recording: makes the log's entries of calls, and has them written before anything of a call leaves.

What calls have in common (masks, scopes, policies) is archived once, under a digest, and named by it; so an entry is a
few hundred bytes. It is put together from serialized pieces, most of which are those of earlier entries.
"""

import logging
import re
from collections.abc import Awaitable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from typing import Final, Protocol

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.log.v1 import log_pb2
from services.kit import wire
from services.kit.errors import HutongError, Reason, Unavailable
from services.kit.jurisdiction import Jurisdiction
from services.kit.log import masks, receipts
from services.kit.log.facts import Facts, Given, Granted, Subject
from services.kit.log.openings import MAX_SUBJECTS, Sealed, commit, findable, new_salt
from services.kit.log.texts import Kind
from services.kit.policy.engine import LIMITS
from services.kit.policy.mask import ReadMask
from services.kit.policy.policies import PolicySet
from services.kit.rpc import Call, Rpc

_MOST_CODE: Final = 64
_CODE: Final = re.compile(rf"[A-Z][A-Z0-9-]{{0,{_MOST_CODE - 1}}}")
"""How codes are written. Whatever else a caller states in place of one is not logged: it may say anything of anyone."""
_ID: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""How the ids look that this mesh makes; as codes, others are not logged."""
_MOST_NAMED: Final = 2048
"""Most times that one entry says of a subject which records name it; an entry has at most 65,535 bytes."""
_MOST_FOUND: Final = 4096
"""Most subjects that one entry can be found by."""
_MOST_MASKS: Final = 8192
_MOST_SCOPES: Final = 1024
_MOST_POLICIES: Final = 64
_NO_CONTEXT: Final = exchange_pb2.RequestContext()
_DIGEST: Final = bytes((log_pb2.LogEntry.ANSWER_DIGEST_FIELD_NUMBER << 3 | 2, sha256().digest_size))
_QUERY: Final = wire.varint(log_pb2.LogEntry.QUERY_ID_FIELD_NUMBER << 3 | 2)
"""What stands before these fields in a serialized entry."""
_ANSWERED: Final = log_pb2.LogEntry(outcome=log_pb2.OUTCOME_ANSWERED).SerializeToString()
_ABROAD: Final = log_pb2.LogEntry(abroad=True).SerializeToString()
_log = logging.getLogger(__name__)


class Log(Protocol):
    """What recording needs of a log (`services.kit.log.nodelog.NodeLog`)."""

    def record(self, sealed: Sealed, /) -> Awaitable[bytes]:
        """Log an entry durably; gives the receipt, serialized. Raises `Unavailable` LOG_UNAVAILABLE."""
        ...

    def text(self, kind: Kind, name: str, text: bytes, /) -> None:
        """Have a text archived, once, before whatever is appended from now on."""
        ...


class Recording:
    """Records the calls of one node."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._masks: dict[int, tuple[ReadMask, bytes]] = {}
        """What disclosures under masks begin with, by identity; each with its mask, so that no other gets the same."""
        self._scopes: set[bytes] = set()
        self._policies: dict[str, bytes] = {}
        """Texts of the policies there were lately, by version."""

    async def answered(self, call: Call, rpc: Rpc, answer: bytes) -> bytes:
        """Log an answer; gives the receipt as the answer's last field. Raises `Unavailable` LOG_UNAVAILABLE."""
        salt = new_salt()
        receipt = await self._record(call, rpc, None, receipts.answer_digest(salt, answer), salt)
        return wire.embedded(rpc.receipt, receipt)

    async def refused(self, call: Call, rpc: Rpc, error: HutongError) -> None:
        """Log a refusal; raises `Unavailable` LOG_UNAVAILABLE."""
        await self._record(call, rpc, error)

    def policies(self, policies: PolicySet) -> None:
        """Archive policies that come into force, each agency's under its version."""
        for agency in policies.agencies.values():
            self._policies[agency.version] = agency.text
            # Where too much waits already: again when a mask first names it.
            with suppress(Unavailable):
                self._log.text("policy", agency.version, agency.text)
        while len(self._policies) > _MOST_POLICIES:
            del self._policies[next(iter(self._policies))]

    def jurisdiction(self, pack: Jurisdiction) -> None:
        """Archive the pack that policies are checked with, under the SHA-256 of its text."""
        text = jurisdiction_text(pack)
        self._log.text("jurisdiction", sha256(text).hexdigest(), text)

    async def _record(
        self, call: Call, rpc: Rpc, error: HutongError | None, digest: bytes = b"", salt: bytes = b""
    ) -> bytes:
        try:
            return await self._log.record(self._sealed(call, rpc, error, digest, salt))
        except HutongError:
            raise
        except Exception:
            # Nobody may get an answer out of a mistake in here either.
            _log.exception("Call could not be logged", extra={"fields": {"rpc": rpc.method}})
            raise Unavailable(Reason.LOG_UNAVAILABLE, "the call cannot be logged now") from None

    def _sealed(self, call: Call, rpc: Rpc, error: HutongError | None, digest: bytes, salt: bytes) -> Sealed:
        """Make the entry of a call: pieces in the order of an entry's fields, so that it is as if serialized whole."""
        facts = call.facts
        original, peer = facts.caller or call.caller, call.caller.spiffe_id
        caller = original.spiffe_id
        context = facts.context or _NO_CONTEXT
        # What was stated is logged as far as it can be: of a refusal it may be anything.
        purpose, basis = context.purpose[: _MOST_CODE + 1], context.legal_basis[: _MOST_CODE + 1]
        case_ref, on_behalf_of = context.case_ref[: LIMITS["case_ref"]], context.on_behalf_of[: LIMITS["on_behalf_of"]]
        if error is None:
            subjects, given = self._given(facts)
        else:
            # Decided, and then refused after all: of that nothing was given.
            subjects = () if facts.subject is None else (facts.subject,)
            given = b"".join(wire.embedded(14, self._disclosure(each)) for each in facts.disclosures)
        committed = commit(subjects, case_ref, on_behalf_of)
        entry = (
            _head(rpc.method, caller, "" if caller == peer else peer, purpose, basis),
            committed.stated,
            self._outcome(facts, context, error),
            committed.subjects,
            given,
            _DIGEST + digest if digest else b"",
            _tail(facts),
            _ABROAD if original.zone else b"",
        )
        return Sealed(b"".join(entry), committed.opening, findable(subjects), salt)

    def _outcome(self, facts: Facts, context: exchange_pb2.RequestContext, error: HutongError | None) -> bytes:
        """Write how it came out and what it relied on: fields 9 to 12."""
        grant = facts.grant
        if grant is not None:
            self._archive(grant)
        stated = grant.authorization_id if grant is not None else context.authorization_id
        officer = (grant.officer if grant is not None else "") or facts.officer
        if error is None and not stated and not officer:
            return _ANSWERED
        return log_pb2.LogEntry(
            authorization_id=stated if grant is not None or _ID.fullmatch(stated) else "",
            officer=officer,
            outcome=log_pb2.OUTCOME_ANSWERED if error is None else log_pb2.OUTCOME_REFUSED,
            reason="" if error is None else error.reason,
        ).SerializeToString()

    def _given(self, facts: Facts) -> tuple[tuple[Subject, ...], bytes]:
        """Write what was given: field 14; with whom it is about, in the order of their commitments."""
        subjects: dict[Subject, int] = {} if facts.subject is None else {facts.subject: 0}
        written = 0
        disclosures = b""
        for given in facts.disclosures:
            disclosure = self._disclosure(given) + _counts(given.rows, given.withheld)
            for subject, rows in given.named.items():
                at = subjects.setdefault(subject, len(subjects))
                if at < MAX_SUBJECTS and written < _MOST_NAMED:
                    disclosure += _named(at, rows)
                    written += 1
            disclosures += wire.embedded(14, disclosure)
        return tuple(islice(subjects, _MOST_FOUND)), disclosures

    def _archive(self, grant: Granted) -> None:
        """Have the scope archived that an entry is about to name."""
        digest = grant.scope_digest
        if digest not in self._scopes:
            self._log.text("scope", digest.hex(), grant.scope.text)
            if len(self._scopes) >= _MOST_SCOPES:
                self._scopes.clear()
            self._scopes.add(digest)

    def _disclosure(self, given: Given) -> bytes:
        """Begin a disclosure: the record type, and the digest that names the mask, where a policy decided.

        The mask's text, and its policy's, are archived before the entry that names it.
        """
        mask = given.mask
        if mask is None:
            return log_pb2.Disclosure(record_type=given.record_type).SerializeToString()
        found = self._masks.get(id(mask))
        if found is not None:
            return found[1]
        text = masks.text_of(mask)
        policy = self._policies.get(mask.version)
        if policy is not None:
            self._log.text("policy", mask.version, policy)
        self._log.text("mask", text.digest.hex(), text.SerializeToString())
        if len(self._masks) >= _MOST_MASKS:
            self._masks.clear()
        begun = log_pb2.Disclosure(record_type=given.record_type, mask_digest=text.digest).SerializeToString()
        self._masks[id(mask)] = mask, begun
        return begun


def jurisdiction_text(pack: Jurisdiction) -> bytes:
    """Write a jurisdiction pack for the archive: JSON, as `Jurisdiction.model_validate_json` reads it."""
    return pack.model_dump_json().encode()


@lru_cache(maxsize=4096)
def _head(rpc: str, caller: str, via: str, purpose: str, legal_basis: str) -> bytes:
    """Write what many entries begin with: fields 2 to 6. Codes that are none are left out."""
    return log_pb2.LogEntry(
        rpc=rpc, caller=caller, via=via, purpose=_code(purpose), legal_basis=_code(legal_basis)
    ).SerializeToString()


def _code(text: str) -> str:
    return text if _CODE.fullmatch(text) else ""


@lru_cache(maxsize=4096)
def _counts(rows: int, withheld: bool) -> bytes:
    """Write how many records were given: fields 3 and 4 of a disclosure."""
    return log_pb2.Disclosure(rows=rows, withheld=withheld).SerializeToString()


@lru_cache(maxsize=4096)
def _named(commitment: int, rows: int) -> bytes:
    """Write how many records name a subject: field 5 of a disclosure."""
    return wire.embedded(5, log_pb2.Named(commitment=commitment, rows=rows).SerializeToString())


def _tail(facts: Facts) -> bytes:
    """Write the federated query it is part of, and the grant: fields 16, 18 and 19."""
    query_id = facts.query_id if _ID.fullmatch(facts.query_id) else ""
    grant = facts.grant
    if grant is None:
        return _QUERY + bytes((len(query_id),)) + query_id.encode() if query_id else b""
    return log_pb2.LogEntry(
        query_id=query_id, emergency=grant.emergency, scope_digest=grant.scope_digest
    ).SerializeToString()
