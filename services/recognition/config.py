"""The config of the recognition node: every node's sections, and where procedures, arrangements and keys lie."""

import datetime as dt

from pydantic import Field

from services.kit.config import (
    Duration,
    FilePath,
    NatsPublishSection,
    NodeConfig,
    OutboxSection,
    PolicySection,
    Section,
    StoreSection,
)


class ContextSection(Section):
    """Why a caller asks, where its request has no room to say: on what terms it is shown what it has just done."""

    purpose: str
    legal_basis: str


class RecognitionConfig(NodeConfig):
    """The config of the recognition node."""

    store: StoreSection
    policy: PolicySection
    secret: FilePath
    """File with at least 32 random bytes: keys of page tokens and pseudonyms are derived from it."""
    gateways: list[str] = Field(default=["gateway/main"])
    """Identities (`agency/system`) whose signed word on a caller is accepted."""
    keys: FilePath
    """Folder of the agencies' published signing keys: `AGENCY.jwks.json`, looked at again when they change."""
    signing: FilePath
    """Folder of the service's own signing keys: it signs status lists."""
    procedures: FilePath | None = None
    """Folder of procedures beside those that come with the service."""
    arrangements: FilePath | None = None
    """Folder of arrangements beside those that come with the service."""
    calendars: FilePath | None = None
    """Folder of calendars published since: `CN-2027.yaml`."""
    tick: Duration = Field(default=dt.timedelta(seconds=1), gt=dt.timedelta())
    """The longest between two looks for what has become due."""
    skew: Duration = dt.timedelta(seconds=60)
    """How far an event may lie in the future: clocks differ."""
    backdating: Duration = dt.timedelta(days=3)
    """How far an event may lie in the past: agencies record what has happened, and not always at once."""
    agency: ContextSection = ContextSection(purpose="P-APPROVAL", legal_basis="CN-ADMIN-LICENSING")
    """On what terms agencies are shown what they have done."""
    outbox: OutboxSection = OutboxSection()
    nats: NatsPublishSection | None = None
    """Absent, no events go over a broker."""
    enterprise: ContextSection = ContextSection(purpose="P-SELF", legal_basis="CN-RIGHT-TO-KNOW")
    """On what terms enterprises are."""
