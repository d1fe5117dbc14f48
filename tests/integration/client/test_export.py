"""`axonfs export`: a plain directory, whole and right or not at all, and nobody else's files."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from axonfs.client import sessions
from axonfs.client.api import Client
from axonfs.client.destination import Destination, Place
from tests.support.commands import Done, Run
from tests.support.hub import HubServer, Repo
from tests.support.registry import SPEC, RegistryServer, published
from tests.support.stores import backing_file

CHUNK = 1 << 16
SIZES = {"model.safetensors": 40 * CHUNK + 123, "part/two.bin": 9 * CHUNK, "empty.txt": 0}
NEXT = "nlp/tiny@1.1.0"


@pytest.fixture
def run(run: Run) -> Run:
    """A command line whose process ends: it lets the cache go."""

    def command(*line: str | Path) -> Done:
        done: Done = run(*line)
        sessions.close_all()
        return done

    return command


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryServer]:
    directory = published(tmp_path, SIZES, chunk_size=CHUNK)
    published(tmp_path, {**SIZES, "new.bin": 5}, spec=NEXT, seed=1, chunk_size=CHUNK)
    with RegistryServer(directory) as server:
        monkeypatch.setenv("AXONFS_REGISTRY", server.url)
        yield server


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def source(tmp_path: Path, version: str = "1.0.0") -> Path:
    return tmp_path / "models/nlp/tiny" / version


def contents(directory: Path) -> dict[str, bytes]:
    """Every file by its path, the manifest left out."""
    files = (path for path in directory.rglob("*") if not path.is_dir())
    found = {str(path.relative_to(directory)): path.read_bytes() for path in files}
    return {name: body for name, body in found.items() if name != "manifest.yaml"}


def exported(run: Run, *line: str | Path) -> dict[str, Any]:
    done = run("export", *line, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_a_version_is_copied_once(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second export fetches and copies nothing, and needs no registry."""
    found = exported(run, "nlp/tiny@1.0.0", out)
    assert contents(out) == contents(source(tmp_path))
    assert (out / "manifest.yaml").exists()
    assert (found["files"], found["copied"]) == (5, found["size"])
    before = {path: path.stat().st_ino for path in out.rglob("*")}
    sent = registry.bytes_sent
    monkeypatch.setenv("AXONFS_OFFLINE", "1")
    again = exported(run, SPEC, out)
    assert (again["kept"], again["copied"]) == (found["size"], 0)
    assert {path: path.stat().st_ino for path in out.rglob("*")} == before
    other = exported(run, SPEC, tmp_path / "other")  # complete, so it is offline
    assert other["copied"] == found["size"]
    assert registry.bytes_sent == sent


def test_a_part_of_a_version(run: Run, registry: RegistryServer, out: Path) -> None:
    exported(run, SPEC, out, "--include", "part/", "--include", "*.txt", "--exclude", "empty*")
    assert list(contents(out)) == ["part/two.bin"]
    assert not (out / "manifest.yaml").exists()
    nothing = run("export", SPEC, out, "--include", "*.onnx")
    assert nothing.code == 1
    assert "no file matches *.onnx" in nothing.err


def test_another_version_replaces_what_differs_and_nothing_else(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path
) -> None:
    exported(run, SPEC, out)
    (out / "notes.txt").write_text("mine")
    found = exported(run, NEXT, out)
    assert found["kept"] == len((out / "config.json").read_bytes())
    assert contents(out) == {**contents(source(tmp_path, "1.1.0")), "notes.txt": b"mine"}


def untouched(place: Path) -> tuple[int, int, int]:
    """What changes if a file is replaced or written."""
    found = place.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("what", ["changed", "another", "symlink", "unmarked"])
def test_a_file_of_somebody_else_is_replaced_on_request_only(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path, what: str
) -> None:
    exported(run, SPEC, out)
    place, elsewhere = out / "config.json", tmp_path / "elsewhere"
    elsewhere.write_text("theirs")
    if what == "changed":
        place.write_bytes(place.read_bytes()[:-1] + b" ")
    elif what == "unmarked":
        os.removexattr(place, "user.axonfs.exported")
        os.truncate(place, 1)
    else:
        place.unlink()
        place.symlink_to(elsewhere) if what == "symlink" else place.write_text("{}")
    before = untouched(place)
    refused = run("export", NEXT, out)
    assert refused.code == 1
    assert "1 file there is not an export's, or was changed since: config.json" in refused.err
    assert untouched(place) == before
    assert contents(out).keys() == contents(source(tmp_path)).keys()
    exported(run, SPEC, out, "--force")
    assert contents(out) == contents(source(tmp_path))
    assert not place.is_symlink()
    assert elsewhere.read_text() == "theirs"


