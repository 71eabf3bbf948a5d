"""The seam between transports and everything else: what a transport offers, and what it asks before it lets a call in.

A server takes calls off the wire and has `Admission` say who calls, then a `Dispatcher` run the rpc. A channel makes
calls, and raises the `HutongError` that the other side answered with.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Final, Protocol

from certs.errors import CertificateError
from certs.spiffe import SpiffeId
from services.kit.caller import Caller
from services.kit.config import LimitsSection
from services.kit.errors import (
    FailedPrecondition,
    HutongError,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from services.kit.rpc import Call, Rpc, Shape

SLACK: Final = 64 * 1024
"""A transport's own message limit lies so many bytes over ours: nearly all oversized requests get our reason."""

METADATA_BYTES: Final = 16 * 1024
"""Most bytes of a call's headers."""

Metadata = Iterable[tuple[str, str]]
"""Headers that a caller adds to a call."""


Vouch = Callable[[bytes], None]
"""Raises `CertificateError` where a server's certificate, PEM, no longer stands (`certs.verify.ServerVerifier`)."""


class Server(Protocol):
    """Serves rpcs on one address."""

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        ...

    async def start(self) -> None:
        """Listen; raises `FailedPrecondition` ADDRESS_IN_USE."""
        ...

    async def stop(self, drain: float) -> None:
        """Take no new calls, let running ones go on for `drain` seconds, then cut them."""
        ...


class Channel(Protocol):
    """A connection to one node, made with one certificate; connects by itself, again and again."""

    @property
    def response_bytes(self) -> int:
        """Bytes of the largest message that it takes."""
        ...

    async def unary(self, method: str, request: bytes, timeout: float | None, metadata: Metadata = ()) -> bytes:
        """Make a unary call; raises the `HutongError` the other side answered with."""
        ...

    def stream(
        self,
        method: str,
        requests: bytes | AsyncIterator[bytes],
        timeout: float | None,
        metadata: Metadata = (),
    ) -> AsyncIterator[bytes]:
        """Make a server-streaming call, or with several requests a bidirectional one; raises as `unary` does.

        Leaving the iteration cancels the call.
        """
        ...

    async def close(self, grace: float = 0.0) -> None:
        """Close it; running calls may go on for `grace` seconds, then they are cut."""
        ...


class Verifier(Protocol):
    """Verifies a peer's certificate (`certs.verify.PeerVerifier`)."""

    def verify(self, pem: bytes, /) -> SpiffeId:
        """Return the identity or raise `CertificateError`."""
        ...


Refused = Callable[[str, str], None]
"""From the rpc and the reason."""


class Admission:
    """Says who calls, before a byte of a request is parsed, and how many calls each caller may have running."""

    def __init__(
        self,
        verifier: Verifier,
        limits: LimitsSection,
        refused: Refused,
        caller: Callable[[SpiffeId], Caller] = Caller.of,
    ) -> None:
        """`refused` counts what never becomes a call; `caller` makes callers of identities that were verified."""
        self._verifier = verifier
        self._caller = caller
        self.refused: Final = refused
        self._most_each = max(1, limits.concurrent_calls // 2)
        self._response_bytes = limits.response_bytes
        self._running: dict[str, int] = {}
        """Calls running now, by caller."""

    @property
    def running(self) -> int:
        """Calls that run."""
        return sum(list(self._running.values()))

    def identify(self, certificate: bytes) -> SpiffeId:
        """Verify a peer's certificate, PEM; raises `Unauthenticated` or `Unavailable` REVOCATION_UNKNOWN."""
        try:
            return self._verifier.verify(certificate)
        except CertificateError as error:
            if error.reason == "REVOCATION_UNKNOWN":
                # Ours is the fault, not the caller's; but nobody is let in unchecked.
                message = "revocations cannot be checked now"
                raise Unavailable(Reason.REVOCATION_UNKNOWN, message) from None
            # The stranger learns that its certificate does not stand, and which check; nothing of ours.
            reason = Reason.CERTIFICATE_REVOKED if error.reason == "CERTIFICATE_REVOKED" else Reason.IDENTITY_INVALID
            raise Unauthenticated(reason, "the client certificate does not stand", check=error.reason) from None

    def call(self, rpc: Rpc, certificate: bytes, remaining: float | None, metadata: Mapping[str, str]) -> Call:
        """Make the call of a verified peer; `remaining` is seconds until its deadline. Raises as `identify` does."""
        try:
            identity = self.identify(certificate)
        except HutongError as error:
            self.refused(rpc.method, error.reason)
            raise
        return Call(
            method=rpc.method,
            caller=self._caller(identity),
            certificate=certificate,
            deadline=None if remaining is None else time.monotonic() + remaining,
            metadata=metadata,
            answer_bytes=self._response_bytes,
            check=None if rpc.shape is Shape.UNARY else lambda: self.identify(certificate),
        )

    def share(self, call: Call) -> "Share":
        """Count the calls a caller has running: nobody may have more than half of all there can be.

        Raises `ResourceExhausted` CALLS_TOO_MANY.
        """
        caller = call.caller.spiffe_id
        running = self._running.get(caller, 0)
        if running >= self._most_each:
            self.refused(call.method, Reason.CALLS_TOO_MANY)
            raise ResourceExhausted(Reason.CALLS_TOO_MANY, f"at most {self._most_each} calls of one caller at a time")
        return Share(self._running, caller)


class Share:
    """A caller's share in the calls that run, for as long as one of its calls does."""

    # No generator: every call has one.
    __slots__ = ("_caller", "_running")

    def __init__(self, running: dict[str, int], caller: str) -> None:
        """`running` is the number of calls by caller."""
        self._running = running
        self._caller = caller

    def __enter__(self) -> None:
        """Count the call in."""
        self._running[self._caller] = self._running.get(self._caller, 0) + 1

    def __exit__(self, *_: object) -> None:
        """Count it out."""
        running = self._running[self._caller] - 1
        if running:
            self._running[self._caller] = running
        else:
            del self._running[self._caller]


def address_in_use(address: str) -> FailedPrecondition:
    """Word the error of a server that cannot listen."""
    message = f"cannot listen on {address}: the address is in use or not this machine's"
    return FailedPrecondition(Reason.ADDRESS_IN_USE, message, address=address)
