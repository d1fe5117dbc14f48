"""`manifest lint`: every rule of the schema, broken one at a time and all at once.

Also the JSON Schema itself, which editors use without `manifest lint`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from axonfs.cli.main import main
from axonfs.formats.manifest import (
    API_VERSION,
    MAX_CHUNK_SIZE,
    MAX_SIZE,
    MIN_CHUNK_SIZE,
    MODEL,
    check_chunk_size,
    parse_manifest,
)
from axonfs.formats.safe_yaml import parse_yaml
from axonfs.formats.schema import lint_manifest, load_schema
from axonfs.names import parse_spec
from tests.support.axon import WRITTEN, axon_manifest
from tests.support.placeholders import write_registry
from tests.support.registry import published

SPEC = parse_spec("vision/deep/ResNet_50@1.0.0")
REQUIRED = [
    "apiVersion",
    "kind",
    "metadata",
    *(f"metadata.{key}" for key in ("name", "namespace", "version", "description", "license")),
    "spec",
    "spec.framework",
    "spec.framework.name",
    "spec.framework.version",
    "spec.format",
    "spec.format.type",
    "spec.format.files",
    "spec.io",
    "spec.io.inputs",
    "spec.io.outputs",
    "spec.requirements",
    "spec.requirements.compute",
    "spec.requirements.compute.cpu",
    "spec.requirements.compute.cpu.min_cores",
    "spec.requirements.compute.memory",
    "spec.requirements.compute.memory.min_gb",
    "distribution",
    "distribution.package",
    *(f"distribution.package.{key}" for key in ("url", "size", "sha256")),
    "distribution.registry",
    "distribution.registry.url",
    "distribution.registry.namespace",
]


def whole() -> dict[str, Any]:
    return axon_manifest(SPEC, {"a/model.onnx": b"x", "empty": b""})


def lint(document: object) -> list[str]:
    return [str(violation) for violation in lint_manifest(json.dumps(document).encode())]


def at(document: Any, key: str) -> tuple[Any, Any]:
    """The container that `key` is in, and the last step of it."""
    *steps, last = [
        int(step) if step.isdigit() else step
        for step in key.replace("[", ".").replace("]", "").split(".")
    ]
    for step in steps:
        document = document[step]
    return document, last


def changed(key: str, value: object) -> list[str]:
    document = whole()
    container, last = at(document, key)
    container[last] = value
    return lint(document)


def test_the_whole_schema_passes_as_yaml_and_as_json() -> None:
    assert lint(whole()) == []
    assert lint_manifest(yaml.safe_dump(whole()).encode()) == []
    assert lint({**whole(), "apiVersion": "axon.mlos.io/v1", "x-own": {"key": [1]}}) == []


@pytest.mark.parametrize("key", REQUIRED)
def test_what_is_required_is_named_when_it_is_missing(key: str) -> None:
    document = whole()
    container, last = at(document, key)
    del container[last]
    assert lint(document) == [f"{key} is missing"]
    assert changed(key, None) == [f"{key} is missing"]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("apiVersion", "v2", "is not axon.mlos.io/v1 or v1: 'v2'"),
        ("kind", "Secret", "is not Model: 'Secret'"),
        ("metadata", [], "is not a mapping"),
        ("metadata.name", "a//b", "is not a name of plain segments: 'a//b'"),
        ("metadata.namespace", "a/b", "is not one plain segment: 'a/b'"),
        ("metadata.version", "latest", "is not a semantic version: 'latest'"),
        ("metadata.version", "main", "is not a semantic version: 'main'"),
        ("metadata.license", "", "is empty"),
        ("metadata.license", " ", "is empty"),
        ("metadata.description", ["x"], "is not a text"),
        ("metadata.authors", [{"email": "a@b"}], None),
        ("metadata.created", "soon", "is not a time as in RFC 3339: 'soon'"),
        ("metadata.homepage", "ftp://x", "is not an http:// or https:// URL: 'ftp://x'"),
        ("metadata.tags", "vision", "is not a list"),
        ("spec.framework", "pytorch", "is not a mapping"),
        ("spec.format.files", [], "is empty"),
        ("spec.format.files[0].path", "../a", None),
        ("spec.format.files[0].path", "manifest.yaml", "is the manifest's own"),
        ("spec.format.files[1].path", "a/model.onnx", "is there twice: 'a/model.onnx'"),
        ("spec.format.files[0].path", "empty/a", "is below another file, 'empty'"),
        ("spec.format.files[0].size", -1, None),
        ("spec.format.files[0].size", "12", None),
        ("spec.format.files[0].size", 1 << 60, None),
        ("spec.format.files[0].sha256", "abc", "is refused: 'abc' is not a sha256 digest"),
        ("spec.format.files[0].sha256", "0" * 64, "is refused: zeros are a placeholder"),
        ("spec.format.files[0].chunks", {"size": 3, "sha256": "ab" * 32}, None),
        ("spec.format.execution_files", ["a/model.onnx", "other.onnx"], None),
        ("spec.io.inputs", [], "is empty"),
        ("spec.io.outputs[0].shape", "any", "is not a list"),
        ("spec.io.outputs[0].shape", [-1, -2], None),
        ("spec.io.outputs[0].shape", [1.5], None),
        ("spec.io", 5, "is not a mapping"),
        ("spec.requirements.compute.cpu.min_cores", 0, None),
        ("spec.requirements.compute.memory.min_gb", "much", None),
        ("spec.requirements.compute.gpu", {"required": "perhaps"}, None),
        ("distribution.package.url", "x.axon", None),
        ("distribution.package.size", 0, "is not a whole number above zero: '0'"),
        ("distribution.package.mirrors", ["nowhere"], None),
    ],
)
def test_a_broken_rule_is_named_with_its_key(key: str, value: object, problem: str | None) -> None:
    (found,) = changed(key, value)
    assert found.startswith(key)
    assert problem is None or found == f"{key} {problem}"


def without_sums() -> dict[str, Any]:
    document = whole()
    for file in document["spec"]["format"]["files"]:
        del file["sha256"]
    return document


def test_a_package_vouches_for_files_without_a_sha256() -> None:
    """As a mount takes them: Axon's schema has the sha256 of the package alone."""
    document = without_sums()
    assert lint(document) == []
    assert parse_manifest(json.dumps(document).encode()).files[0].packed
    document["distribution"]["package"]["sha256"] = "abc"
    assert [line.partition(" ")[0] for line in lint(document)] == [
        "distribution.package.sha256",
        "spec.format.files[0].sha256",
        "spec.format.files[1].sha256",
    ]
    del document["distribution"]
    assert lint(document) == [
        "distribution is missing",
        "spec.format.files[0].sha256 is missing, and no package has one",
        "spec.format.files[1].sha256 is missing, and no package has one",
    ]


