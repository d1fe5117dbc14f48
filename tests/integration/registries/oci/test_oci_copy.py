"""`axonfs registry copy` from and to OCI registries: Debian's docker-registry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from axonfs.formats.chunktable import decode_table
from axonfs.formats.layout import manifest_key
from axonfs.formats.manifest import parse_manifest
from axonfs.http_client import Answer, Said
from axonfs.names import parse_spec
from axonfs.oci import reference_of
from axonfs.oci.manifest import INDEX, digest_of
from axonfs.publish import publish_oci
from axonfs.registries import oci_target
from tests.integration.registries.oci.copying import (
    NEW,
    OLD,
    SIZES,
    TAR,
    DeathError,
    Line,
    copied,
    files,
    get,
    of_old,
    signed,
    tags,
)
from tests.support.commands import Run
from tests.support.dockerregistry import IMAGE, TITLE, DockerRegistry, Packed
from tests.support.registry import make_model, published
from tests.support.tinyoci import TinyOci


def test_there_and_back(
    run: Run, registry: Path, tmp_path: Path, docker_registry: DockerRegistry, oci: str, prefix: str
) -> None:
    """Byte for byte: manifests, chunk tables, signatures, yanks, and the lists that follow."""
    there = run("registry", "copy", registry, oci)
    assert (there.code, there.err) == (0, "")
    assert there.out == "3 versions copied; 10 objects, 6.0 MiB new\n"
    back = run("registry", "copy", oci, tmp_path / "back")
    assert (back.code, back.err) == (0, "")
    assert back.out == "3 versions copied; 8 objects, 6.0 MiB new\n"
    assert files(tmp_path / "back") == files(registry)
    raw = get(docker_registry, f"{prefix}/nlp/tiny/manifests/1.0.0")
    layers = {one["annotations"][TITLE]: one["size"] for one in json.loads(raw)["layers"]}
    assert {path: layers.get(path) for path in SIZES} == SIZES, "other tools can pull it"
    referring = f"sha256-{digest_of(raw)}"
    assert referring in tags(docker_registry, f"{prefix}/nlp/tiny")
    shown = run("versions", "oci/x/nlp/tiny", "--registry", f"{oci}?alias=x", "--json")
    assert len(json.loads(shown.out)["versions"]) == 2, "what refers to a model is none"


def test_a_second_copy_brings_only_what_is_new(
    run: Run, registry: Path, tmp_path: Path, oci: str, line: Line
) -> None:
    assert run("registry", "copy", registry, oci, OLD, NEW).code == 0
    line.writes.clear()
    again = run("registry", "copy", registry, oci, "nlp/tiny@1", NEW, OLD)
    assert again.code == 1
    assert "nlp/tiny@1: the registry does not have this version" in again.err
    assert again.out == "0 versions copied, 2 already there; 0 objects, 0 B new\n"
    assert line.writes == []
    signed(registry, OLD, "two")
    run("registry", "copy", registry, oci, OLD)
    assert len(line.writes) == 4, "the signatures, the artifact, and its tag"
    copied(oci, f"file://{tmp_path}/back", OLD)
    assert of_old(files(tmp_path / "back")) == of_old(files(registry))


def test_killed_before_each_of_its_writes(
    tmp_path: Path, docker_registry: DockerRegistry, line: Line, oci: str, prefix: str
) -> None:
    """The tag comes last, and the next copy sends what is left."""
    registry = published(tmp_path, {"empty": 0}, spec=OLD)
    for number in range(100):
        line.writes.clear()
        line.dies_before = number
        repository = f"{prefix}/n{number}/nlp/tiny"
        try:
            copied(f"file://{registry}", f"{oci}/n{number}", OLD)
            break
        except DeathError:
            pass
        with pytest.raises(Exception, match="404"):
            get(docker_registry, f"{repository}/manifests/1.0.0")
        line.writes.clear()
        line.dies_before = -1
        copied(f"file://{registry}", f"{oci}/n{number}", OLD)
        left = len(line.writes)
        copied(f"{oci}/n{number}", f"file://{tmp_path}/back{number}", OLD)
        assert files(tmp_path / f"back{number}") == files(registry)
    assert number == 15
    assert left == 2, "the artifact, and the tag"


def test_from_one_oci_registry_to_another(
    run: Run,
    registry: Path,
    tmp_path: Path,
    docker_registry: DockerRegistry,
    line: Line,
    oci: str,
    prefix: str,
) -> None:
    """Manifests keep their digests: of what came from a registry of files, of archives, and of an
    index."""
    assert run("registry", "copy", registry, f"{oci}/a", OLD, NEW).code == 0
    server, strange = docker_registry, f"{prefix}/a/nlp/strange"
    digest = server.push(strange, "2.0", Packed().add("d", b"no archive", TAR))
    size = len(get(server, f"{strange}/manifests/{digest}"))
    listed = [{"mediaType": IMAGE, "digest": digest, "size": size}]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    server.push_manifest(strange, "index", index)
    note = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    listed.append({**listed[0], "digest": server.push(strange, "note", Packed()), **note})
    listed[1]["size"] = len(get(server, f"{strange}/manifests/note"))
    server.push_manifest(strange, "attested", index)
    other = f"{oci}/b".replace("127.0.0.1", "localhost")
    done = run("registry", "copy", f"{oci}/a", other)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("6 versions copied;")
    for name in ("nlp/tiny", "nlp/strange"):
        names = tags(server, f"{prefix}/a/{name}")
        assert tags(server, f"{prefix}/b/{name}") == names
        for tag in names:
            there = get(server, f"{prefix}/b/{name}/manifests/{tag}")
            named = digest if tag == "attested" else tag
            assert there == get(server, f"{prefix}/a/{name}/manifests/{named}")
    assert run("registry", "copy", f"{oci}/b", tmp_path / "back", OLD).code == 0
    assert of_old(files(tmp_path / "back")) == of_old(files(registry))
    assert run("registry", "copy", f"{oci}/a", other).out.startswith("0 versions copied, 6")
    line.writes.clear()
    assert run("registry", "copy", f"{oci}/a", f"{oci}/c", "nlp/strange@2.0").code == 0
    assert len(line.writes) == 3, "a registry takes two blobs from itself, and the manifest"


def test_chunk_tables_go_along(
    run: Run, tmp_path: Path, docker_registry: DockerRegistry, oci: str, prefix: str
) -> None:
    """From one OCI registry to another, as `publish` made them; and where a registry lost them, the
    model goes without."""
    model = make_model(tmp_path / "model", {"a.bin": (1 << 20) + 1})
    pushed = publish_oci(model, reference_of(f"{oci}/a/nlp/tiny:1"))
    copied(f"{oci}/a", f"{oci}/b", "nlp/tiny@1")
    copied(f"{oci}/a", f"{oci}/b", "nlp/tiny@1")
    path = f"nlp/tiny/manifests/sha256-{pushed.digest}"
    there, index = (get(docker_registry, f"{prefix}/{one}/{path}") for one in "ab")
    assert index == there, "both list the artifact with the tables"
    [artifact] = json.loads(index)["manifests"]
    kept = get(docker_registry, f"{prefix}/b/nlp/tiny/manifests/{artifact['digest']}")
    digests = [table["digest"] for table in json.loads(kept)["layers"]]
    tables = [get(docker_registry, f"{prefix}/b/nlp/tiny/blobs/{digest}") for digest in digests]
    assert [decode_table(table).size for table in tables] == [(1 << 20) + 1]
    docker_registry.request("DELETE", f"/v2/{prefix}/b/nlp/tiny/manifests/{artifact['digest']}")
    done = run("registry", "copy", f"{oci}/b", tmp_path / "files", "nlp/tiny@1")
    assert (done.code, done.err) == (0, "")


def test_a_version_that_an_older_axonfs_packed_is_the_same_one(
    run: Run, registry: Path, oci: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest in OCI says nothing of chunk tables, and so has another digest."""
    real = oci_target._files
    with monkeypatch.context() as older:
        without = lambda found: [replace(file, chunks=None) for file in real(found)]  # noqa: E731
        older.setattr(oci_target, "_files", without)
        copied(f"file://{registry}", f"{oci}/a", OLD)
    copied(f"file://{registry}", f"{oci}/b", OLD)
    for source, target in ("ab", "ba"):
        done = run("registry", "copy", f"{oci}/{source}", f"{oci}/{target}", OLD)
        assert (done.code, done.err) == (0, "")
        assert "0 versions copied, 1 already there" in done.out


