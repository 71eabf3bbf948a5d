"""A stream under an authorization that has ended at a department does not end as though it were complete."""

import pytest

from gateway import streaming
from hutong.api.exchange.v1 import exchange_pb2
from services.kit.errors import PermissionDenied, Reason


@pytest.mark.parametrize("reason", [Reason.AUTHORIZATION_REVOKED, Reason.AUTHORIZATION_EXPIRED])
def test_what_a_department_heard_first_ends_the_stream(reason: Reason) -> None:
    section = exchange_pb2.Section(status=exchange_pb2.SECTION_STATUS_DENIED, reason=reason)
    with pytest.raises(PermissionDenied) as caught:
        streaming.check_ended(section.SerializeToString())
    assert caught.value.reason is reason


@pytest.mark.parametrize("reason", ["", Reason.NO_PERMIT, Reason.AUTHORIZATION_EXHAUSTED, Reason.DEPARTMENT_FAILED])
def test_whatever_else_is_missing_is_named_and_the_stream_goes_on(reason: str) -> None:
    section = exchange_pb2.Section(status=exchange_pb2.SECTION_STATUS_DENIED, reason=reason)
    streaming.check_ended(section.SerializeToString())
