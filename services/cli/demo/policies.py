"""A step about policy: the owner changes its mind, and a mistake changes nothing."""

from pathlib import Path

from certs.files import write_atomically
from hutong.api.exchange.v1 import exchange_pb2
from services.cli.demo.stage import REFUND, Stage, given, refused, until

_SELECT = ["customs.Declaration:declaration_no,total_value_cny"]
_FIELD = "total_value_cny"
_FORBID = """
@id("demo-forbid")
@title("The value of declarations is withdrawn from the tax agency, for the moment")
forbid (
    principal in Hutong::Agency::"taxation",
    action == Hutong::Action::"read",
    resource == Hutong::Field::"customs.Declaration.total_value_cny"
);
"""


async def changed_live(stage: Stage) -> None:
    """Forbid a field in customs' policy file, then write nonsense into it, then put the old one back."""
    narrator = stage.narrator
    narrator.step("Customs changes its policy while everybody works")
    path = stage.zone.policy("customs")
    original = path.read_bytes()
    processes = _processes(stage)
    narrator.check(_FIELD in given(await _ask(stage)), "tax is given the value of declarations")
    narrator.say(f"Customs' data officer adds one forbid to {path.name}.")
    write_atomically(path, original + _FORBID.encode())
    took = await until(lambda: _refused(stage, "FORBIDDEN"))
    narrator.check(took is not None, f"the field is refused {took or 0:.1f} s later: FORBIDDEN")
    section = await _ask(stage)
    narrator.check(given(section) == {"declaration_no"}, "the rest is given as before", given(section))
    narrator.say("Then somebody saves the file half-written.")
    logs = [stage.fleet.nodes[name].log for name in ("customs", "gateway")]
    before = [_complaints(log) for log in logs]

    async def noticed() -> bool:
        await _ask(stage)
        return all(_complaints(log) > count for log, count in zip(logs, before, strict=True))

    write_atomically(path, original + b"\npermit (")
    took = await until(noticed)
    narrator.check(took is not None, "customs and gateway see that it does not stand, and say so in their logs")
    section = await _ask(stage)
    narrator.check(
        refused(section).get(_FIELD) == "FORBIDDEN" and given(section) == {"declaration_no"},
        "the policy in force stays the last one that stood",
        refused(section),
    )
    narrator.say("The old file is put back.")
    write_atomically(path, original)
    took = await until(lambda: _given(stage))
    narrator.check(took is not None, f"the field is given again {took or 0:.1f} s later", refused(await _ask(stage)))
    narrator.check(_processes(stage) == processes, "no node was restarted for any of it")


async def _ask(stage: Stage) -> exchange_pb2.Section:
    return (await stage.ask(REFUND, _SELECT, page_size=1))["customs.Declaration"]


async def _refused(stage: Stage, reason: str) -> bool:
    return refused(await _ask(stage)).get(_FIELD) == reason


async def _given(stage: Stage) -> bool:
    return _FIELD in given(await _ask(stage))


def _complaints(log: Path) -> int:
    return log.read_bytes().count(b"Changed policies do not pass")


def _processes(stage: Stage) -> list[int]:
    return [node.process.pid for node in stage.fleet.nodes.values() if node.process]
