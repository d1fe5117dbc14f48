"""Publishing into an OCI registry, which is read back by plain requests."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from axonfs.errors import AccessDeniedError, AxonError
from axonfs.http_client import Answer, Calls, Said
from axonfs.http_client.faults import network_fault
from axonfs.oci import reference_of, uploads
from axonfs.publish import PublishProgress, Pushed, publish_oci
from tests.support.dockerregistry import (
    FILEPATH,
    HTPASSWD,
    TITLE,
    DockerRegistry,
    Packed,
    pulled,
)
from tests.support.dockerregistry import docker_registry as docker_registry_of
from tests.support.registry import make_model

KIB = 1 << 10


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No log-ins, and no uploads that were interrupted."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = make_model(tmp_path / "model", {"model.safetensors": 300 * KIB + 1, "empty": 0})
    (made / "README.md").write_text("---\nlicense: mit\n---\n# A test\n")
    (made / "run.sh").write_text("#!/bin/sh\n")
    (made / "run.sh").chmod(0o755)
    return made


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """One file, so that an interrupt meets no other upload."""
    return make_model(tmp_path / "large", {"model.safetensors": 300 * KIB + 1})


def push(model: Path, server: DockerRegistry, name: str, **more: Any) -> Pushed:
    return publish_oci(model, reference_of(f"oci://{server.host}/{name}"), **more)


def arrived(server: DockerRegistry, name: str, large: Path) -> bool:
    """Whether the large file is there."""
    file = "model.safetensors"
    return pulled(server, name, "1.0")[1][file] == (large / file).read_bytes()


def test_other_clients_find_a_modelpack_model_with_raw_layers(
    docker_registry: DockerRegistry, model: Path
) -> None:
    done = push(model, docker_registry, "team/one:1.0")
    manifest, files = pulled(docker_registry, "team/one", "1.0")
    config = json.loads(files.pop(""))
    assert files == {
        str(path.relative_to(model)): path.read_bytes()
        for path in model.rglob("*")
        if path.is_file()
    }
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    kinds = {layer["annotations"][FILEPATH]: layer["mediaType"] for layer in manifest["layers"]}
    assert kinds["model.safetensors"] == "application/vnd.cncf.model.weight.v1.raw"
    assert kinds["README.md"] == "application/vnd.cncf.model.doc.v1.raw"
    modes = {
        layer["annotations"][FILEPATH]: json.loads(
            layer["annotations"]["org.cncf.model.file.metadata+json"]
        )["mode"]
        for layer in manifest["layers"]
    }
    assert (modes["run.sh"], modes["README.md"]) == (0o755, 0o644)
    assert config["descriptor"]["description"] == "A test"
    assert config["descriptor"]["licenses"] == ["mit"]
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    assert pulled(docker_registry, "team/one", f"sha256:{done.digest}")[0] == manifest
    assert done.bytes == sum(map(len, files.values()))


def test_files_that_the_registry_has_are_not_sent_again(
    docker_registry: DockerRegistry, model: Path
) -> None:
    first = push(model, docker_registry, "team/two:1.0")
    again = push(model, docker_registry, "team/two:1.0")
    assert (again.digest, again.already, again.new_bytes) == (first.digest, True, 0)
    other = push(model, docker_registry, "team/two:1.1")
    assert not other.already
    assert other.new_bytes < 4 * KIB


def test_a_tag_moves_only_when_it_is_told_to(docker_registry: DockerRegistry, model: Path) -> None:
    first = push(model, docker_registry, "team/three:1.0")
    (model / "new").write_text("x")
    with pytest.raises(AxonError, match=r"'new' differs.*--move-tag"):
        push(model, docker_registry, "team/three:1.0")
    assert push(model, docker_registry, "team/three:1.0", move=True).digest != first.digest
    (model / "run.sh").chmod(0o644)
    with pytest.raises(AxonError, match=r"'run\.sh' differs"):
        push(model, docker_registry, "team/three:1.0")
    docker_registry.push("team/three", "packed", Packed().add("d", b"x", "a/b", {TITLE: "d"}))
    with pytest.raises(AxonError, match="names other files"):
        push(model, docker_registry, "team/three:packed")


class Line:
    """Sees the requests of publishers, and lets a test answer them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, str]] = []
        self.stop_before = "", 0
        self.before_third_piece: Callable[[], object] = bool
        self.answers: dict[str, int] = {}  # the status of the next answer, by method
        self.location = ""  # in these answers
        self.ends: list[float] = []  # how long the publisher waits for the end of each upload
        self.stop_at_end = False
        self.lost = False  # the answer to the next PUT without a body does not arrive
        real = Calls.send

        def send(calls: Calls, method: str, url: Any, *more: Any, **named: Any) -> Said:
            self.sent.append((method, str(url)))
            if (method, self.count(method)) == self.stop_before:
                raise KeyboardInterrupt
            if (method, self.count(method)) == ("PATCH", 3):
                self.before_third_piece()
            if status := self.answers.pop(method, 0):
                headers = {"location": self.location} if self.location else {}
                return Said(Answer(str(url), status, headers), b"")
            if method == "PUT" and more[1] == b"":
                self.ends.append(named["wait"])
                if self.stop_at_end:
                    raise KeyboardInterrupt
            said = real(calls, method, url, *more, **named)
            if self.lost and method == "PUT" and more[1] == b"":
                self.lost = False
                raise network_fault(ConnectionResetError("reset"), str(url))
            return said

        monkeypatch.setattr(Calls, "send", send)

    def count(self, method: str) -> int:
        return sum(one == method for one, _ in self.sent)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(uploads, "PIECE", 64 * KIB)
    return Line(monkeypatch)


