"""Example rows for every mapping file, all values invented, and the records they must become.

A row is cells by column name, or a whole message. What is expected is a record in protobuf text form, or the beginning
of the reason why there is none.
"""

from dataclasses import dataclass

from tests.adapters.specimens import uscc


@dataclass(frozen=True)
class Example:
    """One row and what must come of it."""

    row: dict[str, str] | str
    expected: str


_FIRM = {
    "企业名称": "厦门虚构茶叶有限公司",
    "统一社会信用代码": uscc(7),
    "注册日期": "2019-01-02",
    "企业类型": "有限责任公司",
    "法人代表": "某某",
    "注册资金": "1,234.5600(万元人民币)",
    "经营范围": "茶叶零售。",
    "所在省份": "福建",
    "地区": "厦门",
    "注册地址": "虚构路1号",
}
_REGISTRY = [
    Example(
        _FIRM,
        f"""uscc: "{uscc(7)}" name: "厦门虚构茶叶有限公司" entity_type: "有限责任公司" legal_rep_name: "某某"
        reg_capital_amt {{ value: "12345600" }} reg_capital_ccy: "CNY" establish_date {{ year: 2019 month: 1 day: 2 }}
        business_scope: "茶叶零售。" address: "虚构路1号" region_code: "350200" """,
    ),
    Example(
        _FIRM | {"注册资金": "5万美元", "企业类型": "N/A"},
        f"""uscc: "{uscc(7)}" name: "厦门虚构茶叶有限公司" legal_rep_name: "某某"
        reg_capital_amt {{ value: "50000" }} reg_capital_ccy: "USD" establish_date {{ year: 2019 month: 1 day: 2 }}
        business_scope: "茶叶零售。" address: "虚构路1号" region_code: "350200" """,
    ),
    Example(
        _FIRM | {"注册资金": "-"},
        f"""uscc: "{uscc(7)}" name: "厦门虚构茶叶有限公司" entity_type: "有限责任公司" legal_rep_name: "某某"
        establish_date {{ year: 2019 month: 1 day: 2 }}
        business_scope: "茶叶零售。" address: "虚构路1号" region_code: "350200" """,
    ),
    Example(
        _FIRM | {"企业类型": "100万元人民币", "法人代表": "某", "注册资金": "某"}, "VALUE_INVALID: reg_capital_amt"
    ),
    Example(_FIRM | {"统一社会信用代码": "91350211M0000XUF46"}, "CHECK_DIGIT: uscc"),
    Example(_FIRM | {"企业名称": "N/A"}, "VALUE_MISSING: name"),
]

