"""Purchase invoices and rebate claims of the sample zone: what exporters bought, shipped, and want tax back for."""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random

from services.cli.sample.cast import Role
from services.cli.sample.cells import Period, cents
from services.cli.sample.firms import Firm
from services.cli.sample.goods import Good
from services.cli.sample.setting import REGION, any_moment
from services.cli.sample.shipments import Line, Shipment
from services.cli.sample.zone import Zone

VAT = Decimal("0.13")
"""One invented rate for everything."""

_COST = Decimal("0.84")
"""What goods are bought for, of what they are sold for."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """One invoice of one line."""

    number: str
    seller: Firm
    buyer: Firm
    day: dt.date
    good: Good
    qty: Decimal
    amount: Decimal
    state: str = "VALID"


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of a claim: this much of that goods line, bought under that invoice."""

    number: str
    line_no: int
    shipment: Shipment
    line: Line
    invoice: Invoice
    submitted: dt.datetime
    decision: str
    decided: dt.datetime | None
    paid: dt.datetime | None
    hs10: str
    qty: Decimal

    @property
    def key(self) -> str:
        """Key of its record."""
        return f"{self.number}~{self.line_no}"

    @property
    def period(self) -> Period:
        """The month it is for."""
        return Period.of(self.submitted.date())


class Purchases:
    """Every invoice between firms of the zone, and every claim that rests on one."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._count: dict[int, int] = {}
        self.invoices: list[Invoice] = []
        self.claims: list[Claim] = []
        # An exporter who changes his codes or prices still claims; who is out of order does not.
        self._suppliers = zone.firms.of(Role.SUPPLIER)
        for firm in zone.firms:
            if firm.role is Role.EXPORTER and firm.traits.tax_status == "NORMAL":
                self._claim_all(firm, zone.setting.rng(f"taxation.claims.{firm.index}"))
        self._carousel(zone.setting.rng("taxation.carousel"))

    def _claim_all(self, firm: Firm, rng: Random) -> None:
        shipments = [s for s in self._zone.shipments if s.firm is firm and s.export]
        for shipment in shipments:
            cleared = shipment.times.at("CLEARED")
            if firm.part == "rebate-uncleared":
                cleared = shipment.times.at("RELEASED")
            if cleared is None or (rng.random() < 0.2 and not firm.part):
                continue
            submitted = any_moment(rng, cleared.date() + dt.timedelta(days=rng.randint(4, 12)))
            if submitted > self._zone.setting.now:
                continue
            claims = [self._claim(rng, shipment, line, submitted) for line in shipment.lines]
            self.claims += claims
        act = _PLANTED.get(firm.part)
        if act is not None:
            act(self, firm)

    def _claim(self, rng: Random, shipment: Shipment, line: Line, submitted: dt.datetime) -> Claim:
        firm, now = shipment.firm, self._zone.setting.now
        supplier = rng.choice(self._suppliers)
        if firm.part == "vanished-claimant":
            supplier = self._zone.firms.part("vanished-supplier")
        day = shipment.times.declared.date() - dt.timedelta(days=rng.randint(5, 14))
        invoice = self.invoice(supplier, firm, day, line.good, line.qty, cents(line.cny * _COST))
        decided = any_moment(rng, submitted.date() + dt.timedelta(days=rng.randint(4, 16)))
        paid = any_moment(rng, decided.date() + dt.timedelta(days=rng.randint(2, 8)))
        held = bool(firm.part) and firm.part in {"vanished-claimant", "rebate-too-much"}
        decision = "HELD" if held else "PENDING" if decided > now else "APPROVED"
        done = decision == "APPROVED"
        return Claim(
            f"ST{submitted:%y%m}{firm.index:05d}{shipment.serial:03d}",
            line.number,
            shipment,
            line,
            invoice,
            submitted,
            decision,
            decided if done else None,
            paid if done and paid <= now else None,
            line.good.hs10,
            line.qty,
        )

    def invoice(self, seller: Firm, buyer: Firm, day: dt.date, good: Good, qty: Decimal, amount: Decimal) -> Invoice:
        """Write an invoice, with the seller's next number."""
        at = self._count[seller.index] = self._count.get(seller.index, 0) + 1
        made = Invoice(f"{REGION}{day:%y}{seller.index:05d}{at:09d}", seller, buyer, day, good, qty, amount)
        self.invoices.append(made)
        return made

    def of(self, firm: Firm) -> list[Claim]:
        """List a firm's claims."""
        return [c for c in self.claims if c.shipment.firm is firm]

    def change(self, old: Claim, new: Claim) -> None:
        """Put a claim in another's place."""
        self.claims[self.claims.index(old)] = new

    def drop(self, invoice: Invoice) -> None:
        """Take an invoice out that no claim rests on any more."""
        self.invoices.remove(invoice)

    def plant(self, indicator: str, title: str, firms: list[Firm], claims: list[Claim], **more: str) -> None:
        """Write down claims that are odd; `more` are keys by agency's type, underscore for the point."""
        records: dict[str, list[str]] = {"taxation.ExportRebateClaim": [c.key for c in claims]}
        records["customs.Declaration"] = [c.shipment.number for c in claims]
        records["taxation.InvoiceLine"] = sorted({f"{c.invoice.number}~1" for c in claims})
        records |= {name.replace("_", "."): [key] for name, key in more.items()}
        self._zone.ledger.plant(firms[0].part, indicator, title, firms, records)

    def _carousel(self, rng: Random) -> None:
        firms = [self._zone.firms.part(f"carousel-{n}") for n in (1, 2, 3)]
        good = self._zone.of("odd-price")[0].lines[0].good
        ring = [
            self.invoice(
                seller,
                buyer,
                self._zone.setting.before(120 - 9 * at),
                good,
                Decimal(15_000),
                Decimal(451_000 + 900 * at),
            )
            for at, (seller, buyer) in enumerate(zip(firms, firms[1:] + firms[:1], strict=True))
        ]
        rng.shuffle(ring)
        title = "three firms invoice the same goods round in a ring"
        keys = {"taxation.InvoiceLine": [f"{i.number}~1" for i in ring]}
        self._zone.ledger.plant("carousel", "I16", title, firms, keys)


