"""A wire to a department that lives in a network namespace of its own, and what befalls wires below TCP.

    this machine ──── switch ──── department

Switch and department are namespaces, and each line is a pair of veth: a cable that is pulled at the department is not
noticed on this side of the switch, and what the switch drops is lost on the way. It takes Linux, root, util-linux
(`unshare`, `nsenter`) and iproute2 (`ip`, `tc`). A namespace ends with the process that holds it, which ends with this
one, however that ends; of this machine's own network one device and two addresses are used, and nothing else changed.

    python -m tests.chaos.wires serve NODE --config FILE …

is `hutong serve`, in the namespace that a file beside FILE names, where there is one.
"""

import contextlib
import os
import re
import runpy
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

NAMESPACE: Final = "namespace"
"""The file beside a node's configuration that names where it lives."""
QUEUE: Final = 64
"""Kilobytes that wait at the end of a narrow wire; what comes on top of them is dropped."""
LOSS: Final = 8
"""Of so many packets one is lost, each way."""

ENVIRONMENT: Final = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
"""What those programs are run in: not everybody finds what only root may run."""

Counts = Callable[[], tuple[int, int]]
"""Tells how many packets were dropped so far, and how often one had to wait."""

_PROGRAM: Final = "services.cli.main"
_PORTS: Final = ("near", "far")
"""The switch's, towards this machine and towards the department."""
_LISTEN: Final = "0A"
"""A state of the kernel's."""
_UPLINK: Final = "uplink"
"""The department's end of its cable."""


class NoWire(Exception):
    """It cannot be done on this machine; says why."""


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    except OSError as error:
        raise NoWire(f"{command[0]}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise NoWire(f"`{' '.join(command)}`: {error.stderr.strip()}") from None
    return done.stdout


class Namespace:
    """A network namespace, for as long as somebody holds it."""

    def __init__(self) -> None:
        """Make one; raises `NoWire`."""
        command = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
        pipe = subprocess.PIPE
        try:
            self._holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT)
        except OSError as error:
            raise NoWire(f"unshare: {error.strerror}") from None
        assert self._holder.stdout is not None
        # A line comes once it is there.
        if not self._holder.stdout.readline():
            raise NoWire(self._holder.communicate()[1].decode().strip())
        self.pid = str(self._holder.pid)
        """Of the process that holds it."""
        self.path = f"/proc/{self.pid}/ns/net"

    def run(self, *command: str) -> str:
        """Run a command inside; gives what it says, raises `NoWire` where it fails."""
        return _run("nsenter", f"--net={self.path}", *command)

    def leave(self) -> None:
        """Let it go."""
        self._holder.communicate()


