"""`hutong values check` says on which line of which file a release's values are wrong; Helm would say the path."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tests.helm.chart import CHART, RefusedByHelm, helm, render

GOOD = """\
zone: port.example
agencies:
  - name: commerce
  - name: customs
    replicas: 3
certificates:
  issuer: {claim: authority}
"""

# What is written in place of what, the line and column that are told, and the words.
_WRONG = {
    "a typo at the top": ("agencies:", "agencis:", "2:1: agencis: unknown key; did you mean 'agencies'?"),
    "what is missing for it": ("agencies:", "agencis:", "1:1: agencies: it is missing"),
    "a typo below": (
        "    replicas: 3",
        "    replica: 3",
        "5:5: agencies[1].replica: unknown key; did you mean 'replicas'?",
    ),
    "a typo in a node's config": (
        "replicas: 3",
        "config:\n      limits: {deadlin: 5s}",
        "6:16: agencies[1].config.limits.deadlin: unknown key; did you mean 'deadline'?",
    ),
    "another kind of value": ("replicas: 3", "replicas: three", "5:15: agencies[1].replicas: 'three' is not of type"),
    "too small a number": ("replicas: 3", "replicas: 0", "5:15: agencies[1].replicas: 0 is less than the minimum of 1"),
    "one of several forms": (
        "replicas: 3",
        "config: {telemetry: {otlp: 7}}",
        "5:32: agencies[1].config.telemetry.otlp: 7 is not of type",
    ),
    "a zone in capitals": ("port.example", "Port.example", "1:7: zone: 'Port.example' does not fit: A lower-case DNS"),
    "an unknown agency": (
        "name: customs",
        "name: custms",
        "4:11: agencies[1].name: 'custms' is none of commerce, customs, publicsecurity, quality, taxation; "
        "did you mean 'customs'?",
    ),
    "two agencies with one name": (
        "name: customs",
        "name: commerce",
        "4:11: agencies[1].name: two agencies are called 'commerce', and an agency has one node: see line 3 as well",
    ),
    "a key twice": (
        "certificates:",
        "zone: b.example\ncertificates:",
        "6:1: 'zone' stands twice here: on line 1 as well",
    ),
    "no YAML": ("replicas: 3", "replicas: [3", "6:13: no YAML: "),
    "an alias of itself": ("replicas: 3", "config: &a {b: *a}", "5:13: too much of it, or too deep"),
    "a provider without keys": (
        "certificates:",
        "officers: {audit: {issuer: x}}\ncertificates:",
        "6:12: officers.audit: give either jwks or jwks_url",
    ),
    "an unknown jurisdiction": (
        "certificates:",
        "policy: {jurisdiction: atlantis, files: {customs: ''}}\ncertificates:",
        "6:24: policy.jurisdiction: ",
    ),
    "a policy of nobody's": (
        "certificates:",
        'policy: {files: {custms: ""}}\ncertificates:',
        "6:18: policy.files.custms: there is no such agency in agencies; did you mean 'customs'?",
    ),
    "a policy that is no Cedar": (
        "certificates:",
        'policy:\n  files:\n    customs: |\n      // mine\n      @id("a")\n      permit (principal action, resource);\n'
        "certificates:",
        "11:25: policy.files.customs: not Cedar: unexpected token `action`",
    ),
    "a policy with an unknown purpose": (
        "certificates:",
        'policy:\n  files:\n    customs: |-\n\n        @id("a")\n        forbid (principal, action, resource)\n'
        '        when { context.purpose == "P-REBAT" };\ncertificates:',
        "12:36: policy.files.customs: a: 'P-REBAT' is no purpose",
    ),
    "a policy on one line": (
        "certificates:",
        "policy: {files: {customs: 'permit (principal action, resource);'}}\ncertificates:",
        "6:27: policy.files.customs: customs.cedar:1:19: not Cedar: unexpected token `action`",
    ),
}


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", _WRONG)
def test_the_line_that_is_wrong(case: str, tmp_path: Path) -> None:
    old, new, told = _WRONG[case]
    assert GOOD.count(old) == 1
    file = tmp_path / "port.yaml"
    file.write_text(GOOD.replace(old, new), encoding="utf-8")
    before = content(tmp_path), content(CHART)
    ran = run("values", "check", file, "--chart", CHART)
    assert ran.exit_code == 1
    assert (content(tmp_path), content(CHART)) == before
    lines = ran.stderr.splitlines()
    assert [line for line in lines if line.startswith(f"{file}:{told}")], ran.stderr
    assert lines[-1].startswith("refused: ")
    (first, *_) = json.loads(run("values", "check", file, "--chart", CHART, "--json").stdout)["problems"]
    assert lines[0].startswith(f"{file}:{first['line']}:{first['column']}: ")


@pytest.mark.parametrize("name", sorted(path.name for path in (CHART / "ci").iterdir()))
def test_what_helm_takes_passes(name: str) -> None:
    assert run("values", "check", CHART / "ci" / name, "--chart", CHART).stdout == f"ok: {CHART / 'ci' / name}\n"


def test_what_it_refuses_by_schema_helm_refuses_too(tmp_path: Path) -> None:
    """Both read the same schema: a typo cannot pass one and fail the other."""
    for old, new, _ in (_WRONG[case] for case in ("a typo below", "an unknown agency", "two agencies with one name")):
        with pytest.raises(RefusedByHelm):
            render(GOOD.replace(old, new))
    assert run("values", "check", written(tmp_path, "good.yaml", GOOD), "--chart", CHART).exit_code == 0


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_files_are_laid_over_each_other_as_helm_does(tmp_path: Path) -> None:
    """Mappings are merged, lists replaced: each mistake is told of the file that has it."""
    base = written(tmp_path, "base.yaml", GOOD.replace("port.example", "Port"))
    later = written(tmp_path, "later.yaml", "zone: port.example\ncertificates: {issuer: {clam: x}}\n")
    ran = run("values", "check", base, later, "--chart", CHART)
    assert ran.stderr.splitlines()[:-1] == [
        f"{later}:2:25: certificates.issuer.clam: unknown key; did you mean 'claim'?"
    ]
    shorter = written(tmp_path, "shorter.yaml", "zone: port.example\nagencies: [{name: custms}]\n")
    ran = run("values", "check", base, shorter, "--chart", CHART)
    assert ran.stderr.startswith(f"{shorter}:2:19: agencies[0].name: 'custms' is none of")
    assert len(ran.stderr.splitlines()) == 2


def test_a_packed_chart_has_the_schema(tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    (packed,) = tmp_path.iterdir()
    assert run("values", "check", written(tmp_path, "port.yaml", GOOD), "--chart", packed).exit_code == 0


def test_a_chart_or_a_file_that_is_not_there(tmp_path: Path) -> None:
    file = written(tmp_path, "port.yaml", GOOD)
    for arguments in ((file, "--chart", tmp_path), (file, "--chart", file), (tmp_path / "none.yaml", "--chart", CHART)):
        ran = run("values", "check", *arguments)
        assert ran.exit_code == 2
        words = " ".join(ran.stderr.replace("│", " ").split())
        assert "is no chart" in words or "cannot read" in words
