"""What the number of fields of a record, and of policies of an agency, costs a question."""

import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from bench import corpus, sides, zones
from bench.asking.job import GIVEN
from bench.driver import Generator
from bench.parts.federated import AGENCIES, job, pids
from bench.setup import Setup
from bench.sides import Side, console
from hutong.api.schema.v1 import options_pb2
from services.cli.fleet import Fleet
from services.cli.zone import Zone
from services.kit.records import catalogue

_RECORD: Final = corpus.TYPES[0]
_OWNER: Final = _RECORD.partition(".")[0]
_FORBIDDEN: Final = ("contact_phone",)
"""A forbid of the owner's wins over whatever is permitted here."""
_FIELDS: Final = (1, 4, 9, 18)
_POLICIES: Final = (10, 100, 1_000)

_PERMIT: Final = """
@id("{id}")
@title("A permit for a measurement")
@basis("CN-PUBLIC-REGISTER")
@until("2099-12-31T23:59:59+08:00")
permit (principal, action == Hutong::Action::"read", resource in Hutong::RecordType::"{record}")
when {{ context.purpose == "{purpose}" && resource in [{fields}] }};
"""


async def fields(setup: Setup) -> dict[str, Any]:
    """Ask one department for ever more fields of one record."""
    zone = await zones.made(setup.folder / "fields", setup.subjects, setup.transport)
    kind = catalogue.load().get(_RECORD)
    open_to_some = [leaf.path for leaf in kind.leaves if leaf.share != options_pb2.SHARE_CLASS_WITHHELD]
    names = [path for path in open_to_some if path not in _FORBIDDEN]
    _permit(zone, _OWNER, [_permit_text("BENCH-FIELDS", _RECORD, "P-PUBLIC-REG", names)])
    async with Fleet(zone) as fleet:
        counts = _FIELDS[:2] if setup.quick else _FIELDS
        return {"counts": [await _fields(setup, fleet, names[:count]) for count in counts]}


async def _fields(setup: Setup, fleet: Fleet, names: Sequence[str]) -> dict[str, Any]:
    chosen = {_RECORD: names}
    found = await _asked(setup, fleet, [_OWNER], f"{len(names)} fields", given=chosen, fields=chosen)
    return {"fields": len(names), **found}


async def policies(setup: Setup) -> dict[str, Any]:
    """Ask all departments while each has ever more policies; all but those delivered are about other purposes."""
    return {"counts": [await _policies(setup, count) for count in (_POLICIES[:1] if setup.quick else _POLICIES)]}


async def _policies(setup: Setup, count: int) -> dict[str, Any]:
    zone = await zones.made(setup.folder / f"policies-{count}", setup.subjects, setup.transport)
    for record in corpus.TYPES:
        leaf = catalogue.load().get(record).key_fields[0].path
        texts = [_permit_text(f"BENCH-{record}-{number}", record, "P-AEO", [leaf]) for number in range(count)]
        _permit(zone, record.partition(".")[0], texts)
    started = time.perf_counter()
    async with Fleet(zone) as fleet:
        seconds = time.perf_counter() - started
        return {"policies": count, "start_s": seconds, **await _asked(setup, fleet, AGENCIES, f"{count} policies")}


async def _asked(setup: Setup, fleet: Fleet, agencies: Iterable[str], label: str, **what: Any) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        made = job(fleet.zone, "session", fleet.address("gateway"), setup.subjects, **({"given": dict(GIVEN)} | what))
        generator = await stack.enter_async_context(Generator(made))
        side = Side(label, label, generator, pids(fleet, "gateway"), pids(fleet, *agencies))
        await sides.verify([side], 500)
        loads = await sides.compare([side], loads=(64,), rounds=setup.rounds, seconds=setup.brief)
    console.log(label)
    return {"loads": [load.to_json() for load in loads]}


def _permit_text(name: str, record: str, purpose: str, names: Iterable[str]) -> str:
    listed = ", ".join(f'Hutong::Field::"{record}.{path}"' for path in names)
    return _PERMIT.format(id=name, record=record, purpose=purpose, fields=listed)


def _permit(zone: Zone, agency: str, texts: Iterable[str]) -> None:
    """Add permits to an agency's policy."""
    path = zone.policy(agency)
    path.write_text(path.read_text(encoding="utf-8") + "".join(texts), encoding="utf-8")
