"""TLS of connections that are not gRPC's own: mutual, 1.3 only, HTTP/2 and nothing else (RFC 7301, `h2`).

The same checks as `certs.tls` has gRPC do, by Python's own TLS: chain up to the bundle's certificates, dates, what each
certificate may be used for, and for a client the server's name. Who the peer is, servers ask `certs.verify`.
"""

import asyncio
import logging
import os
import ssl
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from certs.errors import CertificateError
from certs.svid import Svid, SvidFiles

ALPN: Final = "h2"
_log = logging.getLogger(__name__)


class ServerContexts:
    """Gives the context for each handshake, made anew when the files of the identity have changed."""

    def __init__(self, files: SvidFiles) -> None:
        """Raises what `SvidFiles.load` raises when there is no identity to start with."""
        svid = files.load()
        self._files = files
        self._version = svid.version
        self._context = _server_context(svid)
        self._complaint = ""

    def present(self) -> ssl.SSLContext:
        """Get the context for a handshake that begins now; while new files make no sense, the last good ones serve."""
        try:
            if self._files.version() == self._version:
                return self._context
            # One attempt: the handshake is waiting, and the next one asks again.
            svid = self._files.load(attempts=1)
            self._context = _server_context(svid)
        except (CertificateError, ssl.SSLError) as error:
            self._complain(error)
            return self._context
        self._version, self._complaint = svid.version, ""
        _log.info("Server certificate changed", extra={"serial": f"{svid.leaf.serial_number:x}"})
        return self._context

    def _complain(self, error: CertificateError | ssl.SSLError) -> None:
        if str(error) != self._complaint:
            self._complaint = str(error)
            _log.error("Server certificate could not be renewed", extra={"reason": error.reason, "problem": str(error)})


def client_context(svid: Svid) -> ssl.SSLContext:
    """Make the context of a client that calls as `svid`; the server's name is to be given as `server_hostname`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Names are in the subject alternative name, or nowhere (RFC 9525).
    context.hostname_checks_common_name = False
    _prepare(context, svid)
    return context


def peer_certificate(transport: asyncio.BaseTransport) -> bytes:
    """Get the peer's certificate as the handshake proved it, PEM; empty where there is none."""
    found = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
    der = found.getpeercert(binary_form=True) if found is not None else None
    return ssl.DER_cert_to_PEM_cert(der).encode() if der else b""


def speaks_http2(transport: asyncio.BaseTransport) -> bool:
    """Tell whether HTTP/2 was agreed on, over TLS: a connection where it was not is to be closed."""
    found = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
    return found is not None and found.selected_alpn_protocol() == ALPN


def _server_context(svid: Svid) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would skip the look at the certificate.
    context.num_tickets = 0
    _prepare(context, svid)
    return context


def _prepare(context: ssl.SSLContext, svid: Svid) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    # As gRPC does: what the bundle holds is trusted, be it a root's certificate or one that a root has signed.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols([ALPN])
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
