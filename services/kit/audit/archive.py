"""The texts that decisions rest on, as a log has given them: each is compared with what it is called, then read.

Nothing of this machine's own policies or jurisdiction is used: what counts is what was in force there and then.
"""

from collections.abc import Iterable
from hashlib import sha256

from google.protobuf.message import DecodeError
from pydantic import ValidationError

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.audit.findings import Verdict
from services.kit.authorizations.scope import Scope
from services.kit.errors import FailedPrecondition, Reason
from services.kit.jurisdiction import Jurisdiction
from services.kit.log import masks
from services.kit.policy import loader
from services.kit.policy.loader import PolicyRefused
from services.kit.policy.policies import AgencyPolicies, version_of
from services.kit.records.catalogue import Catalogue


class Missing(Exception):
    """Something that recomputing takes cannot be had: why, and what that makes of the decision."""

    def __init__(self, why: str, verdict: Verdict = Verdict.NOT_RECOMPUTABLE) -> None:
        super().__init__(why)
        self.verdict = verdict


class Archive:
    """Texts by kind and name, read when they are first needed."""

    def __init__(self, catalogue: Catalogue) -> None:
        """`catalogue` holds the record types that decisions are about."""
        self.catalogue = catalogue
        self._texts: dict[tuple[str, str], bytes] = {}
        self._policies: dict[tuple[str, str, str], AgencyPolicies] = {}
        self._packs: dict[str, Jurisdiction] = {}

    def add(self, texts: Iterable[log_service_pb2.ArchivedText]) -> None:
        """Add texts as they come; raises `FailedPrecondition` LOG_TAMPERED where one name has two texts."""
        for each in texts:
            if self._texts.setdefault((each.kind, each.name), each.text) != each.text:
                raise FailedPrecondition(Reason.LOG_TAMPERED, f"the log gives two texts for one {each.kind}")

    def mask(self, digest: bytes) -> log_pb2.MaskText:
        """Get the decisions of that digest; raises `Missing`, or `FailedPrecondition` LOG_TAMPERED."""
        text = masks.read(self._text("mask", digest.hex()))
        if text.digest != digest:
            raise _tampered("mask")
        return text

    def scope(self, digest: bytes) -> Scope:
        """Get the scope of that digest; raises `Missing`, or `FailedPrecondition` LOG_TAMPERED."""
        text = self._text("scope", digest.hex())
        if not text:
            raise Missing("the scope of the authorization was erased, for somebody whom it named", Verdict.ERASED)
        if sha256(text).digest() != digest:
            raise _tampered("scope")
        try:
            return Scope.of(authorization_pb2.Scope.FromString(text))
        except (DecodeError, ValueError):
            raise _tampered("scope") from None

    def packs(self) -> list[Jurisdiction]:
        """List the jurisdiction packs there are; raises `Missing`, or `FailedPrecondition` LOG_TAMPERED."""
        for kind, name in self._texts:
            if kind == "jurisdiction" and name not in self._packs:
                self._packs[name] = _pack(name, self._texts[kind, name])
        if not self._packs:
            raise Missing("no jurisdiction pack came with it")
        return list(self._packs.values())

    def policies(self, owner: str, version: str, pack: Jurisdiction) -> AgencyPolicies:
        """Get an agency's policies of a version; raises `Missing`, or `FailedPrecondition` LOG_TAMPERED."""
        none = AgencyPolicies(owner, {})
        if version == none.version:
            return none
        key = owner, version, f"{pack.id} {pack.version}"
        if key not in self._policies:
            text = self._text("policy", version)
            if version_of(text) != version:
                raise _tampered("policy")
            try:
                self._policies[key] = loader.restore(owner, text, self.catalogue, pack)
            except PolicyRefused as refused:
                raise Missing(f"the policy of version {version} does not load here: {refused.message}") from None
        return self._policies[key]

    def _text(self, kind: str, name: str) -> bytes:
        try:
            return self._texts[kind, name]
        except KeyError:
            raise Missing(f"the text of the {kind} {name} did not come with it") from None


def _pack(name: str, text: bytes) -> Jurisdiction:
    if sha256(text).hexdigest() != name:
        raise _tampered("jurisdiction")
    try:
        return Jurisdiction.model_validate_json(text)
    except ValidationError:
        raise _tampered("jurisdiction") from None


def _tampered(kind: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.LOG_TAMPERED, f"the text of a {kind} is not what its name says")
