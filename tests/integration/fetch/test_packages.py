"""Versions that are one tar.gz: the pass that fills their objects, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import tarfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from axonfs.errors import AxonError, CorruptError, MalformedError, VanishedError
from axonfs.fetch.unpacking import PIECE
from axonfs.formats.package import Package
from axonfs.http_client import Documents
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.sources import RegistrySource
from tests.support import faulty
from tests.support.commands import Run
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import FAST, objects_asked, rig, settled
from tests.support.packages import PATH, Pause, add_package, package_of, stored

SPEC = "vision/resnet50@1.0.0"
CONFIG = b'{"layers": 50}\n'
# Noise does not shrink: the package is some pieces long, and its files end in different ones.
FIRST = random.Random(1).randbytes(2 * PIECE + 77)
LAST = random.Random(2).randbytes(3 * PIECE + 5)
PATIENT = replace(FAST, first_byte=10, stall=10, deadline=20)
FILES = {"config.json": CONFIG, "sub/first.bin": FIRST, "empty": b"", "last.bin": LAST}


def packages_asked(origin: FaultyOrigin) -> list[str]:
    """The Range of each request for a package."""
    return [seen.headers["range"] for seen in origin.requests if "/packages/" in seen.path]


async def test_one_pass_brings_every_file(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    size = len(add_package(registry, SPEC, FILES))
    async with rig(tmp_path / "cache", origin.url) as parts:
        assert await parts.content("last.bin", SPEC) == LAST
        assert await parts.content("sub/first.bin", SPEC) == FIRST
        assert await parts.content("config.json", SPEC) == CONFIG
        assert packages_asked(origin) == [f"bytes=0-{size - 1}"]
        assert objects_asked(origin) == 1  # the registry has none, that is known from then on
        await settled(parts.idle)
        assert parts.fetcher.statistics()["bytes"] == size
    async with rig(tmp_path / "cache", origin.url, offline=True) as parts:
        assert await parts.content("last.bin", SPEC) == LAST


async def test_what_a_package_brings_along_counts_as_used(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    """Else it would be the first to be evicted, and each read would bring the package again."""
    add_package(registry, SPEC, FILES)
    async with rig(tmp_path / "cache", origin.url) as parts:
        assert await parts.content("config.json", SPEC) == CONFIG
        await settled(parts.idle)
        await settled(lambda: len(parts.store.infos()) == 3)
        assert all(time.time() - info.accessed < 600 for info in parts.store.infos())


async def test_objects_are_taken_where_the_registry_has_them(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    add_package(registry, SPEC, FILES)
    digest = hashlib.sha256(LAST).hexdigest()
    path = registry / f"objects/sha256/{digest[:2]}/{digest}"
    path.parent.mkdir(parents=True)
    path.write_bytes(LAST)
    async with rig(tmp_path / "cache", origin.url) as parts:
        assert await parts.content("last.bin", SPEC) == LAST
        assert packages_asked(origin) == []


async def test_a_file_is_readable_once_it_is_complete_and_no_earlier(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    add_package(registry, SPEC, FILES)
    pause = Pause()
    origin.plan(pause, of="/packages/")
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT) as parts:
        with trio.fail_after(10):
            assert await parts.content("sub/first.bin", SPEC) == FIRST
        last = await parts.open("last.bin", SPEC)
        with trio.move_on_after(0.2) as early:
            await last.need(Range(0, 1))
        assert early.cancelled_caught
        pause.open.set()
        assert await parts.read(last) == LAST
        last.close()
    assert len(packages_asked(origin)) == 1


async def test_a_file_without_a_sha256_waits_for_the_package(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    add_package(registry, SPEC, FILES, sums=False)
    pause = Pause()
    origin.plan(pause, of="/packages/")
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT) as parts:
        first = await parts.open("sub/first.bin", SPEC)
        with trio.move_on_after(0.2) as early:
            await first.need(Range(0, 1))
        assert early.cancelled_caught
        assert not first.object.complete
        pause.open.set()
        assert await parts.read(first) == FIRST
        assert first.object.verified
        first.close()
        assert await parts.content("last.bin", SPEC) == LAST
    assert objects_asked(origin) == 0
    assert len(packages_asked(origin)) == 1


async def test_a_pass_goes_on_where_an_answer_broke_off(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    size = len(add_package(registry, SPEC, FILES))
    # Not a reset, which takes what has come and was not read yet.
    origin.plan(faulty.short, faulty.status(503), of="/packages/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        assert await parts.content("last.bin", SPEC) == LAST
    first, _, then = packages_asked(origin)
    assert first == f"bytes=0-{size - 1}"
    start = int(then.removeprefix("bytes=").partition("-")[0])
    assert start == (size - 1) // PIECE * PIECE


async def test_a_source_without_ranges_begins_again(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    add_package(registry, SPEC, FILES)
    origin.plan(faulty.reset_within, faulty.ignore_range, of="/packages/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        assert await parts.content("last.bin", SPEC) == LAST


async def test_what_is_local_is_not_written_again(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    add_package(registry, SPEC, FILES)
    async with rig(tmp_path / "cache", origin.url) as parts:
        await parts.content("last.bin", SPEC)
        await settled(parts.idle)
        feed = await parts.open("config.json", SPEC)
        digest = feed.entry.digest
        feed.close()
        await settled(parts.idle)
        parts.store.drop(digest)
        assert await parts.content("config.json", SPEC) == CONFIG
        assert len(packages_asked(origin)) == 2


@pytest.mark.complains
@pytest.mark.parametrize("fault", [faulty.status(404), faulty.flip, faulty.changed_size])
async def test_mirrors_are_tried_in_turn(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, fault: faulty.Fault
) -> None:
    add_package(registry, SPEC, FILES, mirrors=(f"{origin.url}mirror/{PATH}",))
    (registry / "mirror/packages").mkdir(parents=True)
    (registry / "mirror" / PATH).hardlink_to(registry / PATH)
    origin.plan(fault, of="/packages/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        assert await parts.content("last.bin", SPEC) == LAST
        assert await parts.content("sub/first.bin", SPEC) == FIRST
    asked = [seen.path for seen in origin.requests if "/packages/" in seen.path]
    assert asked == [f"/{PATH}", f"/mirror/{PATH}"]


async def test_where_a_package_is(tmp_path: Path) -> None:
    """A URL of the registry's own moves with the registry, and the token goes nowhere else."""
    base = "http://127.0.0.1:9/copy/"
    async with Documents() as documents:
        source = RegistrySource(base, documents, "secret")
        urls = (
            "https://models.example.org/axon/packages/a.axon?v=1",
            "https://models.example.org:443/b.axon",
            "http://models.example.org/axon/c.axon",
            "relative/d.axon",
            "ftp://mirror.example.org/e.axon",
            "https://models.example.org/axon/packages/a.axon?v=1",
        )
        package = Package(urls, 1, "ab" * 32, "https://models.example.org/axon")
        found = source.locate_package(base, package)
    assert [location.url for location in found] == [
        f"{base}packages/a.axon?v=1",
        f"{base}b.axon",
        "http://models.example.org/axon/c.axon",
        f"{base}relative/d.axon",
    ]
    assert [bool(location.headers) for location in found] == [True, True, False, True]