_LIST = {
    "No": "12",
    "RFC": "AAA120730823",
    "Nombre del Contribuyente": "COMPAÑÍA INVENTADA, S.A. DE C.V.",
    "Situación del contribuyente": "Definitivo",
    "Número y fecha de oficio global de presunción SAT": "500-05-2018-1 de fecha 1 de junio de 2018",
    "Publicación página SAT presuntos": "01/06/2018",
    "Número y fecha de oficio global de presunción DOF": "500-05-2018-2",
    "Publicación DOF presuntos": "25/06/2018",
    "Número y fecha de oficio global de definitivos SAT": "500-05-2019-3",
    "Publicación página SAT definitivos": "14-08-19 // 20/09/2018",
    "Número y fecha de oficio global de definitivos DOF": "500-05-2019-4",
    "Publicación DOF definitivos": "17/10/2019    27/08/2018",
}
_PRESUMED = """notice_no: "12" presumed_on { year: 2018 month: 6 day: 1 }
presumption {
    sat_document: "500-05-2018-1 de fecha 1 de junio de 2018" sat_published_on { year: 2018 month: 6 day: 1 }
    dof_document: "500-05-2018-2" dof_published_on { year: 2018 month: 6 day: 25 }
}
"""
_FOUND = """definitive_finding {
    sat_document: "500-05-2019-3"
    sat_published_on { year: 2019 month: 8 day: 14 } sat_published_on { year: 2018 month: 9 day: 20 }
    dof_document: "500-05-2019-4"
    dof_published_on { year: 2019 month: 10 day: 17 } dof_published_on { year: 2018 month: 8 day: 27 }
}
"""
_NAMED = 'taxpayer_id: "AAA120730823" taxpayer_name: "COMPAÑÍA INVENTADA, S.A. DE C.V." identity_suppressed: false\n'
_NOTICES = [
    Example(_LIST, f"{_PRESUMED}{_FOUND}{_NAMED}situation: NOTICE_SITUATION_DEFINITIVE"),
    Example(
        _LIST
        | {
            "RFC": "XXXXXXXXXXXX",
            "Nombre del Contribuyente": "Información  suprimida\npor sentencia inventada",
            "Situación del contribuyente": "Presunto",
        },
        f"""{_PRESUMED}{_FOUND}identity_suppressed: true situation: NOTICE_SITUATION_PRESUMED
        suppression_ground: "Información suprimida por sentencia inventada" """,
    ),
    Example(
        _LIST
        | {
            "RFC": "AAA120730824",
            "Situación del contribuyente": "Desvirtuado",
            "Número y fecha de oficio global de contribuyentes que desvirtuaron SAT": "O-5",
            "Publicación página SAT desvirtuados": "13/05/2020 - 25/03/2019",
            "Número y fecha de oficio global de contribuyentes que desvirtuaron DOF": "O-6",
            "Publicación DOF desvirtuados": "19/07/2018 - 30/10/18",
        },
        f"""{_PRESUMED}{_FOUND}{_NAMED.replace("823", "824")}situation: NOTICE_SITUATION_REBUTTED
        rebuttal {{
            sat_document: "O-5"
            sat_published_on {{ year: 2020 month: 5 day: 13 }} sat_published_on {{ year: 2019 month: 3 day: 25 }}
            dof_document: "O-6"
            dof_published_on {{ year: 2018 month: 7 day: 19 }} dof_published_on {{ year: 2018 month: 10 day: 30 }}
        }}""",
    ),
    Example(
        _LIST
        | {
            "Situación del contribuyente": "Sentencia Favorable",
            "Publicación página SAT presuntos": "01/06/2018 - 02/06/2018",
        },
        "VALUE_INVALID: presumed_on",
    ),
    Example(
        _LIST
        | {
            "Situación del contribuyente": "Sentencia Favorable",
            "Publicación DOF presuntos": "25/06/2018//26/06/2018",
            "Número y fecha de oficio global de sentencia favorable SAT": "O-7",
            "Publicación página SAT sentencia favorable": "22/06/2018//10/10/2018",
            "Número y fecha de oficio global de sentencia favorable DOF": "O-8",
            "Publicación DOF sentencia favorable": "21/04/2021 - 05/02/2019",
        },
        f"""{_PRESUMED.replace("day: 25 }", "day: 25 } dof_published_on { year: 2018 month: 6 day: 26 }")}{_FOUND}{
            _NAMED
        }situation: NOTICE_SITUATION_FAVOURABLE_RULING
        favourable_ruling {{
            sat_document: "O-7"
            sat_published_on {{ year: 2018 month: 6 day: 22 }} sat_published_on {{ year: 2018 month: 10 day: 10 }}
            dof_document: "O-8"
            dof_published_on {{ year: 2021 month: 4 day: 21 }} dof_published_on {{ year: 2019 month: 2 day: 5 }}
        }}""",
    ),
    Example(_LIST | {"RFC": "NONE"}, "IDENTIFIER_INVALID: taxpayer_id"),
    Example(_LIST | {"Situación del contribuyente": "Otro"}, "VALUE_INVALID: situation"),
]

_ALERT = {
    "reference": "2023.81",
    "reference#2": "2023.81",
    "First": r"\btin\b",
    "Second": "migration|release",
    "Category": "Contaminants",
    "NCSP Category (Search output)": "Metals",
    "Parameter  (Search output)": "Tin",
    "Sub-category": "Elements",
    "category": "confectionery",
    "type": "food",
    "subject": "Invented finding of tin in invented sweets",
    "date": "01-08-2023 14:24:33",
    "notifying_country": "Slovenia",
    "classification": "alert notification",
    "risk_decision": "serious",
    "distribution": "Slovenia,Austria",
    "forAttention": "INFOSAN,Türkiye",
    "forFollowUp": "Austria,Italy",
    "operator": "Austria,Slovenia",
    "origin": "Austria,unknown origin",
    "hazards": "tin  high content,3-monochlor-1,2-propanediol  ,7-invented",
    "Food Search Output (Code)": "A03SJ",
    "Food Search Output (Description)": "Sweets",
    "COMMENT ON FOOD CLASSIFICATION": "Not sure",
    "Amended FoodEx2 Code": "A01MG",
    "Amended FoodEx2 Description": "Dried figs",
}
_ALERTED = r"""reference: "2023.81" search_term: "\\btin\\b" reference_ambiguous: true
search_refinement: "migration|release"
notified_at { seconds: 1690892673 } notifying_country: "Slovenia" classification: NOTIFICATION_CLASSIFICATION_ALERT
risk_decision: NOTIFICATION_RISK_SERIOUS product_category: "confectionery" product_type: NOTIFIED_PRODUCT_FOOD
subject_text: "Invented finding of tin in invented sweets"
hazards: "tin high content" hazards: "3-monochlor-1,2-propanediol" hazards: "7-invented"
hazard_category: "Contaminants" parameter_category: "Metals" parameter_subcategory: "Elements" parameter: "Tin"
origin: "Austria" distribution: "Slovenia" distribution: "Austria" for_attention: "INFOSAN" for_attention: "Türkiye"
for_follow_up: "Austria" for_follow_up: "Italy" operators: "Austria" operators: "Slovenia"
foodex2_code: "A03SJ" foodex2_description: "Sweets" amended_foodex2_code: "A01MG"
amended_foodex2_description: "Dried figs" classification_comment: "Not sure"
"""


