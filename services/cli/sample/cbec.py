"""Cross-border e-commerce in the sample zone: lists of what private buyers ordered abroad."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from random import Random

from services.cli.sample.cast import Role
from services.cli.sample.cells import Money, Quantity, Row, cents
from services.cli.sample.firms import Firm
from services.cli.sample.goods import RETAIL
from services.cli.sample.setting import any_moment
from services.cli.sample.zone import Zone

_TAX = Decimal("0.091")
_EACH = 24
"""Ordinary lists of a merchant."""


class _Desk:
    """Makes lists, one number after the other."""

    def __init__(self, zone: Zone, rng: Random, firm: Firm) -> None:
        self.zone, self.rng, self.firm, self.count = zone, rng, firm, 0

    def list(self, day: dt.date, buyer: str, value: Decimal, hs10: str = "", address: str = "") -> Row:
        """Make a list whose sums are right."""
        self.count += 1
        rng, stem = self.rng, f"{self.firm.index:05d}{self.count:04d}"
        goods, freight = cents(value), cents(rng.randint(0, 30))
        tax, discount = cents(goods * _TAX), cents(rng.choice((0, 0, 5, 20)))
        token = self.zone.setting.token
        return {
            "invt_no": f"SINVT{day:%y}{stem}",
            "order_no": f"SO{stem}",
            "logistics_no": f"SW{stem}",
            "payment_no": f"SP{stem}",
            "platform_code": self.zone.firms.part("platform").customs_code,
            "merchant_code": self.firm.customs_code,
            "trade_mode": rng.choice(("9610", "1210")),
            "goods_value": Money(goods),
            "freight": Money(freight),
            "insured_fee": Money(Decimal("0.00")),
            "tax_total": Money(tax),
            "discount": Money(discount),
            "actual_paid": Money(goods + freight + tax - discount),
            "buyer_id_no": f"SAMPLE-ID-B{buyer}",
            "buyer_token": token("buyer", buyer),
            "consignee_addr_token": token("address", address or buyer),
            "hs10": hs10 or rng.choice(RETAIL)[0],
            "qty": Quantity(Decimal(rng.randint(1, 4)), "H87"),
            "listed_at": any_moment(rng, day),
            "list_status": "800",
        }


def listings(zone: Zone) -> Iterator[Row]:
    """Write the lists of every merchant."""
    for firm in zone.firms.of(Role.MERCHANT):
        rng = zone.setting.rng(f"customs.CbecListing.{firm.index}")
        desk = _Desk(zone, rng, firm)
        for at in range(_EACH):
            day = zone.setting.before(rng.randint(1, 330))
            # Nobody orders often or much, and everybody has an address of his own.
            yield desk.list(day, f"{firm.index:05d}-{at // 2:03d}", Decimal(rng.randint(80, 900)))
        if firm.part == "list-mismatch":
            yield from _mismatches(desk)
        elif firm.part == "list-splitting":
            yield from _splitting(desk)


def _mismatches(desk: _Desk) -> Iterator[Row]:
    short, lost = (desk.list(desk.zone.setting.before(b), f"M{b}", Decimal(640)) for b in (40, 21))
    paid = short["actual_paid"]
    short["actual_paid"] = Money((paid.amount if isinstance(paid, Money) else Decimal(0)) - 200)
    lost["logistics_no"] = None
    keys = {"customs.CbecListing": [str(row["invt_no"]) for row in (short, lost)]}
    title = "paid less than goods, freight and taxes come to; no waybill"
    desk.zone.ledger.plant("list-mismatch", "I25", title, [desk.firm], keys)
    yield from (short, lost)


def _splitting(desk: _Desk) -> Iterator[Row]:
    setting, hs10 = desk.zone.setting, RETAIL[1][0]
    spread = [desk.list(setting.before(30 + n % 4), f"S{n}", Decimal(4900), hs10, "warehouse") for n in range(6)]
    # Over the yearly limit, and over the limit of one list, wherever a jurisdiction puts them about there.
    # A year's limit needs a year: early in one, the last one.
    end = setting.today if setting.today.month > 3 else dt.date(setting.today.year - 1, 12, 31)
    hoard = [desk.list(end - dt.timedelta(days=9 + 11 * n), "HOARDER", Decimal(4800)) for n in range(6)]
    large = [desk.list(setting.before(17), "LARGE", Decimal(7300))]
    keys = {"customs.CbecListing": [str(row["invt_no"]) for row in (*spread, *hoard, *large)]}
    title = "one address behind six buyers; a buyer over the yearly limit; a list over the single limit"
    desk.zone.ledger.plant("list-splitting", "I26", title, [desk.firm], keys)
    yield from (*spread, *hoard, *large)
