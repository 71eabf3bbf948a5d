"""Rendered manifests as processes of this machine: the same arguments, the same files in the same folders, the same
probes.

Of a cluster there is no more here than that. A container's file system becomes a folder, and so every path in arguments
and configs gets that folder in front of it; a pod's address becomes one of 127.0.0.0/8, and so every name of a service
in a config becomes that. Nothing else is changed, and nothing is added.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.helm.chart import NAMESPACE, Document, Rendered

HUTONG = [sys.executable, "-P", "-m", "services.cli.main"]
_ROOTS = re.compile(r"(?<![\w.-])/(etc/hutong|var/lib/hutong|authority|published|spiffe-workload-api|tmp)\b")
_START_LIMIT = 60.0


@dataclass
class Pod:
    """One container, to be run here."""

    name: str
    spec: Document
    root: Path
    """What it sees as `/`."""
    address: str
    addresses: Mapping[str, str]
    """Addresses of services, by name."""
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

    def here(self, text: str) -> str:
        """Translate paths and addresses of the cluster into those of this machine."""
        text = _ROOTS.sub(lambda found: f"{self.root}/{found[1]}", text)
        text = text.replace("0.0.0.0:", f"{self.address}:")
        for service, address in self.addresses.items():
            text = text.replace(f"{service}.{NAMESPACE}.svc:", f"{address}:")
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
        """Ask the startup probe again and again, as the kubelet does."""
        end = time.monotonic() + _START_LIMIT
        while (done := self.probe("startup")).returncode:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended:\n{self.output.read_text()[-3000:]}"
            assert time.monotonic() < end, f"{self.name}: {done.stderr}\n{self.output.read_text()[-3000:]}"

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

    def start(self) -> None:
        """Run every deployment, one pod each, and wait until all have started."""
        for name, deployment in self.rendered.of("Deployment").items():
            self.pods[name] = self._pod(name, deployment["spec"]["template"]["spec"], self.addresses[name])
        for pod in self.pods.values():
            pod.start()
        for pod in self.pods.values():
            pod.wait_until_started()

    @property
    def addresses(self) -> dict[str, str]:
        """Where services are: no two runs of tests at once have the same."""
        own = os.getpid() % 250 + 2
        third = os.getpid() // 250 % 250
        base = hash(str(self.folder)) % 20
        return {
            name: f"127.{own}.{third}.{base * 12 + number + 2}"
            for number, name in enumerate(self.rendered.of("Deployment"))
        }

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
        pod = Pod(name, spec, self.folder / "pods" / name, address, self.addresses)
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
    """Lay files out as the kubelet does: `file -> ..data/file`, `..data -> a folder`, replaced by one rename."""
    place.mkdir(parents=True, exist_ok=True)
    version = place / f"..{time.time_ns()}"
    version.mkdir()
    for name, content in files.items():
        (version / name).write_bytes(content)
        (version / name).chmod(mode)
        if not (place / name).is_symlink():
            (place / name).symlink_to(f"..data/{name}")
    fresh = place / "..data_tmp"
    fresh.symlink_to(version.name)
    fresh.replace(place / "..data")
