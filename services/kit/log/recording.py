"""Recording: makes the log's entries of calls, and has them written before anything of a call leaves.

What calls have in common (masks, scopes, policies) is archived once, under a digest, and named by it; so an entry is a
few hundred bytes, and making one costs little beside writing it.
"""

import logging
import re
import secrets
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
from services.kit.log.facts import Facts, Granted, Subject
from services.kit.log.openings import MAX_SUBJECTS, SALT_BYTES, Draft
from services.kit.log.texts import Kind
from services.kit.policy.engine import LIMITS
from services.kit.policy.mask import ReadMask
from services.kit.policy.policies import PolicySet
from services.kit.rpc import Call, Rpc

_CODE: Final = re.compile(r"[A-Z][A-Z0-9-]{0,63}")
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
_log = logging.getLogger(__name__)


class Log(Protocol):
    """What recording needs of a log (`services.kit.log.nodelog.NodeLog`)."""

    async def append(self, draft: Draft, /) -> log_pb2.Receipt:
        """Log something durably; raises `Unavailable` LOG_UNAVAILABLE."""
        ...

    def text(self, kind: Kind, name: str, text: bytes, /) -> None:
        """Have a text archived, once, before whatever is appended from now on."""
        ...


class Recording:
    """Records the calls of one node."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._masks: dict[int, tuple[ReadMask, bytes]] = {}
        """Digests of masks by identity, each with its mask, so that no other gets the same one."""
        self._scopes: set[bytes] = set()
        self._policies: dict[str, bytes] = {}
        """Texts of the policies there were lately, by version."""

    async def answered(self, call: Call, rpc: Rpc, answer: bytes) -> bytes:
        """Log an answer; gives the receipt as the answer's last field. Raises `Unavailable` LOG_UNAVAILABLE."""
        salt = secrets.token_bytes(SALT_BYTES)
        receipt = await self._append(call, rpc, receipts.answer_digest(salt, answer), None)
        receipt.answer_salt = salt
        return wire.embedded(rpc.receipt, receipt.SerializeToString())

    async def refused(self, call: Call, rpc: Rpc, error: HutongError) -> None:
        """Log a refusal; raises `Unavailable` LOG_UNAVAILABLE."""
        await self._append(call, rpc, b"", error)

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

    async def _append(self, call: Call, rpc: Rpc, digest: bytes, error: HutongError | None) -> log_pb2.Receipt:
        try:
            return await self._log.append(self._draft(call, rpc, digest, error))
        except HutongError:
            raise
        except Exception:
            # Nobody may get an answer out of a mistake in here either.
            _log.exception("Call could not be logged", extra={"fields": {"rpc": rpc.method}})
            raise Unavailable(Reason.LOG_UNAVAILABLE, "the call cannot be logged now") from None

    def _draft(self, call: Call, rpc: Rpc, digest: bytes, error: HutongError | None) -> Draft:
        facts = call.facts
        caller, peer = (facts.caller or call.caller).spiffe_id, call.caller.spiffe_id
        entry = log_pb2.LogEntry(
            rpc=rpc.method,
            caller=caller,
            via="" if caller == peer else peer,
            query_id=facts.query_id if _ID.fullmatch(facts.query_id) else "",
            officer=facts.officer,
        )
        if error is None:
            entry.outcome = log_pb2.OUTCOME_ANSWERED
            entry.answer_digest = digest
        else:
            entry.outcome = log_pb2.OUTCOME_REFUSED
            entry.reason = error.reason
        if facts.grant is not None:
            self._authorized(entry, facts.grant)
        if error is None:
            return _committed(entry, facts.context, self._given(entry, facts))
        for given in facts.disclosures:
            # Decided, and then refused after all: of that nothing was given.
            entry.disclosures.add(record_type=given.record_type, mask_digest=self._digest(given.mask))
        return _committed(entry, facts.context, () if facts.subject is None else (facts.subject,))

    def _given(self, entry: log_pb2.LogEntry, facts: Facts) -> tuple[Subject, ...]:
        """Add what was given to an entry; gives whom it is about, in the order of their commitments."""
        subjects: dict[Subject, int] = {} if facts.subject is None else {facts.subject: 0}
        written = 0
        for given in facts.disclosures:
            digest = self._digest(given.mask)
            added = entry.disclosures.add(
                record_type=given.record_type, mask_digest=digest, rows=given.rows, withheld=given.withheld
            )
            for subject, rows in given.named.items():
                at = subjects.setdefault(subject, len(subjects))
                if at < MAX_SUBJECTS and written < _MOST_NAMED:
                    added.named.add(commitment=at, rows=rows)
                    written += 1
        return tuple(islice(subjects, _MOST_FOUND))

    def _authorized(self, entry: log_pb2.LogEntry, grant: Granted) -> None:
        digest = grant.scope_digest
        if digest not in self._scopes:
            self._log.text("scope", digest.hex(), grant.scope.text)
            if len(self._scopes) >= _MOST_SCOPES:
                self._scopes.clear()
            self._scopes.add(digest)
        entry.authorization_id = grant.authorization_id
        entry.scope_digest = digest
        entry.officer = grant.officer or entry.officer
        entry.emergency = grant.emergency

    def _digest(self, mask: ReadMask | None) -> bytes:
        """Name a mask by its digest; its text, and its policy's, are archived before the entry that names it.

        Nothing where no policy decided.
        """
        if mask is None:
            return b""
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
        self._masks[id(mask)] = mask, text.digest
        return text.digest


def jurisdiction_text(pack: Jurisdiction) -> bytes:
    """Write a jurisdiction pack for the archive: JSON, as `Jurisdiction.model_validate_json` reads it."""
    return pack.model_dump_json().encode()


def _committed(
    entry: log_pb2.LogEntry, context: exchange_pb2.RequestContext | None, subjects: tuple[Subject, ...]
) -> Draft:
    """Make a draft, with what was stated as far as it can be logged: of a refusal it may be anything."""
    if context is None:
        return Draft(entry, subjects)
    entry.purpose, entry.legal_basis = _code(context.purpose), _code(context.legal_basis)
    if not entry.authorization_id and _ID.fullmatch(context.authorization_id):
        entry.authorization_id = context.authorization_id
    return Draft(
        entry, subjects, context.case_ref[: LIMITS["case_ref"]], context.on_behalf_of[: LIMITS["on_behalf_of"]]
    )


@lru_cache(maxsize=1024)
def _code(text: str) -> str:
    return text if _CODE.fullmatch(text) else ""
