"""Chunk tables of models in OCI registries."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import pytest

from axonfs.errors import AxonError, CorruptError, MalformedError
from axonfs.formats.chunktable import chunk_digest
from axonfs.formats.manifest import FileEntry
from axonfs.http_client import Answer, Calls, Said
from axonfs.names import Spec, oci_version
from axonfs.oci import reference_of, uploads
from axonfs.oci.manifest import CHUNK_SIZE, CHUNK_TABLE, INDEX, Model, parse
from axonfs.publish import publish_oci
from axonfs.sources import oci_tables
from tests.support.dockerregistry import FILEPATH, DockerRegistry, Packed
from tests.support.faulty import Exchange
from tests.support.ocireader import REPOSITORY, Opened, Reader, url_of
from tests.support.registry import make_model
from tests.support.tinyoci import TinyOci

FILE = "model.safetensors"
NAME = "tables/tiny"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_model(tmp_path / "model", {FILE: (2 << 20) + 5, "small": 70, "empty": 0})


def published(model: Path, server: DockerRegistry, name: str = NAME) -> Spec:
    pushed = publish_oci(model, reference_of(f"oci://{server.host}/{name}:1"))
    return Spec("oci", f"team/{name}", oci_version(pushed.digest))


async def files(reader: Reader, spec: Spec) -> tuple[dict[str, FileEntry], str]:
    """The files of a version by their paths, and its base."""
    found = await reader.source.manifest(spec)
    assert found
    return {entry.path: entry for entry in found[0].files}, found[1]


async def test_a_model_that_is_published_has_chunk_tables(
    docker_registry: DockerRegistry, model: Path, opened: Opened
) -> None:
    reader = opened(f"oci://{docker_registry.host}?alias=team")
    found, base = await files(reader, published(model, docker_registry))
    assert [path for path, entry in found.items() if entry.chunks] == [FILE]
    table = await reader.source.table(base, found[FILE])
    assert table
    assert table.digest_of(2) == chunk_digest((model / FILE).read_bytes()[2 << 20 :])
    # A table with other bytes than the layer says is refused.
    digest = table.ref.digest
    blob = next(docker_registry.root.rglob(f"blobs/sha256/{digest[:2]}/{digest}/data"))
    kept = blob.read_bytes()
    blob.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(MalformedError, match=f"{FILE}: the chunk table .*: the registry sent"):
        await reader.source.table(base, found[FILE])


async def test_without_what_keeps_its_tables_a_model_has_none(
    docker_registry: DockerRegistry, model: Path, opened: Opened
) -> None:
    """As other tools copy it."""
    spec = published(model, docker_registry)
    tag = spec.version
    path = f"/v2/{NAME}/manifests"
    _, index = docker_registry.request("GET", f"{path}/{tag}", headers={"Accept": INDEX})
    listed = json.loads(index)["manifests"]
    docker_registry.request("DELETE", f"{path}/{listed[0]['digest']}")
    found, _ = await files(opened(f"oci://{docker_registry.host}?alias=team"), spec)
    assert found[FILE].chunks is None


async def test_a_table_that_is_gone_later_is_made_again(
    docker_registry: DockerRegistry, model: Path, opened: Opened
) -> None:
    """From the bytes of the file, which are compared with its digest."""
    (model / FILE).write_bytes(secrets.token_bytes((2 << 20) + 1))
    reader = opened(f"oci://{docker_registry.host}?alias=team")
    found, base = await files(reader, published(model, docker_registry, "tables/lost"))
    table = await reader.source.table(base, found[FILE])
    assert table
    docker_registry.request("DELETE", f"/v2/tables/lost/blobs/sha256:{table.ref.digest}")
    assert await reader.source.table(base, found[FILE]) == table
    digest = found[FILE].digest
    blob = next(docker_registry.root.rglob(f"blobs/sha256/{digest[:2]}/{digest}/data"))
    blob.write_bytes(bytes(blob.stat().st_size))
    with pytest.raises(CorruptError, match=f"{FILE}: object {digest[:12]} has the wrong sha256"):
        await reader.source.table(base, found[FILE])


async def test_another_artifact_that_is_wrong_or_gone_is_no_hindrance(
    docker_registry: DockerRegistry, model: Path, opened: Opened
) -> None:
    name = "tables/crowd"
    spec = published(model, docker_registry, name)
    path = f"/v2/{name}/manifests/{spec.version}"
    _, raw = docker_registry.request("GET", path, headers={"Accept": INDEX})
    index = json.loads(raw)
    [item] = index["manifests"]
    docker_registry.push_blob(name, Packed().config)
    wrong = docker_registry.push_manifest(name, "wrong", {**Packed().manifest, "layers": []})
    size = len(json.dumps({**Packed().manifest, "layers": []}))
    index["manifests"] = [{**item, "digest": wrong, "size": size}, item]
    docker_registry.push_manifest(name, spec.version, index)
    found, _ = await files(opened(f"oci://{docker_registry.host}?alias=team"), spec)
    assert found[FILE].chunks


async def test_a_silent_list_of_what_refers_to_a_model_delays_it_for_a_while_only(
    tiny: TinyOci,
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(oci_tables, "PATIENCE", 0.1)
    left = threading.Event()

    def silent(exchange: Exchange) -> None:
        left.wait(20)

    tiny.fault = silent
    reader = opened(url_of(tiny))
    try:
        assert await reader.source._tables.kept(REPOSITORY, "a" * 64) == frozenset()
    finally:
        left.set()
    assert f"{REPOSITORY}@sha256:{'a' * 64} is read without chunk tables" in caplog.text


@pytest.fixture
def refuses(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has every registry answer each write of an artifact with a status."""
    real = Calls.send

    def refuse(status: int) -> None:
        def send(calls: Calls, *given: object, **more: object) -> Said:
            said: Said = real(calls, *given, **more)  # type: ignore[arg-type]
            refused = "/manifests/sha256:" in said.answer.url
            return Said(Answer(said.answer.url, status, {}), b"") if refused else said

        monkeypatch.setattr(Calls, "send", send)
        monkeypatch.setattr(uploads, "ATTEMPTS", 1)

    return refuse


