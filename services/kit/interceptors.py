"""The interceptors every server has, in `rpc.ORDER`; `telemetry.Trace` is the outermost, the rest is here."""

import logging
import time
import uuid
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from services.kit.access import AccessList
from services.kit.errors import DeadlineExceeded, HutongError, Internal, Reason
from services.kit.rpc import Call, Rpc, Shape
from services.kit.telemetry import trace_id

_log = logging.getLogger(__name__)
_NOTHING = nullcontext()
"""For what only opens: there is nothing to close."""


class Access:
    """Lets a caller through only where the access list names it for this rpc."""

    name = "access"

    def __init__(self, access: AccessList) -> None:
        self._access = access

    def __call__(self, call: Call, rpc: Rpc, /) -> AbstractContextManager[None]:
        """Check before anything of the request is parsed."""
        self._access.check(rpc.method, call.caller)
        return _NOTHING


class Errors:
    """Turns what nobody expected into INTERNAL with an id; the log line with that id has everything."""

    name = "errors"

    @contextmanager
    def __call__(self, call: Call, rpc: Rpc, /) -> Generator[None]:
        """Surround one call."""
        try:
            yield
        except HutongError:
            raise
        except Exception as error:
            incident = uuid.uuid4().hex
            fields = {"incident": incident, "rpc": rpc.method, "trace_id": trace_id(call.traceparent)}
            _log.exception("Call failed unexpectedly", extra={"fields": fields})
            raise Internal(Reason.INTERNAL, f"internal error {incident}", incident=incident) from error


class Context:
    """Bounds the deadline: a unary call has one, and none longer than the node grants."""

    name = "context"

    def __init__(self, longest: float) -> None:
        """`longest` is in seconds."""
        self._longest = longest

    def __call__(self, call: Call, rpc: Rpc, /) -> AbstractContextManager[None]:
        """Set the deadline; raises `DeadlineExceeded` where it has passed already."""
        now = time.monotonic()
        if call.deadline is not None and call.deadline <= now:
            raise DeadlineExceeded(Reason.DEADLINE_TOO_SHORT, "the deadline had passed when the call arrived")
        if rpc.shape is Shape.UNARY:
            call.deadline = min(call.deadline or now + self._longest, now + self._longest)
        return _NOTHING
