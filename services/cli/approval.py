"""What the commands about cases, results and tasks share: the way to the recognition service, and why one asks."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer
from google.protobuf.message import Message

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.recognition.v1 import case_service_pb2, result_service_pb2
from services.cli import question
from services.cli.question import Door
from services.cli.rooms import RECOGNITION
from services.kit.client import Client
from services.kit.records.catalogue import nearest

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper  # pyright: ignore[reportPrivateUsage]

R = TypeVar("R", bound=Message)
T = TypeVar("T")
V = TypeVar("V", bound=int)

CASES: Final = f"/{case_service_pb2.DESCRIPTOR.services_by_name['CaseService'].full_name}"
RESULTS: Final = f"/{result_service_pb2.DESCRIPTOR.services_by_name['ResultService'].full_name}"
TASKS: Final = f"/{result_service_pb2.DESCRIPTOR.services_by_name['TaskService'].full_name}"

ENTERPRISE: Final = "enterprise"
"""The agency in the names of enterprises' systems: `enterprise/CODE`."""

WAIT: Final = 10.0
"""Seconds that an answer may take."""

As = Annotated[
    str,
    typer.Option("--as", metavar="AGENCY/SYSTEM", help="Who acts: a system with a certificate, or enterprise/CODE."),
]
Address = Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="A recognition service elsewhere.")]
Officer = Annotated[str, typer.Option(metavar="REF", help="The officer, by the agency's own reference; never a name.")]
Reason = Annotated[str, typer.Option("--reason", metavar="CODE", help="Why: a code from the closed list.")]
PageSize = Annotated[int, typer.Option(min=0, metavar="N", help="How many on one page; 0 is the usual 20.")]
PageToken = Annotated[str, typer.Option(metavar="TOKEN", help="Go on where an earlier list ended.")]
CaseId = Annotated[str, typer.Argument(metavar="CASE", help="Id of the case.")]
RequestId = Annotated[
    str, typer.Option("--id", metavar="UUID", help="Id of this request: sent again with it, nothing happens twice.")
]


@dataclass(frozen=True, slots=True)
class Way:
    """The way to the recognition service, as the options say."""

    door: Door
    caller: str

    def context(self) -> exchange_pb2.RequestContext:
        """Say why one asks: an enterprise about its own affairs, an agency to handle approvals."""
        if self.caller.partition("/")[0] == ENTERPRISE:
            return exchange_pb2.RequestContext(purpose="P-SELF", legal_basis="CN-RIGHT-TO-KNOW")
        return exchange_pb2.RequestContext(purpose="P-APPROVAL", legal_basis="CN-ADMIN-LICENSING")

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Client]:
        """Connect for as long as is needed."""
        client = self.door.client()
        try:
            yield client
        finally:
            await client.close()

    def call(self, method: str, request: Message, response: type[R]) -> R:
        """Make one call."""

        async def calling(client: Client) -> R:
            return await client.unary(method, request, response, timeout=WAIT)

        return self.run(calling)

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Make several calls over one connection."""

        async def running() -> T:
            async with self.client() as client:
                return await work(client)

        return asyncio.run(running())


def way(
    folder: Path, caller: str, address: str, cert: Path | None = None, key: Path | None = None,
    bundle: Path | None = None, node: str = RECOGNITION,
) -> Way:  # fmt: skip
    """Find the recognition service, or another node, and the caller's certificate."""
    door = question.door(folder, caller, address, "", cert, key, bundle, node)
    identity = door.credentials.load().spiffe_id
    return Way(door, f"{identity.agency}/{identity.system}")


def new_id(given: str) -> str:
    """Take the id that was given, or make one."""
    return given or str(uuid.uuid4())


def named(values: "_EnumTypeWrapper[V]", prefix: str, text: str, what: str, *, besides: Collection[str] = ()) -> V:
    """Read a member of an enumeration as it is written here: `pass`, `supplement-request`; none of those in `besides`.

    Raises `typer.BadParameter` naming the nearest there is.
    """
    members = (member.removeprefix(prefix) for member in values.keys())  # noqa: SIM118
    known = [word(member) for member in members if member != "UNSPECIFIED" and member not in besides]
    if word(text) not in known:
        there_are = f"one of {', '.join(known)}"
        if not text:
            raise typer.BadParameter(f"say which {what}: {there_are}")
        raise typer.BadParameter(f"there is no {what} {text!r}{nearest(word(text), known)}; {there_are}")
    return values.Value(prefix + text.upper().replace("-", "_"))


def word(name: str) -> str:
    """Write a name of an enumeration as it is typed."""
    return name.lower().replace("_", "-")


def claims(texts: list[str] | None) -> dict[str, object]:
    """Read what a result says: `NAME=TEXT`, of which true and false are no text, or `NAME:=JSON` for anything else.

    Raises `typer.BadParameter`.
    """
    found: dict[str, object] = {}
    for name, value in pairs(texts, "--value").items():
        if not name.endswith(":"):
            found[name] = {"true": True, "false": False}.get(value, value)
            continue
        try:
            found[name[:-1]] = json.loads(value)
        except ValueError:
            raise typer.BadParameter(f"--value {name}= takes JSON, not {value!r}") from None
    return found


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """Read `name=value` options; raises `typer.BadParameter`."""
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or not equals or name in found:
            raise typer.BadParameter(f"{option} takes NAME=VALUE, each name once; not {text!r}")
        found[name] = value
    return found
