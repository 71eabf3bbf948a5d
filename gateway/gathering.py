"""What departments send, made into the sections of an answer: cut again, or saying why there is nothing.

Whatever goes wrong at a department becomes the status of its own sections.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from gateway import departments
from gateway.abroad import Errand, ForeignPart
from gateway.plan import AnyPart, Ask, Part, Plan
from gateway.zones import ZoneAnswer
from hutong.api.exchange.v1 import exchange_pb2
from services.kit import wire
from services.kit.authorizations.registry import REASONS
from services.kit.errors import DeadlineExceeded, HutongError, Reason, ResourceExhausted, Unavailable
from services.kit.rpc import Call
from services.kit.telemetry import ids

_log = logging.getLogger(__name__)

_PAGE_TOKENS: Final = (Reason.PAGE_TOKEN_INVALID, Reason.PAGE_TOKEN_MISMATCH)


Asked = Ask | Errand
"""What a department or another zone is asked."""

Outcome = departments.Outcome | ZoneAnswer
"""What came of it: sections, or the error in their place."""


class Gathering:
    """The sections of the answer to one plan, gathered as departments answer."""

    __slots__ = ("_call", "_left", "_parts", "done", "provenance", "rows", "sections")

    def __init__(self, plan: Plan, call: Call, done: "asyncio.Future[None]") -> None:
        """`done` is told when the last department has answered, or at once what makes the whole answer impossible."""
        self._call = call
        self._parts = plan.parts
        self._left = len(plan.asks) + len(plan.errands)
        self.done = done
        self.sections = plan.refused.copy()
        """Of each part its section, serialized; empty where it is not answered yet."""
        self.rows = [0] * len(plan.parts)
        """Of each part how many records are in it."""
        self.provenance: dict[str, Sequence[bytes]] = {errand.zone: () for errand in plan.errands}
        """Of each other zone who answered for it, serialized; nothing where what it sent had to be cut."""
        if not self._left:
            done.set_result(None)

    def told(self, ask: Asked, outcome: Outcome) -> None:
        """Take what a department or a zone says; nothing more once nobody waits for it."""
        if self.done.done():
            return
        try:
            self.put(ask, outcome)
        except Exception as error:
            self.done.set_exception(error)
            return
        self._left -= 1
        if not self._left:
            self.done.set_result(None)

    def put(self, ask: Asked, outcome: Outcome) -> None:
        """Put the sections of one department or zone in, from its response or from the error in its place.

        Raises `InvalidArgument` for a wrong page token: only who sealed one can tell.
        """
        if isinstance(outcome, HutongError):
            self._refused(ask, outcome)
        elif isinstance(ask, Errand):
            assert isinstance(outcome, ZoneAnswer), "what a zone answers with"  # noqa: S101 - by who is asked
            self._brought(ask, outcome)
        else:
            self._fetched(ask, outcome)

    def _refused(self, ask: Asked, error: HutongError) -> None:
        if error.reason in _PAGE_TOKENS and any(part.selection.page_token for part in ask.parts):
            # The mistake is the caller's.
            raise error
        for part in ask.parts:
            self._fail(part, error)

    def _fetched(self, ask: Ask, answer: Any) -> None:
        sections = answer.sections
        if len(sections) != len(ask.parts):
            self._refused(ask, Unavailable(Reason.DEPARTMENT_FAILED, "the department answered another question"))
            return
        for number, part in enumerate(ask.parts):
            self._cut(part, sections[number])

    def _brought(self, errand: Errand, answer: ZoneAnswer) -> None:
        whole = True
        for part, section in zip(errand.parts, answer.sections, strict=True):
            try:
                cut, self.rows[part.index] = part.cut(section)
                self.sections[part.index] = cut
                whole = whole and cut is section
            except HutongError as error:
                whole = False
                self._fail(part, error)
        if whole:
            self.provenance[errand.zone] = answer.provenance

    def _cut(self, part: Part, section: exchange_pb2.Section) -> None:
        try:
            self.sections[part.index], self.rows[part.index] = part.cut(section)
        except HutongError as error:
            self._fail(part, error)

    def _fail(self, part: AnyPart, error: HutongError) -> None:
        fields = {"department": part.agency, "reason": error.reason, **ids(self._call.traceparent)}
        if isinstance(part, ForeignPart):
            fields["zone"] = part.zone
        _log.warning("Department gave no answer", extra={"fields": fields})
        self.sections[part.index], self.rows[part.index] = _failed(part, error), 0

    def proven(self, number: int, zone: str = "") -> list[bytes]:
        """Write who answered for other zones, or for one of them, as fields of that number."""
        several = self.provenance.values() if not zone else [self.provenance.get(zone, ())]
        return [wire.embedded(number, each) for proofs in several for each in proofs]

    def fit(self, most: int) -> None:
        """Answers that fit one by one need not fit into one message: leave out the largest until they do."""
        sections = self.sections
        while sum(map(len, sections)) > most:
            largest = max(self._parts, key=lambda part: len(sections[part.index]))
            error = ResourceExhausted(Reason.ANSWER_TOO_LARGE, "ask for fewer types, fields or records at once")
            sections[largest.index], self.rows[largest.index] = _failed(largest, error), 0
            if isinstance(largest, ForeignPart):
                self.provenance[largest.zone] = ()


def _failed(part: AnyPart, error: HutongError) -> bytes:
    if isinstance(part, ForeignPart):
        return part.failed(error).SerializeToString()
    section = part.section()
    if isinstance(error, DeadlineExceeded):
        section.status = exchange_pb2.SECTION_STATUS_TIMEOUT
        section.reason = Reason.DEPARTMENT_TIMEOUT
    elif error.reason in REASONS:
        # The department checks for itself, and may have heard what this gateway has not.
        unknown = isinstance(error, Unavailable)
        section.status = exchange_pb2.SECTION_STATUS_UNAVAILABLE if unknown else exchange_pb2.SECTION_STATUS_DENIED
        section.reason = error.reason
    elif error.reason is Reason.QUOTA_EXCEEDED:
        section.status = exchange_pb2.SECTION_STATUS_DENIED
        section.reason = error.reason
    else:
        section.status = exchange_pb2.SECTION_STATUS_UNAVAILABLE
        known = (Reason.DEPARTMENT_UNREACHABLE, Reason.SHUTTING_DOWN, Reason.ANSWER_TOO_LARGE)
        section.reason = error.reason if error.reason in known else Reason.DEPARTMENT_FAILED
    return section.SerializeToString()
