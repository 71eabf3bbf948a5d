"""An identity from the SPIFFE Workload API instead of from our own authority: what an agent on the machine hands out.

The agent (SPIRE's, or another that keeps to the standard) streams a system's certificate, key and trust bundle over a
unix socket, and again whenever they change. They are written into a folder as our own authority would write them, each
file replaced in one rename, so that all that follows files follows them. While the agent is away, the last files serve.

The contract is https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md; of its messages only what
is used here is described. Revocation lists are not used: the standard leaves them optional, and SPIRE sends none. Who
serves under such an identity accepts short-lived certificates only (`certs.revocation.ShortLives`).
"""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from certs.errors import CertificateError, WorkloadApiFailed
from certs.files import PUBLIC, make_folder, write_atomically
from certs.spiffe import SpiffeId
from certs.svid import CREDENTIAL_BUNDLE, SvidFiles, pem_of
from certs.tls import require_tls13

METHOD: Final = "/SpiffeWorkloadAPI/FetchX509SVID"
HEADER: Final = ("workload.spiffe.io", "true")
"""Workload Endpoint §6.3: shows that the caller meant to call this, and was not led here by a request of somebody's."""

PATIENCE: Final = 10.0
"""Seconds for the agent's first word."""
LONGEST_PAUSE: Final = 30.0
"""Seconds between attempts at an agent that is away: one at first, doubled each time."""

_log = logging.getLogger(__name__)


