"""Axon's users: their commands against registries as they have them, without index or lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.axon import MANIFEST, AxonRegistry
from tests.support.commands import Run

BIG = bytes(range(256)) * 4096
ROBERTA = "nlp/deepset/RoBERTa_base.squad2"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[AxonRegistry]:
    made = AxonRegistry(tmp_path / "axon")
    made.add("vision/resnet50-wide@1.0.0", {"w.bin": b"w"}, description="resnet50, but wide")
    made.add("vision/resnet50@1.0.0", {"model.onnx": BIG, "config.json": b"{}"})
    made.add("vision/resnet50@1.2.0", {"model.onnx": BIG, "labels.txt": b"cat\n"})
    made.add("vision/resnet50@2.0.0-rc.1", {"model.onnx": BIG})
    made.add(f"{ROBERTA}@1.10", {"m.bin": b"m" * 1000}, description="Question answering")
    with made:
        yield made


@pytest.fixture
def home(run: Run, registry: AxonRegistry) -> Run:
    """Commands after the first one that a new user types."""
    assert run("registry", "set", "default", registry.url).code == 0
    return run


def test_search_shows_what_the_registry_finds_and_best_first(home: Run) -> None:
    found = json.loads(home("search", "resnet50", "--json").out)
    assert [item["spec"] for item in found] == [
        "vision/resnet50@1.0.0",
        "vision/resnet50@1.2.0",
        "vision/resnet50@2.0.0-rc.1",
        "vision/resnet50-wide@1.0.0",
    ]
    words = home("search", "image classification")
    assert "vision/resnet50@1.2.0" in words.out
    assert "0 B" not in words.out  # Axon's search tells no sizes
    assert home("search", "image", "classification").out == words.out
    assert home("search", "nothing-like-it").err == "nothing matches\n"


def test_latest_is_the_highest_release_that_the_search_knows(home: Run) -> None:
    assert json.loads(home("info", "vision/resnet50", "--json").out)["version"] == "1.2.0"
    found = json.loads(home("versions", "vision/resnet50", "--json").out)
    assert found["latest"] == "1.2.0"
    assert [(item["version"], item["size"]) for item in found["versions"]] == [
        ("1.0.0", len(BIG) + 2),
        ("1.2.0", len(BIG) + 4),
        ("2.0.0-rc.1", len(BIG)),
    ]


def test_capitals_underscores_dots_and_segments(home: Run, registry: AxonRegistry) -> None:
    assert home("install", ROBERTA).out.startswith(f"{ROBERTA}@1.10 is pinned")
    assert "/api/v1/models/nlp/deepset/RoBERTa_base.squad2/1.10/manifest.yaml" in registry.paths
    (item,) = json.loads(home("list", "-f", "json").out)
    assert (item["Namespace"], item["Name"]) == ("nlp", "deepset/RoBERTa_base.squad2")
    assert item["Version"] == "1.10"
    assert home("list", "--format", "names").out == f"{ROBERTA}\n"


def test_install_update_verify_uninstall(home: Run, registry: AxonRegistry) -> None:
    assert home("install", "vision/resnet50@~1.0").out.startswith("vision/resnet50@1.0.0 is pinned")
    updated = home("update")
    assert updated.out == (
        "vision/resnet50: 1.0.0 → 1.2.0 (files: 1 added, 1 removed; 4 B fetched)\n"
    )
    assert "stays pinned; to drop it: axonfs uninstall vision/resnet50@1.0.0" in updated.err
    assert home("update").out == "vision/resnet50 is at its newest version, 1.2.0\n"
    registry.add("vision/resnet50@1.3.0", {"model.onnx": BIG})
    assert "1.2.0 → 1.3.0 (files: 1 removed; 0 B fetched)" in home("update", "vision/resnet50").out
    assert home("verify", "vision/resnet50").code == 0
    bare = home("uninstall", "vision/resnet50")
    assert (bare.code, "--all-versions" in bare.err) == (2, True)
    assert home("uninstall", "vision/resnet50@1.0.0").code == 0
    assert [item["Version"] for item in json.loads(home("list", "-f", "json").out)] == [
        "1.2.0",
        "1.3.0",
    ]
    assert home("uninstall", "vision/resnet50@1.0.0").code == 1
    assert home("uninstall", "vision/resnet50", "--all-versions").code == 0
    assert json.loads(home("list", "-f", "json").out) == []


def test_a_registry_whose_latest_resolves_and_nothing_else_does(run: Run, tmp_path: Path) -> None:
    registry = AxonRegistry(tmp_path / "axon", searches=False)
    registry.add("audio/whisper@3.1.0", {"m.bin": b"1"}, latest=True)
    registry.add("audio/whisper@3.0.0", {"m.bin": b"0"})
    with registry:
        run("registry", "set", "default", registry.url)
        assert run("install", "audio/whisper").out.startswith("audio/whisper@3.1.0 is pinned")
        registry.add("audio/whisper@3.2.0", {"m.bin": b"2"}, latest=True)
        assert "3.1.0 → 3.2.0" in run("update").out
        assert run("info", "audio/whisper@3.0.0").code == 0
        unknown = run("info", "audio/none")
        assert unknown.code == 1
        assert "name its @VERSION" in unknown.err


def test_neither_search_nor_index_is_an_error_and_no_empty_list(run: Run, tmp_path: Path) -> None:
    with AxonRegistry(tmp_path / "axon", searches=False) as registry:
        run("registry", "set", "default", registry.url)
        done = run("search", "resnet")
        assert (done.code, done.out) == (1, "")
        assert "neither a search nor an index" in done.err
        assert registry.url in done.err
        told = json.loads(run("search", "resnet", "--json").out)["error"]
        assert told["message"] == "this registry has neither a search nor an index"


def test_a_registry_without_a_search_does_not_hide_the_others(
    home: Run, registry: AxonRegistry, tmp_path: Path
) -> None:
    with AxonRegistry(tmp_path / "other", searches=False) as other:
        home("registry", "add", other.url)
        found = home("search", "resnet50")
        assert found.code == 0
        assert "vision/resnet50@1.2.0" in found.out
        assert other.url in found.err
        assert home("search", "nothing-like-it").code == 1


def test_a_search_that_could_not_ask_is_no_empty_list(home: Run, registry: AxonRegistry) -> None:
    """Whatever else is known here: a registry that is down may have what was looked for."""
    home("install", "vision/resnet50@1.0.0")
    home("registry", "add", "http://127.0.0.1:9")
    done = home("search", "nothing-like-it")
    assert (done.code, done.out) == (1, "")
    assert "Connection refused" in done.err.splitlines()[-1]
    done = home("search", "resnet50", "--json")
    assert done.code == 0
    assert json.loads(done.out)
    assert done.err.count("Connection refused") == 1


def test_what_was_a_warning_is_not_said_again_as_the_error(run: Run) -> None:
    done = run("search", "--registry", "http://127.0.0.1:9", "resnet50")
    assert (done.code, done.err.count("Connection refused")) == (1, 1)


def test_a_latest_that_calls_itself_latest_is_not_a_version(run: Run, tmp_path: Path) -> None:
    registry = AxonRegistry(tmp_path / "axon", searches=False)
    registry.add("audio/whisper@3.1.0", {"m.bin": b"1"}, latest=True)
    manifest = registry.directory / MANIFEST.format("audio/whisper/latest")
    manifest.write_text(manifest.read_text().replace("3.1.0", "latest"))
    with registry:
        run("registry", "set", "default", registry.url)
        done = run("info", "audio/whisper")
        assert done.code == 1
        assert "`latest` is not used" in done.err
        assert run("info", "audio/whisper@3.1.0").code == 0


def test_a_json_manifest_with_keys_of_its_own_will_do(run: Run, tmp_path: Path) -> None:
    registry = AxonRegistry(tmp_path / "axon")
    registry.add("audio/whisper@3.1.0", {"m.bin": b"1"}, colour="blue")
    import yaml

    manifest = registry.directory / MANIFEST.format("audio/whisper/3.1.0")
    manifest.write_text(json.dumps(yaml.safe_load(manifest.read_text())))
    with registry:
        run("registry", "set", "default", registry.url)
        assert run("install", "audio/whisper").code == 0
        assert run("info", "audio/whisper").code == 0


def test_doctor_knows_a_registry_that_only_searches(home: Run, registry: AxonRegistry) -> None:
    checks = {item["name"]: item for item in json.loads(home("doctor", "--json").out)}
    assert checks[f"registry {registry.url}"]["state"] == "ok"
