"""`axonfs path`: the directory of hard links of a pinned version, with a mount and without."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import (
    CHUNK,
    FILES,
    NAME,
    Mount,
    MountFactory,
    run_axonfs,
    source_bytes,
)
from tests.support.registry import SPEC, RegistryServer

pytestmark = pytest.mark.mount
NOBODY = 65534


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        yield mapping


def spoil(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2 * CHUNK + 99)
        file.write(b"rot")


def test_programs_read_from_the_disk(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """`axonfs path` prints a directory with the files of a pinned version, which programs read from
    the disk, with or without a mount."""
    mount = start_mount(registry.url, options=("--no-passthrough",))
    cache = ("--cache", str(mount.cache))
    refused = run_axonfs("path", SPEC, *cache, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"axonfs: {SPEC}: is not pinned; run axonfs pin {SPEC} first,"
        f" or read it in the mount: axonfs path --mounted {SPEC}\n"
    )
    run_axonfs("pin", SPEC, *cache)
    reads = mount.status()["reads"]
    place = Path(run_axonfs("path", "nlp/tiny", *cache).stdout.removesuffix("\n"))
    assert place == mount.cache / "pinned/nlp/tiny@1.0.0"
    for name in FILES:
        assert (place / name).read_bytes() == source_bytes(tmp_path, 0, name)
    assert mount.status()["reads"] == reads
    assert (place / "manifest.yaml").read_bytes() == (
        mount.path / "nlp/tiny/1.0.0/manifest.yaml"
    ).read_bytes()
    mount.stop()
    told = json.loads(run_axonfs("path", SPEC, "--json", *cache).stdout)
    assert told == {"spec": SPEC, "path": str(place)}
    assert (place / NAME).read_bytes() == source_bytes(tmp_path, 0, NAME)


def test_a_version_is_unpinned_below_its_readers(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """When the version is unpinned the directory goes away, and open files and mappings keep their
    bytes, whatever is evicted."""
    options = ("--no-passthrough", "--cache-size", "7M", "--prefetch", "off")
    mount = start_mount(registry.url, options=options)
    cache = ("--cache", str(mount.cache))
    run_axonfs("pin", SPEC, *cache)
    place = Path(run_axonfs("path", SPEC, *cache).stdout.strip())
    with mapped(place / NAME) as mapping, (place / NAME).open("rb") as file:
        want = mapping[:]
        assert want == source_bytes(tmp_path, 0, NAME)
        run_axonfs("unpin", SPEC, *cache)
        assert not place.exists()
        # Readers of both versions: the chunks of one of them have to go.
        with (mount.path / f"nlp/tiny/1.0.0/{NAME}").open("rb") as held:
            for number, version in enumerate(("1.0.0", "1.1.0")):
                read = (mount.path / f"nlp/tiny/{version}/{NAME}").read_bytes()
                assert read == source_bytes(tmp_path, number, NAME)
            assert held.read() == want
        run_axonfs("cache", "clean", *cache)
        assert (mapping[:], file.read()) == (want, want)


@pytest.mark.complains
@pytest.mark.skipif(os.getuid() != 0, reason="writes to a read-only file")
def test_root_writes_through_a_link(mount: Mount, tmp_path: Path) -> None:
    """Only root can write to those files; then `verify --repair` puts the right bytes back, also
    under open mappings."""
    cache = ("--cache", str(mount.cache))
    run_axonfs("pin", SPEC, *cache)
    place = Path(run_axonfs("path", SPEC, *cache).stdout.strip())
    with mapped(place / NAME) as mapping:
        spoil(place / NAME)
        assert mapping[:] != source_bytes(tmp_path, 0, NAME)
        found = run_axonfs("verify", "--repair", SPEC, *cache)
        assert f"{SPEC} {NAME}: 1 bad chunk, repaired" in found.stdout
        assert mapping[:] == source_bytes(tmp_path, 0, NAME)
    (mount.path / f"nlp/tiny/1.0.0/{NAME}").read_bytes()
    run_axonfs("pin", "--check", SPEC, *cache)


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
@pytest.mark.usefixtures("open_to_users", "open_path")
def test_the_directory_of_an_ordinary_user(registry: RegistryServer, tmp_path: Path) -> None:
    """A file that its owner cannot write to is repaired all the same, in place."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)

    def run(*line: str) -> str:
        environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        return subprocess.run(
            line, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env=environment,
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip

    axonfs = (sys.executable, "-m", "axonfs")
    run(*axonfs, "pin", SPEC, "--registry", registry.url)
    place = Path(run(*axonfs, "path", SPEC).strip())
    with pytest.raises(subprocess.CalledProcessError, match="exit status 1"):
        run(sys.executable, "-c", f"open({str(place / NAME)!r}, 'r+b')")
    spoil(place / NAME)
    run(*axonfs, "verify", "--repair", SPEC, "--registry", registry.url)
    assert (place / NAME).read_bytes() == source_bytes(tmp_path, 0, NAME)
    found = (place / NAME).stat()
    assert (found.st_nlink, found.st_mode & 0o777) == (2, 0o444)
    run(*axonfs, "uninstall", SPEC)
    assert not place.exists()
