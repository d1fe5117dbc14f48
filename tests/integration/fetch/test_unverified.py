"""Objects that are named, not digested: what nothing vouches for, and what only a package does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from axonfs.errors import CorruptError, UnverifiedError, VanishedError
from axonfs.formats.manifest import FileEntry
from axonfs.formats.package import packed_digest
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.store import Store
from tests.support.axon import MANIFEST, axon_manifest
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import objects_asked, rig
from tests.support.packages import add_package

PIECE = 1 << 20
SPEC, OTHER = "vision/resnet50@1.0.0", "vision/other@1.0.0"
DATA = bytes(range(251)) * (3 * PIECE // 251)
FILES = {"model.bin": DATA, "config.json": b"{}"}


def edit(origin: FaultyOrigin, spec: str, package: str | None, file: str | None) -> None:
    """Have a manifest say something else of the sha256 of its package, and of its first file."""
    parsed = parse_spec(spec)
    path = origin.directory / MANIFEST.format(f"{parsed.model}/{parsed.version}")
    document = yaml.safe_load(path.read_text())
    if package is not None:
        document["distribution"]["package"]["sha256"] = package
    if file is not None:
        document["spec"]["format"]["files"][0]["sha256"] = file
    path.write_text(yaml.safe_dump(document))


async def test_what_is_not_allowed_is_not_even_fetched(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    add_package(origin.directory, SPEC, FILES, sums=False)
    edit(origin, SPEC, "placeholder", "placeholder")
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open("model.bin", SPEC)
        feed.want(Range(0, feed.object.count))
        with pytest.raises(UnverifiedError, match="cannot be verified"):
            await feed.need(Range(0, 1))
        feed.close()
    assert [seen.path for seen in origin.requests if "manifest" not in seen.path] == []


async def test_a_package_without_a_sha256_brings_what_has_one(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    """And of what has none nothing is kept, unless that is allowed."""
    add_package(origin.directory, SPEC, FILES)
    edit(origin, SPEC, "placeholder", "placeholder")
    doubtful, sound = FILES
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed, other = [await parts.open(name, SPEC) for name in (sound, doubtful)]
        assert await parts.read(feed) == FILES[sound]
        assert feed.object.verified
        assert other.object.present_bytes == 0
        with pytest.raises(UnverifiedError):
            await other.need(Range(0, 1))
        feed.close()
        other.close()
    async with rig(tmp_path / "cache", origin.url, allow_unverified=True) as parts:
        feed = await parts.open(doubtful, SPEC)
        assert await parts.read(feed) == FILES[doubtful]
        assert not feed.object.verified
        feed.close()


async def test_unverified_bytes_are_of_no_other_file(tmp_path: Path, origin: FaultyOrigin) -> None:
    """A file with the same bytes and their sha256 is fetched and compared."""
    add_package(origin.directory, SPEC, FILES, sums=False)
    edit(origin, SPEC, "placeholder", None)
    document = axon_manifest(parse_spec(OTHER), FILES)
    path = origin.directory / MANIFEST.format("vision/other/1.0.0")
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(document))
    digest = hashlib.sha256(DATA).hexdigest()
    target = origin.directory / f"objects/sha256/{digest[:2]}/{digest}"
    target.parent.mkdir(parents=True)
    target.write_bytes(DATA)
    async with rig(tmp_path / "cache", origin.url, allow_unverified=True) as parts:
        feed = await parts.open("model.bin", SPEC)
        assert await parts.read(feed) == DATA
        verified = await parts.open("model.bin", OTHER)
        assert verified.object is not feed.object
        assert verified.object.present_bytes == 0
        assert await parts.read(verified) == DATA
        assert verified.object.verified
        assert objects_asked(origin) > 0
        feed.close()
        verified.close()


async def test_a_version_with_neither_digest_nor_package_has_nothing_to_read(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    add_package(origin.directory, SPEC, FILES, sums=False)
    path = origin.directory / MANIFEST.format("vision/resnet50/1.0.0")
    document = yaml.safe_load(path.read_text())
    del document["distribution"]
    path.write_text(yaml.safe_dump(document))
    async with rig(tmp_path / "cache", origin.url, allow_unverified=True) as parts:
        feed = await parts.open("model.bin", SPEC)
        with pytest.raises(VanishedError, match="neither a sha256 nor a package"):
            await feed.need(Range(0, 1))
        feed.close()


@pytest.mark.complains
async def test_another_registry_cannot_fill_an_object_that_a_package_vouches_for(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    """It gives a file of its own the name of that object, as if that were a sha256."""
    package = add_package(origin.directory, SPEC, FILES, sums=False)
    name = packed_digest(hashlib.sha256(package).hexdigest(), "model.bin")
    (tmp_path / "hostile").mkdir()
    with FaultyOrigin(tmp_path / "hostile") as hostile:
        add_package(hostile.directory, OTHER, FILES)
        edit(hostile, OTHER, "placeholder", None)
        path = hostile.directory / MANIFEST.format("vision/other/1.0.0")
        path.write_text(path.read_text().replace(hashlib.sha256(DATA).hexdigest(), name))
        target = hostile.directory / f"objects/sha256/{name[:2]}/{name}"
        target.parent.mkdir(parents=True)
        target.write_bytes(DATA[::-1])
        async with rig(tmp_path / "cache", origin.url, hostile.url) as parts:
            theirs = await parts.open("model.bin", OTHER)
            await theirs.need(Range(0, 1))
            feed = await parts.open("model.bin", SPEC)
            assert await parts.read(feed) == DATA
            with pytest.raises(CorruptError):
                await theirs.need(Range(0, theirs.object.count))
            assert await parts.read(feed) == DATA
            assert feed.object.verified
            feed.close()
            theirs.close()


def test_a_private_object_may_have_to_go_further(tmp_path: Path) -> None:
    """Where its key is taken as well, by a file that was given it as a digest."""
    store = Store.open(tmp_path / "cache")
    entry = FileEntry("a", 7, "ab" * 32, packed="cd" * 32)
    keys = [entry.digest]
    for size in (9, 9, 9):
        claimed = store.object(FileEntry("b", size, keys[-1]))
        claimed.hold()
        claimed.land(0, memoryview(bytes(size)))
        claimed.release()
        found = store.object(entry)
        assert found.key not in keys
        keys.append(found.key)
        del found
    store.close()


def test_the_text_that_a_name_is_made_of_is_another_object(tmp_path: Path) -> None:
    """A registry can publish it as a file, whose sha256 is then that name."""
    package = "cd" * 32
    text = f"package {package} a".encode()
    theirs = FileEntry("b", len(text), hashlib.sha256(text).hexdigest())
    entry = FileEntry("a", len(text), packed_digest(package, "a"), packed=package)
    assert entry.digest == theirs.digest
    store = Store.open(tmp_path / "cache")
    published = store.object(theirs)
    published.hold()
    published.land(0, memoryview(text))
    assert published.mark_verified(published.generation())
    assert store.object(entry) is not published
    published.release()
    store.close()
