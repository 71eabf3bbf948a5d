"""A question whose answer is streamed: about one subject after another, and page after page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.errors import InvalidArgument, PermissionDenied, Reason

MAX_SUBJECTS: Final = 1000
"""Most further subjects of one question."""

MAX_PAGES: Final = 10_000
"""Most pages of one subject; the last has the token to go on with, as every page has."""


_ENDED: Final = frozenset({Reason.AUTHORIZATION_REVOKED, Reason.AUTHORIZATION_EXPIRED})


@dataclass(frozen=True, slots=True)
class Turn:
    """The question about one subject, or its next page."""

    question: federation_pb2.QueryRequest
    about: bytes
    """Field of the answer that names the subject, serialized; empty where only one was asked about."""
    page: int = 1

    def next_page(self, sections: Sequence[bytes]) -> "Turn | None":
        """Give the question for what these sections, in any order, have more of; None where that is nothing."""
        if self.page >= MAX_PAGES:
            return None
        tokens = {which: token for which, token in map(_next, sections) if token}
        following = _with_tokens(self.question, tokens)
        return Turn(following, self.about, self.page + 1) if following.selections else None


def turns(request: federation_pb2.StreamQueryRequest) -> list[Turn]:
    """Divide a question by subject, in the order they are named; raises `InvalidArgument` for too many."""
    if len(request.subjects) > MAX_SUBJECTS:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, f"at most {MAX_SUBJECTS} subjects in a question")
    if not request.subjects:
        return [Turn(request.query, b"")]
    first = [request.query.subject] if request.query.HasField("subject") else []
    return [_about(request.query, subject) for subject in (*first, *request.subjects)]


def check_ended(section: bytes) -> None:
    """Check that a section under an authorization does not say that this has ended; raises `PermissionDenied`.

    A department may hear of it before the gateway does: then the stream ends here, and not as though it were complete.
    """
    reason = exchange_pb2.Section.FromString(section).reason
    if reason in _ENDED:
        raise PermissionDenied(Reason(reason), "the authorization has ended")


def _about(query: federation_pb2.QueryRequest, subject: common_pb2.SubjectId) -> Turn:
    question = federation_pb2.QueryRequest()
    question.CopyFrom(query)
    question.subject.CopyFrom(subject)
    return Turn(question, federation_pb2.StreamQueryResponse(subject=subject).SerializeToString())


def _next(section: bytes) -> tuple[tuple[str, str], str]:
    read = exchange_pb2.Section.FromString(section)
    return (read.zone, read.record_type), read.next_page_token


def _with_tokens(
    query: federation_pb2.QueryRequest, tokens: Mapping[tuple[str, str], str]
) -> federation_pb2.QueryRequest:
    question = federation_pb2.QueryRequest()
    question.CopyFrom(query)
    del question.selections[:]
    for selection in query.selections:
        token = tokens.get((selection.zone, selection.record_type), "")
        # A department that gives the same page for ever is asked no more.
        if token and token != selection.page_token:
            following = question.selections.add()
            following.CopyFrom(selection)
            following.page_token = token
    return question
