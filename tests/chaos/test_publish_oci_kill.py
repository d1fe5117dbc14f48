"""A publisher to an OCI registry, killed before each of its writes, leaves a sound registry."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from axonfs.oci import reference_of
from axonfs.oci.manifest import CHUNK_TABLE, INDEX
from axonfs.publish import publish_oci
from tests.support.dockerregistry import IMAGE, TITLE, DockerRegistry, sha256
from tests.support.profile import report
from tests.support.registry import make_model

PIECE = 512 << 10


def killed(model: Path, url: str, number: int) -> int:
    """The exit status of a publisher that dies before its write with this number."""
    command = [sys.executable, "-m", "tests.chaos.publish_oci_victim"]
    arguments = [str(model), url, str(PIECE), str(number)]
    done = subprocess.run(
        command + arguments, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, check=False
    )
    assert done.stdout == b"begins\n"
    return done.returncode


def published(server: DockerRegistry, repository: str) -> dict[str, bytes]:
    """The files that the tag names, each compared with its digest and size."""
    accept = {"Accept": IMAGE}
    _, raw = server.request("GET", f"/v2/{repository}/manifests/main", headers=accept)
    found = {}
    manifest = json.loads(raw)
    for layer in (manifest["config"], *manifest["layers"]):
        _, body = server.request("GET", f"/v2/{repository}/blobs/{layer['digest']}")
        assert "sha256:" + hashlib.sha256(body).hexdigest() == layer["digest"]
        assert len(body) == layer["size"]
        notes = layer.get("annotations", {})
        found[notes.get(TITLE, "")] = body
        if table := notes.get(CHUNK_TABLE):
            assert table in kept(server, repository, sha256(raw))
    del found[""]
    return found


def kept(server: DockerRegistry, repository: str, digest: str) -> list[str]:
    """The digests of the blobs that an artifact keeps for a model, each of which is there."""
    path, accept = f"/v2/{repository}/manifests", {"Accept": f"{IMAGE}, {INDEX}"}
    _, index = server.request("GET", f"{path}/{digest.replace(':', '-')}", headers=accept)
    [item] = json.loads(index)["manifests"]
    _, raw = server.request("GET", f"{path}/{item['digest']}", headers=accept)
    found = [str(layer["digest"]) for layer in json.loads(raw)["layers"]]
    assert [sha256(server.request("GET", f"/v2/{repository}/blobs/{one}")[1]) for one in found] == (
        found
    )
    return found


def files_of(model: Path) -> dict[str, bytes]:
    return {str(path.relative_to(model)): path.read_bytes() for path in model.iterdir()}


@pytest.mark.slow
def test_killed_before_each_of_its_writes(
    tmp_path: Path, docker_registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tag names the files of before or those of now, and never a part of them; the next
    publisher completes it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    first = make_model(tmp_path / "first", {"a": 1000}, seed=1)
    model = make_model(tmp_path / "model", {"a": 2 * PIECE + 1, "b": 1000}, seed=2)
    before, now = files_of(first), files_of(model)
    unchanged = 0
    for number in range(50):
        repository = f"killed/n{number}"
        reference = reference_of(f"oci://{docker_registry.host}/{repository}:main")
        publish_oci(first, reference)
        status = killed(model, str(reference), number)
        found = published(docker_registry, repository)
        assert found in (before, now)
        unchanged += found == before
        publish_oci(model, reference, move=True)
        assert published(docker_registry, repository) == now
        if status == 0:
            break
        assert status == -signal.SIGKILL
    else:
        pytest.fail("the publisher never came to its end")
    assert unchanged == number > 12
    report("kill_publisher_oci", steps=number)