def _described() -> tuple[type[Message], type[Message]]:
    """Describe the request and the response: names and numbers are the standard's."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="hutong/certs/workload.proto", syntax="proto3")
    file.message_type.add(name="X509SVIDRequest")
    response = file.message_type.add(name="X509SVIDResponse")
    response.field.add(
        name="svids", number=1, type=kinds.TYPE_MESSAGE, type_name=".X509SVID", label=kinds.LABEL_REPEATED
    )
    svid = file.message_type.add(name="X509SVID")
    svid.field.add(name="spiffe_id", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    for number, name in enumerate(("x509_svid", "x509_svid_key", "bundle"), start=2):
        svid.field.add(name=name, number=number, type=kinds.TYPE_BYTES, label=kinds.LABEL_OPTIONAL)
    # A pool of its own: the names have no package, and are not ours to take from others in this process.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    made = (pool.FindMessageTypeByName(name) for name in ("X509SVIDRequest", "X509SVIDResponse"))
    request, answer = map(message_factory.GetMessageClass, made)
    return request, answer


REQUEST, RESPONSE = _described()


@dataclass(frozen=True, slots=True)
class Handed:
    """One identity as the agent hands it out, checked."""

    spiffe_id: SpiffeId
    credentials: bytes
    """Key and chain, PEM."""
    bundle: bytes
    """The trusted roots, PEM."""


class WorkloadFiles:
    """Keeps the files of one identity in a folder as the agent at an address hands them out."""

    def __init__(self, address: str, folder: Path, wanted: SpiffeId) -> None:
        """`address` is `unix:///path`; of the identities that the agent hands out, `wanted` is taken."""
        require_tls13()
        self._address = address
        self._folder = folder
        self._wanted = wanted
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._cut: Callable[[], object] | None = None
        self._written: Handed | None = None
        self._complaint = ""

    @property
    def files(self) -> SvidFiles:
        """Where the identity lies."""
        credentials = self._folder / CREDENTIAL_BUNDLE
        return SvidFiles(credentials, credentials, self._folder / "bundle.crt")

    def fetch(self) -> None:
        """Wait for the agent's first word and write it.

        Raises `WorkloadApiFailed` where there is none that can be used; files that are there from before are left.
        """
        for handed in self._handed(PATIENCE):
            self._write(handed)
            return
        raise WorkloadApiFailed(f"{self._address} ended without a word", _LOOK)

    def follow(self) -> None:
        """Write whatever the agent hands out from now on, in a thread of its own, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="workload-api", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End following, and wait for it."""
        self._ended.set()
        if self._cut is not None:
            self._cut()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        pause = 1.0
        while not self._ended.is_set():
            try:
                for handed in self._handed(None):
                    self._write(handed)
                    pause, self._complaint = 1.0, ""
            except Exception as error:
                # Whatever came: a thread that ended would be missed only once the certificate has.
                self._complain(error)
            self._ended.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _complain(self, error: Exception) -> None:
        problem = str(error) or type(error).__name__
        if problem != self._complaint and not self._ended.is_set():
            self._complaint = problem
            foreseen = isinstance(error, CertificateError | OSError)
            _log.error(
                "The Workload API gives no identity; the last one serves",
                exc_info=None if foreseen else error,
                extra={"fields": {"problem": problem}},
            )

    def _handed(self, timeout: float | None) -> Iterator[Handed]:
        """Give what the agent hands out, as it comes; raises `WorkloadApiFailed`."""
        import grpc  # noqa: PLC0415 - not before the floor of TLS is set

        with grpc.insecure_channel(self._address) as channel:
            call = channel.unary_stream(
                METHOD, request_serializer=REQUEST.SerializeToString, response_deserializer=bytes
            )
            answers = cast("Any", call(REQUEST(), timeout=timeout, metadata=(HEADER,)))
            self._cut = answers.cancel
            try:
                if self._ended.is_set():
                    return
                for raw in answers:
                    yield read(raw, self._wanted)
            except grpc.RpcError as error:
                failed = cast("grpc.Call", error)
                raise WorkloadApiFailed(
                    f"{self._address} says {failed.code().name}: {failed.details()}", _LOOK
                ) from None
            finally:
                answers.cancel()

    def _write(self, handed: Handed) -> None:
        if handed == self._written:
            return
        make_folder(self._folder)
        # First what is trusted: a certificate under a new root is to be shown to nobody before that root is trusted.
        write_atomically(self.files.bundle, handed.bundle, PUBLIC)
        write_atomically(self.files.certificate, handed.credentials)
        self._written = handed
        _log.info("The Workload API gave an identity", extra={"fields": {"identity": str(handed.spiffe_id)}})


_LOOK = "see that the agent runs, and that this system is registered with it"


def read(raw: bytes, wanted: SpiffeId) -> Handed:
    """Read one response; raises `WorkloadApiFailed` unless it holds `wanted`, with a key and roots that fit."""
    try:
        found = cast("Any", RESPONSE.FromString(raw)).svids
    except DecodeError:
        raise WorkloadApiFailed("the agent's answer is no X509SVIDResponse") from None
    svid = next((each for each in found if each.spiffe_id == str(wanted)), None)
    if svid is None:
        names = ", ".join(ascii(each.spiffe_id)[:200] for each in found) or "none"
        raise WorkloadApiFailed(
            f"the agent hands out {names}, and not {wanted}", "register this system with its exact SPIFFE ID"
        )
    try:
        chain, roots = _certificates(svid.x509_svid), _certificates(svid.bundle)
        key = load_der_private_key(svid.x509_svid_key, password=None)
        fits = bool(chain) and key.public_key() == chain[0].public_key()
    except (ValueError, TypeError, IndexError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise WorkloadApiFailed(f"the agent's identity cannot be read: {error}") from error
    if not chain or not roots:
        raise WorkloadApiFailed(f"the agent's identity has no {'certificate' if not chain else 'trust bundle'}")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not fits:
        raise WorkloadApiFailed("the agent's key is not an elliptic curve key of its certificate")
    if SpiffeId.from_certificate(chain[0]) != wanted:
        raise WorkloadApiFailed(f"the agent's certificate is not {wanted}'s")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Handed(wanted, pem + b"".join(map(pem_of, chain)), b"".join(map(pem_of, roots)))


def _certificates(der: bytes) -> list[x509.Certificate]:
    """Split certificates that follow each other without anything between (X.690 §8.1.3 says how long each is)."""
    found: list[x509.Certificate] = []
    while der:
        size = der[1]
        head = 2
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(der[2:head], "big")
        found.append(x509.load_der_x509_certificate(der[: head + size]))
        der = der[head + size :]
    return found
