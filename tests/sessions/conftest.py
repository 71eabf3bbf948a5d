"""One mesh for the tests that only ask."""

from tests.exchange.conftest import mesh, own

__all__ = ["mesh", "own"]
