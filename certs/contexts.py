"""An identity in Python's own TLS, for connections that are not gRPC's."""

import os
import ssl
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from certs.svid import Svid


def show(context: ssl.SSLContext, svid: Svid) -> None:
    """Have a context show an identity and trust its roots, over nothing older than TLS 1.3. Raises `ssl.SSLError`."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=svid.bundle.decode("ascii"))
    with _file_of(svid.key + svid.chain) as path:
        context.load_cert_chain(path)


@contextmanager
def _file_of(secret: bytes) -> Generator[str]:
    """Make a key readable by path for a moment, to us alone: a context takes it in no other way."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        # Memory that has a name in this process only.
        number = os.memfd_create("svid", os.MFD_CLOEXEC)
        try:
            _write(number, secret)
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "svid"
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write(number, secret)
        finally:
            os.close(number)
        yield str(path)


def _write(number: int, secret: bytes) -> None:
    rest = memoryview(secret)
    while rest:
        rest = rest[os.write(number, rest) :]
