"""Shipments in which there is something to be found, one function for each firm with a part.

What lies in the shipment itself is written into the ledger here; what another agency must contradict is planted where
that agency's records are made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random
from typing import Any

from services.cli.sample.cast import LISTED_FOR
from services.cli.sample.firms import Firm, Firms
from services.cli.sample.goods import DANGEROUS, EXPORTS, FOODS, IMPORTS, LAMP, Good
from services.cli.sample.ledger import Ledger
from services.cli.sample.setting import Setting
from services.cli.sample.shipments import Book, Order, Party, Shipment, box
from services.cli.sample.timeline import Wish

VANISHED_BACK = 96
"""Days ago that the vanished supplier lost its licence: soon after the invoice it wrote."""

WATCHED = Party("SAMPLE Corvidreach Trading FZE", "AE")
"""A firm abroad that stands on the sample watch list."""

_SMOOTH = Wish(uneventful=True)
_LAPTOP, _CUPS, _SHIRTS, _PARTS, _PANELS, _TABLE, _POTS = EXPORTS
_CHAIR = replace(_TABLE, hs10="9401690090", rebate=Decimal("0.13"))
"""The same name and specification under a code with a higher refund."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a planting function works with."""

    setting: Setting
    book: Book
    ledger: Ledger
    firm: Firm
    rng: Random

    def ship(self, direction: str, back: int, good: Good, qty: int, **rest: Any) -> Shipment:
        """Enter a shipment declared some days back."""
        order = Order(self.firm, direction, self.setting.before(back), [(good, qty)], _SMOOTH)
        return self.book.enter(self.rng, replace(order, **rest))

    def plant(self, indicator: str, title: str, *shipments: Shipment) -> None:
        """Write down declarations that are odd."""
        keys = [s.number for s in shipments]
        self.ledger.plant(self.firm.part, indicator, title, [self.firm], {"customs.Declaration": keys})


def plant(setting: Setting, firms: Firms, book: Book, ledger: Ledger) -> None:
    """Enter every shipment that is odd, or that another agency will contradict."""
    for part, act in _ACTS.items():
        act(Desk(setting, book, ledger, firms.part(part), setting.rng(f"planted.{part}")))


def _barred_listed(desk: Desk) -> None:
    for back in (260, 190, 130):
        desk.ship("I", back, IMPORTS[1], 20_000)
    late = [desk.ship("I", back, IMPORTS[1], 22_000) for back in (LISTED_FOR.days - 20, LISTED_FOR.days - 55)]
    keys = {"customs.Declaration": [s.number for s in late]}
    keys["commerce.Listing"] = [f"{desk.firm.uscc}~SERIOUS_ILLEGAL~{desk.setting.today - LISTED_FOR}"]
    desk.ledger.plant("barred-listed", "I24", "declares while listed for serious unlawfulness", [desk.firm], keys)


def _barred(reason: str, record: str, direction: str, good: Good) -> Callable[[Desk], None]:
    def act(desk: Desk) -> None:
        found = [desk.ship(direction, back, good, good.lot) for back in (70, 24)]
        key = desk.firm.customs_code if record == "customs.Operator" else desk.firm.uscc
        keys = {"customs.Declaration": [s.number for s in found], record: [key]}
        desk.ledger.plant(desk.firm.part, "I24", reason, [desk.firm], keys)

    return act


def _failed_lots(desk: Desk) -> None:
    maker = "SAMPLE-BR-MEAT-0417"
    for back, verdict in ((330, "PASS"), (251, "FAIL"), (178, "PASS"), (118, "PASS"), (44, "FAIL"), (2, "PASS")):
        party = Party("SAMPLE Emberfield Foods Ltda", "BR")
        desk.ship("I", back, FOODS[0], 24_000, wish=Wish(verdict), party=party, manufacturer=maker)


def _food(*backs: int) -> Callable[[Desk], None]:
    def act(desk: Desk) -> None:
        for at, back in enumerate(backs):
            desk.ship("I", back, FOODS[1 + at % 2], 9000, wish=Wish("PASS"))

    return act


def _exports(good: Good, *backs: int, qty: int = 0, wish: Wish = _SMOOTH) -> Callable[[Desk], None]:
    def act(desk: Desk) -> None:
        for back in backs:
            desk.ship("E", back, good, qty or good.lot, wish=wish)

    return act


def _dangerous(good: Good, qty: int) -> Callable[[Desk], None]:
    def act(desk: Desk) -> None:
        desk.ship("I", 33, good, qty)

    return act


def _double_bill(desk: Desk) -> None:
    boxes = (box(desk.rng, "42G1", 3740),)
    both = [desk.ship("E", back, _POTS, 5000, bill="SB2602DOUBLE001", boxes=boxes) for back in (92, 61)]
    desk.plant("I10", "the same bill, container and goods on two declarations", *both)