def _alert(expected: dict[str, str], **changed: str) -> Example:
    text = _ALERTED
    for old, new in expected.items():
        assert old in text
        text = text.replace(old, new)
    return Example(_ALERT | changed, text)


_ALERTS = [
    _alert({}),
    _alert({'reference: "2023.81"': 'reference: "2023.0810"', "true": "false"}, reference="2023.0810"),
    _alert({"_ALERT\n": "_BORDER_REJECTION\n"}, classification="border rejection notification"),
    _alert({"_ALERT\n": "_INFORMATION_FOR_ATTENTION\n"}, classification="information notification for attention"),
    _alert({"_ALERT\n": "_INFORMATION_FOR_FOLLOW_UP\n"}, classification="information notification for follow-up"),
    _alert({"RISK_SERIOUS": "RISK_POTENTIALLY_SERIOUS"}, risk_decision="potentially serious"),
    _alert({"RISK_SERIOUS": "RISK_POTENTIAL_RISK"}, risk_decision="potential risk"),
    _alert({"RISK_SERIOUS": "RISK_NOT_SERIOUS"}, risk_decision="not serious"),
    _alert({"RISK_SERIOUS": "RISK_NO_RISK"}, risk_decision="no risk"),
    _alert({"PRODUCT_FOOD": "PRODUCT_FEED"}, type="feed"),
    _alert({"PRODUCT_FOOD": "PRODUCT_FOOD_CONTACT_MATERIAL"}, type="food contact material"),
    _alert({'foodex2_code: "A03SJ" ': ""}, **{"Food Search Output (Code)": "#N/A"}),
]

_SDN = {
    "ent_num": "7",
    "sdn_name": "INVENTED, Person",
    "sdn_type": "individual",
    "program": "SDGT] [IRAN",
} | dict.fromkeys(["title", "call_sign", "vess_type", "tonnage", "grt", "vess_flag", "vess_owner", "remarks"], "-0- ")
_LISTED = 'list_code: "OFAC-SDN" entry_no: "7" name: "INVENTED, Person" programs: "SDGT" programs: "IRAN" '
_ENTRIES = [
    Example(
        _SDN | {"title": "Director", "remarks": "POB Nowhere."},
        f"""{_LISTED} title: "Director"
        entry_type: WATCHLIST_ENTRY_TYPE_INDIVIDUAL remarks: "POB Nowhere." """,
    ),
    Example(_SDN | {"sdn_type": "-0- "}, f"{_LISTED} entry_type: WATCHLIST_ENTRY_TYPE_ENTITY"),
    Example(_SDN | {"sdn_type": "aircraft"}, f"{_LISTED} entry_type: WATCHLIST_ENTRY_TYPE_AIRCRAFT"),
    Example(
        _SDN
        | {"sdn_type": "vessel", "call_sign": "T2XX4", "vess_type": "Tug", "tonnage": "318,000", "grt": "1098"}
        | {"vess_flag": "Panama", "vess_owner": "Invented Shipping"},
        f"""{_LISTED} entry_type: WATCHLIST_ENTRY_TYPE_VESSEL vessel_call_sign: "T2XX4" vessel_type: "Tug"
        vessel_tonnage: 318000 vessel_gross_tonnage: 1098 vessel_flag: "Panama" vessel_owner: "Invented Shipping" """,
    ),
    Example(_SDN | {"sdn_type": "balloon"}, "VALUE_INVALID: entry_type"),
    Example(_SDN | {"tonnage": "3,18", "sdn_type": "vessel"}, "VALUE_INVALID: vessel_tonnage"),
    Example(_SDN | {"grt": "3,18,1", "sdn_type": "vessel"}, "VALUE_INVALID: vessel_gross_tonnage"),
    Example(
        _SDN | {"grt": "12,318", "sdn_type": "vessel"},
        f"{_LISTED} entry_type: WATCHLIST_ENTRY_TYPE_VESSEL vessel_gross_tonnage: 12318",
    ),
]

