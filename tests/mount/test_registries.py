"""Versions that a registry yanks or removes, and one that is published from a mount."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from axonfs.formats.layout import manifest_key
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.publish.registry import Registry
from axonfs.registries import collect, gc, remove
from axonfs.storage import Directory
from tests.mount.conftest import MountFactory, source_bytes
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount
NEW = parse_spec("nlp/tiny@1.1.0")


def test_yanked(start_mount: MountFactory, registry: RegistryServer, registry_dir: Path) -> None:
    """A yanked version is read by its exact name, but is neither `latest` nor listed unless it is
    local."""
    Registry(Directory(registry_dir)).yank(NEW)
    mount = start_mount(registry.url)
    model = mount.path / "nlp/tiny"
    assert os.readlink(model / "latest") == "1.0.0"
    assert sorted(os.listdir(model)) == ["1.0.0", "latest"]
    text = source_bytes(registry_dir.parent, 1, "vocab.txt")
    assert (model / "1.1.0/vocab.txt").read_bytes() == text
    assert os.readlink(model / "latest") == "1.0.0"
    mount.stop()
    model = start_mount(registry.url).path / "nlp/tiny"
    assert sorted(os.listdir(model)) == ["1.0.0", "1.1.0", "latest"]
    assert os.readlink(model / "latest") == "1.0.0"


@pytest.mark.complains
def test_removed(
    start_mount: MountFactory,
    registry: RegistryServer,
    registry_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A version that its registry removed gives ENOENT; if it is local it stays, its cached bytes
    are read, and reading others gives EIO once the registry has dropped them."""
    mount = start_mount(registry.url)
    text = source_bytes(registry_dir.parent, 1, "vocab.txt")
    assert (mount.path / "nlp/tiny/1.1.0/vocab.txt").read_bytes() == text
    mount.stop()
    target = Registry(Directory(registry_dir))
    for spec in (NEW, parse_spec("nlp/org/deep@0.1.0")):
        remove(target, spec)
    monkeypatch.setattr(collect, "MIN_AGE", -1.0)
    assert gc(target).objects > 0
    model = start_mount(registry.url).path / "nlp/tiny"
    assert sorted(os.listdir(model)) == ["1.0.0", "1.1.0", "latest"]
    assert os.readlink(model / "latest") == "1.0.0"
    assert (model / "1.1.0/vocab.txt").read_bytes() == text
    with pytest.raises(OSError) as caught:  # noqa: PT011 - by its number
        (model / "1.1.0/model.safetensors").read_bytes()
    assert caught.value.errno == errno.EIO
    assert not (model.parent / "org/deep/0.1.0").exists()


def test_published_from_a_mount(
    start_mount: MountFactory, registry: RegistryServer, registry_dir: Path, tmp_path: Path
) -> None:
    """The manifest stays, byte for byte, so the version is the same one."""
    version = start_mount(registry.url).path.joinpath(*NEW.segments)
    done = publish(version, NEW, tmp_path / "second")
    assert done.left_out == ()
    key = manifest_key(NEW)
    assert (tmp_path / "second" / key).read_bytes() == (registry_dir / key).read_bytes()
