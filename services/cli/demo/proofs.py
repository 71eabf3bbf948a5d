"""Steps about what is left of every answer: receipts, the log, its witnesses, and who may look back."""

import asyncio
import datetime as dt
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from hutong.api.exchange.v1 import exchange_pb2, reads_pb2
from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.cli.demo.desk import refusal
from services.cli.demo.narrator import CheckFailed
from services.cli.demo.officers import AML, subject_id
from services.cli.demo.records import LATE_FIRM
from services.cli.demo.stage import REFUND, Asker, Stage, until
from services.cli.logs import decisions
from services.cli.logs.decisions import Request
from services.cli.logs.fetching import SERVICE as LOG
from services.cli.logs.where import Where, cosigners, witnesses
from services.cli.node_files import AUDIT
from services.cli.query import SERVICE as FEDERATION
from services.cli.rooms import GATEWAY
from services.kit import jurisdiction
from services.kit.audit import asking
from services.kit.audit.archive import Archive
from services.kit.audit.findings import Verdict
from services.kit.audit.following import follow
from services.kit.audit.recompute import Recomputer
from services.kit.errors import HutongError, Reason
from services.kit.log import keys, merkle, receipts
from services.kit.log.checkpoint import SignedCheckpoint, open_checkpoint, origin_of
from services.kit.log.notes import VerifierKey
from services.kit.log.verifying import Whole, verify_all
from services.kit.policy import diffing, loader
from services.kit.policy.diffing import Answers, Diff
from services.kit.records import catalogue
from services.kit.records.database import engine

_OWNER: Final = "customs"
_AUDITOR: Final = f"{AUDIT}/desk"
_DRAW: Final = 40
_PAGE: Final = 200
_SHOWN: Final = 8
_WAIT: Final = 10.0

_PROPOSED: Final = """
@id("demo-proposed")
@title("Proposed: the value of declarations is kept from the tax agency")
forbid (
    principal in Hutong::Agency::"taxation",
    action == Hutong::Action::"read",
    resource == Hutong::Field::"customs.Declaration.total_value_cny"
);

@id("demo-proposed-weight")
@title("Proposed: the weight may be opened to supervision under an authorization")
@basis("CN-AML")
@until("2027-12-31T23:59:59+08:00")
permit (
    principal in Hutong::Agency::"supervision",
    action == Hutong::Action::"read",
    resource == Hutong::Field::"customs.Declaration.gross_wt_kg"
)
when { context.purpose == "P-AML" && context has authorization };
"""


async def proven(stage: Stage, receipt: log_pb2.Receipt) -> None:
    """Prove an answer, look at the logs, and look back: as the enterprise, as an auditor, as a data officer."""
    await _included(stage, receipt)
    await _whole(stage)
    await _reads(stage)
    await _recomputed(stage)
    await _compared(stage)


async def _included(stage: Stage, receipt: log_pb2.Receipt) -> None:
    """Turn a receipt into a proof."""
    narrator, published = stage.narrator, stage.zone.keys
    narrator.step("Every answer left a receipt, and the receipt becomes a proof")
    key = keys.find(published, receipt.origin)
    receipts.verify(receipt, key)
    narrator.check(
        receipt.origin == _origin(stage, GATEWAY),
        f"the supervision's answer was logged before it left: entry {receipt.index} of {receipt.origin}, signed",
        receipt.origin,
    )
    head = await _cosigned(stage, GATEWAY, receipt.index + 1)
    request = log_service_pb2.GetInclusionProofRequest(index=receipt.index, tree_size=head.checkpoint.size)
    client = stage.client(AML.caller)
    proof = await client.unary(
        f"{LOG}/GetInclusionProof", request, log_service_pb2.GetInclusionProofResponse, timeout=_WAIT
    )
    tree, hashes = head.checkpoint, tuple(proof.hashes)

    def why_not(leaf: bytes) -> str:
        try:
            merkle.verify_inclusion(leaf, receipt.index, tree.size, hashes, tree.root)
        except HutongError as error:
            return error.reason
        return ""

    narrator.check(
        not why_not(receipt.leaf_hash),
        f"{len(hashes)} hashes prove that it is one of the {tree.size} entries under a signed checkpoint",
    )
    altered = bytes([receipt.leaf_hash[0] ^ 1]) + receipt.leaf_hash[1:]
    narrator.check(
        why_not(altered) == Reason.LOG_PROOF_INVALID, "of an entry that differs in one bit they prove nothing"
    )
    for node in (GATEWAY, _OWNER):
        signed = await _cosigned(stage, node, 1)
        names = cosigners(signed)
        own = signed.checkpoint.origin.split("/")[1]
        narrator.check(
            bool(names) and all(name.split("/")[1] != own for name in names),
            f"{', '.join(names)} has co-signed {signed.checkpoint.origin} at {signed.checkpoint.size} entries",
            names,
        )