class Wire:
    """The cables and the switch between this machine and a department."""

    def __init__(self, name: str, switch: Namespace, there: Namespace) -> None:
        """`name` is the device at this end; both addresses are of a range that is no real network's (RFC 2544)."""
        self.name: Final = name
        net = 4 * secrets.randbelow(1 << 15)
        base = f"198.{18 + (net >> 16)}.{net >> 8 & 255}"
        self.near: Final = f"{base}.{(net & 255) + 1}"
        """The address at this end."""
        self.far: Final = f"{base}.{(net & 255) + 2}"
        """The department's."""
        self.lacks: Final[dict[str, str]] = {}
        """What cannot be done to it here, by the name of the method, with why."""
        self._switch = switch
        self._there = there
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", _PORTS[0], "netns", switch.pid)
        _run("ip", "address", "add", f"{self.near}/30", "dev", name)
        _run("ip", "link", "set", name, "up")
        switch.run("ip", "link", "add", _PORTS[1], "type", "veth", "peer", "name", _UPLINK, "netns", there.pid)
        switch.run("ip", "link", "add", "switch", "up", "type", "bridge", "forward_delay", "0")
        for port in _PORTS:
            switch.run("ip", "link", "set", port, "master", "switch", "up")
        there.run("ip", "address", "add", f"{self.far}/30", "dev", _UPLINK)
        for device in ("lo", _UPLINK):
            there.run("ip", "link", "set", device, "up")
        for each in (self.narrow, self.lossy):
            try:
                with each():
                    pass
            except NoWire as error:
                self.lacks[each.__name__] = str(error)

    def settle(self, config: Path) -> None:
        """Have the node of a configuration file live at the far end, if this module is its program."""
        config.with_name(NAMESPACE).write_text(self._there.path)

    @contextlib.contextmanager
    def pulled(self) -> Generator[None]:
        """Pull the department's cable: nothing comes through, and nobody at this end is told."""
        self._there.run("ip", "link", "set", _UPLINK, "down")
        try:
            yield
        finally:
            self._there.run("ip", "link", "set", _UPLINK, "up")

    @contextlib.contextmanager
    def narrow(self, kilobits: int = 64) -> Generator[Counts]:
        """Let no more through than so much a second, each way."""
        for port in _PORTS:
            shape = ["tbf", "rate", f"{kilobits}kbit", "burst", "4kb", "limit", f"{QUEUE}kb"]
            self._switch.run("tc", "qdisc", "add", "dev", port, "root", *shape)
        with self._reset():
            yield self._counts

    @contextlib.contextmanager
    def lossy(self) -> Generator[Counts]:
        """Lose one packet of `LOSS`, each way.

        As no queue of every kernel does that, packets with certain numbers (of IP) go to one that holds nothing.
        """
        with self._reset():
            for port in _PORTS:
                tc = ("tc", "qdisc", "add", "dev", port)
                self._switch.run(*tc, "root", "handle", "1:", "htb")
                self._switch.run("tc", "class", "add", "dev", port, "classid", "1:1", "htb", "rate", "1mbit")
                self._switch.run(*tc, "parent", "1:1", "bfifo", "limit", "1")
                numbered = ["u32", "match", "u16", "1", f"{LOSS - 1:#x}", "at", "4"]
                some = ["protocol", "ip", *numbered, "flowid", "1:1"]
                self._switch.run("tc", "filter", "add", "dev", port, "parent", "1:", *some)
            yield self._counts

    @contextlib.contextmanager
    def _reset(self) -> Generator[None]:
        try:
            yield
        finally:
            for port in _PORTS:
                with contextlib.suppress(NoWire):
                    self._switch.run("tc", "qdisc", "del", "dev", port, "root")

    def _counts(self) -> tuple[int, int]:
        told = "".join(self._switch.run("tc", "-s", "qdisc", "show", "dev", port, "root") for port in _PORTS)
        dropped, held = (re.findall(rf"{what} (\d+)", told) for what in ("dropped", "overlimits"))
        return sum(map(int, dropped)), sum(map(int, held))

    def connections(self, process: int) -> frozenset[str]:
        """Find what a process has connected, or is connecting, to the department."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        found = {f"socket:[{each[9]}]" for each in lines if each[2].startswith(f"{_hex(self.far)}:")}
        return frozenset(found & {_link(file) for file in Path(f"/proc/{process}/fd").iterdir()})

    def listening(self) -> bool:
        """Tell whether somebody listens at the far end, cable or no cable."""
        sockets = Path(f"/proc/{self._there.pid}/net/tcp").read_text().splitlines()[1:]
        return any(each.split()[1].startswith(f"{_hex(self.far)}:") and each.split()[3] == _LISTEN for each in sockets)


def _hex(address: str) -> str:
    """Write an address as the kernel's tables do."""
    return socket.inet_aton(address)[::-1].hex().upper()


def _link(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:
        return ""


@contextlib.contextmanager
def laid() -> Generator[Wire]:
    """Lay a wire, and take it away; raises `NoWire` where that is not allowed or cannot be done."""
    name = f"hutong{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        made: list[Namespace] = []
        for _ in range(2):
            made.append(Namespace())
            stack.callback(made[-1].leave)

        def gone() -> None:
            with contextlib.suppress(NoWire):
                _run("ip", "link", "del", name)

        stack.callback(gone)
        yield Wire(name, *made)


def main() -> None:
    """Run a node where it lives."""
    file = Path(sys.argv[sys.argv.index("--config") + 1]).with_name(NAMESPACE)
    if file.exists():
        command = ["nsenter", f"--net={file.read_text()}", sys.executable, "-P", "-m", _PROGRAM, *sys.argv[1:]]
        os.execvpe(command[0], command, ENVIRONMENT)
    runpy.run_module(_PROGRAM, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