def test_without_marks_the_bytes_are_compared(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path
) -> None:
    """As where a directory was copied by hand, or its file system has no attributes."""
    shutil.copytree(source(tmp_path), out)
    assert exported(run, SPEC, out)["copied"] == (out / "manifest.yaml").stat().st_size
    assert not registry.paths("/objects/")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
@pytest.mark.parametrize("mark", ["right", "broken"])
def test_a_mark_of_another_user_proves_nothing(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path, mark: str
) -> None:
    exported(run, SPEC, out)
    place = out / "model.safetensors"
    content = os.getxattr(place, "user.axonfs.exported").split(b" ")[0]
    place.write_bytes(bytes(SIZES["model.safetensors"]))
    found = place.stat()
    text = b"%b %d %d" % (content, found.st_size, found.st_mtime_ns)
    os.setxattr(place, "user.axonfs.exported", b"\xff" if mark == "broken" else text)
    os.chown(place, 12345, 12345)
    refused = run("export", SPEC, out)
    assert (refused.code, refused.out) == (1, "")
    assert "is not an export's, or was changed since: model.safetensors" in refused.err
    exported(run, SPEC, out, "--force")
    assert contents(out) == contents(source(tmp_path))
    assert place.stat().st_uid == os.geteuid()


def test_no_symlink_is_followed(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    out.mkdir()
    (out / "part").symlink_to(tmp_path / "elsewhere")
    refused = run("export", SPEC, out, "--force")
    assert refused.code == 1
    assert "part: is not a directory, or is a symlink" in refused.err
    assert not list((tmp_path / "elsewhere").iterdir())
    (out / "part").unlink()
    (out / "config.json").mkdir()
    assert "config.json: is a directory there" in run("export", SPEC, out, "--force").err


class Torn(io.RawIOBase):
    """A file whose reader is interrupted after some bytes."""

    def __init__(self, file: Any, left: int) -> None:
        self._file, self._left = file, left

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any, /) -> int:
        if self._left <= 0:
            raise OSError(errno.EIO, "torn")
        count = int(self._file.readinto(memoryview(buffer)[: self._left]))
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize("damage", [False, True])
def test_an_export_that_was_interrupted_goes_on(
    run: Run,
    registry: RegistryServer,
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: bool,
) -> None:
    """Within a file, whose first bytes are compared again; no file is there in part."""
    opened, seeks = Client.open, list[int]()

    def torn(client: Client, spec: str, path: str, **more: Any) -> Any:
        raw = opened(client, spec, path, **more)
        return Torn(raw, 10 * CHUNK) if path == "model.safetensors" else raw

    monkeypatch.setattr(Client, "open", torn)
    assert run("export", SPEC, out, "--include", "model*").code == 1
    assert not (out / "model.safetensors").exists()
    (draft,) = out.glob(".axonfs-*")
    assert draft.stat().st_size == 10 * CHUNK
    if damage:
        draft.write_bytes(b"x" + draft.read_bytes()[1:])

    def noted(client: Client, spec: str, path: str, **more: Any) -> Any:
        raw = opened(client, spec, path, **more)
        if path == "model.safetensors":
            seek = raw.seek

            def noting(offset: int, whence: int = 0) -> int:
                seeks.append(offset)
                return int(seek(offset, whence))

            raw.seek = noting
        return raw

    monkeypatch.setattr(Client, "open", noted)
    exported(run, SPEC, out)
    assert seeks == ([10 * CHUNK, 0] if damage else [10 * CHUNK])
    assert contents(out) == contents(source(tmp_path))


def test_drafts_of_other_versions_go(run: Run, registry: RegistryServer, out: Path) -> None:
    out.mkdir()
    (out / ".axonfs-0123456789abcdef.part").write_text("x")
    (out / ".axonfs-mine").write_text("x")
    exported(run, SPEC, out)
    assert [path.name for path in out.glob(".*")] == [".axonfs-mine"]


def test_what_does_not_fit_is_not_begun(
    run: Run, registry: RegistryServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Destination, "free", lambda there: 1 << 20)
    refused = run("export", SPEC, out)
    assert refused.code == 1
    assert f"needs 3.1 MiB in {out}, but only 1.0 MiB is free" in refused.err
    assert not registry.paths("/objects/")