@pytest.mark.parametrize("allowed", [True, False])
def test_a_registry_with_tokens_takes_blobs_from_itself(
    registry: Path,
    tmp_path: Path,
    docker_registry: DockerRegistry,
    line: Line,
    oci: str,
    prefix: str,
    allowed: bool,
) -> None:
    """Such a registry wants a token for both repositories; without one the files travel."""
    copied(f"file://{registry}", f"{oci}/a", OLD)
    with TinyOci(tmp_path) as tokens:
        challenge = f'Bearer realm="{tokens.origin.url}token",service="s"'

        def wanted(said: Said) -> Said:
            url = said.answer.url
            if "mount=" in url and not (allowed and tokens.queries):
                return Said(Answer(url, 401, {"www-authenticate": challenge}), b"")
            return said

        line.answered = wanted
        line.writes.clear()
        copied(f"{oci}/a", f"{oci}/b", OLD)
        names = [f"{prefix}/b/nlp/tiny:pull,push", f"{prefix}/a/nlp/tiny:pull"]
        assert tokens.queries[0]["scope"] == [f"repository:{name}" for name in names]
    raw = get(docker_registry, f"{prefix}/b/nlp/tiny/manifests/1.0.0")
    sent = {write.rpartition("digest=")[2] for write in line.writes}
    layers = {layer["digest"] for layer in json.loads(raw)["layers"]}
    assert layers & sent == (set() if allowed else layers)


