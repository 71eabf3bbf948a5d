"""A sample zone's records in the ways indicators look at them."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from services.kit.records import catalogue, values
from tests.sample.conftest import Sample


def day(date: Any) -> dt.date:
    """Read a protobuf date."""
    return dt.date(date.year, date.month, date.day)


def time(stamp: Any) -> dt.datetime:
    """Read a protobuf timestamp."""
    found: dt.datetime = stamp.ToDatetime(dt.UTC)
    return found


def amount(money: Any) -> Decimal:
    """Read an amount."""
    return Decimal(money.amount.value)


class Facts:
    """A zone's records, in the ways indicators look at them."""

    def __init__(self, zone: Sample) -> None:
        self.of = zone.of
        self.today = dt.date.fromisoformat(zone.manifest["reference_date"])
        self.declarations = {d.declaration_no: d for d in zone.of("customs.Declaration")}
        self.events: defaultdict[str, dict[str, dt.datetime]] = defaultdict(dict)
        for event in zone.of("customs.ClearanceEvent"):
            self.events[event.declaration_no][self.word("customs.ClearanceEvent", "event_code", event)] = time(
                event.event_time
            )
        self.manifests: defaultdict[str, list[Any]] = defaultdict(list)
        for line in zone.of("customs.Manifest"):
            self.manifests[line.bill_no].append(line)
        self.lots = {lot.lot_id: lot for lot in zone.of("quality.InspectionLot")}
        self.invoices = {line.invoice_no: line for line in zone.of("taxation.InvoiceLine")}
        self.claims = zone.of("taxation.ExportRebateClaim")
        self.enterprises = {e.uscc: e for e in zone.of("commerce.Enterprise")}
        self.taxpayers = {t.uscc: t for t in zone.of("taxation.TaxpayerStatus")}

    @staticmethod
    def word(record_type: str, field: str, record: Any) -> str:
        """Write an enum value."""
        return values.enum_name(catalogue.load().get(record_type).field(field).descriptor, int(getattr(record, field)))

    def standing(self) -> Iterator[Any]:
        """List the declarations that were neither rejected nor deleted."""
        for declaration in self.declarations.values():
            if not self.events[declaration.declaration_no].keys() & {"REJECTED", "DELETED"}:
                yield declaration

    def exports(self) -> Iterator[tuple[Any, dt.datetime]]:
        """List the cleared exports, with the time of clearance."""
        for declaration in self.declarations.values():
            cleared = self.events[declaration.declaration_no].get("CLEARED")
            if cleared and self.word("customs.Declaration", "ie_flag", declaration) == "E":
                yield declaration, cleared
