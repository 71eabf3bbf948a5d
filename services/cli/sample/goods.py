"""What the sample zone trades: real commodity codes with invented prices, so that rules about codes have something."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Good:
    """One kind of goods, as it is always declared."""

    hs10: str
    name: str
    spec: str
    unit: str
    kg: Decimal
    """Net weight of one unit."""
    usd: Decimal
    """Price of one unit."""
    lot: int
    """Units in an ordinary goods line."""
    origins: tuple[str, ...] = ("CN",)
    ciq3: str = "999"
    rebate: Decimal = Decimal("0.13")
    category: str = ""
    """Food category; empty for what is no food."""
    plant: bool = False
    un_no: str = ""
    """Number of dangerous goods; empty for others."""
    reefer: bool = False
    """Needs a refrigerated container."""


def _d(text: str) -> Decimal:
    return Decimal(text)


LAMP = Good("9405420000", "LED灯具", "18W|示例牌", "H87", _d("0.6"), _d("4.20"), 6000)
"""What many firms export: enough lines of one kind for statistics on prices."""

TEA = Good("0902301000", "小包装红茶", "125克/盒|示例牌", "KGM", _d("1"), _d("9.50"), 3000, category="TEA", plant=True)

EXPORTS = (
    Good("8471301000", "笔记本电脑", "14英寸|示例牌", "H87", _d("1.4"), _d("310"), 300),
    Good("6911101900", "瓷餐具", "日用|示例牌", "KGM", _d("1"), _d("2.60"), 9000),
    Good("6109100099", "棉制针织T恤衫", "成人|示例牌", "H87", _d("0.18"), _d("2.90"), 12000),
    Good("8708999990", "汽车零件", "底盘用|示例牌", "KGM", _d("1"), _d("5.40"), 7000),
    Good("8541430000", "光伏组件", "550W|示例牌", "H87", _d("28"), _d("62"), 620),
    Good("9403609990", "木家具", "卧室用|示例牌", "H87", _d("22"), _d("48"), 500, rebate=_d("0.09")),
    Good("7323930000", "不锈钢厨具", "家用|示例牌", "KGM", _d("1"), _d("6.80"), 5000),
)
IMPORTS = (
    Good("8542311900", "集成电路", "微处理器|示例牌", "H87", _d("0.005"), _d("3.40"), 90000, ("MY", "KR", "JP")),
    Good("7403111100", "精炼铜阴极", "99.99%", "KGM", _d("1"), _d("8.90"), 24000, ("CL", "NA", "ZM")),
    Good("4407111900", "松木板材", "厚25毫米", "MTQ", _d("520"), _d("240"), 90, ("RU", "FI", "CA"), plant=True),
    Good("8479899990", "专用机器", "装配线用|示例牌", "SET", _d("900"), _d("21000"), 4, ("DE", "IT", "JP")),
    Good("3901200090", "聚乙烯", "初级形状", "KGM", _d("1"), _d("1.15"), 96000, ("SA", "AE", "KR")),
    Good("8409919990", "发动机零件", "汽油机用|示例牌", "KGM", _d("1"), _d("14.20"), 4000, ("DE", "US", "JP")),
)
FOODS = (
    Good("0202300090", "冻去骨牛肉", "真空包装", "KGM", _d("1"), _d("6.20"), 24000, ("AU", "BR", "NA"), "108",
         category="MEAT", reefer=True),
    Good("0402210000", "全脂奶粉", "25千克/袋", "KGM", _d("1"), _d("3.70"), 25000, ("NZ", "NL", "AU"), "101",
         category="DAIRY"),
    Good("2204210000", "葡萄酒", "750毫升/瓶", "LTR", _d("1"), _d("5.10"), 9000, ("CL", "FR", "ZA"), "103",
         category="WINE"),
    Good("0809290000", "鲜樱桃", "5千克/箱", "KGM", _d("1"), _d("7.40"), 12000, ("CL", "US", "NZ"), "101",
         category="FRUIT", plant=True, reefer=True),
    Good("1509200000", "特级初榨橄榄油", "500毫升/瓶", "KGM", _d("1"), _d("8.30"), 8000, ("ES", "IT", "GR"), "101",
         category="OIL"),
    Good("0306179090", "冻虾", "20千克/箱", "KGM", _d("1"), _d("7.90"), 18000, ("EC", "VN", "TH"), "108",
         category="SEAFOOD", reefer=True),
)  # fmt: skip
DANGEROUS = (
    Good("2905110000", "甲醇", "工业级", "KGM", _d("1"), _d("0.42"), 22000, ("SA", "AE"), un_no="1230"),
    Good("2914110000", "丙酮", "工业级", "KGM", _d("1"), _d("0.95"), 16000, ("KR", "SG"), un_no="1090"),
    Good("3208201020", "丙烯酸油漆", "溶剂型|示例牌", "KGM", _d("1"), _d("3.60"), 9000, ("DE", "JP"), un_no="1263"),
    Good("8507600090", "锂离子蓄电池", "48V|示例牌", "H87", _d("9"), _d("120"), 600, ("KR", "JP"), un_no="3480"),
)
RETAIL = (
    ("3304990039", "护肤品"),
    ("2106909090", "膳食补充剂"),
    ("9619001100", "婴儿尿裤"),
    ("1901109000", "婴幼儿辅食"),
)
"""What private buyers order abroad: commodity code and name."""
