"""Decisions of a log, page by page: from its node, for an officer; from its database, for its operator; from a file.

A file holds serialized `SampleDecisionsResponse`s, each after its length as a varint: what protobuf's delimited streams
are in every language.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from certs.files import PRIVATE, make_folder
from hutong.api.log.v1 import log_service_pb2
from services.cli.approval import Way
from services.cli.authorizations.desk import Desk
from services.cli.logs.fetching import SERVICE
from services.cli.logs.where import Local, Where
from services.kit.clock import system_clock
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.log import decisions
from services.kit.log.nodelog import NodeLog
from services.kit.officers.tokens import Role

Request = log_service_pb2.SampleDecisionsRequest
Response = log_service_pb2.SampleDecisionsResponse
PAGE: Final = 200
"""Entries of one page."""

MAX_PAGE: Final = 64 * 1024 * 1024
"""Most bytes of a page in a file."""

_MAX_PREFIX: Final = 5
_METHOD: Final = f"{SERVICE}/SampleDecisions"


def from_file(path: Path) -> Iterator[Response]:
    """Read the pages in a file, one at a time; raises `InvalidArgument` MALFORMED_REQUEST where it is none."""
    with path.open("rb") as file:
        while prefix := file.read(1):
            length, shift = prefix[0] & 0x7F, 7
            while prefix and prefix[0] & 0x80 and shift < 7 * _MAX_PREFIX:
                prefix = file.read(1)
                length |= (prefix[0] & 0x7F if prefix else 0) << shift
                shift += 7
            if not prefix or prefix[0] & 0x80 or length > MAX_PAGE or len(data := file.read(length)) != length:
                raise _malformed(path)
            try:
                yield Response.FromString(data)
            except DecodeError:
                raise _malformed(path) from None


def _malformed(path: Path) -> InvalidArgument:
    return InvalidArgument(Reason.MALFORMED_REQUEST, f"{path} is no export of decisions, or is cut off")


def written(page: Response) -> bytes:
    """Write a page as a file holds it."""
    data = page.SerializeToString()
    length, prefix = len(data), bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + data


def to_file(path: Path, pages: Iterator[Response]) -> tuple[int, int]:
    """Write pages into a file that is for nobody else to read; gives how many pages and entries there were.

    It takes its place when it is whole.
    """
    make_folder(path.absolute().parent)
    partial = path.with_name(f"{path.name}.part")
    count = entries = 0
    try:
        with partial.open("wb") as file:
            partial.chmod(PRIVATE)
            for page in pages:
                file.write(written(page))
                count, entries = count + 1, entries + len(page.decisions)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count, entries


def from_database(local: Local, request: Request) -> Iterator[Response]:
    """Read pages from a node's own database, as its operator."""
    with asyncio.Runner() as runner:
        pages = _paged(local, request)
        try:
            while (page := runner.run(_next(pages))) is not None:
                yield page
        finally:
            runner.run(pages.aclose())


async def _paged(local: Local, request: Request) -> AsyncGenerator[Response]:
    asked = Request()
    asked.CopyFrom(request)
    async with log_of(local) as log:
        while True:
            page = await decisions.page(log, asked)
            yield page
            if not page.next_page_token:
                return
            asked.page_token = page.next_page_token


@asynccontextmanager
async def log_of(local: Local) -> AsyncGenerator[NodeLog]:
    """Open a node's log, beside the node where that runs."""
    log = NodeLog.of(local.section, local.config.node, local.url, system_clock)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def _next(pages: AsyncGenerator[Response]) -> Response | None:
    return await anext(pages, None)


def from_node(where: Where, request: Request, officer: str, token: Path | None, nonce: bool) -> Iterator[Response]:
    """Ask a node for one page after the other, as an officer: of the node's own agency a data officer, else an auditor.

    A token of an identity provider is for one act, and so for one page. Raises what the node answers.
    """
    door = where.door()
    identity = door.credentials.load().spiffe_id
    desk = Desk(Way(door, f"{identity.agency}/{identity.system}"), where.folder, officer, token, nonce)
    role = Role.DATA_OFFICER if identity.agency == door.gateway.agency else Role.AUDITOR
    asked = Request()
    asked.CopyFrom(request)
    while True:
        asked.ClearField("officer_token")
        asked.officer_token = desk.sign(_METHOD, asked, role)
        page = desk.way.call(_METHOD, asked, Response)
        yield page
        if not page.next_page_token:
            return
        if token is not None:
            raise FailedPrecondition(Reason.OFFICER_TOKEN_REPLAYED, "there are more pages; a token is for one of them")
        asked.page_token = page.next_page_token
