"""`hutong log prove` and `consistency`: that an answer is in the log, and that the log has only grown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from certs.files import PUBLIC, write_atomically
from hutong.api.log.v1 import log_pb2
from services.cli.logs import receipt_files
from services.cli.logs.receipt_files import Saved
from services.cli.logs.where import As, Config, Keys, Opened, Origin, Tiles, Tree, Where, cosigners
from services.cli.output import AsJson, console, pairs, print_json
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Reason
from services.kit.log import keys, merkle, receipts
from services.kit.log.checkpoint import Checkpoint, SignedCheckpoint
from services.kit.log.proof_text import FIRST, LIMIT, ProofText
from services.kit.log.tiles import Tile
from services.kit.log.verifying import Source


@dataclass(frozen=True, slots=True)
class _Proven:
    """A leaf that was found where its receipt says."""

    index: int
    leaf_hash: bytes
    signed: SignedCheckpoint
    receipt: log_pb2.Receipt | None
    """None where the leaf was asked for by its index: then nobody said which entry it must be."""
    answer: bool = False
    """The answer was compared with the one that the entry is of."""

    @property
    def as_dict(self) -> dict[str, object]:
        return {
            "ok": True,
            "log": self.signed.checkpoint.origin,
            "index": self.index,
            "leaf_hash": self.leaf_hash.hex(),
            "receipt": self.receipt is not None,
            "answer": self.answer or None,
            "tree_size": self.signed.checkpoint.size,
            "root": self.signed.checkpoint.root.hex(),
            "cosigned_by": cosigners(self.signed),
        }


def prove(
    receipt: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECEIPT]",
            help="An answer with its receipt, saved or as JSON, or a receipt; - for standard input.",
        ),
    ] = None,
    index: Annotated[
        int, typer.Option("--index", min=-1, metavar="N", help="Prove this entry instead, of --node's log.")
    ] = -1,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Check a proof that --out wrote; asks nobody.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the proof, for others to check offline.")
    ] = None,
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="The node; else the one the receipt names.")] = "",
    config: Config = None,
    tiles: Tiles = "",
    published: Keys = None,
    log: Origin = "",
    caller: As = "",
    folder: Folder = DEFAULT_FOLDER,
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Prove that an answer was logged: turn its receipt into an inclusion proof, and check it.

    The proof is checked against the newest checkpoint that witnesses have co-signed, or the newest of all where that
    is older than the entry. What --out writes (C2SP tlog-proof) anybody can check who has the published keys.

    Whether what you have is the very answer that the entry is of, the entry tells by a digest. Entries are for the
    log's readers: one of them, an auditor say, compares an answer that `hutong query --save` kept.

    \b
    Examples:
      hutong query --as taxation/refund … --save answer
      hutong log prove answer --as taxation/refund --out answer.tlog-proof
      hutong log prove answer --as audit/desk
      hutong log prove --check answer.tlog-proof --keys ./keys
      hutong log prove --node customs --index 41
    """
    where = Where(node, config, tiles, published, log, folder, caller, cert, key, bundle)
    if [receipt is not None, index >= 0, check is not None].count(True) != 1:
        raise typer.BadParameter("give one of RECEIPT, --index N and --check FILE")
    if check is not None:
        proven = _checked(where, check)
    else:
        wanted = receipt_files.read(receipt) if receipt is not None else None
        proof = _proof(where.of(wanted.receipt.origin) if wanted else where, wanted, index)
        # As whoever gets the file will: nothing is believed for having been fetched by ourselves.
        proven = _judged(where, proof)
        if out is not None:
            write_atomically(out, str(proof.text).encode(), PUBLIC)
    _tell(proven, out, as_json)


@dataclass(frozen=True, slots=True)
class _Made:
    """A proof, and the leaf that it is of."""

    text: ProofText
    leaf_hash: bytes
    receipt: log_pb2.Receipt | None
    answer: bool = False


def _proof(where: Where, saved: Saved | None, index: int) -> _Made:
    wanted = saved.receipt if saved else None
    if wanted is not None:
        # Before anybody is asked: a receipt that nobody signed is worth no question.
        receipts.verify(wanted, keys.find(where.published, wanted.origin))
        index = wanted.index
    with where.open() as opened:
        signed = _head(where, opened, index)
        tree = Tree(opened.source, signed.checkpoint.size)
        leaf = wanted.leaf_hash if wanted else tree.leaf(index)
        extra = receipt_files.shown(wanted or log_pb2.Receipt(leaf_hash=leaf))
        text = ProofText(index, tuple(tree.inclusion(index)), str(signed.note), extra)
        return _Made(text, leaf, wanted, _compared(opened.source, signed.checkpoint.size, saved))