async def _whole(stage: Stage) -> None:
    """Verify a whole log; then alter a copy."""
    narrator = stage.narrator
    narrator.step("A log that nobody changes quietly")
    url = stage.zone.node(_OWNER).log
    assert url is not None  # noqa: S101 - every node of a zone folder keeps a log
    path = Path(url.url.partition(":///")[2])
    copy = stage.zone.folder / "copy.db"
    with closing(sqlite3.connect(path)) as own, closing(sqlite3.connect(copy)) as other:
        own.backup(other)
    key = keys.find(stage.zone.keys, _origin(stage, _OWNER))
    whole = await asyncio.to_thread(_verify, copy, key)
    narrator.check(
        whole.size > 0,
        f"customs' log, {whole.size} entries: every one, every hash and the root are what customs signed",
        whole.size,
    )
    at = whole.size // 2
    with _altered(copy) as database:
        (data,) = database.execute('SELECT entry FROM log_entry WHERE "index" = ?', (at,)).fetchone()
        entry = log_pb2.LogEntry.FromString(data)
        entry.caller = f"spiffe://{stage.zone.name}/somebody/else"
        forged = entry.SerializeToString()
        database.execute('UPDATE log_entry SET entry = ? WHERE "index" = ?', (forged, at))
    narrator.say("In a copy of it, somebody writes another caller into one entry.")
    found = await asyncio.to_thread(_tampering, copy, key)
    named = found.metadata.get("index") if found else ""
    narrator.check(named == str(at), f"verified again, it is found at once, and where: entry {at}", found)
    with _altered(copy) as database:
        hashed = (merkle.leaf_hash(forged), at)
        database.execute('UPDATE log_entry SET leaf_hash = ? WHERE "index" = ?', hashed)
    found = await asyncio.to_thread(_tampering, copy, key)
    narrator.check(found is not None, "with the hash of the entry put right as well, the tree is not the signed one")


async def _reads(stage: Stage) -> None:
    """Ask who looked, as the enterprise that was looked at."""
    narrator, exporter = stage.narrator, stage.exporter
    narrator.step("Who looked at my records?")
    caller = f"enterprise/{exporter.uscc.lower()}"
    looks = [read async for read in _looks(stage, caller, exporter.uscc)]
    counts = Counter((read.caller, read.purpose, read.owner, _fields(read)) for read in looks)
    rows = [(*looked, str(count)) for looked, count in counts.most_common(_SHOWN)]
    narrator.show(("Who", "Why", "Whose", "What", "Looks"), rows)
    refund = [read for read in looks if (read.caller, read.purpose) == (REFUND.caller, REFUND.purpose)]
    narrator.check(
        bool(refund) and all(read.origin for read in looks),
        f"{exporter.name} sees {len(looks)} looks, those for its refund among them, each with its entry in a log",
        rows,
    )
    secret = [read for read in looks if read.purpose == AML.purpose]
    days = _embargo().days
    narrator.check(not secret, f"the supervision's are not among them: they show when {days} days are over", secret)
    strange = await refusal(_list(stage, f"enterprise/{LATE_FIRM.lower()}", exporter.uscc))
    narrator.check(
        strange is not None and strange.reason == Reason.READS_NOT_OWN, "another enterprise is told nothing", strange
    )


async def _recomputed(stage: Stage) -> None:
    """Decide once more, as an auditor."""
    narrator = stage.narrator
    narrator.step("An auditor decides once more")
    where = Where(node=_OWNER, folder=stage.zone.folder, caller=_AUDITOR)
    request = Request(draw=_DRAW, seed=b"the auditor's own choice", page_size=decisions.PAGE)
    pages = await asyncio.to_thread(lambda: list(decisions.from_node(where, request, "A-0007", None, False)))
    head = where.signed(pages[0].checkpoint).checkpoint
    follow(request, pages, head)
    archive = Archive(catalogue.load())
    for page in pages:
        archive.add(page.texts)
    recomputer = Recomputer(archive)
    found = [recomputer.recompute(decision, head) for page in pages for decision in page.decisions]
    verdicts = {verdict: sum(each.verdict is verdict for each in found) for verdict in Verdict}
    fields = sum(each.fields for each in found)
    narrator.say(f"An auditor draws {_DRAW} entries of customs' log by a number that customs could not know.")
    narrator.check(
        fields > 0 and all(each.verdict.good for each in found),
        f"{fields} decisions on fields, made anew from the policy that was in force then: all the same",
        verdicts,
    )


