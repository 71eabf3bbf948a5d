"""Who plays a part in the sample zone: firms with a fixed place in the list and something to be found about them.

Everybody else is drawn by chance and behaves: what an indicator finds in the zone was planted here.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a firm lives from."""

    EXPORTER = "EXPORTER"
    IMPORTER = "IMPORTER"
    FOOD_IMPORTER = "FOOD_IMPORTER"
    DG_TRADER = "DG_TRADER"
    SUPPLIER = "SUPPLIER"
    BROKER = "BROKER"
    CARRIER = "CARRIER"
    WAREHOUSE = "WAREHOUSE"
    PLATFORM = "PLATFORM"
    MERCHANT = "MERCHANT"
    SERVICES = "SERVICES"


@dataclass(frozen=True, slots=True)
class Traits:
    """What is fixed about a firm with a part; None leaves it to chance."""

    role: Role
    trades: bool = True
    """Does ordinary business beside what is planted."""
    reg_status: str = "ACTIVE"
    tax_status: str = "NORMAL"
    record_status: str = "VALID"
    credit_level: str | None = None
    credit_grade: str | None = None
    export_class: str | None = None
    paid_in: Decimal | None = None
    established: int | None = None
    """Days before the reference date."""
    employee_band: str | None = None
    shared_address: str = ""
    """Firms with the same word have the same address."""
    bad_check_digit: bool = False


def _clean(role: Role) -> Traits:
    return Traits(role, credit_level="REGULAR", established=2200)


def _planted(role: Role, **fixed: Any) -> Traits:
    """Make a firm that only does what is planted."""
    return Traits(role, trades=False, established=1900, **fixed)


_EXTRAS: Mapping[str, Traits] = {
    **{f"supplier-{n}": _clean(Role.SUPPLIER) for n in range(1, 5)},
    **{f"broker-{n}": _clean(Role.BROKER) for n in range(1, 4)},
    **{f"carrier-{n}": _clean(Role.CARRIER) for n in range(1, 3)},
    **{f"retailer-{n}": _clean(Role.SERVICES) for n in range(1, 3)},
    "warehouse": _clean(Role.WAREHOUSE),
    "merchant": _clean(Role.MERCHANT),
}
"""Whom the others need, however small the zone is."""

CAST: Mapping[str, Traits] = {
    # the story the demo tells
    "exporter": Traits(
        Role.EXPORTER,
        credit_level="ADVANCED_CERTIFIED",
        credit_grade="A",
        export_class="ONE",
        paid_in=Decimal(30_000_000),
        established=4000,
        employee_band="FIFTY_TO_249",
    ),
    "barred-listed": _planted(Role.IMPORTER, credit_level="SERIOUSLY_DISHONEST", credit_grade="D"),
    "failed-lots": Traits(Role.FOOD_IMPORTER, credit_level="REGULAR", established=1500),
    "dg-permitted": Traits(Role.DG_TRADER, credit_level="CERTIFIED", established=3100),
    # indicators
    "dg-no-permit": _planted(Role.DG_TRADER),
    "dg-too-much": _planted(Role.DG_TRADER),
    "double-invoice": _planted(Role.EXPORTER),
    "double-bill": _planted(Role.EXPORTER),
    "vat-gap": Traits(Role.EXPORTER, established=1200),
    "rebate-uncleared": _planted(Role.EXPORTER),
    "rebate-wrong-code": _planted(Role.EXPORTER),
    "rebate-too-much": _planted(Role.EXPORTER),
    "vanished-claimant": _planted(Role.EXPORTER),
    "vanished-supplier": Traits(
        Role.SUPPLIER, established=420, reg_status="REVOKED", tax_status="NON_NORMAL_HOUSEHOLD", credit_grade="D"
    ),
    **{f"cluster-{n}": Traits(Role.SERVICES, established=140 + 9 * n, shared_address="cluster") for n in range(1, 7)},
    "barred-revoked": _planted(Role.IMPORTER, reg_status="REVOKED"),
    "barred-tax": _planted(Role.EXPORTER, tax_status="NON_NORMAL_HOUSEHOLD", credit_grade="D"),
    "barred-record": _planted(Role.IMPORTER, record_status="CANCELLED"),
    "thin-capital": Traits(
        Role.EXPORTER, trades=False, established=200, paid_in=Decimal(100_000), employee_band="ONE_TO_NINE"
    ),
    "control-change": _planted(Role.EXPORTER),
    **{f"carousel-{n}": Traits(Role.SERVICES, established=700) for n in range(1, 4)},
    "void-surge": _planted(Role.EXPORTER),
    "late-declarer": _planted(Role.IMPORTER),
    "never-declared": _planted(Role.IMPORTER),
    "phantom": _planted(Role.EXPORTER),
    "weight-gap": _planted(Role.IMPORTER),
    "code-changer": _planted(Role.EXPORTER),
    "odd-price": _planted(Role.EXPORTER),
    "platform": Traits(Role.PLATFORM, established=1700),
    "list-mismatch": Traits(Role.MERCHANT, established=900),
    "list-splitting": Traits(Role.MERCHANT, established=900),
    "bad-certificates": _planted(Role.FOOD_IMPORTER),
    "trace-gap": _planted(Role.FOOD_IMPORTER),
    "early-release": _planted(Role.FOOD_IMPORTER),
    "watch-hit": _planted(Role.EXPORTER),
    "bad-container": _planted(Role.IMPORTER),
    "unfit-vehicles": _clean(Role.CARRIER),
    "miscoded": Traits(Role.SERVICES, established=1100, bad_check_digit=True),
    **_EXTRAS,
}
"""Parts by name, in the order of the list of firms."""

MIN_ENTERPRISES = 250
"""Enough for every part, and for a crowd to stand out from: thirty lines of equal goods in a quarter."""

LISTED_FOR = dt.timedelta(days=75)
"""How long before the reference date the barred trader was listed."""