def _compared(source: Source, size: int, saved: Saved | None) -> bool:
    """Compare an answer with what its entry says of it; tells whether that could be done.

    Raises `PermissionDenied` RECEIPT_INVALID where it is another answer.
    """
    if saved is None or not saved.digest:
        return False
    bundle = Tile.holding(None, saved.receipt.index, size)
    try:
        data = source.entries(bundle)[saved.receipt.index - bundle.start]
    except (PermissionDenied, NotFound):
        # Hashes are for everybody, entries are not.
        return False
    if receipts.verify_entry(saved.receipt, data).answer_digest != saved.digest:
        message = "the answer is not the one that was logged: somebody has changed it since"
        raise PermissionDenied(Reason.RECEIPT_INVALID, message)
    return True


def _head(where: Where, opened: Opened, index: int) -> SignedCheckpoint:
    """Find the checkpoint to prove an entry in."""
    for text in opened.heads():
        signed = where.signed(text)
        if signed.checkpoint.size > index:
            return signed
    raise NotFound(Reason.LOG_ENTRY_UNKNOWN, "the log has no such entry in any checkpoint that it shows")


def _checked(where: Where, path: Path) -> _Proven:
    text = ProofText.parse(_text(path, LIMIT))
    found = receipt_files.parse(text.extra)
    named = found if found.origin else None
    return _judged(where, _Made(text, found.leaf_hash, named))


def _judged(where: Where, made: _Made) -> _Proven:
    """Verify a proof with nothing but the published keys: checkpoint, cosignatures, receipt, and the way up.

    The receipt comes with the proof and is signed itself: it says which leaf the log has promised.
    """
    signed = where.signed(made.text.checkpoint)
    head, receipt = signed.checkpoint, made.receipt
    if receipt is not None:
        receipts.verify(receipt, keys.find(where.published, receipt.origin))
        if (receipt.origin, receipt.index, receipt.leaf_hash) != (head.origin, made.text.index, made.leaf_hash):
            raise FailedPrecondition(Reason.LOG_PROOF_INVALID, "the proof is of another entry than the receipt")
    merkle.verify_inclusion(made.leaf_hash, made.text.index, head.size, made.text.hashes, head.root)
    return _Proven(made.text.index, made.leaf_hash, signed, receipt, made.answer)


def _tell(proven: _Proven, out: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(proven.as_dict | ({"written": str(out)} if out else {}))
        return
    head = proven.signed.checkpoint
    rows = [
        ("Log", head.origin),
        ("Entry", f"{proven.index}, leaf {proven.leaf_hash.hex()}"),
        ("Tree", f"{head.size} entries, root {head.root.hex()}"),
        ("Co-signed by", ", ".join(cosigners(proven.signed)) or "nobody yet"),
    ]
    shown = console()
    shown.print(pairs(rows))
    promised = "the entry that the receipt promises is in the log" if proven.receipt else "the entry is in the log"
    if proven.answer:
        promised += ", and this is the answer that it is of"
    shown.print(f"proven: {promised}", style="green")
    if proven.receipt and not proven.answer:
        shown.print("not compared: the answer itself; readers of the log's entries can, --as audit/desk", style="dim")
    if out is not None:
        shown.print(f"written to {out}; to check it: hutong log prove --check {out}", markup=False, soft_wrap=True)


def consistency(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A checkpoint kept from then, or the size it had.")],
    new: Annotated[
        str, typer.Argument(metavar="[NEW]", help="A later checkpoint, or its size; else the newest there is.")
    ] = "",
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="The node whose log it is.")] = "",
    config: Config = None,
    tiles: Tiles = "",
    published: Keys = None,
    log: Origin = "",
    caller: As = "",
    folder: Folder = DEFAULT_FOLDER,
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Prove that a log has only grown: that what it was then is the beginning of what it is now.

    Keep a checkpoint (`--out` of `hutong log prove` holds one, and `hutong log export` writes one) and compare later.
    Of a size alone only the log's own hashes say what the tree was then; a checkpoint that you kept says it for
    certain. Exit code 1 where the log has two histories.

    \b
    Examples:
      hutong log consistency ./last-month/checkpoint --node customs --as audit/desk
      hutong log consistency 1000 2000 --node customs
    """
    where = Where(node, config, tiles, published, log, folder, caller, cert, key, bundle)
    then, now = _given(where, old), _given(where, new)
    if isinstance(then, SignedCheckpoint) and isinstance(now, SignedCheckpoint):
        same_size(then.checkpoint, now.checkpoint)
    named = next((one.checkpoint.origin for one in (then, now) if isinstance(one, SignedCheckpoint)), "")
    with (where.of(named) if named else where).open() as opened:
        signed = now if isinstance(now, SignedCheckpoint) else where.signed(opened.source.checkpoint())
        before, after = _grown(opened.source, signed.checkpoint, then, 0 if isinstance(now, SignedCheckpoint) else now)
    _tell_grown(before, after, isinstance(then, SignedCheckpoint), as_json)


def _grown(source: Source, head: Checkpoint, then: SignedCheckpoint | int, size: int) -> tuple[Checkpoint, Checkpoint]:
    """Compare what a log was with what it is: at its head, or at a size before that."""
    whole = Tree(source, head.size)
    after = _at(whole, head, size) if size else head
    if after is not head:
        compared(after, head, whole)
    before = then.checkpoint if isinstance(then, SignedCheckpoint) else _at(whole, head, then)
    compared(before, after, Tree(source, after.size))
    return before, after


def _at(whole: Tree, head: Checkpoint, size: int) -> Checkpoint:
    """Compute, from the log's hashes, the head that it had at a size."""
    if not 0 < size <= head.size:
        raise NotFound(Reason.LOG_ENTRY_UNKNOWN, f"the log has {head.size} entries: there is no tree of {size}")
    return Checkpoint(head.origin, size, whole.root(size))


