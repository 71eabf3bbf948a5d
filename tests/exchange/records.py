"""An exporter and what five agencies know about it; every identifier is invented and has a right check digit."""

import datetime as dt
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from hutong.api.commerce.v1 import enterprise_pb2
from hutong.api.common.v1.common_pb2 import Date, Decimal, Money, Period
from hutong.api.customs.v1 import clearance_event_pb2, declaration_pb2, operator_pb2
from hutong.api.publicsecurity.v1 import seal_registration_pb2
from hutong.api.quality.v1 import trace_event_pb2
from hutong.api.taxation.v1 import taxpayer_status_pb2, vat_filing_pb2
from services.kit.check_digits import org_code, uscc


def code(organisation: str) -> str:
    """Make a social credit code around an organisation code of eight characters, with both check digits right."""
    body = f"91990000{organisation}{org_code(organisation)}"
    return body + uscc(body)


EXPORTER, OTHER = code("MA000001"), code("MA000002")
_DOUBTED = "91990000MA0000001"
DOUBTED = _DOUBTED + uscc(_DOUBTED)
"""Its own check digit is right, that of the organisation code in it is not."""


def moment(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(dt.datetime.fromisoformat(text))
    return stamp


def cny(amount: str) -> Money:
    return Money(currency_code="CNY", amount=Decimal(value=amount))


def enterprise(uscc: str, name: str) -> Message:
    return enterprise_pb2.Enterprise(
        uscc=uscc,
        name=name,
        reg_status=enterprise_pb2.REG_STATUS_ACTIVE,
        legal_rep_name="王某",
        legal_rep_id_no="SAMPLE-0001",
        reg_capital_amt=Decimal(value="5000000"),
        reg_capital_ccy="CNY",
        establish_date=Date(year=2019, month=4, day=1),
        business_scope="示例：进出口贸易",
        address="示例区一号",
        contact_phone="000-12345678",
        paid_in_capital_amt=cny("3000000"),
    )


def declaration(number: str, trader: str, status: Any, value: str = "125000.50") -> Message:
    return declaration_pb2.Declaration(
        declaration_no=number,
        ie_flag=declaration_pb2.IE_FLAG_E,
        trader_uscc=trader,
        declared_at=moment("2026-05-04T09:30:00+08:00"),
        ie_date=Date(year=2026, month=5, day=6),
        trade_mode="0110",
        transaction_term="3",
        total_value_cny=cny(value),
        overseas_party_name="Example Trading GmbH",
        gross_wt_kg=Decimal(value="1200"),
        decl_status=status,
        lines=[
            declaration_pb2.GoodsLine(
                line_no=1, hs10="8471300000", goods_name="示例商品", total_price=Decimal(value="9000"), ccy="USD"
            ),
            declaration_pb2.GoodsLine(
                line_no=2, hs10="8471410000", goods_name="示例商品二", total_price=Decimal(value="8000"), ccy="USD"
            ),
        ],
        containers=[declaration_pb2.Container(container_no="MSKU0000006", seal_no="S1")],
    )


CLEARED = "999920260000000001"
PENDING = "999920260000000002"

RECORDS: dict[str, list[Message]] = {
    "commerce": [enterprise(EXPORTER, "示例进出口有限公司"), enterprise(OTHER, "示例二号有限公司")],
    "taxation": [
        taxpayer_status_pb2.TaxpayerStatus(
            uscc=EXPORTER,
            tax_status=taxpayer_status_pb2.TAX_STATUS_NORMAL,
            credit_grade=taxpayer_status_pb2.CREDIT_GRADE_A,
            arrears_flag=False,
            arrears_amt=cny("0"),
        ),
        *(
            vat_filing_pb2.VatFiling(
                uscc=EXPORTER,
                period=Period(year=2026, month=month),
                filing_id=f"F{month}",
                filed_at=moment(f"2026-{month + 1:02d}-10T09:00:00+08:00"),
                export_sales_amt=cny("125000.50"),
                output_sales_amt=cny("250000"),
                zero_filing=False,
            )
            for month in range(1, 7)
        ),
    ],
    "customs": [
        operator_pb2.Operator(
            customs_code="9999960001", uscc=EXPORTER, credit_level=operator_pb2.CREDIT_LEVEL_CERTIFIED
        ),
        declaration(CLEARED, EXPORTER, declaration_pb2.DECLARATION_STATUS_CLEARED),
        declaration(PENDING, EXPORTER, declaration_pb2.DECLARATION_STATUS_ACCEPTED, "77.10"),
        clearance_event_pb2.ClearanceEvent(
            event_id="e1",
            declaration_no=CLEARED,
            event_code=clearance_event_pb2.CLEARANCE_EVENT_CODE_CLEARED,
            event_time=moment("2026-05-06T10:00:00+08:00"),
            officer_pseud="officer-secret",
        ),
    ],
    "quality": [
        trace_event_pb2.TraceEvent(
            trace_event_id="t1",
            trace_code="T1",
            holder_uscc=EXPORTER,
            batch_no="B1",
            step=trace_event_pb2.TRACE_STEP_RECALL,
            event_time=moment("2026-05-06T10:00:00+08:00"),
        )
    ],
    "publicsecurity": [
        seal_registration_pb2.SealRegistration(
            seal_no="9999000000001",
            uscc=EXPORTER,
            seal_type=seal_registration_pb2.SEAL_TYPE_COMPANY,
            seal_status=seal_registration_pb2.SEAL_STATUS_VALID,
        )
    ],
}
