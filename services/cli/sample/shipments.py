"""Shipments: what really went over the border of the sample zone, and when.

Customs, the tax authority and quality inspection each tell their part of the same shipment, so their records agree
wherever nothing was planted.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from services.cli.sample import timeline, words
from services.cli.sample.cast import Role
from services.cli.sample.cells import Money, cents
from services.cli.sample.firms import Firm, Firms
from services.cli.sample.goods import Good
from services.cli.sample.setting import REGION, Setting
from services.cli.sample.timeline import ORDINARY, Times, Wish
from services.kit import check_digits

USD = Decimal("7.1")
"""Yuan for a dollar: one invented rate for the whole zone and year."""

_TRUCK_COUNTRIES = ("VN", "TH", "RU")
_DESTINATIONS = ("US", "DE", "NL", "JP", "AU", "BR", "VN", "TH", "RU", "NA")


@dataclass(frozen=True, slots=True)
class Line:
    """One goods line; the first legal unit is the unit traded in."""

    number: int
    good: Good
    qty: Decimal
    price: Decimal
    origin: str
    batch: str
    manufacturer: str
    """Registration number of the overseas manufacturer, where food needs one."""

    @property
    def total(self) -> Decimal:
        """Price of the line in dollars."""
        return cents(self.qty * self.price)

    @property
    def cny(self) -> Decimal:
        """Price of the line in yuan."""
        return cents(self.total * USD)

    @property
    def net(self) -> Decimal:
        """Net weight in kilograms."""
        return cents(self.qty * self.good.kg)

    @property
    def gross(self) -> Decimal:
        """Gross weight in kilograms."""
        return cents(self.net * Decimal("1.05"))


@dataclass(frozen=True, slots=True)
class Box:
    """A container."""

    number: str
    size_type: str
    tare: int
    seal: str


@dataclass(frozen=True, slots=True)
class Party:
    """A firm abroad."""

    name: str
    country: str


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be shipped; None leaves it to chance."""

    firm: Firm
    direction: str
    """I or E."""
    day: dt.date
    items: Sequence[tuple[Good, int]]
    wish: Wish = ORDINARY
    price: Decimal = Decimal(1)
    """Factor on the ordinary price."""
    manifest_weight: Decimal = Decimal(1)
    """Factor on the weight the carrier reports."""
    party: Party | None = None
    bill: str = ""
    boxes: tuple[Box, ...] | None = None
    manufacturer: str = ""
    dangerous: bool = True
    """Dangerous goods are declared as such."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """A shipment with its declaration."""

    number: str
    order: Order
    serial: int
    """Number of the shipment among its firm's."""
    agent: Firm
    party: Party
    lines: tuple[Line, ...]
    boxes: tuple[Box, ...]
    bill: str
    manifest: str
    transport: str
    mode: str
    """2 sea, 3 rail, 4 road, 5 air."""
    times: Times
    packages: int

    @property
    def firm(self) -> Firm:
        """Whose shipment it is."""
        return self.order.firm

    @property
    def export(self) -> bool:
        """Goods go out."""
        return self.order.direction == "E"

    @property
    def value(self) -> Decimal:
        """Value in yuan: the sum of the lines."""
        return sum((line.cny for line in self.lines), Decimal(0))

    @property
    def gross(self) -> Decimal:
        """Gross weight in kilograms."""
        return sum((line.gross for line in self.lines), Decimal(0))

    @property
    def net(self) -> Decimal:
        """Net weight in kilograms."""
        return sum((line.net for line in self.lines), Decimal(0))

    @property
    def food(self) -> bool:
        """Food comes in: quality inspection sees it."""
        return not self.export and any(line.good.category for line in self.lines)

    @property
    def invoice(self) -> Money:
        """What the party abroad is invoiced, or invoices."""
        return Money(sum((line.total for line in self.lines), Decimal(0)), "USD")


class Book:
    """The shipments of a zone, in the order they were entered."""

    def __init__(self, setting: Setting, firms: Firms) -> None:
        self.setting = setting
        self.shipments: list[Shipment] = []
        self._agents = firms.of(Role.BROKER)
        self._count: dict[int, int] = {}

    def enter(self, rng: Random, order: Order) -> Shipment:
        """Ship what is ordered, and declare it."""
        serial = self._count[order.firm.index] = self._count.get(order.firm.index, 0) + 1
        party = order.party or _party(rng, order)
        agent, mode = rng.choice(self._agents), _mode(rng, party, order)
        lines = tuple(
            _line(rng, at, good, qty, order, f"B{order.firm.index:05d}{serial:03d}{at}", party)
            for at, (good, qty) in enumerate(order.items, 1)
        )
        boxes = _boxes(rng, mode, lines) if order.boxes is None else order.boxes
        times = timeline.plan(rng, self.setting, order.direction, order.day, order.wish)
        way = f"SAMPLE-{mode}{order.day:%y%m%d}{rng.randint(0, 99):02d}"
        made = Shipment(
            # office, year, direction, serial: the firm's own, so that no other firm's business moves it
            f"{REGION}{order.day.year}{int(order.direction == 'I')}{order.firm.index:05d}{serial:04d}",
            order,
            serial,
            agent,
            party,
            lines,
            boxes,
            order.bill or f"SB{order.day:%y%m}{order.firm.index:05d}{serial:03d}",
            f"SM{order.day:%y%m%d}{order.firm.index:05d}{serial:03d}",
            way,
            mode,
            times,
            rng.randint(20, 900),
        )
        self.shipments.append(made)
        return made

    def of(self, part: str) -> list[Shipment]:
        """List the shipments of the firm that plays a part."""
        return [s for s in self.shipments if s.firm.part == part]


def _party(rng: Random, order: Order) -> Party:
    country = rng.choice(_DESTINATIONS if order.direction == "E" else order.items[0][0].origins)
    return Party(words.abroad(rng, country, "Foods" if order.items[0][0].category else "Trading"), country)


def _mode(rng: Random, party: Party, order: Order) -> str:
    if party.country in _TRUCK_COUNTRIES:
        return "4"
    return "5" if order.items[0][0].kg < 1 and rng.random() < 0.4 else rng.choice("233")


def _line(rng: Random, at: int, good: Good, qty: int, order: Order, batch: str, party: Party) -> Line:
    # Prices of equal goods stay within twelve percent, so that an outlier is one.
    price = cents(good.usd * order.price * rng.randint(88, 112) / 100)
    origin = "CN" if order.direction == "E" else party.country
    needs_manufacturer = good.category and order.direction == "I"
    manufacturer = order.manufacturer or f"SAMPLE-{origin}-{order.firm.index:05d}"
    return Line(at, good, Decimal(qty), price, origin, batch, manufacturer if needs_manufacturer else "")


def _boxes(rng: Random, mode: str, lines: Sequence[Line]) -> tuple[Box, ...]:
    if mode not in "23":
        return ()
    gross = sum((line.gross for line in lines), Decimal(0))
    kind, tare = ("45R1", 4600) if lines[0].good.reefer else rng.choice((("22G1", 2230), ("42G1", 3740)))
    return tuple(box(rng, kind, tare) for _ in range(min(4, int(gross // 26_000) + 1)))


def box(rng: Random, kind: str, tare: int) -> Box:
    """Make a container with a check digit that is right, of an owner that does not exist."""
    first = f"ZZZU{rng.randint(0, 999_999):06d}"
    return Box(first + check_digits.iso6346(first), kind, tare, f"SEAL{rng.randint(0, 999_999):06d}")
