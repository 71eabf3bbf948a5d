"""The config of the supervision node: every node's sections, and how authorizations come about and end."""

import datetime as dt

from pydantic import Field

from services.kit.config import Duration, FilePath, NodeConfig, PolicySection, StoreSection

_NOTHING = dt.timedelta()


class SupervisionConfig(NodeConfig):
    """The config of the supervision node."""

    store: StoreSection
    policy: PolicySection
    """The policies of every agency that owns records, as far as they are known here: `explain` decides by them."""
    secret: FilePath
    """File with at least 32 random bytes: officers' pseudonyms, page tokens and the seals of authorizations are made
    with it. Under another secret no authorization is known any more."""
    signing: FilePath
    """Folder of the service's own signing keys: it signs events and tickets."""
    keys: FilePath
    """Folder of published signing keys, `AGENCY.jwks.json`, the service's own among them."""
    gateways: list[str] = Field(default=["gateway/main"])
    """Identities (`agency/system`) that hear of every authorization."""
    auditors: list[str] = Field(default=[])
    """Identities (`agency/system`) that may see every authorization."""
    owner_approval: bool = True
    """At least one approver is of an agency that owns records in the scope; in an emergency, the only one."""
    break_glass: bool = False
    """Emergency authorizations: one approver, four hours at most, reviewed afterwards. Without, they are refused."""
    approval_within: Duration = Field(default=dt.timedelta(hours=72), gt=_NOTHING)
    """How long a request waits for its approvals before it lapses."""
    longest: Duration = Field(default=dt.timedelta(days=90), gt=_NOTHING)
    """The longest that an authorization may be in force, and the furthest that it may begin in the future."""
    review_within: Duration = Field(default=dt.timedelta(hours=72), gt=_NOTHING)
    """By when an emergency use has to be reviewed, from its approval on."""
    heartbeat: Duration = Field(default=dt.timedelta(milliseconds=300), gt=_NOTHING)
    """How often nodes that follow are told that there is nothing new."""
