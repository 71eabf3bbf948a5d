"""Rendered manifests as processes of this machine: the same arguments, the same files in the same folders, the same
probes.

Of a cluster there is no more here than that. A container's file system becomes a folder, and so every path in arguments
and configs gets that folder in front of it; a pod's address becomes one of 127.0.0.0/8, and so every name of a service
in a config becomes that. Nothing else is changed, and nothing is added.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from tests.cli.conftest import run
from tests.helm.chart import NAMESPACE, Document, Rendered

HUTONG = [sys.executable, "-P", "-m", "services.cli.main"]
_ROOTS = re.compile(r"(?<![\w.-])/(etc/hutong|var/lib/hutong|authority|published|spiffe-workload-api|tmp)\b")
_START_LIMIT = 60.0
_PAUSE = 0.1
"""Seconds between two looks at something that takes its time."""
_numbers = itertools.count()


def fresh_address() -> str:
    """Find an address of this machine that nobody else has: neither in this run of tests nor in another one."""
    own, third = os.getpid() % 250 + 2, os.getpid() // 250 % 250
    return f"127.{own}.{third}.{next(_numbers) % 250 + 2}"


def wait_for(holds: Callable[[], bool], within: float = 30) -> None:
    """Wait until something holds, seconds at most."""
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end
        time.sleep(_PAUSE)


@dataclass
class Pod:
    """One container, to be run here."""

    name: str
    spec: Document
    root: Path
    """What it sees as `/`."""
    address: str
    hosts: Mapping[str, str]
    """Addresses by the names that configs have them under: of services, and of what is outside of the cluster."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def container(self) -> Document:
        """Its only one."""
        containers: list[Document] = self.spec["containers"]
        (container,) = containers
        return container

    @property
    def output(self) -> Path:
        """What it says."""
        return self.root / "output"

    @property
    def config(self) -> Path:
        """The config file of the node in it."""
        return Path(self.here("/etc/hutong/node/node.toml"))

    def here(self, text: str) -> str:
        """Translate paths and addresses of the cluster into those of this machine."""
        text = _ROOTS.sub(lambda found: f"{self.root}/{found[1]}", text)
        text = text.replace("0.0.0.0:", f"{self.address}:")
        for host, address in self.hosts.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(host)}:", f"{address}:", text)
        return text

    def command(self, arguments: list[str]) -> list[str]:
        """Translate arguments of the image's program."""
        return [*HUTONG, *(self.here(argument) for argument in arguments)]

    def start(self) -> None:
        """Run it."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(self.container["args"]), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def probe(self, kind: str) -> subprocess.CompletedProcess[str]:
        """Run a probe of it once, with its own time limit."""
        probe = self.container[f"{kind}Probe"]
        program, *arguments = probe["exec"]["command"]
        assert program == "hutong"
        return subprocess.run(
            self.command(arguments), capture_output=True, text=True, check=False, timeout=probe["timeoutSeconds"] + 10
        )

    def wait_until_started(self) -> None:
        """Ask the startup probe again and again, as the kubelet does; from here, as a process each takes long."""
        _, *arguments = self.container["startupProbe"]["exec"]["command"]
        end = time.monotonic() + _START_LIMIT
        while (done := run(*map(self.here, arguments))).exit_code:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended:\n{self.output.read_text()[-3000:]}"
            assert time.monotonic() < end, f"{self.name}: {done.stderr}\n{self.output.read_text()[-3000:]}"
            time.sleep(_PAUSE)

    def metrics(self) -> str:
        """Scrape it."""
        with urllib.request.urlopen(f"http://{self.address}:9101/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def load(self, mapping: str, source: Path) -> None:
        """Load records, through the very config that was rendered."""
        ran = run("load", self.container["args"][1], "--config", self.config, "--mapping", mapping, source)
        assert ran.exit_code == 0, ran.stderr

    def stop(self) -> int:
        """Ask it to end, as the kubelet does; gives its exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(self.spec["terminationGracePeriodSeconds"])
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@dataclass
class Cluster:
    """A folder that stands for a namespace: what the release renders, and what an operator puts beside it."""

    rendered: Rendered
    folder: Path
    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Secrets that the release only names."""
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """The same for ConfigMaps."""
    outside: dict[str, str] = field(default_factory=dict)
    """Addresses of machines that are no part of the cluster, by the host that the values name."""
    pods: dict[str, Pod] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods.values():
            if pod.process and pod.process.poll() is None:
                pod.process.terminate()
        for pod in self.pods.values():
            if pod.process:
                pod.process.wait(30)

    @property
    def sockets(self) -> Path:
        """Where an agent that hands out identities listens."""
        return self.folder / "sockets"

    def job(self, name: str) -> Pod:
        """Lay out a job's pod, without running it."""
        return self._pod(name, self.rendered.of("Job")[name]["spec"]["template"]["spec"], "127.0.0.1")

    def run_job(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a job to its end."""
        pod = self.job(name)
        return subprocess.run(pod.command(pod.container["args"]), capture_output=True, text=True, check=False)

    def run_pod(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run a pod of its own to its end."""
        pod = self._pod(name, self.rendered.of("Pod")[name]["spec"], "127.0.0.1")
        return subprocess.run(pod.command(pod.container["args"]), capture_output=True, text=True, check=False)

    def launch(self) -> None:
        """Run every deployment, one pod each."""
        for name, deployment in self.rendered.of("Deployment").items():
            self.pods[name] = self._pod(name, deployment["spec"]["template"]["spec"], self.addresses[name])
        for pod in self.pods.values():
            pod.start()

    def wait_until_started(self) -> None:
        """Wait until all pods have started."""
        for pod in self.pods.values():
            pod.wait_until_started()

    def start(self) -> None:
        """Run every deployment, and wait until all have started."""
        self.launch()
        self.wait_until_started()

    @cached_property
    def addresses(self) -> dict[str, str]:
        """Where services are."""
        return {name: fresh_address() for name in self.rendered.of("Deployment")}

    @property
    def hosts(self) -> dict[str, str]:
        """Addresses by the names that configs have them under."""
        return self.outside | {f"{name}.{NAMESPACE}.svc": address for name, address in self.addresses.items()}

    def ask(self, caller: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Ask the gateway, as a caller outside of the release does: with what is on the claim `authority` for it."""
        claim = self.claim("authority")
        identity = claim / "authority" / "svid" / caller / "credential-bundle.private-key.pem"
        (gateway,) = (address for name, address in self.addresses.items() if name.endswith("-gateway"))
        proof = ("--cert", identity, "--bundle", claim / "trust" / "bundle.crt")
        ran = run("query", "--gateway", f"{gateway}:50051", *proof, *arguments, "--json")
        return ran.exit_code, json.loads(ran.stdout or ran.stderr)

    def claim(self, name: str) -> Path:
        """A PersistentVolumeClaim is a folder."""
        return self.folder / "claims" / name

    def write_config_map(self, name: str, files: Mapping[str, str]) -> None:
        """Change a ConfigMap under running pods, as the kubelet does: another folder, and one rename of a link."""
        for pod in self.pods.values():
            for volume in pod.spec["volumes"]:
                if volume.get("configMap", {}).get("name") == name:
                    content = {path: pod.here(text).encode() for path, text in files.items()}
                    _project(pod.root / "volumes" / volume["name"], content, 0o644)

    def _pod(self, name: str, spec: Document, address: str) -> Pod:
        pod = Pod(name, spec, self.folder / "pods" / name, address, self.hosts)
        for volume in spec["volumes"]:
            self._volume(pod, volume)
        for mount in pod.container["volumeMounts"]:
            target = pod.root / mount["mountPath"].removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            source = pod.root / "volumes" / mount["name"] / mount.get("subPath", "")
            # The kubelet would make a folder of root's: whoever starts too early would find nothing in it.
            assert source.is_dir(), f"{name}: there is no {mount.get('subPath')} in {mount['name']}"
            if not target.is_symlink():
                target.symlink_to(source)
        return pod

    def _volume(self, pod: Pod, volume: dict[str, Any]) -> None:
        place = pod.root / "volumes" / volume["name"]
        place.parent.mkdir(parents=True, exist_ok=True)
        match volume:
            case {"configMap": {"name": str(name)}}:
                files = {path: pod.here(text).encode() for path, text in self._config_map(name).items()}
                _project(place, files, 0o644)
            case {"secret": {"secretName": str(name), "defaultMode": int(mode)}}:
                _project(place, self.secrets[name], mode)
            case {"projected": {"sources": list()}}:
                _project(place, self._projected(volume["projected"]["sources"]), 0o644)
            case {"persistentVolumeClaim": {"claimName": str(name)}}:
                self.claim(name).mkdir(parents=True, exist_ok=True)
                if not place.is_symlink():
                    place.symlink_to(self.claim(name))
            case {"emptyDir": _}:
                place.mkdir(exist_ok=True)
            case {"csi": {"driver": "csi.spiffe.io"}}:
                # The driver shows the agent's socket in every pod.
                self.sockets.mkdir(exist_ok=True)
                if not place.is_symlink():
                    place.symlink_to(self.sockets)
            case _:
                raise AssertionError(f"{pod.name}: nothing here stands for {json.dumps(volume)}")

    def _projected(self, sources: list[dict[str, Any]]) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for source in sources:
            ((kind, chosen),) = source.items()
            name: str = chosen["name"]
            held: Mapping[str, bytes]
            if kind == "secret":
                held = self.secrets[name]
            else:
                held = {key: text.encode() for key, text in self._config_map(name).items()}
            items: list[dict[str, str]] = chosen["items"]
            files |= {item["path"]: held[item["key"]] for item in items}
        return files

    def _config_map(self, name: str) -> Mapping[str, str]:
        own = self.rendered.of("ConfigMap")
        return own[name]["data"] if name in own else self.config_maps[name]


def _project(place: Path, files: Mapping[str, bytes], mode: int) -> None:
    """Lay files out as the kubelet does: `top -> ..data/top`, `..data -> a folder`, replaced by one rename."""
    place.mkdir(parents=True, exist_ok=True)
    version = place / f"..{time.time_ns()}"
    version.mkdir()
    for name, content in files.items():
        (version / name).parent.mkdir(exist_ok=True)
        (version / name).write_bytes(content)
        (version / name).chmod(mode)
        top = name.partition("/")[0]
        if not (place / top).is_symlink():
            (place / top).symlink_to(f"..data/{top}")
    fresh = place / "..data_tmp"
    fresh.symlink_to(version.name)
    fresh.replace(place / "..data")
