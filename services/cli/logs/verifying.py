"""`hutong log verify`: a whole log, from its first entry to its last."""

from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from services.cli.logs.where import As, Config, Keys, Node, Origin, Tiles, Where, cosigners
from services.cli.output import AsJson, Bar, console, pairs, print_json
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER
from services.kit.log import keys, verifying
from services.kit.log.checkpoint import SignedCheckpoint
from services.kit.log.verifying import Progress, Source, Whole


def verify(
    node: Node = "",
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
    """Verify a whole log: every entry against its leaf, every hash against what is below it, the root against what was
    signed.

    From its database, from files that `export` wrote, or from the node itself: over HTTPS with --tiles, over gRPC with
    --as. Whole entries are for the readers in the node's config. Exit code 1 where anything was changed, with where.

    \b
    Examples:
      hutong log verify customs
      hutong log verify --config /etc/hutong/node.toml
      hutong log verify --tiles ./customs-log --keys ./keys
      hutong log verify customs --tiles https://127.0.0.1:50253 --as audit/desk
    """
    where = Where(node, config, tiles, published, log, folder, caller, cert, key, bundle)
    with where.open() as opened, _Shown(quiet=as_json) as bar:
        # Whose log it is, and that it signed that, is found out before a million entries are read.
        signed = where.signed(opened.source.checkpoint())
        key_of = keys.find(where.published, signed.checkpoint.origin)
        whole = verifying.verify(_Fixed(opened.source, signed), key_of, bar.begin(signed.checkpoint.origin))
    if as_json:
        print_json(_as_dict(whole, signed))
        return
    out = console()
    out.print(pairs(_rows(whole, signed)))
    out.print(f"whole: each of {whole.size} entries is as it was logged", style="green")


class _Fixed:
    """A log at one checkpoint, however much it grows meanwhile."""

    def __init__(self, source: Source, signed: SignedCheckpoint) -> None:
        self._signed = signed
        self.entries = source.entries
        self.hashes = source.hashes

    def checkpoint(self) -> str:
        """Give the checkpoint."""
        return str(self._signed.note)


class _Shown(Bar):
    def __init__(self, *, quiet: bool) -> None:
        super().__init__(MofNCompleteColumn(), TimeRemainingColumn(), quiet=quiet)

    def begin(self, what: str) -> Progress:
        task = self.progress.add_task(what, total=None)
        return lambda done, total: self.progress.update(task, completed=done, total=total)


def _rows(whole: Whole, signed: SignedCheckpoint) -> list[tuple[str, str]]:
    return [
        ("Log", signed.checkpoint.origin),
        ("Entries", str(whole.size)),
        ("Root", whole.root.hex()),
        ("Co-signed by", ", ".join(cosigners(signed)) or "nobody yet, at this size"),
    ]


def _as_dict(whole: Whole, signed: SignedCheckpoint) -> dict[str, object]:
    return {
        "ok": True,
        "log": signed.checkpoint.origin,
        "entries": whole.size,
        "root": whole.root.hex(),
        "cosigned_by": cosigners(signed),
    }