def same_size(one: Checkpoint, other: Checkpoint) -> None:
    """Raise `FailedPrecondition` LOG_FORKED where one log has signed two heads of one size; that takes no proof."""
    if (one.origin, one.size) == (other.origin, other.size) and one.root != other.root:
        raise FailedPrecondition(
            Reason.LOG_FORKED, f"the log {one.origin} has signed two heads of {one.size} entries: it has two histories"
        )


def _given(where: Where, text: str) -> SignedCheckpoint | int:
    """Read a size, or verify a checkpoint in a file, also in one of a proof; 0 where nothing is given."""
    if text.isascii() and text.isdecimal():
        return int(text)
    if not text:
        return 0
    kept = _text(Path(text), LIMIT)
    return where.signed(ProofText.parse(kept).checkpoint if kept.startswith(FIRST) else kept)


def compared(before: Checkpoint, after: Checkpoint, tree: Tree) -> None:
    """Verify that `after`, whose tree is given, continues `before`.

    Raises `FailedPrecondition` LOG_FORKED where it does not, LOG_KEY_UNKNOWN where they are of different logs.
    """
    if before.origin != after.origin:
        raise FailedPrecondition(Reason.LOG_KEY_UNKNOWN, f"these are two logs: {before.origin} and {after.origin}")
    if before.size > after.size:
        raise FailedPrecondition(
            Reason.LOG_FORKED, f"the log had {before.size} entries and has {after.size}: entries were lost"
        )
    try:
        proof = tree.consistency(before.size)
        merkle.verify_consistency(before.size, before.root, after.size, after.root, proof)
    except FailedPrecondition as error:
        if error.reason is not Reason.LOG_PROOF_INVALID:
            raise
        raise FailedPrecondition(
            Reason.LOG_FORKED, f"of its first {before.size} entries the log now says something else than it did"
        ) from None


def _tell_grown(before: Checkpoint, after: Checkpoint, kept: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "ok": True,
                "log": before.origin,
                "old_size": before.size,
                "old_root": before.root.hex(),
                "size": after.size,
                "root": after.root.hex(),
                "kept": kept,
            }
        )
        return
    rows = [
        ("Log", before.origin),
        ("Then", f"{before.size} entries, root {before.root.hex()}"),
        ("Now", f"{after.size} entries, root {after.root.hex()}"),
    ]
    out = console()
    out.print(pairs(rows))
    out.print(f"consistent: the first {before.size} entries are what they were", style="green")


def _text(path: Path, limit: int) -> str:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    try:
        if len(data) > limit:
            raise ValueError
        return data.decode()
    except ValueError:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, f"{path} is too large, or no text") from None
