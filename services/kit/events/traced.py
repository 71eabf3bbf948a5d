"""Events in traces: what a call began at the source goes on where the event that came of it is kept."""

import logging
import time
from typing import Final

from services.kit.events.seam import Batch, Event, EventSink
from services.kit.telemetry import Telemetry

KEEP: Final = "hutong.events/Keep"
"""Name of the spans, one for each event: those of a batch, which are kept together, are of as many traces."""

_log = logging.getLogger(__name__)


class Traced:
    """An `EventSink` that tells of each event in the trace which it came of, once it is kept for the first time."""

    def __init__(self, sink: EventSink, telemetry: Telemetry) -> None:
        """`telemetry` is of the node that keeps."""
        self._sink = sink
        self._telemetry = telemetry

    async def position(self, source: str) -> int:
        """See `EventSink`."""
        return await self._sink.position(source)

    async def keep(self, source: str, batch: Batch) -> tuple[Event, ...]:
        """See `EventSink`. An event that comes again leaves no second span."""
        began = time.time_ns()
        fresh = await self._sink.keep(source, batch)
        try:
            self._tell(source, fresh, began)
        except Exception:
            # They are kept, and whoever waits for them is told of them: that does not hang on a trace.
            _log.exception("Events were kept that no trace tells of", extra={"fields": {"source": source}})
        return fresh

    def _tell(self, source: str, fresh: tuple[Event, ...], began: int) -> None:
        for event in fresh:
            fields: dict[str, str | int] = {"source": source, "sequence": event.sequence, "kind": event.kind}
            with self._telemetry.resumed(event.traceparent, KEEP, began) as traced:
                if traced.span:
                    traced.span.set_attributes({f"hutong.event.{name}": value for name, value in fields.items()})
                _log.debug("An event was kept", extra={"fields": fields})

    async def rewind(self, source: str, after: int = 0) -> None:
        """See `EventSink`."""
        await self._sink.rewind(source, after)
