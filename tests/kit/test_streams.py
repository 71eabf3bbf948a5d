"""How many streams each caller has open."""

import pytest

from services.kit.errors import Reason, ResourceExhausted
from services.kit.streams import Streams


def test_each_caller_has_so_many_at_a_time() -> None:
    streams = Streams(2, "watches")
    with streams.counted("a"), streams.counted("a"):
        with pytest.raises(ResourceExhausted) as caught, streams.counted("a"):
            raise AssertionError
        assert (caught.value.reason, caught.value.metadata) == (Reason.STREAMS_TOO_MANY, {"limit": "2"})
        assert "2 watches" in caught.value.message
        # One that was refused takes no place, and nobody else's.
        with streams.counted("b"), streams.counted("b"):
            pass
    with streams.counted("a"), streams.counted("a"):
        pass


def test_one_that_ends_badly_has_ended() -> None:
    streams = Streams(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), streams.counted("a"):
            raise ValueError("broken")
