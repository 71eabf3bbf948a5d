"""What departments send, made into the sections of an answer: cut again, or saying why there is nothing.

Whatever goes wrong at a department becomes the status of its own sections.
"""

import asyncio
import logging
from typing import Any, Final

from gateway.departments import Outcome
from gateway.plan import Ask, Part, Plan
from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2
from services.kit.authorizations.registry import REASONS
from services.kit.errors import DeadlineExceeded, HutongError, Reason, ResourceExhausted, Unavailable
from services.kit.rpc import Call
from services.kit.telemetry import ids

_log = logging.getLogger(__name__)

_PAGE_TOKENS: Final = (Reason.PAGE_TOKEN_INVALID, Reason.PAGE_TOKEN_MISMATCH)


class Gathering:
    """The sections of the answer to one plan, gathered as departments answer."""

    __slots__ = ("_call", "_left", "_parts", "done", "rows", "sections")

    def __init__(self, plan: Plan, call: Call, done: "asyncio.Future[None]") -> None:
        """`done` is told when the last department has answered, or at once what makes the whole answer impossible."""
        self._call = call
        self._parts = plan.parts
        self._left = len(plan.asks)
        self.done = done
        self.sections = plan.refused.copy()
        """Of each part its section, serialized; empty where it is not answered yet."""
        self.rows = [0] * len(plan.parts)
        """Of each part how many records are in it."""
        if not self._left:
            done.set_result(None)

    def told(self, ask: Ask, outcome: Outcome) -> None:
        """Take what a department says; nothing more once nobody waits for it."""
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

    def put(self, ask: Ask, outcome: Outcome) -> None:
        """Put one department's sections in, from its response or from the error in its place.

        Raises `InvalidArgument` for a wrong page token: only the department that sealed one can tell.
        """
        if isinstance(outcome, record_source_pb2.FetchResponse):
            sections: Any = outcome.sections
            if len(sections) == len(ask.parts):
                for number, part in enumerate(ask.parts):
                    self._cut(part, sections[number])
                return
            outcome = Unavailable(Reason.DEPARTMENT_FAILED, "the department answered another question")
        if outcome.reason in _PAGE_TOKENS and any(part.selection.page_token for part in ask.parts):
            # The mistake is the caller's.
            raise outcome
        for part in ask.parts:
            self._fail(part, outcome)

    def _cut(self, part: Part, section: exchange_pb2.Section) -> None:
        try:
            self.sections[part.index], self.rows[part.index] = part.cut(section)
        except HutongError as error:
            self._fail(part, error)

    def _fail(self, part: Part, error: HutongError) -> None:
        agency = part.mask.record_type.owner
        fields = {"department": agency, "reason": error.reason, **ids(self._call.traceparent)}
        _log.warning("Department gave no answer", extra={"fields": fields})
        self.sections[part.index], self.rows[part.index] = _failed(part, error), 0

    def fit(self, most: int) -> None:
        """Answers that fit one by one need not fit into one message: leave out the largest until they do."""
        sections = self.sections
        while sum(map(len, sections)) > most:
            largest = max(self._parts, key=lambda part: len(sections[part.index]))
            error = ResourceExhausted(Reason.ANSWER_TOO_LARGE, "ask for fewer types, fields or records at once")
            sections[largest.index], self.rows[largest.index] = _failed(largest, error), 0


def _failed(part: Part, error: HutongError) -> bytes:
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
