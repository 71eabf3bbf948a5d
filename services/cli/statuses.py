"""How nodes do, as they say it themselves, and the light that each has for that."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from hutong.api.node.v1 import node_pb2
from services.kit.client import Client
from services.kit.errors import HutongError

GET: Final = "/hutong.api.node.v1.NodeService/GetStatus"
WAIT: Final = 3.0
"""Seconds that a node has to answer in."""

_CERTIFICATE_SOON: Final = 6 * 3600.0
"""Seconds: certificates of a day are renewed at half their life; one that has a quarter left was not."""
_REVOCATIONS_SOON: Final = 24 * 3600.0
_AUTHORITY_SOON: Final = 180 * 86_400.0
_LISTED: Final = "hutong_revocations_seconds_left"
"""A node that goes by short lives, and not by lists, does not have it."""
_CLOCK: Final = 5.0
_LATE: Final = 0.1
_LOG_WAITING: Final = 1000
_EVENTS_LATE: Final = 120.0
"""Seconds: heartbeats come every ten."""
_ZONE_UNHEARD: Final = 900.0
_LAGS: Final = ("hutong_events_behind_seconds", "hutong_events_unpublished_seconds", "hutong_zone_unheard_seconds")


class Light(StrEnum):
    """How a node does."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


STYLES: Final = {Light.GREEN: "green", Light.YELLOW: "yellow", Light.RED: "red"}
"""The colour of each, for tables."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A node to be asked, and who asks."""

    target: str
    identity: SpiffeId
    credentials: SvidFiles

    @classmethod
    def of(cls, zone: str, agency: str, system: str, target: str, credentials: SvidFiles) -> Self:
        """Name a node by its parts."""
        return cls(target, SpiffeId.of(zone, agency, system), credentials)

    @property
    def path(self) -> str:
        """`agency/system`."""
        return f"{self.identity.agency}/{self.identity.system}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What came of asking a node."""

    asked: Asked
    status: node_pb2.GetStatusResponse | None
    error: HutongError | None
    clock: float
    """How far its clock is ahead of ours, in seconds, give or take half of what the answer took."""

    def value(self, name: str) -> float:
        """Get a reading, 0 where the node has none; of several by label, the sum."""
        if self.status is None:
            return 0.0
        return sum(reading.value for reading in self.status.readings if reading.name == name)

    def most(self, name: str) -> float:
        """Get the largest of the readings of a name, 0 where the node has none."""
        if self.status is None:
            return 0.0
        return max((reading.value for reading in self.status.readings if reading.name == name), default=0.0)

    def above(self, name: str, most: float, label: str) -> list[tuple[str, float]]:
        """List the readings of a name that are larger than `most`: what they are of, by that label, and the value."""
        if self.status is None:
            return []
        found = self.status.readings
        return [(each.labels[label], each.value) for each in found if each.name == name and each.value > most]

    @property
    def names(self) -> list[str]:
        """The readings it has, each once."""
        return [] if self.status is None else sorted({reading.name for reading in self.status.readings})

    @property
    def lag(self) -> float | None:
        """Seconds: the age of the oldest of what it knows of others' events and of other zones; None where of none.

        Events that it has put down and a broker has not taken are among them.
        """
        lags = [self.most(name) for name in _LAGS if name in self.names]
        return max(lags, default=None)

    @property
    def up(self) -> float:
        """Seconds since it was started."""
        return 0.0 if self.status is None else self.status.now.seconds - self.status.started_at.seconds

    @property
    def certified(self) -> float:
        """Seconds until its certificate ends, by its own clock."""
        return 0.0 if self.status is None else self.status.certified_until.seconds - self.status.now.seconds


async def ask(nodes: list[Asked]) -> list[Standing]:
    """Ask all nodes at once; one that does not answer keeps nobody waiting for long."""
    return list(await asyncio.gather(*map(_ask, nodes)))


