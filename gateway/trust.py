"""What it takes to believe other zones, kept up to date: their roots and revocation lists, asked of their gateways.

Roots are brought by hand once. From then on each zone tells of new ones over connections that are proven under those
it had before, as SPIFFE Federation does with `https_spiffe` (§5.2.2,
https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Federation.md). What does not stand is not written.
"""

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes

from certs.errors import CertificateError
from certs.files import make_folder, write_atomically
from certs.revocation import MOST_BYTES, MOST_LISTS, RevocationList
from certs.svid import certificates_of
from gateway.config import ZoneSection
from hutong.api.exchange.v1 import zone_pb2
from services.kit.client import Client
from services.kit.clock import Clock
from services.kit.errors import FailedPrecondition, Reason

GET_TRUST: Final = "/hutong.api.exchange.v1.ZoneService/GetTrust"
_PUBLIC: Final = 0o644
_log = logging.getLogger(__name__)


def kept(zone: str, section: ZoneSection) -> ZoneSection:
    """Give the section with the files that are followed: copies in its folder, where it names one.

    What was brought by hand counts again once it is other than before: whoever brings it means that. Raises
    `FailedPrecondition` CONFIG_INVALID where there is nothing that was brought.
    """
    try:
        certificates_of(section.bundle.read_bytes(), section.bundle)
        return section if section.folder is None else _kept(section, section.folder)
    except (OSError, CertificateError) as error:
        raise FailedPrecondition(
            Reason.CONFIG_INVALID, f"zones.{zone}: bring its roots and its revocation list once, by hand: {error}"
        ) from None


def _kept(section: ZoneSection, folder: Path) -> ZoneSection:
    make_folder(folder)
    paths: dict[str, Path] = {}
    for name, brought in (("bundle", section.bundle), ("revoked", section.revoked)):
        if brought is None:
            continue
        path, last = folder / brought.name, folder / f".{brought.name}.brought"
        text = brought.read_bytes()
        if not path.exists() or not last.exists() or last.read_bytes() != text:
            write_atomically(path, text, _PUBLIC)
            write_atomically(last, text, _PUBLIC)
        paths[name] = path
    return section.model_copy(update=paths)


class Trust:
    """One other zone's roots and revocations, followed."""

    def __init__(self, zone: str, section: ZoneSection, client: Client, clock: Clock) -> None:
        self._zone = zone
        self._section = section
        self._client = client
        self._clock = clock
        self._complaint = ""
        self._heard = time.monotonic()

    @property
    def unheard(self) -> float:
        """Seconds since the zone told of its trust; since the start where it never did."""
        return time.monotonic() - self._heard

    def follow(self) -> Callable[[], Awaitable[None]]:
        """Ask for as long as the node runs; gives what ends it."""
        task = asyncio.ensure_future(self._keep())

        async def stop() -> None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        return stop

    async def _keep(self) -> None:
        every = self._section.follow.total_seconds()
        while True:
            try:
                answer = await self._client.unary(
                    GET_TRUST, zone_pb2.GetTrustRequest(), zone_pb2.GetTrustResponse, timeout=every + 5
                )
                await asyncio.to_thread(self.take, answer)
                self._complaint, self._heard = "", time.monotonic()
            except Exception as error:
                # Whatever that zone sends: what was known stands for as long as it is good, and it is asked again.
                self._complain(error)
            await asyncio.sleep(every)

    def take(self, answer: zone_pb2.GetTrustResponse) -> None:
        """Write what is new and stands; raises `CertificateError` or `ValueError` where it does not."""
        section = self._section
        new = {section.bundle: answer.bundle}
        if section.revoked is not None:
            new[section.revoked] = answer.revoked
        if all(path.exists() and path.read_bytes() == text for path, text in new.items()):
            return
        self._check(answer)
        self._tell(answer.bundle)
        # The lists first: who is under new roots is believed once there is a list of theirs.
        for path, text in reversed(new.items()):
            write_atomically(path, text, _PUBLIC)
        _log.info("Trust in a zone is up to date", extra={"fields": {"zone": self._zone}})

    def _check(self, answer: zone_pb2.GetTrustResponse) -> None:
        if len(answer.bundle) + len(answer.revoked) > MOST_BYTES:
            raise ValueError("the zone sent more than it takes")
        if len(certificates_of(answer.bundle, self._section.bundle)) > MOST_LISTS:
            raise ValueError("the zone sent more roots than it takes")
        if answer.revoked.count(b"-----BEGIN X509 CRL-----") > MOST_LISTS:
            raise ValueError("the zone sent more revocation lists than it takes")
        if self._section.revoked is None:
            return
        now = self._clock()
        with tempfile.TemporaryDirectory() as folder:
            bundle, revoked = Path(folder, "bundle.crt"), Path(folder, "revoked.crl")
            bundle.write_bytes(answer.bundle)
            revoked.write_bytes(answer.revoked)
            told = RevocationList(revoked, bundle)
            if problem := told.problem(now):
                raise ValueError(f"the zone's revocation list cannot be trusted: {problem}")
            numbers = told.numbers(now)
        known = RevocationList(self._section.revoked, self._section.bundle).numbers(now)
        if any(numbers[key] < known[key] for key in numbers.keys() & known.keys()):
            # One replica of its gateway may be behind another; nobody who was revoked comes back by that.
            raise ValueError("the zone told an older revocation list than it did before")

    def _tell(self, bundle: bytes) -> None:
        """Say in the log which roots come and go: that is what an operator would want to have agreed to."""
        path = self._section.bundle
        before, after = _fingerprints(path.read_bytes(), path), _fingerprints(bundle, path)
        if before != after:
            fields = {"zone": self._zone, "added": sorted(after - before), "removed": sorted(before - after)}
            _log.warning("Roots of a zone change", extra={"fields": fields})

    def _complain(self, error: Exception) -> None:
        if str(error) != self._complaint:
            self._complaint = str(error)
            fields = {"zone": self._zone, "problem": str(error)}
            _log.warning("Trust in a zone is not up to date", extra={"fields": fields})


def _fingerprints(bundle: bytes, path: Path) -> set[str]:
    return {each.fingerprint(hashes.SHA256()).hex() for each in certificates_of(bundle, path)}
