"""Steps about questions: the same subject, seen by different eyes."""

from services.cli.demo.stage import (
    CREDIT,
    REFUND,
    REGISTER,
    RISK,
    Asker,
    Sections,
    Stage,
    given,
    refused,
    shown,
    status,
    transforms,
    values,
)

FIVE = (
    "commerce.Enterprise:uscc,name,reg_status,legal_rep_id_no",
    "taxation.TaxpayerStatus:tax_status,credit_grade,arrears_amt",
    "customs.Declaration",
    "quality.FoodFiling:filing_no,filing_status",
    "publicsecurity.SealRegistration:uscc,seal_no",
)
"""One record type of each of five agencies."""

_REGISTERS = (*FIVE[:2], "customs.Operator:customs_code,record_status,credit_level", *FIVE[3:])


def _names(section_names: Sections) -> list[tuple[str, str, str]]:
    return [
        (name, status(section), ", ".join(sorted(given(section))) or "nothing")
        for name, section in section_names.items()
    ]


async def tax_asks(stage: Stage) -> None:
    """Tax asks about an exporter: the public register first, then what the refund of VAT needs."""
    narrator = stage.narrator
    narrator.step("Tax asks about an exporter, across five agencies")
    narrator.say(f"{stage.exporter.name} ({stage.exporter.text}) has claimed a refund. {REGISTER}:")
    registers = await stage.ask(REGISTER, _REGISTERS)
    narrator.show(("Record type", "Came out as", "Given"), _names(registers))
    answered = [name for name, section in registers.items() if section.records]
    narrator.check(len(answered) == 5, "one question, five agencies answer", answered)
    narrator.check(
        values(registers["commerce.Enterprise"], "name") == [stage.exporter.name],
        "they mean the same enterprise",
        values(registers["commerce.Enterprise"], "name"),
    )
    narrator.say(f"The same subject, {REFUND}:")
    sections = await stage.ask(REFUND, FIVE)
    narrator.show(("Record type", "Came out as", "Given"), _names(sections))
    declaration = sections["customs.Declaration"]
    narrator.check(
        {"declaration_no", "total_value_cny", "lines.hs10"} <= given(declaration),
        "now customs gives the cleared export declarations, down to the goods",
        given(declaration),
    )
    narrator.check(set(values(declaration, "ie_flag")) == {"E"}, "only exports: imports are none of its business")
    buyer = values(declaration, "overseas_party_name")
    narrator.check(
        transforms(declaration) == {"overseas_party_name": "initials"} and all(len(name) < 16 for name in buyer),
        f"the foreign buyer is given as initials: {buyer[0] if buyer else '?'}",
        transforms(declaration),
    )
    narrator.check(
        refused(declaration).get("lines.unit_price") == "NO_PERMIT" and not values(declaration, "lines.unit_price"),
        "what nobody permitted is refused with the reason, not silently missing",
    )
    others = {status(section) for name, section in sections.items() if name != "customs.Declaration"}
    narrator.check(others == {"DENIED"}, "the purpose opens customs' door only: the other four give nothing", others)


async def customs_asks(stage: Stage) -> None:
    """Customs asks about the same exporter, for two purposes of its own."""
    narrator = stage.narrator
    narrator.step("Customs asks about the same exporter, and sees other fields")
    selects = (
        "customs.Declaration:declaration_no",
        "taxation.TaxpayerStatus:credit_grade,arrears_flag,arrears_amt",
        "taxation.VatFiling:export_sales_amt,tax_paid_amt",
    )
    askers: list[Asker] = [REFUND, CREDIT, RISK]
    answers = {asker.purpose: await stage.ask(asker, selects) for asker in askers}
    rows = [
        (f"{name}: {field}", *(shown(answers[asker.purpose][name], field) for asker in askers))
        for select in selects
        for name, _, fields in [select.partition(":")]
        for field in fields.split(",")
    ]
    narrator.show(("Field", *(str(asker) for asker in askers)), rows)
    seen = {
        purpose: {f"{name}.{field}" for name, section in sections.items() for field in given(section)}
        for purpose, sections in answers.items()
    }
    rebate, credit, risk = (seen[asker.purpose] for asker in askers)
    narrator.check(bool(rebate and credit and risk), "each of them is given something", seen)
    narrator.check(
        not (rebate & credit or credit & risk or rebate & risk),
        "no field is given to two of them: caller and purpose decide together",
        seen,
    )
    standing = answers["P-AEO"]["taxation.TaxpayerStatus"]
    narrator.check(
        refused(standing).get("arrears_amt") == "FORBIDDEN",
        "whether there are arrears is told, how much is forbidden",
        refused(standing),
    )
    filing = answers["P-RISK"]["taxation.VatFiling"]
    narrator.check(
        transforms(filing).get("export_sales_amt", "").startswith("bucket:"),
        "for risk analysis, sales come in bands",
        transforms(filing),
    )


async def wrong_purpose(stage: Stage) -> None:
    """Ask for what is somebody else's purpose, for several at once, and on another basis."""
    narrator = stage.narrator
    narrator.step("The wrong purpose")
    borrowed = Asker(REFUND.caller, CREDIT.purpose, CREDIT.basis)
    sections = await stage.ask(borrowed, FIVE)
    narrator.say(f"{borrowed}, which is customs' purpose, not tax':")
    narrator.show(
        ("Record type", "Came out as", "Reason"),
        ((name, status(section), section.reason) for name, section in sections.items()),
    )
    narrator.check(
        all(status(s) == "DENIED" and not s.records and not given(s) for s in sections.values()),
        "every section is denied, no record is in the answer",
        [status(s) for s in sections.values()],
    )
    narrator.check(
        all(set(refused(s).values()) <= {"NO_PERMIT", "FORBIDDEN"} and refused(s) for s in sections.values()),
        "every field is refused with its reason",
    )
    other_basis = await stage.ask(Asker(REFUND.caller, REFUND.purpose, CREDIT.basis), ["customs.Declaration"])
    reasons = set(refused(other_basis["customs.Declaration"]).values())
    narrator.check("BASIS_MISMATCH" in reasons, "the right purpose on the wrong legal basis is told apart", reasons)
    several = await stage.refusal(Asker(REFUND.caller, "P-REBATE,P-RISK", REFUND.basis), ["customs.Declaration"])
    narrator.check(several == "PURPOSE_SEVERAL", "two purposes in one question are refused", several)
    unknown = await stage.refusal(Asker(REFUND.caller, "P-CURIOSITY", REFUND.basis), ["customs.Declaration"])
    narrator.check(unknown == "PURPOSE_UNKNOWN", "curiosity is no purpose", unknown)
