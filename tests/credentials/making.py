"""What the tests of credentials are about: two agencies with keys, and a statement of one of them."""

import datetime as dt
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from services.kit.credentials import results, signed, strict
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.credentials.results import Statement
from services.kit.errors import HutongError, Reason

NOW: Final = dt.datetime(2026, 11, 22, 9, tzinfo=dt.UTC)
DAY: Final = dt.timedelta(days=1)
SUBJECT: Final = "cn.uscc:91440300MA5EYTHJ7K"
LIST: Final = "urn:hutong:status:publicsecurity:1"


@dataclass(frozen=True)
class Agencies:
    """Agencies of one zone, their private keys, and the folder in which their public ones are published."""

    folder: Path
    signing: dict[str, SigningKeys] = field(default_factory=dict[str, SigningKeys])

    @classmethod
    def found(cls, folder: Path, *names: str, now: dt.datetime = NOW - 30 * DAY) -> "Agencies":
        made = cls(folder)
        for name in names:
            keys = SigningKeys.create(folder / name, f"spiffe://north.example/{name}", now)
            keys.publish(made.keys)
            made.signing[name] = keys
        return made

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def published(self) -> PublishedKeys:
        return PublishedKeys.load(self.keys)


def statement(**changes: Any) -> Statement:
    """A statement of public security, in whole seconds."""
    made = Statement(
        ref=str(uuid.UUID(int=7)),
        issuer="publicsecurity",
        scheme="cn.uscc",
        subject=SUBJECT.partition(":")[2],
        fact="person_verified",
        assurance="ON_SITE",
        issued_at=NOW,
        valid_from=NOW,
        valid_until=NOW + 180 * DAY,
        value={"method": "chip", "checks": ["face", {"register": True}], "名": "证"},
        case_id="case-1",
        stage="E2",
        status_uri=LIST,
        status_index=5,
    )
    return replace(made, **changes)


def forged(credential: str, keys: SigningKeys, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Sign a credential anew with other header parameters or claims; None takes a claim away."""
    token, *disclosures = credential.split("~")
    old_header, old_payload = (strict.loads(strict.decode(part)) for part in token.split(".")[:2])
    signing = keys.active(NOW)
    payload = {name: value for name, value in {**old_payload, **claims}.items() if value is not None}
    head = {name: value for name, value in {**old_header, "kid": signing.kid, **(header or {})}.items() if value}
    head.pop("alg", None)
    return "~".join((signed.sign(head, payload, signing.key), *disclosures))


def refusal(text: str, published: PublishedKeys, at: dt.datetime = NOW, **wanted: Any) -> Reason | None:
    """Verify; gives the reason it was refused for, None where it was not."""
    try:
        results.verify(text, published, at=at, **wanted)
    except HutongError as error:
        return error.reason
    return None