def test_a_strangers_model_becomes_a_version(
    run: Run,
    tmp_path: Path,
    docker_registry: DockerRegistry,
    oci: str,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And the same one each time."""
    model = Packed(config=b"{}", config_type="application/vnd.oci.empty.v1+json")
    weights = bytes(range(256)) * 8192
    model.add("w.safetensors", weights, "application/octet-stream", {TITLE: "w.safetensors"})
    model.add("README.md", b"---\nlicense: mit\n---\n# A test\n", "x/y", {TITLE: "README.md"})
    docker_registry.push(f"{prefix}/nlp/strange", "1.0", model)
    docker_registry.push(f"{prefix}/nlp/strange", "latest", model)
    docker_registry.push(f"{prefix}/nlp/packed", "1.0", Packed().add("d", b"x", TAR))
    docker_registry.push(f"{prefix}/nlp/empty", "1.0", Packed())
    docker_registry.push(f"{prefix}/nlp/newest", "latest", Packed().add("d", b"x"))
    docker_registry.push(f"{prefix}/single", "1.0", Packed().add("d", b"x"))
    done = run("registry", "copy", oci, tmp_path / "one")
    assert done.code == 1
    assert done.out == "1 version copied; 2 objects, 2.0 MiB new\n"
    assert "nlp/packed@1.0: the model has layers that are archives" in done.err
    assert "axonfs publish" in done.err
    assert "nlp/empty@1.0: the model has no files" in done.err
    assert "nlp/newest@latest: its only tag is latest" in done.err
    assert f"left out: {prefix}/single (not NAMESPACE/NAME below {oci})" in caplog.text
    spec = parse_spec("nlp/strange@1.0")
    raw = (tmp_path / "one" / manifest_key(spec)).read_bytes()
    manifest = parse_manifest(raw, spec)
    assert (manifest.description, manifest.license) == ("A test", "mit")
    assert all(entry.chunks for entry in manifest.files)
    assert run("registry", "check", tmp_path / "one").code == 0
    again = run("registry", "copy", oci, tmp_path / "one", "nlp/strange")
    assert again.out == "0 versions copied, 1 already there; 0 objects, 0 B new\n"
    run("registry", "copy", oci, tmp_path / "two", spec)
    assert (tmp_path / "two" / manifest_key(spec)).read_bytes() == raw
    docker_registry.push(f"{prefix}/nlp/strange", "1.0", Packed().add("w.safetensors", b"else"))
    docker_registry.push(f"{prefix}/nlp/strange", "1.0.0_cu", model)
    for version in ("1.0.0_cu", "1.0.0+cu"):  # two names of one tag, and of one version
        run("registry", "copy", oci, tmp_path / "one", f"nlp/strange@{version}")
    shown = run("versions", "nlp/strange", "--registry", tmp_path / "one", "--json")
    found = [one["version"] for one in json.loads(shown.out)["versions"]]
    assert found == ["1.0", "1.0.0+cu"]
    newest = run("registry", "copy", oci, f"{oci}/copy")
    assert (newest.code, "its only tag is latest" in newest.err) == (1, True)
    moved = run("registry", "copy", oci, tmp_path / "one", spec)
    assert (moved.code, "already published with other files" in moved.err) == (1, True)
