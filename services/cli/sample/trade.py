"""Ordinary business of the sample zone: shipments in which there is nothing to be found."""

import datetime as dt
from collections.abc import Sequence
from random import Random

from services.cli.sample.cast import Role
from services.cli.sample.firms import Firm, Firms
from services.cli.sample.goods import DANGEROUS, EXPORTS, FOODS, IMPORTS, LAMP, TEA, Good
from services.cli.sample.setting import Setting
from services.cli.sample.shipments import Book, Order
from services.cli.sample.timeline import Wish

_USUAL = {Role.EXPORTER: (3, 6), Role.IMPORTER: (2, 5), Role.FOOD_IMPORTER: (2, 5), Role.DG_TRADER: (2, 4)}
"""Fewest and most shipments of a firm in a year."""

_STORIES = frozenset({"exporter", "dg-permitted", "failed-lots"})
"""Parts whose whole business is written down."""

_SMOOTH = Wish(uneventful=True)


def trade(setting: Setting, firms: Firms, book: Book) -> None:
    """Enter the ordinary shipments of every firm that trades."""
    for firm in firms.of(*_USUAL):
        if firm.part in _STORIES:
            continue
        # A generator for each firm: the business of one moves nobody else's.
        rng = setting.rng(f"trade.{firm.index}")
        days = _days(rng, setting, firm, rng.randint(*_USUAL[firm.role]))
        for at, day in enumerate(days):
            book.enter(rng, _order(rng, firm, day, at))
    _exporter(setting, firms, book)
    _dangerous_goods_trader(setting, firms, book)


def _days(rng: Random, setting: Setting, firm: Firm, count: int) -> Sequence[dt.date]:
    first = max(setting.first_day, firm.established)
    span = (setting.today - first).days
    return sorted(first + dt.timedelta(days=rng.randint(0, span)) for _ in range(count))


def _order(rng: Random, firm: Firm, day: dt.date, at: int) -> Order:
    match firm.role:
        case Role.EXPORTER:
            return Order(firm, "E", day, _items(rng, (LAMP, *rng.sample(EXPORTS, 2))))
        case Role.FOOD_IMPORTER:
            return Order(firm, "I", day, _items(rng, rng.sample(FOODS, 1)), Wish(_verdict(firm, at)))
        case Role.DG_TRADER:
            return Order(firm, "I", day, _items(rng, rng.sample(DANGEROUS, 1)))
        case _:
            return Order(firm, "I", day, _items(rng, rng.sample(IMPORTS, 2)))


def _items(rng: Random, goods: Sequence[Good]) -> Sequence[tuple[Good, int]]:
    chosen = goods[: rng.randint(1, len(goods))]
    return [(good, max(1, good.lot * rng.randint(60, 140) // 100)) for good in chosen]


def _verdict(firm: Firm, at: int) -> str:
    # A lot that fails now and then is ordinary; two of one manufacturer are not.
    if not firm.part and firm.index % 6 == 0 and at == 1:
        return "FAIL"
    return "CONDITIONAL" if firm.index % 7 == 0 and at == 0 else "PASS"


def _exporter(setting: Setting, firms: Firms, book: Book) -> None:
    """Enter the business of the story's exporter: tea and lamps out every month, some food in."""
    firm, rng = firms.part("exporter"), setting.rng("trade.exporter")
    for period in setting.periods:
        book.enter(rng, Order(firm, "E", period.day(rng.randint(3, 12)), _items(rng, (TEA, LAMP)), _SMOOTH))
    for back, food in ((205, FOODS[4]), (121, FOODS[2]), (63, FOODS[4])):
        book.enter(rng, Order(firm, "I", setting.before(back), [(food, 3000)], Wish("PASS")))
    book.enter(rng, Order(firm, "E", setting.before(1), _items(rng, (TEA, LAMP)), _SMOOTH))


def _dangerous_goods_trader(setting: Setting, firms: Firms, book: Book) -> None:
    """Enter the business of the story's trader in dangerous goods, who has every permit he needs."""
    firm, rng = firms.part("dg-permitted"), setting.rng("trade.dangerous")
    for back in (310, 240, 170, 96, 38, 3):
        book.enter(rng, Order(firm, "I", setting.before(back), [(DANGEROUS[back % 2], 18_000)], _SMOOTH))