def _double_invoice(purchases: Purchases, firm: Firm) -> None:
    first, second = purchases.of(firm)
    purchases.drop(second.invoice)
    second = replace(again := second, invoice=first.invoice)
    purchases.change(again, second)
    purchases.plant("I10", "one purchase invoice behind two declarations", [firm], [first, second])


def _uncleared(purchases: Purchases, firm: Firm) -> None:
    purchases.plant("I18", "tax claimed back on a declaration that was never cleared", [firm], purchases.of(firm))


def _wrong_code(purchases: Purchases, firm: Firm) -> None:
    (old,) = purchases.of(firm)
    new = replace(old, hs10="6912001000")
    purchases.change(old, new)
    purchases.plant("I18", "claimed under another commodity code than was declared", [firm], [new])


def _too_much(purchases: Purchases, firm: Firm) -> None:
    (old,) = purchases.of(firm)
    new = replace(old, qty=old.qty * 3 / 2)
    purchases.change(old, new)
    purchases.plant("I18", "more claimed than was declared", [firm], [new])


def _vanished(purchases: Purchases, firm: Firm) -> None:
    claims = purchases.of(firm)
    seller = claims[0].invoice.seller
    purchases.plant(
        "I17",
        "the supplier vanished before the refund",
        [firm, seller],
        claims,
        taxation_TaxpayerStatus=seller.uscc,
        commerce_RegistrationChange=f"{seller.uscc}~1",
    )


_PLANTED: Mapping[str, Callable[[Purchases, Firm], None]] = {
    "double-invoice": _double_invoice,
    "rebate-uncleared": _uncleared,
    "rebate-wrong-code": _wrong_code,
    "rebate-too-much": _too_much,
    "vanished-claimant": _vanished,
}
