"""The gateway's config: every node's sections, where the departments are, and which other zones there are."""

import datetime as dt
from typing import Self

from pydantic import Field, model_validator

from services.kit.config import Address, Duration, FilePath, NodeConfig, PolicySection, Section


class DepartmentSection(Section):
    """Where a department is, and how long the gateway waits for it."""

    target: Address
    system: str = "node"
    """The identity it must prove is `spiffe://<zone>/<agency>/<system>`."""
    timeout: Duration = dt.timedelta(seconds=5)
    """The longest wait for it, within the caller's deadline."""


class DoorSection(Section):
    """Where gateways of other zones may ask; nobody of this zone does."""

    listen: Address


class ZoneSection(Section):
    """Another zone: whom to believe there, who may ask whom, and the way to it."""

    bundle: FilePath
    """Its roots, as they were brought by hand once."""
    revoked: FilePath | None = None
    """Its certificate revocation lists; likewise."""
    folder: FilePath | None = None
    """Where newer roots and lists are kept, which it tells of at its `target`; beside the bundle where absent."""
    longest_life: Duration | None = Field(default=None, gt=dt.timedelta())
    """In place of a revocation list: certificates of it that were made to live longer are refused."""
    agency: str = "gateway"
    system: str = "main"
    """Its gateway is `spiffe://<zone>/<agency>/<system>`."""
    target: Address | None = None
    """Where the door of its gateway is."""
    via: str = ""
    """The zone whose gateway carries questions to it, where it is not asked itself."""
    timeout: Duration = dt.timedelta(seconds=5)
    """The longest wait for it, within the caller's deadline."""
    follow: Duration = Field(default=dt.timedelta(seconds=5), ge=dt.timedelta(milliseconds=100))
    """How often it is asked for new roots and revocations."""
    asked_by: list[str] = Field(default=[])
    """Who of this zone may ask it: `agency/system` or `agency/*`."""
    may_ask: list[str] = Field(default=[])
    """Who of it may ask here: `agency/system` or `agency/*`. Policy decides what they get."""
    carried_for: list[str] = Field(default=[])
    """Zones whose questions are carried on to it."""

    @model_validator(mode="after")
    def _stands(self) -> Self:
        if (self.revoked is None) == (self.longest_life is None):
            raise ValueError("give either revoked, or longest_life where it publishes no revocation list")
        if self.target is not None and self.via:
            raise ValueError("give either target or via: it is asked itself, or through another zone")
        if (self.asked_by or self.carried_for) and self.target is None and not self.via:
            raise ValueError("who asks it needs a way: target, or via")
        return self


class GatewayConfig(NodeConfig):
    """The config of a gateway."""

    departments: dict[str, DepartmentSection] = Field(min_length=1)
    """By agency."""
    policy: PolicySection
    """The policies of all departments; each department decides again with its own."""
    secret: FilePath
    """File with at least 32 random bytes, for page tokens."""
    door: DoorSection | None = None
    """Absent, no other zone asks here."""
    zones: dict[str, ZoneSection] = Field(default={})
    """Other zones, by name."""

    @model_validator(mode="after")
    def _zones_stand(self) -> Self:
        files = [file for zone in self.zones.values() for file in (zone.bundle, zone.folder) if file is not None]
        if len(set(files)) < len(files):
            raise ValueError("zones: each has a bundle and a folder of its own: the roots of one speak for no other")
        if self.node.zone in self.zones:
            raise ValueError(f"zones.{self.node.zone} is this zone")
        for name, zone in self.zones.items():
            if zone.via and (zone.via == name or zone.via not in self.zones or not self.zones[zone.via].target):
                raise ValueError(f"zones.{name}: via names no zone that has a target")
            if unknown := set(zone.carried_for) - set(self.zones):
                raise ValueError(f"zones.{name}: carried_for names {', '.join(sorted(unknown))}, which is no zone here")
            if (zone.may_ask or zone.carried_for) and self.door is None:
                raise ValueError(f"zones.{name}: another zone asks at a [door], and there is none")
        return self
