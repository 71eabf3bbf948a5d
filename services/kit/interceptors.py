"""What every server has around its rpcs, beside traces (`telemetry.Trace`) and the log."""

import logging
import time
import uuid

from services.kit.access import AccessList
from services.kit.errors import DeadlineExceeded, HutongError, Internal, Reason
from services.kit.rpc import Call, Rpc, Shape
from services.kit.telemetry import ids

_log = logging.getLogger(__name__)


class Access:
    """Lets a caller through only where the access list names it for this rpc."""

    def __init__(self, access: AccessList) -> None:
        self._access = access

    def __call__(self, call: Call, rpc: Rpc, /) -> None:
        """Check before anything of the request is parsed; raises `PermissionDenied` CALLER_NOT_LISTED."""
        self._access.check(rpc.method, call.caller)


class Errors:
    """Turns what nobody expected into INTERNAL with an id; the log line with that id has everything."""

    def __call__(self, error: Exception, call: Call, rpc: Rpc, /) -> HutongError:
        """Give the error that leaves."""
        incident = uuid.uuid4().hex
        fields = {"incident": incident, "rpc": rpc.method, **ids(call.traceparent)}
        _log.error("Call failed unexpectedly", exc_info=error, extra={"fields": fields})
        return Internal(Reason.INTERNAL, f"internal error {incident}", incident=incident)


class Context:
    """Bounds the deadline: a unary call has one, and none longer than the node grants."""

    def __init__(self, longest: float) -> None:
        """`longest` is in seconds."""
        self._longest = longest

    def __call__(self, call: Call, rpc: Rpc, /) -> None:
        """Set the deadline; raises `DeadlineExceeded` where it has passed already."""
        now = time.monotonic()
        if call.deadline is not None and call.deadline <= now:
            raise DeadlineExceeded(Reason.DEADLINE_TOO_SHORT, "the deadline had passed when the call arrived")
        latest = now + self._longest
        if rpc.shape is Shape.UNARY and (call.deadline is None or call.deadline > latest):
            call.deadline = latest
