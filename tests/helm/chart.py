"""The chart, rendered by the real helm: what comes out, as documents that tests ask."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "hutong"
RELEASE, NAMESPACE = "port", "zone"
PREFIX = f"{RELEASE}-hutong"

Values = Mapping[str, Any]
Document = dict[str, Any]

AGENCIES = ("commerce", "taxation", "customs", "quality", "publicsecurity")
SERVICES = ("recognition", "supervision", "gateway")
KUBERNETES = "1.37.0"


class RefusedByHelm(Exception):
    """Helm rendered nothing; the message is its own."""


@dataclass(frozen=True)
class Rendered:
    """What a release would be made of."""

    documents: list[Document]

    def of(self, kind: str) -> dict[str, Document]:
        """Give all documents of a kind by name."""
        return {each["metadata"]["name"]: each for each in self.documents if each["kind"] == kind}

    def pods(self) -> Iterator[tuple[str, Document]]:
        """Give every pod's spec, whatever makes it."""
        for each in self.documents:
            name = f"{each['kind']}/{each['metadata']['name']}"
            match each["kind"]:
                case "Deployment" | "Job":
                    yield name, each["spec"]["template"]["spec"]
                case "CronJob":
                    yield name, each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
                case "Pod":
                    yield name, each["spec"]
                case _:
                    pass


def zone(**more: Any) -> dict[str, Any]:
    """Write the values of a whole zone on PostgreSQL, with anything else that is said."""
    agencies = [{"name": name} for name in AGENCIES]
    return {"zone": "port.example", "agencies": agencies, "certificates": {"issuer": {"claim": "authority"}}} | more


def program() -> str:
    """Find helm: beside the other tools, or on the path."""
    beside = Path(sys.executable).with_name("helm")
    found = str(beside) if beside.exists() else shutil.which("helm")
    if not found:
        pytest.skip("no helm here: `make dev` puts one beside the other tools, on Linux on x86-64")
    return found


def helm(*arguments: str | Path) -> str:
    """Run helm; raises `RefusedByHelm`."""
    done = subprocess.run([program(), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedByHelm(done.stderr + done.stdout)
    return done.stdout


def render(values: Values | str, kubernetes: str = KUBERNETES, release: str = RELEASE) -> Rendered:
    """Render the chart with values, or with the text of a values file; raises `RefusedByHelm`."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        # JSON is YAML in which every text is quoted: helm's YAML takes a bare Y for yes.
        file.write(values if isinstance(values, str) else json.dumps(dict(values), ensure_ascii=False))
        file.flush()
        text = helm(
            "template", release, CHART, "--namespace", NAMESPACE, "--values", file.name, "--kube-version", kubernetes
        )
    # libyaml's parser: the other one takes three times as long as helm itself.
    return Rendered([document for document in yaml.load_all(text, yaml.CSafeLoader) if document])