def test_a_large_file_goes_in_pieces_and_continues_where_it_was_interrupted(
    docker_registry: DockerRegistry, large: Path, line: Line
) -> None:
    line.stop_before = "PATCH", 4
    with pytest.raises(KeyboardInterrupt):
        push(large, docker_registry, "team/four:1.0")
    line.sent.clear()
    shown: list[int] = []
    again = push(
        large,
        docker_registry,
        "team/four:1.0",
        progress=lambda state: shown.append(state.bytes_done),
    )
    assert line.count("PATCH") == 2  # all of it takes five
    assert (again.bytes, max(shown)) == (shown[-1], again.bytes)
    assert (
        pulled(docker_registry, "team/four", "1.0")[1]["model.safetensors"]
        == (large / "model.safetensors").read_bytes()
    )
    assert not list((Path(os.environ["XDG_CACHE_HOME"]) / "axonfs/uploads").iterdir())


def test_an_upload_that_is_interrupted_at_its_end_is_not_sent_again(
    docker_registry: DockerRegistry, large: Path, line: Line
) -> None:
    line.stop_at_end = True
    with pytest.raises(KeyboardInterrupt):
        push(large, docker_registry, "team/end:1.0")
    line.stop_at_end = False
    line.sent.clear()
    push(large, docker_registry, "team/end:1.0")
    assert line.count("PATCH") == 0
    assert arrived(docker_registry, "team/end", large)


def test_an_upload_that_is_interrupted_within_a_piece_is_completed(
    docker_registry: DockerRegistry, large: Path, line: Line
) -> None:
    """Docker's registry ends such an upload, so that it begins anew."""

    def stop_late(state: PublishProgress) -> None:
        if state.bytes_done > 200 * KIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(large, docker_registry, "team/eight:1.0", progress=stop_late)
    shown: list[int] = []
    done = push(
        large,
        docker_registry,
        "team/eight:1.0",
        progress=lambda state: shown.append(state.bytes_done),
    )
    assert shown[-1] == done.bytes
    assert (
        pulled(docker_registry, "team/eight", "1.0")[1]["model.safetensors"]
        == (large / "model.safetensors").read_bytes()
    )


def test_a_piece_that_fails_is_sent_again(
    docker_registry: DockerRegistry, model: Path, line: Line
) -> None:
    line.answers = {"PATCH": 503, "POST": 500, "PUT": 502}
    push(model, docker_registry, "team/five:1.0")
    files = pulled(docker_registry, "team/five", "1.0")[1]
    assert files["model.safetensors"] == (model / "model.safetensors").read_bytes()


def test_a_registry_without_pieces_gets_files_whole(
    docker_registry: DockerRegistry, model: Path, line: Line
) -> None:
    line.answers = {"PATCH": 405}
    push(model, docker_registry, "team/six:1.0")
    assert line.count("PATCH") == 1
    files = pulled(docker_registry, "team/six", "1.0")[1]
    assert files["model.safetensors"] == (model / "model.safetensors").read_bytes()


@pytest.mark.parametrize("status", [404, 416])
def test_an_upload_that_the_registry_ends_begins_anew(
    docker_registry: DockerRegistry, large: Path, line: Line, status: int
) -> None:
    ended: list[int] = []

    def end(state: PublishProgress) -> None:
        if state.bytes_done > 150 * KIB and not ended:
            ended.append(status)
            line.answers = {"PATCH": status}

    push(large, docker_registry, f"team/ended-{status}:1.0", progress=end)
    assert arrived(docker_registry, f"team/ended-{status}", large)
    assert ended


def test_two_publishers_of_one_file_send_it_in_two_uploads(
    docker_registry: DockerRegistry, large: Path, line: Line
) -> None:
    second: list[Pushed] = []
    line.before_third_piece = lambda: second.append(push(large, docker_registry, "team/both:2.0"))
    push(large, docker_registry, "team/both:1.0")
    assert second[0].new_bytes > 300 * KIB
    assert line.count("PATCH") == 10
    assert arrived(docker_registry, "team/both", large)