def test_a_package_vouches_for_no_file_with_chunks() -> None:
    document = without_sums()
    document["spec"]["format"]["files"][0]["chunks"] = {"size": 1 << 20, "sha256": "ab" * 32}
    assert lint(document) == ["spec.format.files[0].sha256 is missing beside its chunks"]


def test_all_violations_are_listed_at_once() -> None:
    document = whole()
    document["kind"] = "Secret"
    del document["metadata"]["license"]
    document["spec"]["format"]["files"][1]["sha256"] = "x"
    document["spec"]["io"]["inputs"][0]["shape"][2] = "wide"
    document["distribution"]["registry"] = {}
    assert [line.partition(" ")[0] for line in lint(document)] == [
        "kind",
        "metadata.license",
        "spec.format.files[1].sha256",
        "spec.io.inputs[0].shape[2]",
        "distribution.registry.url",
        "distribution.registry.namespace",
    ]


def test_what_no_single_key_breaks_is_still_found() -> None:
    document = whole()
    files = document["spec"]["format"]["files"]
    files += [{**files[0], "path": f"f{number}", "size": 1 << 42} for number in range(2049)]
    assert lint(document) == ["the manifest is refused: the files have more than 8192 TiB in total"]


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: &x 1", "a: 1\na: 2"])
def test_what_is_no_document_is_one_violation(text: str) -> None:
    assert len(lint_manifest(text.encode())) == 1


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from(REQUIRED), JSON)
def test_any_value_anywhere_is_a_violation_or_none_and_never_a_fault(key: str, value: Any) -> None:
    assert all(line.isprintable() for line in changed(key, value))


SCHEMA = load_schema()


def rules(node: Any = SCHEMA) -> Iterator[dict[str, Any]]:
    """Every schema inside the schema."""
    if isinstance(node, dict):
        if {"type", "enum", "const"} & node.keys() and not isinstance(node.get("type"), dict):
            yield node
        for inner in node.values():
            yield from rules(inner)


def test_the_schema_is_a_json_schema() -> None:
    """Also by an earlier draft, which is all that some editors know."""
    Draft202012Validator.check_schema(SCHEMA)
    Draft7Validator.check_schema(SCHEMA)


def test_every_rule_of_the_schema_has_a_message() -> None:
    for rule in rules():
        assert rule.get("type") in ("object", "array") or rule["errorMessage"].startswith("is not ")


def test_a_format_stands_before_the_pattern_that_says_less() -> None:
    formats = [list(rule) for rule in rules() if {"format", "pattern"} <= rule.keys()]
    assert formats
    assert all(keys.index("format") < keys.index("pattern") for keys in formats)


