"""What is asked about: thousands of enterprises, each known to all five departments, one record of one type at each.

Every record has every field of its type. They are made from a number alone, so that whoever checks an answer makes the
record it must come from again. Invented through and through: no such region, code or number exists.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Final

from google.protobuf.message import Message

from hutong.api.commerce.v1 import enterprise_pb2
from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import operator_pb2
from hutong.api.publicsecurity.v1 import seal_registration_pb2
from hutong.api.quality.v1 import trace_event_pb2
from hutong.api.taxation.v1 import taxpayer_status_pb2
from services.cli.sample.firms import uscc
from services.kit.records import catalogue

SUBJECTS: Final = 2_000
SCHEME: Final = "cn.uscc"
_REGION = "999901"
_FIRST = 8_000_000
_BEGIN = dt.date(2001, 1, 1)


def code(number: int) -> str:
    """Make the code of an enterprise."""
    return uscc(_REGION, _FIRST + number)


def _date(rng: Random) -> common_pb2.Date:
    day = _BEGIN + dt.timedelta(days=rng.randrange(9000))
    return common_pb2.Date(year=day.year, month=day.month, day=day.day)


def _money(rng: Random) -> common_pb2.Money:
    return common_pb2.Money(currency_code="CNY", amount=common_pb2.Decimal(value=f"{rng.randrange(10**9)}.00"))


def _enterprise(number: int, rng: Random) -> Message:
    return enterprise_pb2.Enterprise(
        uscc=code(number),
        name=f"示例市示例测试第{number:07d}号国际贸易有限公司",
        entity_type="1130",
        reg_status=enterprise_pb2.REG_STATUS_ACTIVE,
        legal_rep_name=f"示例{number % 9973:04d}",
        legal_rep_id_no=f"SAMPLE-ID-{number:06d}",
        reg_capital_amt=common_pb2.Decimal(value=f"{rng.randrange(10**8)}.00"),
        reg_capital_ccy="CNY",
        paid_in_capital_amt=_money(rng),
        establish_date=_date(rng),
        business_scope="货物进出口；技术进出口；日用百货销售；电子产品销售；国内货物运输代理；普通货物仓储服务。",
        address=f"示例市示例区示例大道{rng.randrange(1, 4000)}号{rng.randrange(1, 30)}层{rng.randrange(100, 3000)}室",
        address_norm_key=f"{_REGION}-{number:07d}",
        industry_code="F5199",
        region_code=_REGION,
        registrar=f"SAMPLE-REG-{_REGION}",
        term_from=_date(rng),
        term_to=_date(rng),
        approved_date=_date(rng),
        contact_phone=f"000-0000-{number:07d}",
    )


def _taxpayer_status(number: int, rng: Random) -> Message:
    return taxpayer_status_pb2.TaxpayerStatus(
        uscc=code(number),
        taxpayer_type=taxpayer_status_pb2.TAXPAYER_TYPE_GENERAL,
        tax_status=taxpayer_status_pb2.TAX_STATUS_NORMAL,
        registered_on=_date(rng),
        credit_grade=taxpayer_status_pb2.CREDIT_GRADE_A,
        credit_year=rng.randrange(2015, 2026),
        export_class=taxpayer_status_pb2.EXPORT_CLASS_TWO,
        tax_office=f"SAMPLE-TAX-{rng.randrange(100):02d}",
        arrears_flag=True,
        arrears_amt=_money(rng),
        employee_band=taxpayer_status_pb2.EMPLOYEE_BAND_TEN_TO_49,
    )


def _operator(number: int, rng: Random) -> Message:
    return operator_pb2.Operator(
        customs_code=f"99016{number:05d}",
        uscc=code(number),
        operator_types=[operator_pb2.OPERATOR_TYPE_IMPORTER_EXPORTER, operator_pb2.OPERATOR_TYPE_WAREHOUSE],
        recorded_on=_date(rng),
        record_status=operator_pb2.RECORD_STATUS_VALID,
        credit_level=operator_pb2.CREDIT_LEVEL_ADVANCED_CERTIFIED,
        credit_from=_date(rng),
        aeo_code=f"AEOCN{number:010d}",
        mra_partners=["SG", "KR", "JP"],
        next_review=_date(rng),
    )


def _trace_event(number: int, rng: Random) -> Message:
    event = trace_event_pb2.TraceEvent(
        trace_event_id=f"SAMPLE-TRACE-{number:08d}",
        trace_code=f"SAMPLE-CODE-{rng.randrange(10**10):010d}",
        parent_code=f"SAMPLE-CODE-{rng.randrange(10**10):010d}",
        lot_id=f"SAMPLE-LOT-{number:08d}",
        gtin="00000000000000",
        batch_no=f"B{rng.randrange(10**6):06d}",
        expiry_date=_date(rng),
        holder_uscc=code(number),
        step=trace_event_pb2.TRACE_STEP_IMPORT,
    )
    event.event_time.FromDatetime(dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=rng.randrange(10**6)))
    return event


def _seal_registration(number: int, rng: Random) -> Message:
    return seal_registration_pb2.SealRegistration(
        seal_no=f"99{number:011d}",
        uscc=code(number),
        seal_type=seal_registration_pb2.SEAL_TYPE_COMPANY,
        registered_on=_date(rng),
        seal_status=seal_registration_pb2.SEAL_STATUS_VALID,
        e_seal_cert_id=f"SAMPLE-CERT-{rng.randrange(10**12):012d}",
    )


def _filing(record_type: str, number: int, rng: Random) -> Message:
    """Make a record of an agency that is made up (`bench.agencies`)."""
    filing = catalogue.load().get(record_type).message
    return filing(filing_no=f"SAMPLE-{number:08d}", uscc=code(number), filed_on=_date(rng), remark="示例")


_MAKERS: Final[Mapping[str, Callable[[int, Random], Message]]] = {
    "commerce.Enterprise": _enterprise,
    "taxation.TaxpayerStatus": _taxpayer_status,
    "customs.Operator": _operator,
    "quality.TraceEvent": _trace_event,
    "publicsecurity.SealRegistration": _seal_registration,
}

TYPES: Final = tuple(_MAKERS)
"""One record type of each department, in the order in which they are asked for."""


def record(record_type: str, number: int) -> Message:
    """Make the record of one type about one enterprise; of a type that is made up, whatever that may be."""
    rng = Random(f"{record_type} {number}")
    maker = _MAKERS.get(record_type)
    return maker(number, rng) if maker else _filing(record_type, number, rng)


def records(record_type: str, count: int) -> Iterator[Message]:
    """Make the records of one type about the first `count` enterprises."""
    return (record(record_type, number) for number in range(count))
