"""What is made of an identity's files, made anew when they change: the identity itself, credentials, TLS contexts.

While new files make no sense, what was made of the last good ones serves, and the log says so once.
"""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from certs.errors import CertificateError
from certs.svid import Svid, SvidFiles

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Renewed(Generic[T]):
    """Follows the files of an identity; cheap enough (a `stat` per file) to ask at each handshake."""

    def __init__(self, files: SvidFiles, make: Callable[[Svid], T]) -> None:
        """Raises what `SvidFiles.load` and `make` raise: there is no last good one to start with."""
        svid = files.load()
        self._files = files
        self._make = make
        # As one, since several threads may ask.
        self._last = svid.version, make(svid)
        self._complaint = ""

    def present(self) -> T:
        """Look at the files, and give what is made of the last good ones."""
        try:
            if self._files.version() != self._last[0]:
                # One attempt: a call or a handshake waits, and the next one asks again.
                svid = self._files.load(attempts=1)
                self._last = svid.version, self._make(svid)
                _log.info("Certificate changed", extra={"fields": {"serial": f"{svid.leaf.serial_number:x}"}})
            self._complaint = ""
        except Exception as error:
            # Whatever is wrong with the new ones, it is no reason to fail with the old ones at hand.
            self._complain(error)
        return self._last[1]

    def _complain(self, error: Exception) -> None:
        problem = str(error) or type(error).__name__
        if problem != self._complaint:
            self._complaint = problem
            foreseen = isinstance(error, CertificateError | OSError)
            _log.error(
                "Certificate could not be renewed; the last good one serves",
                exc_info=None if foreseen else error,
                extra={"fields": {"file": str(self._files.certificate), "problem": problem}},
            )