_CAR = {
    "plate": "abc 123",
    "colour": "Blue",
    "make": "Yamaha",
    "model": "TTR",
    "year": "2007",
    "type": "Trail Bike",
} | {
    "date": "2011-07-14",
    "region": "Bay of Plenty",
}
_STOLEN = """plate_no: "abc 123" plate_token: "535ae8f10f6cfc725f3ca278b7525e60" vehicle_type: "Trail Bike"
vehicle_status: VEHICLE_STATUS_STOLEN_REPORTED colour: "Blue" make: "Yamaha" model: "TTR" model_year: 2007
reported_on { year: 2011 month: 7 day: 14 } region: "Bay of Plenty" """
_CARS = [
    Example(_CAR, _STOLEN),
    Example(_CAR | {"year": "0"}, _STOLEN.replace("model_year: 2007", "")),
    Example(_CAR | {"year": "20O7"}, "VALUE_INVALID: model_year"),
    Example(_CAR | {"date": "2011-7-14x"}, "VALUE_INVALID: reported_on"),
    Example(_CAR | {"plate": ""}, "VALUE_MISSING: plate_no"),
]


def _message(body: str) -> str:
    return f'<MetaData xmlns="urn:x"><Declaration>{body}</Declaration></MetaData>'


_HEAD = "<FunctionCode>9</FunctionCode><FunctionalReferenceID>REF 7</FunctionalReferenceID>"
_TRANSPORT = """<BorderTransportMeans><ModeCode>1</ModeCode></BorderTransportMeans>
<Exporter><Name>Seller Inc.</Name></Exporter><GoodsShipment><Consignment>
<ArrivalTransportMeans><ID>SHIP</ID></ArrivalTransportMeans></Consignment>
<Consignee><Name>Buyer Ltd</Name></Consignee><Destination><CountryCode>GB</CountryCode></Destination>
<ExportCountry><ID>US</ID></ExportCountry></GoodsShipment>"""
_ITEM = """<GovernmentAgencyGoodsItem><SequenceNumeric>1</SequenceNumeric><Commodity><Description>Shavers</Description>
<Classification><ID>00</ID><IdentificationTypeCode>TRC</IdentificationTypeCode></Classification>
<Classification><ID>85101000</ID><IdentificationTypeCode>TSP</IdentificationTypeCode></Classification>
<DangerousGoods><UNDGID>1203</UNDGID></DangerousGoods>
<GoodsMeasure><GrossMassMeasure>15</GrossMassMeasure><NetNetWeightMeasure>10.5</NetNetWeightMeasure>
<TariffQuantity>7</TariffQuantity></GoodsMeasure>
<InvoiceLine><ItemChargeAmount currencyID="GBP">100</ItemChargeAmount></InvoiceLine></Commodity>
<CustomsValuation><MethodCode>1</MethodCode></CustomsValuation><Destination><CountryCode>SD</CountryCode></Destination>
<GovernmentProcedure><CurrentCode>40</CurrentCode><PreviousCode>00</PreviousCode></GovernmentProcedure>
<GovernmentProcedure><CurrentCode>000</CurrentCode></GovernmentProcedure>
<Origin><CountryCode>FR</CountryCode><TypeCode>2</TypeCode></Origin>
<Origin><CountryCode>US</CountryCode><TypeCode>1</TypeCode></Origin></GovernmentAgencyGoodsItem>
<GovernmentAgencyGoodsItem><SequenceNumeric>2</SequenceNumeric>
<Origin><CountryCode>CN</CountryCode><TypeCode>2</TypeCode></Origin></GovernmentAgencyGoodsItem>"""
_FULL = f"""{_HEAD}<ID>26GB5SCPZSPYDAUAA1</ID><TypeCode>IMA</TypeCode><TotalPackageQuantity>65</TotalPackageQuantity>
<DeclarationOfficeID>GBLBA001</DeclarationOfficeID><ExitOffice><ID>GB000040</ID></ExitOffice>
<IssueDateTime><DateTimeString formatCode="304">20240425090243Z</DateTimeString></IssueDateTime>
<TotalGrossMassMeasure>15.25</TotalGrossMassMeasure><InvoiceAmount currencyID="GBP">1000.50</InvoiceAmount>
<BorderTransportMeans><ID>CSCL</ID></BorderTransportMeans><Declarant><ID>GB1</ID></Declarant>
<Exporter><ID>GB2</ID></Exporter><GoodsShipment><Consignment><GoodsLocation><Name>WLA</Name></GoodsLocation>
<TransportEquipment><ID>AD12345</ID><Seal><ID>333</ID></Seal></TransportEquipment></Consignment>
{_ITEM}<Importer><ID>GB3</ID></Importer><PreviousDocument><ID>DOC 1</ID></PreviousDocument>
<PreviousDocument><ID>DOC 2</ID></PreviousDocument><TradeTerms><ConditionCode>CIF</ConditionCode></TradeTerms>
<UCR><TraderAssignedReferenceID>UCR 1</TraderAssignedReferenceID></UCR></GoodsShipment>"""
_DECLARED = """decl_status: DECLARATION_STATUS_SUBMITTED functional_reference: "REF 7" function_code: "9" """
_DECLARATIONS = [
    Example(
        _message(_FULL),
        f"""{_DECLARED} declaration_no: "26GB5SCPZSPYDAUAA1" type_code: "IMA" ie_flag: IE_FLAG_I packages: 65
        customs_office: "GBLBA001" port_code: "GB000040" declared_at {{ seconds: 1714035763 }}
        gross_wt_kg {{ value: "15.25" }} invoice_amount {{ currency_code: "GBP" amount {{ value: "1000.50" }} }}
        transport_id: "CSCL" declarant_id: "GB1" exporter_id: "GB2" importer_id: "GB3" goods_location: "WLA"
        containers {{ container_no: "AD12345" seal_no: "333" }} transaction_term: "CIF" trader_ref: "UCR 1"
        previous_documents: "DOC 1" previous_documents: "DOC 2"
        lines {{
            line_no: 1 hs10: "8510100000" goods_name: "Shavers" qty1 {{ value: "7" }} total_price {{ value: "100" }}
            ccy: "GBP" origin_country: "US" un_no: "1203" destination_country: "SD" gross_wt_kg {{ value: "15" }}
            net_wt_kg {{ value: "10.5" }} procedure_code: "40" previous_procedure_code: "00" valuation_method: "1"
        }}
        lines {{ line_no: 2 origin_country: "CN" }}""",
    ),
    Example(
        _message(f"{_HEAD}<TypeCode>IMA</TypeCode>{_TRANSPORT}"),
        f"""{_DECLARED} declaration_no: "REF 7" type_code: "IMA" ie_flag: IE_FLAG_I transport_mode: "1"
        transport_id: "SHIP" overseas_party_name: "Seller Inc." dispatch_dest_country: "US" """,
    ),
    Example(
        _message(f"{_HEAD}<TypeCode>EXD</TypeCode>{_TRANSPORT.replace('Arrival', 'Departure')}"),
        f"""{_DECLARED} declaration_no: "REF 7" type_code: "EXD" ie_flag: IE_FLAG_E transport_mode: "1"
        transport_id: "SHIP" overseas_party_name: "Buyer Ltd" dispatch_dest_country: "GB" """,
    ),
    Example(_message(f"{_HEAD}<TypeCode>COA</TypeCode>"), f'{_DECLARED} declaration_no: "REF 7" type_code: "COA"'),
    Example(
        _message(
            f"{_HEAD}<TypeCode>EXD</TypeCode><Exporter><Name>Seller Inc.</Name></Exporter>"
            "<GoodsShipment><ExportCountry><ID>GB</ID></ExportCountry></GoodsShipment>"
        ),
        f'{_DECLARED} declaration_no: "REF 7" type_code: "EXD" ie_flag: IE_FLAG_E',
    ),
    Example(
        _message(f"{_HEAD}<TypeCode>IMA</TypeCode><GoodsShipment/>".replace("FunctionalReferenceID", "Other")),
        "KEY_MISSING: declaration_no",
    ),
    Example(_message("<FunctionCode>13</FunctionCode><TypeCode>COR</TypeCode>"), "NOT_A_DECLARATION: amendment"),
    Example(
        "<MetaData><Response><FunctionCode>09</FunctionCode></Response></MetaData>", "NOT_A_DECLARATION: notification"
    ),
]

EXAMPLES: dict[str, list[Example]] = {
    "commerce.cn_registry_2018": _REGISTRY,
    "commerce.cn_registry_2019": _REGISTRY,
    "taxation.mx_sat_69b": _NOTICES,
    "quality.eu_rasff": _ALERTS,
    "publicsecurity.ofac_sdn": _ENTRIES,
    "publicsecurity.nz_stolen_vehicles": _CARS,
    "customs.wco_dms": _DECLARATIONS,
}
"""By mapping; a mapping file without examples fails the tests."""
