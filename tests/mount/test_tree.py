"""docs/semantics.md, the tree and its attributes, on a real mount."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import FILES, Mount, MountFactory, object_requests, settled
from tests.support.registry import RegistryServer, make_model

pytestmark = pytest.mark.mount


def test_listing(mount: Mount) -> None:
    """The mountpoint lists the namespaces of every registry, and
    `/models/<namespace>/<name>/<version>/` lists a version's files."""
    assert [name for name in os.listdir(mount.path) if name != ".axonfs"] == ["nlp"]
    assert sorted(os.listdir(mount.path / "nlp/tiny/1.0.0")) == sorted(
        ["config.json", "manifest.yaml", "model.safetensors", "sub", "vocab.txt"]
    )
    assert os.listdir(mount.path / "nlp/tiny/1.0.0/sub") == ["part.bin"]


def test_segments(mount: Mount) -> None:
    """A name may have several segments, and a directory is a version only if a manifest resolves
    there."""
    assert (mount.path / "nlp/org/deep/0.1.0/vocab.txt").stat().st_size == FILES["vocab.txt"]
    assert os.listdir(mount.path / "nlp/org") == ["deep"]
    assert not (mount.path / "nlp/org/manifest.yaml").exists()
    assert (mount.path / "nlp/org/deep/0.1.0/manifest.yaml").exists()


def test_latest(mount: Mount) -> None:
    """`latest` is a symlink to the version that the registry calls latest."""
    latest = mount.path / "nlp/tiny/latest"
    assert os.readlink(latest) == "1.1.0"
    assert os.path.samefile(latest / "vocab.txt", mount.path / "nlp/tiny/1.1.0/vocab.txt")
    assert "latest" in os.listdir(mount.path / "nlp/tiny")


def test_unlisted(mount: Mount, registry_dir: Path) -> None:
    """A lookup resolves a version that no index lists."""
    index = registry_dir / "api/v1/index.json"
    assert os.listdir(mount.path / "nlp/tiny")  # the index is known from here on
    before = index.read_bytes()
    source = registry_dir.parent / "unlisted"
    make_model(source, {"w.bin": 10}, seed=9)
    publish(source, parse_spec("nlp/hidden@3.0.0"), registry_dir)
    index.write_bytes(before)
    assert (mount.path / "nlp/hidden/3.0.0/w.bin").read_bytes() == (source / "w.bin").read_bytes()
    assert os.listdir(mount.path / "nlp/hidden/3.0.0")


def test_manifest_file(mount: Mount, registry_dir: Path) -> None:
    """`manifest.yaml` in each version is the registry's manifest, byte for byte."""
    published = registry_dir / "api/v1/models/nlp/tiny/1.0.0/manifest.yaml"
    assert (mount.path / "nlp/tiny/1.0.0/manifest.yaml").read_bytes() == published.read_bytes()


def test_first_registry_wins(start_mount: MountFactory, tmp_path: Path) -> None:
    """With several registries the first one that has a version serves it."""
    servers = []
    for number, names in enumerate((["nlp/both@1.0.0"], ["nlp/both@1.0.0", "nlp/second@1.0.0"])):
        for name in names:
            source = tmp_path / f"{number}-{name.replace('/', '-')}"
            make_model(source, {"which.txt": 100}, seed=number)
            publish(source, parse_spec(name), tmp_path / f"registry{number}")
        servers.append(RegistryServer(tmp_path / f"registry{number}"))
    with servers[0] as first, servers[1] as second:
        mount = start_mount(first.url, second.url)
        both = (mount.path / "nlp/both/1.0.0/which.txt").read_bytes()
        assert both == (tmp_path / "0-nlp-both@1.0.0/which.txt").read_bytes()
        assert (mount.path / "nlp/second/1.0.0/which.txt").stat().st_size == 100


def test_absent(mount: Mount, registry: RegistryServer) -> None:
    """A name that does not exist gives ENOENT, and the kernel caches that for a while."""
    absent = ["nosuch", "nlp/nosuch", "nlp/tiny/9.9.9", "nlp/tiny/1.0.0/tokenizer.model"]
    for name in absent:
        with pytest.raises(FileNotFoundError):
            (mount.path / name).stat()
    sent = len(registry.requests)
    for name in absent:
        assert not (mount.path / name).exists()
    assert len(registry.requests) == sent


def test_sorted(mount: Mount) -> None:
    """Entries of a version are listed in sorted order."""
    for place in ("nlp/tiny/1.0.0", "nlp/tiny/1.0.0/sub"):
        names = os.listdir(mount.path / place)
        assert names == sorted(names)


