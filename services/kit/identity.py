"""The node's own identity, followed as it is renewed on disk."""

import time

from certs.svid import Svid, SvidFiles

_LOOK_EVERY = 1.0
"""Seconds between looks at the files."""


class Identity:
    """Gives the present certificate and key; cheap enough to ask for every call.

    What must belong together (a signature, and the connection it goes over) is made from one `Svid` asked for once.
    """

    def __init__(self, files: SvidFiles) -> None:
        self._files = files
        self._svid = files.load()
        self._looked = time.monotonic()

    def svid(self) -> Svid:
        """Get the present identity; looks at the files at most once a second."""
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            self.renewed()
        return self._svid

    def renewed(self) -> bool:
        """Look at the files now; tells whether they changed."""
        self._looked = time.monotonic()
        if self._files.version() == self._svid.version:
            return False
        self._svid = self._files.load()
        return True