def test_files_with_the_same_bytes_are_sent_once(
    docker_registry: DockerRegistry, large: Path, line: Line
) -> None:
    shutil.copy(large / "model.safetensors", large / "copy.safetensors")
    done = push(large, docker_registry, "team/same:1.0")
    assert line.count("PATCH") == 5
    assert 300 * KIB < done.new_bytes < 310 * KIB
    files = pulled(docker_registry, "team/same", "1.0")[1]
    assert files["model.safetensors"] == files["copy.safetensors"]


def test_a_tag_that_names_other_files_is_refused_before_a_file_is_sent(
    docker_registry: DockerRegistry, large: Path, line: Line
) -> None:
    push(large, docker_registry, "team/early:1.0")
    (large / "new.bin").write_bytes(bytes(KIB))
    line.sent.clear()
    with pytest.raises(AxonError, match=r"'new\.bin' differs.*--move-tag"):
        push(large, docker_registry, "team/early:1.0")
    assert [method for method, _ in line.sent] == ["GET"]


def test_a_tag_that_another_publisher_made_meanwhile_stays(
    docker_registry: DockerRegistry, large: Path, model: Path, line: Line
) -> None:
    line.before_third_piece = lambda: push(model, docker_registry, "team/race:1.0")
    with pytest.raises(AxonError, match=r"differs.*--move-tag"):
        push(large, docker_registry, "team/race:1.0")
    assert "run.sh" in pulled(docker_registry, "team/race", "1.0")[1]


def test_a_blob_is_there_when_the_answer_to_its_end_is_lost(
    docker_registry: DockerRegistry, large: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.lost = True
    monkeypatch.setattr(uploads, "SLOWEST", 1 * KIB)
    push(large, docker_registry, "team/lost:1.0")
    assert not line.lost
    assert min(line.ends) > 300  # a registry may read all of a large blob again
    assert arrived(docker_registry, "team/lost", large)


def test_a_registry_that_refuses_head_gets_every_file(
    docker_registry: DockerRegistry, large: Path, line: Line
) -> None:
    line.answers = {"HEAD": 405}
    assert push(large, docker_registry, "team/head:1.0").new_bytes > 300 * KIB


@pytest.mark.parametrize(
    ("status", "advice"), [(413, "client_max_body_size"), (503, "later"), (302, "plain_http")]
)
def test_a_refusal_says_what_to_do(
    docker_registry: DockerRegistry,
    large: Path,
    line: Line,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    advice: str,
) -> None:
    monkeypatch.setattr(uploads, "ATTEMPTS", 1)
    line.answers = {"GET": status}
    with pytest.raises(AxonError, match=rf"answered {status} to a manifest .*; .*{advice}"):
        push(large, docker_registry, "team/refused:1.0")


def test_a_server_without_tls_is_said(docker_registry: DockerRegistry, large: Path) -> None:
    with pytest.raises(AxonError, match=r"not answer in TLS .*\?plain_http=yes"):
        push(large, docker_registry, "team/plain:1.0?plain_http=no")


def test_an_upload_at_an_unusable_url_is_refused(
    docker_registry: DockerRegistry, large: Path, line: Line
) -> None:
    for line.location in ("ftp://h/up", "http://h:99999/", "http://[::1/"):
        line.answers = {"POST": 202}
        with pytest.raises(AxonError, match="names no usable URL for an upload"):
            push(large, docker_registry, "team/odd:1.0")
    line.answers = {}
    push(large, docker_registry, "team/odd:1.0")


def test_a_file_that_changes_is_not_published(
    docker_registry: DockerRegistry, model: Path, line: Line
) -> None:
    path = model / "model.safetensors"

    def change(state: Any) -> None:
        if state.bytes_done:
            path.write_bytes(b"!" * path.stat().st_size)

    with pytest.raises(AxonError, match=r"DIGEST_INVALID|changed while"):
        push(model, docker_registry, "team/seven:1.0", progress=change)
    with pytest.raises(Exception, match="404"):
        docker_registry.request("GET", "/v2/team/seven/manifests/1.0")


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[DockerRegistry]:
    """A registry that wants a user and a password."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = f"auth: {{htpasswd: {{realm: tests, path: {tmp_path}/htpasswd}}}}\n"
    with docker_registry_of(tmp_path / "closed", auth) as server:
        yield server


def test_a_log_in_is_needed_where_the_registry_asks_for_one(
    closed: DockerRegistry, model: Path, home: Path
) -> None:
    with pytest.raises(AccessDeniedError, match=rf"from oci://.*docker login {closed.host}"):
        push(model, closed, "team/one:1.0")
    url, other = f"oci://{closed.host}", "oci://other.example.com"
    tokens = {url: "x:wrong", f"{url}/team": "reader:secret", other: "reader:other"}
    assert push(model, closed, "team/two:1.0", tokens=tokens).files == 5
    with pytest.raises(AccessDeniedError, match="use an account"):
        push(model, closed, "other/one:1.0", tokens=tokens)
    (home / "docker").mkdir()
    entry = {"username": "reader", "password": "secret"}
    (home / "docker/config.json").write_text(json.dumps({"auths": {closed.host: entry}}))
    assert push(model, closed, "team/one:1.0").files == 5
