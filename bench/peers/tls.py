"""Mutual TLS 1.3 for peers that are no gRPC, with the zone's own certificates."""

import ssl

from certs.svid import SvidFiles


def client_context(files: SvidFiles) -> ssl.SSLContext:
    """Make a client's context: shows its certificate, trusts the zone's roots alone, checks the server's name."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(files.bundle))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key)
    return context