async def test_a_registry_that_takes_no_artifacts_gets_the_model(
    docker_registry: DockerRegistry,
    model: Path,
    opened: Opened,
    refuses: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    refuses(400)
    spec = published(model, docker_registry, "tables/bare")
    assert "keeps no chunk tables" in caplog.text
    found, _ = await files(opened(f"oci://{docker_registry.host}?alias=team"), spec)
    assert found[FILE].chunks is None


def test_a_registry_that_fails_for_now_gets_no_model_without_tables(
    docker_registry: DockerRegistry, model: Path, refuses: Callable[[int], None]
) -> None:
    refuses(503)
    with pytest.raises(AxonError, match="answered 503"):
        published(model, docker_registry, "tables/later")
    with pytest.raises(HTTPError, match="404"):
        docker_registry.request("GET", "/v2/tables/later/manifests/1")


async def test_tables_that_the_registry_lost_are_there_once_the_model_is_published_again(
    docker_registry: DockerRegistry, model: Path, opened: Opened
) -> None:
    spec = published(model, docker_registry, "tables/again")
    path = "/v2/tables/again/manifests"
    _, index = docker_registry.request("GET", f"{path}/{spec.version}", headers={"Accept": INDEX})
    [item] = json.loads(index)["manifests"]
    docker_registry.request("DELETE", f"{path}/{item['digest']}")
    assert published(model, docker_registry, "tables/again") == spec
    found, _ = await files(opened(f"oci://{docker_registry.host}?alias=team"), spec)
    assert found[FILE].chunks


@pytest.mark.parametrize(
    ("size", "digest"),
    [
        ("1048576", "sha256:" + "z" * 64),
        ("1048576", ""),
        ("1000", "sha256:" + "a" * 64),
        ("9" * 5000, "sha256:" + "a" * 64),
        ("-1048576", "sha256:" + "a" * 64),
        ("\u0661", "sha256:" + "a" * 64),
    ],
)
def test_what_a_layer_says_of_a_table_is_ignored_where_it_cannot_be_used(
    size: str, digest: str
) -> None:
    notes = {FILEPATH: "a", CHUNK_SIZE: size, CHUNK_TABLE: digest}
    found = parse(json.dumps(Packed().add("a", b"body", annotations=notes).manifest).encode())
    assert isinstance(found, Model)
    assert not found.has_tables
