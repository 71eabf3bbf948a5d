"""What a sample zone is made from: seed, size and reference date; nothing else goes in.

Every section draws from a generator of its own, seeded with its name, so that adding a record type leaves all other
bytes as they were. Neither the machine's clock nor the order of a set or a hash decides anything.
"""

import datetime as dt
import hashlib
import random
import uuid
from dataclasses import dataclass

from services.cli.sample.cells import Period

SOURCE_SYSTEM = "hutong-sample"
"""What envelopes of loaded sample records say they come from."""

REGION = "9999"
"""First digits of every code of the zone (region, customs office, seals): a place that GB/T 2260 does not know."""

DEFAULT_SEED = 7
DEFAULT_ENTERPRISES = 300
DEFAULT_TODAY = dt.date(2026, 6, 30)
MAX_ENTERPRISES = 2000

MONTHS = 12
"""Complete months of business before the reference date's own."""

_ZONE = dt.timezone(dt.timedelta(hours=8))


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that decides what a sample zone looks like."""

    seed: int = DEFAULT_SEED
    enterprises: int = DEFAULT_ENTERPRISES
    today: dt.date = DEFAULT_TODAY
    """The day the zone is looked at: nothing in it happens later."""

    def rng(self, section: str) -> random.Random:
        """Open a section's own generator."""
        # A text seed goes through SHA-512, not through hash(), and is the same in every process.
        return random.Random(f"{SOURCE_SYSTEM}:{self.seed}:{section}")  # noqa: S311 - to be repeated, not secret

    def token(self, kind: str, value: str) -> str:
        """Make an opaque token: equal for equal values of one zone, nothing else."""
        key = f"{SOURCE_SYSTEM}:{self.seed}:{kind}".encode()
        return hashlib.blake2b(value.encode(), key=key[:64], digest_size=16).hexdigest()

    @property
    def periods(self) -> tuple[Period, ...]:
        """The months that are over, oldest first."""
        this = Period.of(self.today)
        return tuple(this.plus(back) for back in range(-MONTHS, 0))

    @property
    def first_day(self) -> dt.date:
        """The first day of business."""
        return self.periods[0].day(1)

    @property
    def now(self) -> dt.datetime:
        """Office hours end on the reference date."""
        return moment(self.today, 18)

    def before(self, days: int) -> dt.date:
        """Go back some days from the reference date."""
        return self.today - dt.timedelta(days=days)


def moment(day: dt.date, hour: int, minute: int = 0) -> dt.datetime:
    """Name a moment in the zone's own time; office hours fall on the same day in UTC."""
    return dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=_ZONE).astimezone(dt.UTC)


def any_moment(rng: random.Random, day: dt.date) -> dt.datetime:
    """Pick a moment of a day's office hours."""
    return moment(day, rng.randint(9, 16), rng.randint(0, 59))


def any_uuid(rng: random.Random) -> str:
    """Make a random UUID, the same one for the same generator."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
