"""Words that invented firms, people and places are made of. No name here means anybody or anything real.

Every name of a firm holds the word for "sample" (示例, SAMPLE), every person is a surname and 某 ("a certain"), every
number of a person starts with SAMPLE, so that no row of the zone can be taken for a real one.
"""

from random import Random

CITY = "云汀"
"""An inland city that does not exist."""

DISTRICTS = {"999901": "示例东区", "999902": "示例西区", "999903": "示例港区", "999904": "示例空港区"}
"""Districts of the zone, by region code."""

_FIRST = "澄沐禾屿岚翊晟霁珩栖蔚棠煦泓璟筠漾苒峤溪"
_SECOND = "川舟瑜桐朗笙锦屏汐衡麓庭砚岑渡芮谷泊原梧"
_STREETS = ("示例大道", "通关路", "驼铃街", "听潮路", "样本一路", "样本二路", "枢纽大道", "货栈街")
_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"

_ABROAD_FIRST = ("Alder", "Bracken", "Corvid", "Dunlin", "Ember", "Fennel", "Gannet", "Heath", "Iris", "Juniper")
_ABROAD_SECOND = ("Vale", "Reach", "Quay", "Field", "Harbour", "Ridge", "Lane", "Mill", "Point", "Moor")
_ABROAD_FORM = {"DE": "GmbH", "NL": "BV", "US": "LLC", "BR": "Ltda", "CL": "SpA", "JP": "KK"}

BRANDS = len(_FIRST) * len(_SECOND)


def brand(order: list[int], index: int) -> str:
    """Make a firm's own name of two characters; `order` is a shuffled range of `BRANDS`."""
    at = order[index % BRANDS]
    # Once all pairs are used up, a third character tells them apart.
    return _FIRST[at // len(_SECOND)] + _SECOND[at % len(_SECOND)] + "甲乙丙丁戊"[: index // BRANDS]


def person(rng: Random) -> str:
    """Name a person the way published registers mask them."""
    return rng.choice(_SURNAMES) + "某"


def address(rng: Random, region: str, building: int) -> str:
    """Make an address; a building number that is given once only makes it unlike all others."""
    street = rng.choice(_STREETS)
    return f"{CITY}市{DISTRICTS[region]}{street}{building}号{rng.randint(1, 28)}层{rng.randint(1, 30):02d}室"


def shared_address(region: str) -> str:
    """Name the address that a cluster of firms shares."""
    return f"{CITY}市{DISTRICTS[region]}听潮路9号集中办公区1室"


def abroad(rng: Random, country: str, trade: str) -> str:
    """Name a firm abroad."""
    name = f"{rng.choice(_ABROAD_FIRST)}{rng.choice(_ABROAD_SECOND).lower()}"
    return f"SAMPLE {name} {trade} {_ABROAD_FORM.get(country, 'Ltd')}"