async def _compared(stage: Stage) -> None:
    """Ask what another policy would have answered."""
    narrator = stage.narrator
    narrator.step("What would a proposed policy change, and for whom?")
    narrator.say("Customs thinks of closing one field and opening another. Every question there was is asked of both.")
    policy = stage.zone.policy(_OWNER)
    proposed = stage.zone.folder / policy.name
    proposed.write_text(policy.read_text(encoding="utf-8") + _PROPOSED, encoding="utf-8")
    found = await asyncio.to_thread(_diff, stage, policy, proposed)
    rows: Counter[tuple[str, ...]] = Counter()
    for change in found.changes:
        who = change.asked.caller.path, change.asked.purpose
        rows[(*who, change.field, ", ".join(change.kinds), change.before, change.after)] += change.count
    columns = ("Caller", "Purpose", "Field", "Change", "Before", "After", "Answers")
    narrator.show(columns, ((*row, str(count)) for row, count in rows.items()))
    narrator.check(
        {row[:4] for row in rows}
        == {
            (*_who(REFUND), "total_value_cny", "closed"),
            (*_who(AML), "gross_wt_kg", "opened"),
        },
        f"of {found.answers} answers that were given, those to two callers would be others: one field each",
        rows,
    )


def _who(asker: Asker) -> tuple[str, str]:
    return asker.caller, asker.purpose


def _diff(stage: Stage, old: Path, new: Path) -> Diff:
    law = jurisdiction.load("cn")
    # The gateway's log has questions as they were asked; a department hears only of fields that may be given.
    local, everything = Where(node=GATEWAY, folder=stage.zone.folder).required, Request(page_size=decisions.PAGE)
    archive, asked = Archive(catalogue.load()), dict[diffing.Asked, int]()
    for page in decisions.from_database(local, everything):
        archive.add(page.texts)
        for question, count in asking.questions(page.decisions, archive)[0].items():
            asked[question] = asked.get(question, 0) + count
    before, after = (loader.load([path], catalogue.load(), law) for path in (old, new))
    answers = (Answers(question, count) for question, count in asked.items())
    return diffing.diff(before, after, answers, catalogue.load(), law, dt.datetime.now(dt.UTC))


async def _looks(stage: Stage, caller: str, uscc: str) -> AsyncIterator[reads_pb2.Read]:
    """Go through the whole list."""
    token = ""
    while True:
        page = await _list(stage, caller, uscc, token)
        if page.missing:
            raise CheckFailed(f"no answer from {', '.join(page.missing)}")
        for read in page.reads:
            yield read
        token = page.next_page_token
        if not token:
            return


async def _list(stage: Stage, caller: str, uscc: str, token: str = "") -> reads_pb2.ListReadsResponse:
    context = exchange_pb2.RequestContext(purpose="P-SELF", legal_basis="CN-RIGHT-TO-KNOW")
    request = reads_pb2.ListReadsRequest(
        subject=subject_id(f"cn.uscc:{uscc}"), context=context, page_size=_PAGE, page_token=token
    )
    client = stage.client(caller)
    return await client.unary(f"{FEDERATION}/ListReads", request, reads_pb2.ListReadsResponse, timeout=_WAIT)


def _fields(read: reads_pb2.Read) -> str:
    return "; ".join(f"{each.record_type}: {', '.join(each.paths)}" for each in read.fields)


def _embargo() -> dt.timedelta:
    now = dt.datetime.now(dt.UTC)
    return jurisdiction.load("cn").told_from(AML.purpose, now) - now


async def _cosigned(stage: Stage, node: str, size: int) -> SignedCheckpoint:
    """Get the newest checkpoint of a node's log that another has co-signed, once it is as large as that."""
    key = keys.find(stage.zone.keys, _origin(stage, node))
    client = stage.client(AML.caller, node)
    request, response = log_service_pb2.GetCheckpointRequest(), log_service_pb2.GetCheckpointResponse
    found: list[SignedCheckpoint] = []

    async def is_there() -> bool:
        text = (await client.unary(f"{LOG}/GetCheckpoint", request, response, timeout=_WAIT)).cosigned
        if text:
            found.append(open_checkpoint(text, [key], witnesses(stage.zone.keys)))
        return bool(found) and found[-1].checkpoint.size >= size

    took = await until(is_there)
    if took is None:
        raise CheckFailed(f"nobody co-signs {key.name}")
    return found[-1]


def _origin(stage: Stage, node: str) -> str:
    there = stage.zone.node(node).node
    return origin_of(there.zone, there.agency, there.system)


def _verify(path: Path, key: VerifierKey) -> Whole:
    made = engine(f"sqlite+aiosqlite:///{path}", writer=False)
    try:
        with made.connect() as connection:
            return verify_all(connection, key)
    finally:
        made.dispose()


def _tampering(path: Path, key: VerifierKey) -> HutongError | None:
    """Verify a log that was altered; gives what is found."""
    try:
        _verify(path, key)
    except HutongError as error:
        return error
    return None


@contextmanager
def _altered(path: Path) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as database, database:
        yield database
