"""The gateway's config: every node's sections, and where the departments are."""

import datetime as dt

from pydantic import Field

from services.kit.config import Address, Duration, FilePath, NodeConfig, PolicySection, Section


class DepartmentSection(Section):
    """Where a department is, and how long the gateway waits for it."""

    target: Address
    system: str = "node"
    """The identity it must prove is `spiffe://<zone>/<agency>/<system>`."""
    timeout: Duration = dt.timedelta(seconds=5)
    """The longest wait for it, within the caller's deadline."""


class GatewayConfig(NodeConfig):
    """The config of a gateway."""

    departments: dict[str, DepartmentSection] = Field(min_length=1)
    """By agency."""
    policy: PolicySection
    """The policies of all departments; each department decides again with its own."""
    secret: FilePath
    """File with at least 32 random bytes, for page tokens."""