def test_the_schema_has_the_limits_of_the_parser() -> None:
    file = SCHEMA["$defs"]["file"]["properties"]
    assert file["size"]["maximum"] == SCHEMA["$defs"]["count"]["maximum"] == MAX_SIZE
    sizes = file["chunks"]["properties"]["size"]["enum"]
    assert (sizes[0], sizes[-1]) == (MIN_CHUNK_SIZE, MAX_CHUNK_SIZE)
    assert all(big == 2 * small for small, big in pairwise(sizes))
    for size in sizes:
        check_chunk_size(size)
    assert API_VERSION in SCHEMA["properties"]["apiVersion"]["enum"]
    assert SCHEMA["properties"]["kind"]["const"] == MODEL


class EditorLoader(yaml.SafeLoader):
    """Reads a time as a text, as editors do."""


EditorLoader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: str(node.value))


def for_editors(raw: bytes) -> list[str]:
    """The messages of an editor about `raw`, read as usual YAML and as AxonFS reads it.

    In usual YAML 1.5 is a number and true a boolean, where AxonFS has texts.
    """
    document = yaml.load(raw, EditorLoader)
    found: list[str] = []
    for validator in (Draft202012Validator(SCHEMA), Draft7Validator(SCHEMA)):
        for read in (document, parse_yaml(raw, limit=1 << 20)):
            found += [error.message for error in validator.iter_errors(read)]
    return found


def test_editors_accept_what_lint_accepts() -> None:
    whole_manifest = whole()
    whole_manifest["spec"]["requirements"]["compute"]["gpu"] = {"required": True, "min_vram_gb": 8}
    whole_manifest["spec"]["requirements"]["storage"] = {"min_gb": 0.5}
    whole_manifest["metadata"] |= {"tags": [2024, 1.5, True], "version": 1.10, "license": "MIT"}
    for raw in (yaml.safe_dump(whole_manifest).encode(), json.dumps(whole_manifest).encode()):
        assert lint_manifest(raw) == []
        assert for_editors(raw) == []


def test_editors_accept_what_a_mount_accepts() -> None:
    least = {"namespace": "nlp", "name": "llama", "version": 1}
    files = [{"path": "a", "size": 1}]
    document = {"apiVersion": "v1", "metadata": least, "spec": {"format": {"files": files}}}
    for raw in (WRITTEN.encode(), json.dumps(document).encode()):
        parse_manifest(raw)
        assert for_editors(raw) == []
        assert lint_manifest(raw)


@pytest.mark.parametrize(("key", "value"), [("spec.format.files[0].path", "../a"), ("kind", "x")])
def test_editors_see_a_broken_rule(key: str, value: object) -> None:
    document = whole()
    container, last = at(document, key)
    container[last] = value
    assert for_editors(yaml.safe_dump(document).encode())


def test_editors_accept_the_manifests_of_axons_own_registry(tmp_path: Path) -> None:
    """Lint refuses the placeholders in place of digests, and nothing else."""
    write_registry(tmp_path)
    manifests = list(tmp_path.rglob("manifest.yaml"))
    assert len(manifests) == 62
    for path in manifests:
        assert for_editors(path.read_bytes()) == []
        for violation in lint_manifest(path.read_bytes()):
            assert violation.key.endswith("sha256")
            assert violation.problem.startswith("is refused: 'placeholder-")


def test_what_is_published_is_complete(tmp_path: Path) -> None:
    """Axon's own clients need more, but cannot install it: it has no package."""
    registry = published(tmp_path, {"a/model.onnx": 100_000, "empty": 0})
    (path,) = registry.rglob("manifest.yaml")
    assert for_editors(path.read_bytes()) == []
    assert lint_manifest(path.read_bytes()) == []
    document = yaml.safe_load(path.read_bytes())
    document["metadata"]["name"] = document["spec"]["format"]["files"][0]["size"] = None
    document["metadata"]["homepage"] = "nowhere"
    assert lint(document)[:3] == [
        "metadata.name is missing",
        "metadata.homepage is not an http:// or https:// URL: 'nowhere'",
        "spec.format.files[0].size is missing",
    ]


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*line: str) -> tuple[int, str, str]:
        code = main(["manifest", "lint", *line])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_command_says_ok_or_lists(command: Command, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.json"
    good.write_text(yaml.safe_dump(whole()))
    bad.write_text(json.dumps({**whole(), "kind": "x", "metadata": {}}))
    assert command(str(good)) == (0, f"{good}: ok\n", "")
    code, out, err = command(str(bad))
    assert code == 1
    assert out.splitlines()[:2] == [
        f"{bad}: kind is not Model: 'x'",
        f"{bad}: metadata.name is missing",
    ]
    assert err == "violations: 6\n"
    code, out, err = command(str(bad), "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["violations"][1] == {"key": "metadata.name", "problem": "is missing"}
    assert command(str(tmp_path / "absent"))[0] == 2


def test_the_command_reads_standard_input(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO(json.dumps(whole()).encode())
    stream.name = "<stdin>"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))
    assert command("-") == (0, "standard input: ok\n", "")


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
