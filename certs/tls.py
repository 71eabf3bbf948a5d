"""From files to gRPC credentials: mutual TLS, 1.3 only, certificates followed as they change.

gRPC is imported inside the functions, and nowhere else in this package, because its TLS floor can only be set before
it is loaded (see `require_tls13`).
"""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from certs.errors import TlsFloorTooLate
from certs.renewed import Renewed
from certs.spiffe import server_name
from certs.svid import Svid, SvidFiles

if TYPE_CHECKING:
    import grpc

__all__ = ["SvidFiles", "channel_credentials", "require_tls13", "server_credentials", "server_name"]

_CIPHERS = "GRPC_SSL_CIPHER_SUITES"
_NO_TLS12 = "ECDHE-PSK-CHACHA20-POLY1305"
_GRPC_CORE = "grpc._cython.cygrpc"


def require_tls13() -> None:
    """Make gRPC speak nothing older than TLS 1.3 in this process and its children; to be called before it is loaded.

    gRPC for Python cannot set the lowest version. What it can set is the list of TLS 1.2 cipher suites, which leaves
    the suites of TLS 1.3 alone. The one suite left here needs a pre-shared key, which gRPC never has: so neither side
    can agree on TLS 1.2, whatever certificate it holds. The list is read once, while gRPC is loaded.

    Raises `TlsFloorTooLate` when gRPC was loaded without it.
    """
    if os.environ.get(_CIPHERS) == _NO_TLS12:
        return
    if _GRPC_CORE in sys.modules:
        raise TlsFloorTooLate(
            "gRPC was loaded before TLS 1.3 was required",
            f"call certs.tls.require_tls13() before the first import of grpc, or set {_CIPHERS}={_NO_TLS12}",
        )
    os.environ[_CIPHERS] = _NO_TLS12


def server_credentials(files: SvidFiles) -> "grpc.ServerCredentials":
    """Make a server's credentials: every client must show a certificate under the bundle's roots.

    The files are looked at before each handshake, so a renewed certificate, or changed roots, serve the next
    connection without a restart; while new files do not make sense, the last good ones serve.

    Raises `TlsFloorTooLate`, and what `SvidFiles.load` raises when there is no identity to start with.
    """
    require_tls13()
    import grpc  # noqa: PLC0415 - not before the floor is set

    renewed = Renewed(files, _configuration)
    given = first = renewed.present()

    def changed() -> "grpc.ServerCertificateConfiguration | None":
        nonlocal given
        before, given = given, renewed.present()
        return None if given is before else given

    # The stubs leave out that None means "keep what you have".
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", changed)
    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=True)


def channel_credentials(files: SvidFiles | Svid) -> "grpc.ChannelCredentials":
    """Make a client's credentials from what the files hold now, or of one identity; a channel keeps them for its life.

    The server's name is checked against `server_name(spiffe_id)`: pass it as the channel option
    `grpc.ssl_target_name_override`. Open a new channel when `files.version()` changes.

    Raises `TlsFloorTooLate`, and what `SvidFiles.load` raises.
    """
    require_tls13()
    import grpc  # noqa: PLC0415 - not before the floor is set

    svid = files if isinstance(files, Svid) else files.load()
    return grpc.ssl_channel_credentials(
        root_certificates=svid.bundle, private_key=svid.key, certificate_chain=svid.chain
    )


def _configuration(svid: Svid) -> "grpc.ServerCertificateConfiguration":
    import grpc  # noqa: PLC0415 - not before the floor is set

    return grpc.ssl_server_certificate_configuration([(svid.key, svid.chain)], root_certificates=svid.bundle)
