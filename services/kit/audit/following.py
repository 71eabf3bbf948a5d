"""Following what a log has given: that it left nothing out, and gave those entries that the seed draws."""

from collections.abc import Sequence
from itertools import zip_longest

from hutong.api.log.v1 import log_service_pb2
from services.kit.audit import sampling
from services.kit.audit.evidence import is_mask, read_entry
from services.kit.errors import FailedPrecondition, Reason
from services.kit.log.checkpoint import Checkpoint

Request = log_service_pb2.SampleDecisionsRequest
Response = log_service_pb2.SampleDecisionsResponse


def follow(request: Request, pages: Sequence[Response], checkpoint: Checkpoint) -> None:
    """Check that pages are what was asked for, from the first to the last, in the tree of a checkpoint.

    Where only a time was asked for, which indexes lie in it is the log's own word: its entries tell when they were
    made, but not those that it does not give. Raises `FailedPrecondition` LOG_TAMPERED.
    """
    if not pages:
        return
    start, end = pages[0].start, pages[0].end
    if any((page.start, page.end) != (start, end) or page.checkpoint != pages[0].checkpoint for page in pages):
        raise _tampered("pages of one question are of different trees")
    whole = not request.HasField("since") and not request.HasField("until")
    if not 0 <= start <= end <= checkpoint.size or (whole and (start, end) != (0, checkpoint.size)):
        raise _tampered("the log answers for other entries than were asked for")
    given = [decision for page in pages for decision in page.decisions]
    if request.draw:
        counted = {each.index: not is_mask(read_entry(each.entry)) for each in given}
        # What was not given counts: the draw ends there, and does not fit.
        expected = sampling.sample(request.seed, start, end, request.draw, lambda index: counted.get(index, True))
    else:
        expected = iter(range(start, end))
    complete = not pages[-1].next_page_token
    for index, decision in zip_longest(expected, given):
        if decision is None and not complete:
            return
        if decision is None or index != decision.index:
            raise _tampered("the log gives other entries than were asked for, or leaves some out")


def _tampered(what: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.LOG_TAMPERED, what)
