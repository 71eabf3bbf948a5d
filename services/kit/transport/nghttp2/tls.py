"""TLS of connections that are not gRPC's own: mutual, 1.3 only, HTTP/2 and nothing else (RFC 7301, `h2`).

The same checks as `certs.tls` has gRPC do, by Python's own TLS: chain up to the bundle's certificates, dates, what each
certificate may be used for, and for a client the server's name. Who the peer is, servers ask `certs.verify`.
"""

import asyncio
import ssl
from typing import Final, cast

from certs.contexts import show
from certs.svid import Svid

ALPN: Final = "h2"


def server_context(svid: Svid) -> ssl.SSLContext:
    """Make the context of a server that is `svid`; every client must show a certificate under the bundle's roots."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would skip the look at the certificate.
    context.num_tickets = 0
    _prepare(context, svid)
    return context


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


def _prepare(context: ssl.SSLContext, svid: Svid) -> None:
    context.options |= ssl.OP_NO_TICKET
    # As gRPC does: what the bundle holds is trusted, be it a root's certificate or one that a root has signed.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols([ALPN])
    show(context, svid)