def test_links_are_read_only_and_of_pinned_versions(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path
) -> None:
    refused = run("export", SPEC, out, "--link")
    assert refused.code == 1
    assert "is not pinned" in refused.err
    assert run("pin", SPEC).code == 0
    found = exported(run, SPEC, out, "--link")
    assert found["linked"] == found["size"]
    assert contents(out) == contents(source(tmp_path))
    weights = (out / "model.safetensors").stat()
    assert stat.S_IMODE(weights.st_mode) == 0o444
    assert weights.st_nlink == 3  # in the cache, in its directory of the pin, and here
    assert exported(run, SPEC, out, "--link")["kept"] == found["size"]
    copied = exported(run, SPEC, out)  # and copies take the place of links
    assert copied["copied"] == found["size"]
    assert all(path.stat().st_nlink == 1 for path in out.rglob("*") if path.is_file())
    assert exported(run, SPEC, out)["kept"] == found["size"]
    assert exported(run, SPEC, out, "--link")["linked"] == found["size"]
    assert exported(run, NEXT, out)["copied"]  # never through a link into the cache
    assert json.loads(run("verify", SPEC, "--json").out)["bad"] == []


def test_links_on_another_file_system_are_refused(
    run: Run, registry: RegistryServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("pin", SPEC).code == 0

    def link(place: Place, source: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Place, "link", link)
    refused = run("export", SPEC, out, "--link")
    assert refused.code == 1
    assert "Invalid cross-device link; leave out --link to copy the files" in refused.err


def test_clones_are_compared_as_they_lie_there(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy stands in for the blocks that btrfs and XFS share. Of a file in the cache that has
    rotted, or that was given up while it was cloned, the bytes are fetched again."""
    assert run("pin", SPEC).code == 0

    def clone(place: Place, descriptor: int, backing: str) -> bool:
        body = Path(backing).read_bytes()
        if len(body) == SIZES["part/two.bin"]:
            body = bytes(len(body))
        os.pwrite(descriptor, body, 0)
        return True

    monkeypatch.setattr(Place, "clone", clone)
    found = exported(run, SPEC, out)
    assert found["copied"] >= SIZES["part/two.bin"]
    assert found["cloned"] >= SIZES["model.safetensors"]
    assert contents(out) == contents(source(tmp_path))


def test_a_directory_in_the_cache_or_in_use_is_refused(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path
) -> None:
    inside = run("export", SPEC, tmp_path / "cache/models")
    assert inside.code == 2
    assert "is inside the cache" in inside.err
    (tmp_path / "a-link").symlink_to(tmp_path / "cache")
    assert run("export", SPEC, tmp_path / "a-link/x").code == 2
    out.mkdir()
    descriptor = os.open(out, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    busy = run("export", SPEC, out)
    os.close(descriptor)
    assert busy.code == 1
    assert "another process exports into this directory" in busy.err


def test_what_cannot_be_had_leaves_no_file(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path
) -> None:
    for path in (tmp_path / "registry/objects").rglob("*"):
        if path.is_file() and path.stat().st_size == SIZES["model.safetensors"]:
            path.unlink()
    failed = run("export", SPEC, out)
    assert failed.code == 1
    assert "model.safetensors" in failed.err
    assert "model.safetensors" not in contents(out)


def test_files_of_a_hub_are_compared_with_their_git_ids(
    run: Run, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repo("acme/story", large=frozenset({"model.safetensors"}))
    files = {"config.json": b'{"model_type": "llama"}\n', "model.safetensors": bytes(5 * CHUNK)}
    repo.commit(files)
    with HubServer(repo) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        exported(run, "hf/acme/story", out)
    assert contents(out) == files
    (out / "config.json").write_bytes(files["config.json"][::-1])
    assert run("export", "hf/acme/story", out).code == 1


def test_the_cache_keeps_its_own_files(
    run: Run, registry: RegistryServer, tmp_path: Path, out: Path
) -> None:
    """What is exported can be changed, and the cache does not change with it."""
    exported(run, SPEC, out)
    for path in out.rglob("*"):
        if path.is_file():
            path.write_bytes(b"changed")
    assert json.loads(run("verify", SPEC, "--json").out)["bad"] == []
    digest = json.loads(run("cache", "ls", "--objects", "--sort", "size", "--json").out)[0]
    assert backing_file(tmp_path / "cache", digest["digest"]).stat().st_nlink == 1
