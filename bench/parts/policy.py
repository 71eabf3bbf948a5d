"""What policy costs: a look-up beside one decision of Cedar's, and a cut beside parsing and writing the same record."""

import datetime as dt
import hashlib
import json
import timeit
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

import cedarpy
from google.protobuf.message import Message

from bench import corpus
from bench.setup import Setup
from bench.sides import Spread
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.schema.v1 import options_pb2
from services.cli.rooms import policies
from services.kit import jurisdiction
from services.kit.caller import Caller
from services.kit.clock import system_clock
from services.kit.policy import loader, schema
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.policy.policies import Standing
from services.kit.records import catalogue, values
from services.kit.records.values import Kind

_RECORD: Final = "quality.InspectionLot"
"""A record type of 25 fields."""
_GIVEN: Final = 15
"""How many of them the policy of this measurement gives."""
_CALLER: Final = Caller("spiffe://ftz.example/quality/lab", "quality", "lab")
_PUBLIC: Final = exchange_pb2.RequestContext(purpose="P-PUBLIC-REG", legal_basis="CN-PUBLIC-REGISTER")


async def measure(setup: Setup) -> dict[str, Any]:
    """Measure both, in this process."""
    return {"us": _decisions(setup) | _cuts(setup), "fields": 25, "given": _GIVEN}


def _interleaved(setup: Setup, works: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
    """Give the microseconds of each, in rounds by turns."""
    seconds = 0.02 if setup.quick else 0.3
    counts = {name: max(1, int(seconds / min(timeit.repeat(work, number=1, repeat=5)))) for name, work in works.items()}
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(3 if setup.quick else 7):
        for name, work in works.items():
            found[name].append(timeit.timeit(work, number=counts[name]) / counts[name] * 1e6)
    return {name: Spread.of(rounds).__dict__ for name, rounds in found.items()}


def _decisions(setup: Setup) -> dict[str, Any]:
    known, pack = catalogue.load(), jurisdiction.load("cn")
    loaded = loader.load(policies().values(), known, pack)
    engine = PolicyEngine(loaded, known, pack, bytes(32), system_clock)
    kind = known.get(corpus.TYPES[0])
    engine.mask(_CALLER, _PUBLIC, kind)
    request = {
        "principal": schema.uid("System", _CALLER.path),
        "action": schema.uid("Action", "read"),
        "resource": schema.uid("Field", schema.field_id(kind, "name")),
        "context": json.dumps(schema.context(_PUBLIC, None)),
    }
    owner = loaded.of(kind.owner)
    parsed = owner.parsed(owner.active(dt.datetime.now(dt.UTC)))
    entities, typed = schema.with_caller(schema.entities(kind), _CALLER), schema.schema()

    def decide() -> object:
        return cedarpy.is_authorized(request, parsed, entities, typed)  # pyright: ignore[reportUnknownMemberType]

    now = system_clock()
    standing = Standing(engine.policies, now, engine.settled_until(now, None))
    return _interleaved(
        setup,
        {
            "look-up of what was decided, each time a prepared question is asked": lambda: standing.holds(
                engine.policies, now
            ),
            "look-up of a mask, by caller, context and type": lambda: engine.mask(_CALLER, _PUBLIC, kind),
            "one decision of Cedar's": decide,
        },
    )


def _cuts(setup: Setup) -> dict[str, Any]:
    kind = catalogue.load().get(_RECORD)
    message = kind.message
    mask = _mask()
    raw = _filled(message()).SerializeToString()
    trim, disclose = mask.trimmer(), mask.disclosing(tuple(True for _ in mask.conditions)).body
    sent = disclose(message.FromString(raw))

    def parse_and_write() -> bytes:
        return message.FromString(raw).SerializeToString()

    def at_the_department() -> bytes:
        body = disclose(message.FromString(raw))
        return hashlib.sha256(body).digest()

    return _interleaved(
        setup,
        {
            "parse and write": parse_and_write,
            "cut at the department": lambda: disclose(message.FromString(raw)),
            "cut at the department, with its digest": at_the_department,
            "cut again at the gateway": lambda: trim(sent),
        },
    )


def _mask() -> ReadMask:
    """Compile a mask that gives some of the fields."""
    known, pack = catalogue.load(), jurisdiction.load("cn")
    kind = known.get(_RECORD)
    open_to_some = [leaf.path for leaf in kind.leaves if leaf.share != options_pb2.SHARE_CLASS_WITHHELD]
    fields = ", ".join(f'Hutong::Field::"{_RECORD}.{path}"' for path in open_to_some[:_GIVEN])
    text = f"""
@id("BENCH")
@title("Some fields")
@basis("CN-PUBLIC-REGISTER")
@until("2099-12-31T23:59:59+08:00")
permit (principal, action == Hutong::Action::"read", resource in Hutong::RecordType::"{_RECORD}")
when {{ context.purpose == "P-PUBLIC-REG" && resource in [{fields}] }};
"""
    loaded = loader.parse({f"{kind.owner}.cedar": text}, known, pack)
    return PolicyEngine(loaded, known, pack, bytes(32), system_clock).mask(_CALLER, _PUBLIC, kind)


def _filled(message: Message) -> Message:
    """Set every field of a record to something."""
    rng = Random(5)
    for field in message.DESCRIPTOR.fields:
        _set(message, field, rng)
    return message


def _set(message: Message, field: Any, rng: Random) -> None:
    if field.message_type is not None:
        part = getattr(message, field.name)
        part = part.add() if field.is_repeated else part
        part.SetInParent()
        for inner in field.message_type.fields:
            _set(part, inner, rng)
        return
    some: dict[Kind, Any] = {
        Kind.STRING: f"SAMPLE-{rng.randrange(10**10):010d}",
        Kind.BYTES: rng.randbytes(32),
        Kind.BOOL: True,
        Kind.ENUM: 1,
        Kind.INT: rng.randrange(1, 28),
    }
    value = some[values.kind_of(field)]
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)