def test_sizes(mount: Mount, registry: RegistryServer) -> None:
    """`st_size` is the real size before a byte is fetched."""
    for name, size in FILES.items():
        assert (mount.path / "nlp/tiny/1.0.0" / name).stat().st_size == size
    assert object_requests(registry) == []


def test_blocks(mount: Mount) -> None:
    """`st_blocks` shows how much is local, and at least 8 unless the file is empty, so `du` and `ls
    -s` are right while a file is fetched."""
    file = mount.path / "nlp/tiny/1.0.0/model.safetensors"
    assert file.stat().st_blocks == 8
    with file.open("rb", buffering=0) as opened:
        assert len(opened.read(10)) == 10
    assert wait_for_blocks(file, 1 << 20) <= FILES["model.safetensors"]
    file.read_bytes()
    assert wait_for_blocks(file, FILES["model.safetensors"]) == -(-file.stat().st_size // 512) * 512


def wait_for_blocks(file: Path, least: int) -> int:
    """The kernel keeps attributes of an incomplete file for a second."""
    settled(lambda: file.stat().st_blocks * 512 >= least, 5)
    return file.stat().st_blocks * 512


def test_mtime(mount: Mount) -> None:
    """`mtime` is the time when the version was published; directories above versions have that of
    the newest one."""
    version = mount.path / "nlp/tiny/1.0.0"
    manifest = (version / "manifest.yaml").stat()
    created = yaml.safe_load((version / "manifest.yaml").read_text())["metadata"]["created"]
    assert manifest.st_mtime == datetime.fromisoformat(created).timestamp()
    assert version.stat().st_mtime == pytest.approx(manifest.st_mtime, abs=1)
    assert (version / "vocab.txt").stat().st_mtime == manifest.st_mtime
    newest = (mount.path / "nlp/tiny/1.1.0").stat().st_mtime
    os.listdir(mount.path)  # the index is known from here on
    assert (mount.path / "nlp/tiny").stat().st_mtime == pytest.approx(newest, abs=1)


def test_inodes(mount: Mount, start_mount: MountFactory, registry: RegistryServer) -> None:
    """Inode numbers are the same after a remount."""
    names = ["nlp", "nlp/tiny/1.0.0", "nlp/tiny/1.0.0/vocab.txt", "nlp/tiny/1.0.0/sub/part.bin"]
    before = [(mount.path / name).stat().st_ino for name in names]
    mount.stop()
    again = start_mount(registry.url)
    assert [(again.path / name).stat().st_ino for name in names] == before
    assert len(set(before)) == len(before)


def test_modes(mount: Mount) -> None:
    """Files are 0444 and directories 0555, owned by the user who mounted."""
    file = (mount.path / "nlp/tiny/1.0.0/vocab.txt").stat()
    folder = (mount.path / "nlp/tiny/1.0.0/sub").stat()
    assert (stat.S_IMODE(file.st_mode), stat.S_IMODE(folder.st_mode)) == (0o444, 0o555)
    assert {file.st_uid, folder.st_uid} == {os.getuid()}


def test_xattrs(mount: Mount, registry: RegistryServer) -> None:
    """The extended attributes `user.axonfs.spec`, `.sha256`, `.cached` and `.source` describe a
    file."""
    file = mount.path / "nlp/tiny/latest/vocab.txt"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    values = {name: os.getxattr(file, name).decode() for name in os.listxattr(file)}
    assert values == {
        "user.axonfs.spec": "nlp/tiny@1.1.0",
        "user.axonfs.sha256": digest,
        "user.axonfs.cached": "777/777",
        "user.axonfs.source": values["user.axonfs.source"],
    }
    assert values["user.axonfs.source"].startswith(registry.url)


def test_read_only(mount: Mount) -> None:
    """Every write, create, rename, remove, chmod and setxattr gives EROFS."""
    version = mount.path / "nlp/tiny/1.0.0"
    file = version / "vocab.txt"
    attempts: list[Callable[[], object]] = [
        lambda: os.open(file, os.O_WRONLY),
        lambda: os.open(version / "new", os.O_CREAT | os.O_WRONLY),
        lambda: os.mkdir(version / "new"),
        lambda: os.rename(file, version / "other"),
        lambda: os.remove(file),
        lambda: os.chmod(file, 0o777),
        lambda: os.utime(file),
        lambda: os.setxattr(file, "user.x", b"1"),
        lambda: os.symlink("x", version / "link"),
        lambda: os.truncate(file, 0),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match="Read-only") as caught:
            attempt()
        assert caught.value.errno == errno.EROFS
