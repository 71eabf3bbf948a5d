"""Writes a log as a folder of static files: full tiles once, partial ones anew, the checkpoint last."""

from pathlib import Path

import sqlalchemy as sa

from certs.files import PRIVATE, PUBLIC, make_folder, write_atomically
from services.kit.errors import NotFound, Reason
from services.kit.log import cosigned, reading
from services.kit.log.merkle import TILE_HEIGHT, TILE_WIDTH
from services.kit.log.tiles import CHECKPOINT, Tile
from services.kit.log.verifying import Progress
from services.kit.log.writer import read_head


def tiles_of(size: int, *, entries: bool = True) -> list[Tile]:
    """List every tile of a tree of that size, full and partial, and the bundles of entries unless they are not wanted.

    Of each level in order; the bundles come first.
    """
    found: list[Tile] = []
    level = 0
    while count := size >> TILE_HEIGHT * level:
        widths = [(start // TILE_WIDTH, min(TILE_WIDTH, count - start)) for start in range(0, count, TILE_WIDTH)]
        if level == 0 and entries:
            found += [Tile(None, index, width) for index, width in widths]
        found += [Tile(level, index, width) for index, width in widths]
        level += 1
    return found


def export_tiles(
    connection: sa.Connection, folder: Path, *, entries: bool = True, progress: Progress | None = None
) -> int:
    """Write a log's tiles into a folder, or what is new since the last time; gives the size of the tree written.

    Full tiles never change, so those that are there are left. The checkpoint comes last, with the cosignatures there
    are of it: whoever reads it finds all of its tree. Files of entries are for nobody else to read. Raises `NotFound`
    LOG_ENTRY_UNKNOWN for an empty log.
    """
    head = read_head(connection)
    if not head.size:
        raise NotFound(Reason.LOG_ENTRY_UNKNOWN, "the log has no entry yet")
    wanted = tiles_of(head.size, entries=entries)
    for number, tile in enumerate(wanted, 1):
        path = folder / tile.path
        if tile.width < TILE_WIDTH or not path.exists():
            make_folder(path.parent)
            write_atomically(path, reading.tile(connection, tile), PRIVATE if tile.level is None else PUBLIC)
        if tile.width == TILE_WIDTH:
            _drop_partial(path)
        if progress:
            progress(number, len(wanted))
    write_atomically(folder / CHECKPOINT, cosigned.complete(connection, head.checkpoint).encode(), PUBLIC)
    return head.size


def _drop_partial(full: Path) -> None:
    """Remove what there was of a tile before it was full."""
    partial = full.with_name(f"{full.name}.p")
    if partial.is_dir():
        for path in partial.iterdir():
            path.unlink()
        partial.rmdir()