def _late_declarer(desk: Desk) -> None:
    late = desk.ship("I", 81, IMPORTS[4], 96_000, wish=replace(_SMOOTH, arrived_days_before=26))
    desk.plant("I04", "declared twelve days after the time limit", late)


def _phantom(desk: Desk) -> None:
    found = desk.ship("E", 105, _SHIRTS, 12_000, wish=replace(_SMOOTH, loaded=False))
    desk.plant("I11", "cleared for export, and never loaded", found)


def _weight_gap(desk: Desk) -> None:
    found = desk.ship("I", 57, IMPORTS[5], 4000, manifest_weight=Decimal("1.6"))
    desk.plant("I12", "the carrier reports far more weight than was declared", found)


def _code_changer(desk: Desk) -> None:
    both = [desk.ship("E", 140, _TABLE, 480), desk.ship("E", 52, _CHAIR, 480)]
    desk.plant("I13", "the same goods, under a code with a higher refund", *both)


def _odd_price(desk: Desk) -> None:
    found = desk.ship("E", 100, LAMP, 900, price=Decimal(9))
    desk.plant("I08", "nine times the price that others declare for the same goods", found)


def _thin_capital(desk: Desk) -> None:
    found = [desk.ship("E", back, _PANELS, 4200) for back in (150, 96, 47)]
    desk.plant("I15", "exports of many times its capital, within half a year of being founded", *found)


def _control_change(desk: Desk) -> None:
    for back in range(85, 360, 27):
        desk.ship("E", back, _PARTS, 600)
    found = [desk.ship("E", back, _PARTS, 24_000) for back in (44, 37, 30)]
    keys = {"customs.Declaration": [s.number for s in found], "commerce.RegistrationChange": [f"{desk.firm.uscc}~1"]}
    desk.ledger.plant("control-change", "I23", "exports leap right after a change of control", [desk.firm], keys)


def _early_release(desk: Desk) -> None:
    found = desk.ship("I", 75, FOODS[5], 15_000, wish=Wish("PASS", released_early=True))
    keys = {"customs.Declaration": [found.number], "quality.InspectionLot": [lot_id(found, 1)]}
    desk.ledger.plant("early-release", "I06", "released before the inspection was concluded", [desk.firm], keys)


def _watch_hit(desk: Desk) -> None:
    found = desk.ship("E", 29, _LAPTOP, 280, party=WATCHED)
    keys = {"customs.Declaration": [found.number], "publicsecurity.WatchlistEntry": ["SAMPLE-WATCH~1001"]}
    desk.ledger.plant("watch-hit", "DATA", "the party abroad stands on a watch list", [desk.firm], keys)


def _bad_container(desk: Desk) -> None:
    good = box(desk.rng, "22G1", 2230)
    digit = (int(good.number[-1]) + 1) % 10
    found = desk.ship("I", 66, IMPORTS[4], 20_000, boxes=(replace(good, number=f"{good.number[:-1]}{digit}"),))
    desk.plant("DATA", "a container number whose check digit is wrong", found)


def lot_id(shipment: Shipment, line: int) -> str:
    """Number the inspection lot of a goods line."""
    return f"SLOT-{shipment.firm.index:05d}-{shipment.serial:03d}-{line}"


_ACTS: Mapping[str, Callable[[Desk], None]] = {
    "barred-listed": _barred_listed,
    "barred-revoked": _barred("declares though its licence is revoked", "commerce.Enterprise", "I", IMPORTS[5]),
    "barred-tax": _barred("declares though the tax authority cannot find it", "taxation.TaxpayerStatus", "E", _PARTS),
    "barred-record": _barred("declares though its customs record is cancelled", "customs.Operator", "I", IMPORTS[5]),
    "failed-lots": _failed_lots,
    "bad-certificates": _food(190, 110, 50),
    "trace-gap": _food(210, 150),
    "dg-no-permit": _dangerous(DANGEROUS[0], 20_000),
    "dg-too-much": _dangerous(DANGEROUS[1], 16_000),
    "double-invoice": _exports(_PARTS, 131, 90),
    "double-bill": _double_bill,
    "vat-gap": _exports(_PANELS, 150, 128, 100, 72, qty=1500),
    "rebate-uncleared": _exports(_CUPS, 83, wish=replace(_SMOOTH, stop_after="RELEASED")),
    "rebate-wrong-code": _exports(_CUPS, 88),
    "rebate-too-much": _exports(_SHIRTS, 94),
    "vanished-claimant": _exports(_PARTS, 103),
    "void-surge": _exports(_POTS, 161),
    "thin-capital": _thin_capital,
    "control-change": _control_change,
    "late-declarer": _late_declarer,
    "phantom": _phantom,
    "weight-gap": _weight_gap,
    "code-changer": _code_changer,
    "odd-price": _odd_price,
    "early-release": _early_release,
    "watch-hit": _watch_hit,
    "bad-container": _bad_container,
}
