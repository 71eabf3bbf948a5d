"""The firms of the sample zone: one list, from which every agency takes what it knows."""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from services.cli.sample import words
from services.cli.sample.cast import CAST, Role, Traits
from services.cli.sample.setting import REGION, Setting
from services.kit import check_digits
from services.kit.check_digits import USCC_ALPHABET

_WEIGHTS: Mapping[Role, int] = {
    Role.EXPORTER: 30,
    Role.IMPORTER: 15,
    Role.FOOD_IMPORTER: 12,
    Role.DG_TRADER: 4,
    Role.SUPPLIER: 19,
    Role.BROKER: 3,
    Role.CARRIER: 3,
    Role.WAREHOUSE: 2,
    Role.MERCHANT: 2,
    Role.SERVICES: 10,
}
_SECTOR: Mapping[Role, tuple[str, str, str]] = {
    # what the name says, industry (GB/T 4754), business scope
    Role.EXPORTER: ("进出口", "F5199", "货物进出口；技术进出口；日用百货销售；电子产品销售。"),
    Role.IMPORTER: ("国际贸易", "F5199", "货物进出口；金属材料销售；机械设备销售。"),
    Role.FOOD_IMPORTER: ("食品贸易", "F5129", "食品进出口；食品销售；冷链仓储。"),
    Role.DG_TRADER: ("化工贸易", "F5169", "危险化学品经营；化工产品销售；货物进出口。"),
    Role.SUPPLIER: ("制造", "C3990", "日用品制造；电子元件制造；五金产品制造。"),
    Role.BROKER: ("报关服务", "G5822", "报关业务；国际货物运输代理。"),
    Role.CARRIER: ("运输", "G5431", "道路货物运输；危险货物道路运输。"),
    Role.WAREHOUSE: ("仓储", "G5990", "保税仓库经营；普通货物仓储服务。"),
    Role.PLATFORM: ("电子商务", "I6431", "互联网信息服务；跨境电子商务平台运营。"),
    Role.MERCHANT: ("跨境电商", "F5292", "互联网销售；货物进出口。"),
    Role.SERVICES: ("商贸", "F5299", "日用百货销售；食品销售；信息咨询服务。"),
}
_RECORDED = frozenset(Role) - {Role.SUPPLIER, Role.SERVICES}
"""Roles that customs has on record."""

_OUT_OF_ORDER = (("SUSPENDED", "SUSPENDED"), ("REVOKED", "ABNORMAL"), ("DEREGISTERED", "DEREGISTERED"))


@dataclass(frozen=True, slots=True)
class Firm:
    """One firm, as every agency would know it."""

    index: int
    part: str
    """Name in the cast; empty for everybody else."""
    traits: Traits
    uscc: str
    customs_code: str
    """Empty where customs does not know it."""
    name: str
    region: str
    address: str
    address_key: str
    rep_name: str
    capital: Decimal
    currency: str
    paid_in: Decimal
    established: dt.date

    @property
    def role(self) -> Role:
        """What it lives from."""
        return self.traits.role

    @property
    def industry(self) -> str:
        """Its GB/T 4754 code."""
        return _SECTOR[self.role][1]

    @property
    def scope(self) -> str:
        """Its registered business scope."""
        return _SECTOR[self.role][2]

    @property
    def rep_id(self) -> str:
        """Identity number of its legal representative; no such number can exist."""
        return f"SAMPLE-ID-{self.index:06d}"

    @property
    def in_order(self) -> bool:
        """Nothing is against it at any agency."""
        traits = self.traits
        return (traits.reg_status, traits.tax_status, traits.record_status) == ("ACTIVE", "NORMAL", "VALID")


class Firms:
    """Every firm of a zone, by part and by role."""

    def __init__(self, setting: Setting) -> None:
        order = list(range(words.BRANDS))
        setting.rng("firms.names").shuffle(order)
        parts = list(CAST)
        self.all = tuple(
            _firm(setting, order, i, parts[i] if i < len(parts) else "") for i in range(setting.enterprises)
        )
        self._parts = {firm.part: firm for firm in self.all if firm.part}

    def __iter__(self) -> Iterator[Firm]:
        return iter(self.all)

    @property
    def sound(self) -> tuple[Firm, ...]:
        """List the firms whose code is right: what a bad code would only repeat is left out elsewhere."""
        return tuple(f for f in self.all if not f.traits.bad_check_digit)

    def part(self, name: str) -> Firm:
        """Get the firm that plays a part."""
        return self._parts[name]

    def of(self, *roles: Role) -> tuple[Firm, ...]:
        """List the firms of some roles that are in order and do ordinary business."""
        return tuple(f for f in self.sound if f.role in roles and f.traits.trades and f.in_order)


def uscc(region: str, serial: int) -> str:
    """Make a company's unified social credit code; every digit of it checks, and no such region exists."""
    body = ""
    for _ in range(6):
        serial, at = divmod(serial, len(USCC_ALPHABET))
        body = USCC_ALPHABET[at] + body
    org = f"MA{body}"
    first = f"91{region}{org}{check_digits.org_code(org)}"
    return first + check_digits.uscc(first)


def _firm(setting: Setting, order: list[int], index: int, part: str) -> Firm:
    rng = setting.rng(f"firms.{index}")
    traits = CAST[part] if part else _ordinary(rng)
    region = next(iter(words.DISTRICTS)) if traits.shared_address else rng.choice(tuple(words.DISTRICTS))
    code = uscc(region, 7_000_000 + index)
    if traits.bad_check_digit:
        code = code[:-1] + USCC_ALPHABET[(USCC_ALPHABET.index(code[-1]) + 1) % len(USCC_ALPHABET)]
    address, address_key = words.address(rng, region, 100 + index), f"{region}-{100 + index:05d}"
    if traits.shared_address:
        address, address_key = words.shared_address(region), f"{region}-{traits.shared_address}"
    capital = Decimal(rng.choice((100, 200, 300, 500, 800, 1000, 2000, 5000))) * 10_000
    paid_in = capital * rng.choice((6, 8, 10)) / 10
    if traits.paid_in is not None:
        capital, paid_in = max(capital, traits.paid_in), traits.paid_in
    return Firm(
        index,
        part,
        traits,
        code,
        f"{REGION}6{rng.choice('016')}{index:04d}" if traits.role in _RECORDED else "",
        f"{words.CITY}示例{words.brand(order, index)}{_SECTOR[traits.role][0]}有限公司",
        region,
        address,
        address_key,
        words.person(rng),
        capital,
        "USD" if rng.random() < 0.05 else "CNY",
        paid_in,
        setting.before(traits.established or rng.randint(800, 7000)),
    )


def _ordinary(rng: Random) -> Traits:
    role = rng.choices(tuple(_WEIGHTS), tuple(_WEIGHTS.values()))[0]
    reg_status, tax_status = "ACTIVE", "NORMAL"
    # Only firms that nobody trades with may be out of order without being an oddity.
    if role is Role.SERVICES and rng.random() < 0.3:
        reg_status, tax_status = rng.choice(_OUT_OF_ORDER)
    return Traits(role, reg_status=reg_status, tax_status=tax_status)
