"""A mount of OCI registries."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from axonfs.oci import reference_of
from axonfs.oci.manifest import IMAGE, INDEX
from axonfs.publish import publish_oci
from tests.mount.conftest import CHUNK, MountFactory, run_axonfs, settled
from tests.support import faulty
from tests.support.dockerregistry import DockerRegistry, Packed, archive, sha256
from tests.support.tinyoci import TinyOci, lay_out, put_blob

pytestmark = pytest.mark.mount
BODY = secrets.token_bytes(3 * CHUNK + 1)


def model(note: bytes = b"{}") -> Packed:
    executable = {"org.cncf.model.filepath": "run.sh", MODE: '{"name": "run.sh", "mode": 493}'}
    return (
        Packed()
        .add("config.json", note)
        .add("weights/model.bin", BODY)
        .add("run.sh", b"#!/bin/sh\necho ran\n", annotations=executable)
    )


MODE = "org.cncf.model.file.metadata+json"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyOci]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with TinyOci(tmp_path / "site") as server:
        yield server


def test_tags_are_symlinks_to_versions_and_files_come_from_layers(
    docker_registry: DockerRegistry, start_mount: MountFactory
) -> None:
    """Tags of an OCI repository are symlinks to versions, whose files come from its layers; a
    version is named by its digest."""
    digest = docker_registry.push("mount/a/tiny", "1.0", model()).replace(":", "-")
    mount = start_mount(f"oci://{docker_registry.host}/mount?alias=team")
    assert os.listdir(mount.path / "oci") == ["team"]
    home = mount.path / "oci/team/a/tiny"
    assert os.listdir(mount.path / "oci/team") == ["a"]
    assert os.listdir(mount.path / "oci/team/a") == ["tiny"]
    assert os.readlink(home / "1.0") == digest
    assert os.readlink(home / "latest") == digest
    assert (home / "1.0/weights/model.bin").read_bytes() == BODY
    assert (home / digest / "config.json").read_bytes() == b"{}"
    assert sorted(os.listdir(home)) == ["1.0", "latest", digest]
    assert set(os.listdir(home / "1.0")) == {"config.json", "manifest.yaml", "run.sh", "weights"}
    for name in ("2.0", "none.json", "1.0/none"):
        assert not (home / name).exists()
    with pytest.raises(FileNotFoundError):
        os.stat(mount.path / "oci/other")


def test_executable_files(docker_registry: DockerRegistry, start_mount: MountFactory) -> None:
    """A file whose manifest says that it is executable may be executed by those who may read it."""
    docker_registry.push("modes", "1", model())
    mount = start_mount(f"oci://{docker_registry.host}?alias=team")
    home = mount.path / "oci/team/modes/1"
    modes = {name: (home / name).stat().st_mode & 0o777 for name in ("run.sh", "config.json")}
    assert modes == {"run.sh": 0o555, "config.json": 0o444}
    assert subprocess.run([home / "run.sh"], check=True, capture_output=True).stdout == b"ran\n"


def test_a_tag_that_moves_leads_to_another_version_and_the_old_one_stays(
    docker_registry: DockerRegistry, start_mount: MountFactory
) -> None:
    """A tag of an OCI repository that moves leads to another version within a minute, and the old
    version stays."""
    first = docker_registry.push("moves", "main", model(b"1")).replace(":", "-")
    mount = start_mount(f"oci://{docker_registry.host}?alias=team")
    home = mount.path / "oci/team/moves"
    assert (home / "main/config.json").read_bytes() == b"1"
    second = docker_registry.push("moves", "main", model(b"2")).replace(":", "-")
    run_axonfs("versions", "oci/team/moves", "--cache", mount.cache)
    run_axonfs("update", "oci/team/moves@main", "--cache", mount.cache, check=False)
    settled(lambda: os.readlink(home / "main") == second)
    assert (home / "main/config.json").read_bytes() == b"2"
    assert (home / first / "config.json").read_bytes() == b"1"


@pytest.mark.complains
def test_a_layer_with_other_bytes_than_its_digest_says_is_never_served(
    tiny: TinyOci, tmp_path: Path, start_mount: MountFactory
) -> None:
    lay_out(tmp_path / "site", "liar", "1", model())
    wrong = BODY[:-1] + bytes([BODY[-1] ^ 1])
    put_blob(tmp_path / "site", "liar", sha256(BODY), wrong)
    mount = start_mount(f"oci://{tiny.host}?alias=team")
    with pytest.raises(OSError, match="Input/output error") as caught:
        (mount.path / "oci/team/liar/1/weights/model.bin").read_bytes()
    assert caught.value.errno == errno.EIO
    assert hashlib.sha256(BODY).hexdigest()[:12] in "\n".join(mount.complaints())


@pytest.mark.complains
def test_a_wrong_chunk_of_a_published_model_is_never_served(
    tmp_path: Path,
    docker_registry: DockerRegistry,
    start_mount: MountFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What `publish` wrote has chunk tables, so each read is of compared bytes."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.bin").write_bytes(BODY)
    publish_oci(model, reference_of(f"oci://{docker_registry.host}/chunks:1"))
    digest = hashlib.sha256(BODY).hexdigest()
    blob = next(docker_registry.root.rglob(f"blobs/sha256/{digest[:2]}/{digest}/data"))
    blob.write_bytes(BODY[:-1] + bytes([BODY[-1] ^ 1]))
    mount = start_mount(f"oci://{docker_registry.host}?alias=team")
    with open(mount.path / "oci/team/chunks/1/model.bin", "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, 0) == BODY[:100]
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(file.fileno(), 1, len(BODY) - 1)
    assert f"chunk 3 of object {digest[:12]} has the wrong digest" in "\n".join(mount.complaints())


@pytest.mark.complains
def test_chunk_tables_that_a_registry_loses_are_not_missed(
    tmp_path: Path,
    docker_registry: DockerRegistry,
    start_mount: MountFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither by a mount that has seen them, nor by a lock file."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    directory, lock, url = tmp_path / "model", tmp_path / "lock", f"oci://{docker_registry.host}"
    directory.mkdir()
    body = secrets.token_bytes(len(BODY))
    (directory / "model.bin").write_bytes(body)
    digest = publish_oci(directory, reference_of(f"{url}/loses:1")).digest
    mount = start_mount(f"{url}?alias=team")
    file = mount.path / "oci/team/loses/1/model.bin"
    assert file.stat().st_size == len(body)
    run_axonfs("lock", lock, "oci/team/loses@1", "--cache", mount.cache)
    index = pulled(docker_registry, f"loses/manifests/sha256-{digest}")
    artifact = index["manifests"][0]["digest"]
    for layer in pulled(docker_registry, f"loses/manifests/{artifact}")["layers"]:
        docker_registry.request("DELETE", f"/v2/loses/blobs/{layer['digest']}")
    docker_registry.request("DELETE", f"/v2/loses/manifests/{artifact}")
    assert file.read_bytes() == body
    assert "read to make it again" in "\n".join(mount.complaints())
    other = ("--cache", tmp_path / "other", "--registry", f"{url}?alias=team")
    assert "is pinned" in run_axonfs("pin", "--lock", lock, *other).stdout


def pulled(server: DockerRegistry, path: str) -> Any:
    return json.loads(
        server.request("GET", f"/v2/{path}", headers={"Accept": f"{IMAGE}, {INDEX}"})[1]
    )


@pytest.mark.complains
def test_a_refused_repository_is_a_denied_permission(
    tiny: TinyOci, tmp_path: Path, start_mount: MountFactory
) -> None:
    lay_out(tmp_path / "site", "org/secret", "1", model())
    tiny.wants, tiny.open_to_all = "bearer", False
    mount = start_mount(f"oci://{tiny.host}?alias=team")
    with pytest.raises(PermissionError):
        (mount.path / "oci/team/org/secret/1/config.json").read_bytes()


def test_a_token_that_expires_during_a_read_is_renewed_and_no_reader_notices(
    tiny: TinyOci, tmp_path: Path, start_mount: MountFactory
) -> None:
    lay_out(tmp_path / "site", "tiny", "1", model())
    tiny.wants, tiny.lifetime = "bearer", 1
    mount = start_mount(f"oci://{tiny.host}?alias=team", env={"AXONFS_PREFETCH": "off"})
    with open(mount.path / "oci/team/tiny/1/weights/model.bin", "rb") as file:
        start = file.read(CHUNK)
        tiny.token = "second"
        assert start + file.read() == BODY
    assert len(tiny.queries) > 1


INSIDE = {"model/a.bin": BODY, "model/empty": b"", "model/b.bin": BODY[:777]}


@pytest.mark.parametrize("packing", ["tar", "tar+gzip"])
def test_files_of_a_layer_that_is_an_archive_are_files_of_the_version(
    docker_registry: DockerRegistry, start_mount: MountFactory, packing: str
) -> None:
    """Files of a layer that is an archive are files of the version, with the names and sizes of the
    archive."""
    kind = f"application/vnd.kitops.modelkit.model.v1.{packing}"
    body = archive(INSIDE, packed=packing != "tar")
    kit = b'{"manifestVersion": "1.0", "package": {"description": "a kit"}, "model": {}}'
    packed = Packed(config=kit, config_type="application/vnd.kitops.modelkit.config.v1+json")
    packed.add("", body, kind, {}).add("README.md", b"# A kit")
    repository = f"kits/{packing.replace('+', '-')}"
    docker_registry.push(repository, "1", packed)
    mount = start_mount(f"oci://{docker_registry.host}?alias=team", env={"AXONFS_PREFETCH": "off"})
    home = mount.path / "oci/team" / repository / "1"
    assert sorted(os.listdir(home)) == ["README.md", "manifest.yaml", "model"]
    assert {name: (home / name).stat().st_size for name in INSIDE} == {
        name: len(content) for name, content in INSIDE.items()
    }
    assert mount.fetched() == 0
    assert {name: (home / name).read_bytes() for name in INSIDE} == INSIDE
    assert (home / "README.md").read_bytes() == b"# A kit"
    assert b"a kit" in (home / "manifest.yaml").read_bytes()


@pytest.mark.complains
def test_an_archive_with_other_bytes_than_its_digest_says_is_never_served(
    tiny: TinyOci, tmp_path: Path, start_mount: MountFactory
) -> None:
    body = archive(INSIDE, packed=False)
    kind = "application/vnd.cncf.model.weight.v1.tar"
    lay_out(tmp_path / "site", "liar", "1", Packed().add("model", body, kind))
    wrong = body.replace(BODY[:64], b"!" * 64)
    put_blob(tmp_path / "site", "liar", sha256(body), wrong)
    mount = start_mount(f"oci://{tiny.host}?alias=team")
    for name in INSIDE:
        path = mount.path / "oci/team/liar/1" / name
        if INSIDE[name]:
            with pytest.raises(OSError, match="Input/output error"):
                path.read_bytes()
    assert "its sha256 is" in "\n".join(mount.complaints())


@pytest.mark.complains
def test_an_archive_that_leads_elsewhere_is_refused(
    tiny: TinyOci, tmp_path: Path, start_mount: MountFactory
) -> None:
    kind = "application/vnd.cncf.model.weight.v1.tar"
    body = archive({"../../escape": b"x"}, packed=False)
    lay_out(tmp_path / "site", "bad", "1", Packed().add("model", body, kind))
    mount = start_mount(f"oci://{tiny.host}?alias=team")
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(mount.path / "oci/team/bad/1")
    assert "'../../escape' is not a plain relative path" in "\n".join(mount.complaints())


@pytest.mark.complains
def test_what_was_read_stays_readable_without_the_registry(
    tiny: TinyOci, tmp_path: Path, start_mount: MountFactory
) -> None:
    lay_out(tmp_path / "site", "tiny", "1", model())
    mount = start_mount(f"oci://{tiny.host}?alias=team")
    path = mount.path / "oci/team/tiny/1/weights/model.bin"
    assert path.read_bytes() == BODY
    assert len(os.listdir(path.parents[2])) == 3
    mount.stop()
    tiny.fault = faulty.reset_before
    again = start_mount(f"oci://{tiny.host}?alias=team")
    home = again.path / "oci/team/tiny"
    assert (home / "1/weights/model.bin").read_bytes() == BODY
    assert {"1", "latest"} < set(os.listdir(home))