def link(kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo("last.bin")
    header.type, header.linkname = kind, "/etc/passwd"
    return header


GOOD = package_of(FILES)
LOST = len(gzip.decompress(GOOD)) - (len(FIRST) + 4096)
BAD = {
    "not-gzip": (b"PK\x03\x04" + GOOD[4:], "it begins with 504b, gzip with 1f8b"),
    "cut": (GOOD[:-1000], r"it has \d+ bytes now, not \d+"),
    "half": (GOOD[:2000], "does not end within its 2000 bytes"),
    "not-tar": (gzip.compress(b"x" * 600), "it is not a tar archive"),
    "damaged": (GOOD[:9000] + bytes(500) + GOOD[9500:], "sha256 [0-9a-f]{64}, not"),
    "half-tar": (gzip.compress(gzip.decompress(GOOD)[:-LOST]), "3 of 4 declared files; 'last.bin'"),
    "missing": (package_of({"config.json": CONFIG}), "1 of 4 declared files; 'empty' is missing"),
    "size": (package_of({**FILES, "config.json": b"{}"}), "has 2 bytes in it, not 15"),
    "sum": (package_of({**FILES, "last.bin": LAST[::-1]}), "sha256 [0-9a-f]{64}, not [0-9a-f]{64}"),
    "extra": (package_of({"more": b"", **FILES}), "'more', not declared or there twice"),
    "twice": (package_of({"config.json": CONFIG, "./config.json": CONFIG}), "or there twice"),
    "out": (package_of({"../config.json": CONFIG}), "not a plain relative path"),
    "absolute": (package_of({"/etc/cron.d/x": CONFIG}), "not a plain relative path"),
    "link": (package_of({"last.bin": link()}), "neither a file nor a directory"),
    "hard-link": (package_of({"last.bin": link(tarfile.LNKTYPE)}), "neither a file nor"),
    "device": (package_of({"last.bin": link(tarfile.CHRTYPE)}), "neither a file nor a directory"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_package_that_is_not_what_is_declared_is_refused_at_once(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, name: str
) -> None:
    package, message = BAD[name]
    add_package(registry, SPEC, FILES, package, declared=GOOD if name == "cut" else None)
    async with rig(tmp_path / "cache", origin.url) as parts:
        with trio.fail_after(5), pytest.raises(MalformedError, match=message):
            await parts.content("last.bin", SPEC)
        with pytest.raises(CorruptError, match=message):
            await parts.content("last.bin", SPEC)
        for path in ("config.json", "sub/first.bin"):
            with suppress(CorruptError):  # or it was checked by its own sha256 in time
                assert await parts.content(path, SPEC) == FILES[path]
        await settled(parts.idle)
        assert len(packages_asked(origin)) == 1


async def test_what_follows_the_last_file_is_refused_too(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    """Files that were checked by their own sha256 before that stay."""
    bomb = package_of({**FILES, "manifest.yaml": bytes(64 << 20)})
    for package, message in (
        (package_of({**FILES, "more": b""}), "'more', not declared or there twice"),
        (package_of(FILES) + b"x" * (2 * PIECE), "bytes follow its end"),
        (bomb, "'manifest.yaml', not declared"),
    ):
        add_package(registry, SPEC, FILES, package)
        cache = tmp_path / hashlib.sha256(package).hexdigest()
        async with rig(cache, origin.url) as parts:
            version = await parts.tree.version(parse_spec(SPEC))
            with pytest.raises(MalformedError, match=message):
                await parts.fetcher.packages.unpack(version)
            assert await parts.content("last.bin", SPEC) == LAST


async def test_directories_without_end_are_refused(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    folders = {}
    for number in range(40_000):
        folders[f"d{number}"] = tarfile.TarInfo(f"d{number}")
        folders[f"d{number}"].type = tarfile.DIRTYPE
    add_package(registry, SPEC, {"config.json": CONFIG}, package_of(folders))
    async with rig(tmp_path / "cache", origin.url) as parts:
        with pytest.raises(MalformedError, match="it holds more than the"):
            await parts.content("config.json", SPEC)


async def test_a_wrong_package_has_no_say_about_files_without_a_sha256(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    # Stored, not deflated, so both have one length; and gzip's own checksum is right.
    good, bad = (stored({**FILES, "config.json": data}) for data in (CONFIG, CONFIG[::-1]))
    add_package(registry, SPEC, FILES, bad, sums=False, declared=good)
    async with rig(tmp_path / "cache", origin.url) as parts:
        with pytest.raises(MalformedError, match=r"its sha256 is [0-9a-f]{64}, not [0-9a-f]{64}"):
            await parts.content("sub/first.bin", SPEC)
        for path in ("config.json", "sub/first.bin", "last.bin"):
            with pytest.raises(CorruptError):
                await parts.content(path, SPEC)
        assert sum(info.present_bytes for info in parts.store.infos()) == 0


async def test_a_package_that_is_not_there(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    add_package(registry, SPEC, FILES)
    (registry / PATH).unlink()
    async with rig(tmp_path / "cache", origin.url) as parts:
        with pytest.raises(VanishedError):
            await parts.content("last.bin", SPEC)
        assert all(info.quarantined is None for info in parts.store.infos())


async def test_a_cache_without_room_is_not_the_packages_fault(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_package(registry, SPEC, FILES)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    async with rig(tmp_path / "cache", origin.url) as parts:
        with monkeypatch.context() as patch:
            patch.setattr("axonfs.store.backing.write_all", full)
            with pytest.raises(AxonError, match="disk failed"):
                await parts.content("last.bin", SPEC)
        assert await parts.content("last.bin", SPEC) == LAST


def test_install_and_verify(run: Run, registry: Path, origin: FaultyOrigin) -> None:
    add_package(registry, SPEC, FILES)
    run("registry", "set", "default", origin.url)
    done = run("install", SPEC)
    assert (done.code, "4 files" in done.out) == (0, True), done.err
    assert run("verify", SPEC).code == 0
    assert len(packages_asked(origin)) == 1


def test_install_and_verify_of_a_wrong_package_fail_until_it_is_repaired(
    run: Run, registry: Path, origin: FaultyOrigin
) -> None:
    flipped = GOOD[:-20] + bytes([GOOD[-20] ^ 1]) + GOOD[-19:]
    add_package(registry, SPEC, FILES, flipped, declared=GOOD)
    run("registry", "set", "default", origin.url)
    done = run("install", SPEC)
    assert done.code == 1
    assert "its gzip stream is damaged" in done.err
    assert run("verify", SPEC).code == 1
    assert run("verify", SPEC, "--repair").code == 1
    asked = len(packages_asked(origin))
    assert asked == 2  # once more, not once more per file
    (registry / PATH).write_bytes(GOOD)
    assert run("verify", SPEC, "--repair").code == 0
    assert run("install", SPEC).code == 0