async def _ask(asked: Asked) -> Standing:
    client = Client(asked.target, asked.identity, asked.credentials)
    try:
        begun = time.time()
        status = await client.unary(GET, node_pb2.GetStatusRequest(), node_pb2.GetStatusResponse, timeout=WAIT)
        middle = (begun + time.time()) / 2
    except HutongError as error:
        return Standing(asked, None, error, 0.0)
    finally:
        await client.close()
    return Standing(asked, status, None, status.now.seconds + status.now.nanos / 1e9 - middle)


def lights(standing: Standing) -> tuple[Light, list[str]]:
    """Give a node's light, and why it is not green."""
    if standing.error is not None:
        return Light.RED, [f"{standing.error.reason}: {standing.error.message}"]
    red, yellow = _red(standing), _yellow(standing)
    return (Light.RED if red else Light.YELLOW if yellow else Light.GREEN), red + yellow


def _red(standing: Standing) -> list[str]:
    value = standing.value
    wrong = {
        "its certificate has ended": standing.certified <= 0,
        "its revocation list has lapsed: it lets nobody in": _LISTED in standing.names and not value(_LISTED),
        "its log cannot be written: it answers nothing": value("hutong_log_failing") > 0,
        "it turns calls away: it has too much to do": value("hutong_overloaded") > 0,
        "its changed policies do not pass: the former ones decide": value("hutong_policy_refused") > 0,
        "it has evidence against another node's log": value("hutong_logs_forked") > 0,
        "a witness says its log was forked": value("hutong_log_witnesses_forked") > 0,
        "histories of authorizations do not verify": value("hutong_authorizations_broken") > 0,
    }
    return [text for text, holds in wrong.items() if holds]


def _yellow(standing: Standing) -> list[str]:
    value, unpublished = standing.value, standing.most("hutong_events_unpublished_seconds")
    up = value("hutong_quotas_used_up")
    away = [name for name in standing.names if name.endswith("_followed") and not value(name)]
    wrong = {
        "its certificate was not renewed": 0 < standing.certified < _CERTIFICATE_SOON,
        "its revocation list lapses soon": 0 < value(_LISTED) < _REVOCATIONS_SOON,
        "its authority ends soon": 0 < value("hutong_authority_seconds_left") < _AUTHORITY_SOON,
        "a root that it trusts ends soon": 0 < value("hutong_root_seconds_left") < _AUTHORITY_SOON,
        f"its clock is {standing.clock:+.1f} s off ours": abs(standing.clock) > _CLOCK,
        "its event loop runs late": value("hutong_late_seconds") > _LATE,
        "a witness of its log is away": value("hutong_log_witnesses_away") > 0,
        f"{value('hutong_log_waiting'):.0f} entries wait for its log": value("hutong_log_waiting") > _LOG_WAITING,
        f"the broker has no events of its last {unpublished:.0f} s": unpublished > _EVENTS_LATE,
        f"{up:.0f} {'caller has' if up == 1 else 'callers have'} used up the day's quota": up > 0,
        f"it does not hear of {', '.join(_followed(name) for name in away)}": bool(away),
    }
    return [text for text, holds in wrong.items() if holds] + [*_behind(standing)]


def _behind(standing: Standing) -> Iterator[str]:
    """Say of whom it has heard nothing for too long."""
    for source, seconds in standing.above("hutong_events_behind_seconds", _EVENTS_LATE, "source"):
        yield f"what it knows of events of {source} is {seconds:.0f} s old"
    for zone, seconds in standing.above("hutong_zone_unheard_seconds", _ZONE_UNHEARD, "zone"):
        yield f"it has not heard from the zone {zone} for {seconds:.0f} s"


def _followed(name: str) -> str:
    """Write `hutong_events_customs_followed` as `events of customs`."""
    what = name.removeprefix("hutong_").removesuffix("_followed")
    return f"events of {what.removeprefix('events_')}" if what.startswith("events_") else what
