"""Some of the sample zone once more, in the shapes that old systems give: for `hutong load` with a mapping.

The enterprise register as an open export (GB18030, Chinese headers, capital in words, one row with its columns
shifted), and declarations as WCO Data Model messages. Load these instead of the plain files, not after them.
"""

import csv
import io
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from random import Random

from services.cli.sample import words
from services.cli.sample.firms import Firm
from services.cli.sample.shipments import Line, Shipment
from services.cli.sample.zone import Zone

REGISTER = "legacy/commerce/enterprise_register.csv"
DECLARATIONS = "legacy/customs/{}.xml"
_COLUMNS = (
    "企业名称",
    "统一社会信用代码",
    "注册日期",
    "企业类型",
    "法人代表",
    "注册资金",
    "经营范围",
    "所在省份",
    "地区",
    "注册地址",
)
_NULL = "N/A"
_MESSAGES = 3
"""Declarations of the exporter, and as many of the trader in dangerous goods."""

_METADATA = "urn:wco:datamodel:WCO:DocumentMetaData-DMS:2"
_DECLARATION = "urn:wco:datamodel:WCO:DEC-DMS:2"


def files(zone: Zone) -> Iterator[tuple[str, bytes]]:
    """Make the legacy files, as path and content."""
    yield REGISTER, _register(zone)
    for part in ("exporter", "dg-permitted"):
        for shipment in zone.of(part)[-_MESSAGES:]:
            yield DECLARATIONS.format(shipment.number), _message(shipment)


def _register(zone: Zone) -> bytes:
    stream, rng = io.StringIO(newline=""), zone.setting.rng("legacy.register")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for firm in zone.firms:
        row = [
            firm.name,
            firm.uscc,
            firm.established.isoformat(),
            "有限责任公司" if rng.random() < 0.9 else _NULL,
            firm.rep_name,
            _capital(rng, firm),
            firm.scope,
            "示例省",
            words.CITY,
            firm.address,
        ]
        # The name is missing and everything after it has moved up, as happens in real exports.
        writer.writerow([*row[1:], ""] if firm.part == "retailer-2" else row)
    return stream.getvalue().encode("gb18030")


def _capital(rng: Random, firm: Firm) -> str:
    amount = f"{firm.capital / 10_000:f}"
    if firm.currency == "USD":
        return rng.choice((f"{amount}(万美元)", f"{amount}万美元"))
    notations = (f"{amount}(万元人民币)", f"{amount}万人民币", f"{amount}.0000(万元)", f"{firm.capital}元", _NULL)
    return rng.choice(notations)


def _message(shipment: Shipment) -> bytes:
    root = ET.Element("md:MetaData", {"xmlns:md": _METADATA})
    root.append(ET.Comment(" SAMPLE: synthetic message of a sample zone "))
    for name, value in (("WCODataModelVersionCode", "3.6"), ("WCOTypeName", "DEC")):
        ET.SubElement(root, f"md:{name}").text = value
    made = _Writer(ET.SubElement(root, "Declaration", {"xmlns": _DECLARATION}))
    made.put("FunctionCode", "9")
    made.put("FunctionalReferenceID", f"SAMPLE-{shipment.number}")
    made.put("ID", shipment.number)
    made.put("IssueDateTime/DateTimeString", f"{shipment.times.declared:%Y%m%d%H%M%S}Z", formatCode="304")
    made.put("TypeCode", "EXA" if shipment.export else "IMA")
    made.put("GoodsItemQuantity", str(len(shipment.lines)))
    made.put("DeclarationOfficeID", "SAMPLE01")
    made.put("InvoiceAmount", f"{shipment.invoice.amount:f}", currencyID="USD")
    made.put("TotalGrossMassMeasure", f"{shipment.gross:f}", unitCode="KGM")
    made.put("TotalPackageQuantity", str(shipment.packages))
    made.put("BorderTransportMeans/ID", shipment.transport)
    made.put("BorderTransportMeans/ModeCode", shipment.mode)
    made.put("Exporter/Name", shipment.firm.name if shipment.export else shipment.party.name)
    goods = made.child("GoodsShipment")
    goods.put("Consignee/Name", shipment.party.name if shipment.export else shipment.firm.name)
    for box in shipment.boxes:
        equipment = goods.one("Consignment").child("TransportEquipment")
        equipment.put("ID", box.number)
        equipment.put("Seal/ID", box.seal)
    goods.put("Destination/CountryCode", shipment.party.country if shipment.export else "CN")
    goods.put("ExportCountry/ID", "CN" if shipment.export else shipment.party.country)
    for line in shipment.lines:
        _item(goods.child("GovernmentAgencyGoodsItem"), line)
    goods.put("TradeTerms/ConditionCode", "FOB" if shipment.export else "CIF")
    ET.indent(root)
    stream = io.BytesIO()
    ET.ElementTree(root).write(stream, encoding="UTF-8", xml_declaration=True)
    return stream.getvalue() + b"\n"


def _item(item: "_Writer", line: Line) -> None:
    item.put("SequenceNumeric", str(line.number))
    commodity = item.child("Commodity")
    commodity.put("Description", line.good.name)
    for kind, digits in (("TSP", line.good.hs10[:8]), ("TRC", line.good.hs10[8:])):
        classification = commodity.child("Classification")
        classification.put("ID", digits)
        classification.put("IdentificationTypeCode", kind)
    if line.good.un_no:
        commodity.put("DangerousGoods/UNDGID", line.good.un_no)
    commodity.put("GoodsMeasure/GrossMassMeasure", f"{line.gross:f}", unitCode="KGM")
    commodity.put("GoodsMeasure/NetNetWeightMeasure", f"{line.net:f}", unitCode="KGM")
    commodity.put("GoodsMeasure/TariffQuantity", f"{line.qty:f}", unitCode=line.good.unit)
    commodity.put("InvoiceLine/ItemChargeAmount", f"{line.total:f}", currencyID="USD")
    item.put("Origin/CountryCode", line.origin)
    item.put("Origin/TypeCode", "1")


class _Writer:
    """Writes below one element, by path."""

    def __init__(self, element: ET.Element) -> None:
        self.element = element

    def child(self, name: str) -> "_Writer":
        """Add an element."""
        return _Writer(ET.SubElement(self.element, name))

    def one(self, name: str) -> "_Writer":
        """Get the element of a name, or add it."""
        found = self.element.find(name)
        return self.child(name) if found is None else _Writer(found)

    def put(self, path: str, text: str, **attributes: str) -> None:
        """Write a text at a path, in elements that are there or added."""
        *above, name = path.split("/")
        at = self
        for step in above:
            at = at.one(step)
        ET.SubElement(at.element, name, attributes).text = text
