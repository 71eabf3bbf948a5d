"""A sample zone: its firms, their shipments, and what was planted among them."""

from dataclasses import dataclass

from services.cli.sample import planted, trade
from services.cli.sample.firms import Firms
from services.cli.sample.ledger import Ledger
from services.cli.sample.setting import Setting
from services.cli.sample.shipments import Book, Shipment


@dataclass(frozen=True, slots=True)
class Zone:
    """What the agencies of a sample zone have in common."""

    setting: Setting
    firms: Firms
    shipments: tuple[Shipment, ...]
    ledger: Ledger

    def of(self, part: str) -> list[Shipment]:
        """List the shipments of the firm that plays a part, oldest first."""
        return [s for s in self.shipments if s.firm.part == part]


def build(setting: Setting) -> Zone:
    """Make a zone's firms and shipments; the same setting gives the same zone."""
    firms, ledger = Firms(setting), Ledger()
    book = Book(setting, firms)
    trade.trade(setting, firms, book)
    planted.plant(setting, firms, book, ledger)
    return Zone(setting, firms, tuple(sorted(book.shipments, key=lambda s: (s.times.declared, s.number))), ledger)
