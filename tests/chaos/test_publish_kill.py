"""A publisher killed at each of its steps leaves a sound registry, and the next one mends it."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from axonfs.formats.chunktable import parse_table
from axonfs.formats.layout import SIGNATURES_NAME
from axonfs.formats.listing import parse_index, parse_versions
from axonfs.formats.manifest import parse_manifest
from axonfs.names import parse_spec, spec_of
from axonfs.publish import publish
from axonfs.publish.signatures import checked
from tests.support.profile import SEED, kills, report
from tests.support.registry import make_model
from tests.support.signing import UnverifiedSigner

CHUNK = 64 << 10
FIRST = parse_spec("nlp/tiny@1.0.0")
SECOND = parse_spec("nlp/tiny@1.1.0")


def victim(model: Path, registry: Path, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.chaos.publish_victim"]
    arguments = [str(model), str(SECOND), str(registry), str(number)]
    process = subprocess.Popen(
        command + arguments, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"begins\n"
    return process


def check_sound(registry: Path) -> list[str]:
    """All that a reader can reach from the lists and the manifests is whole, and the second version
    has a signature; the versions."""
    models = registry / "api/v1/models"
    found = []
    for path in models.rglob("manifest.yaml"):
        spec = spec_of(path.parent.relative_to(models).parts)
        assert spec is not None
        found.append(str(spec))
        manifest = parse_manifest(path.read_bytes(), spec)
        if spec == SECOND:
            assert checked(path.with_name(SIGNATURES_NAME).read_bytes(), manifest), "unsigned"
        for entry in manifest.files:
            name = f"sha256/{entry.digest[:2]}/{entry.digest}"
            data = (registry / "objects" / name).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.size, entry.digest)
            assert entry.chunks is not None
            table = (registry / "chunks" / name).read_bytes()
            parse_table(table, size=entry.size, chunks=entry.chunks)
    listings, skipped = parse_index((registry / "api/v1/index.json").read_bytes())
    listed = {str(listing.spec) for listing in listings}
    versions = parse_versions((models / "nlp/tiny/versions.json").read_bytes())
    assert skipped == 0
    assert listed <= {f"nlp/tiny@{version}" for version in versions.versions} <= set(found)
    for path in (registry / "objects/sha256").glob("*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    return sorted(found)


def check_mended(model: Path, registry: Path) -> None:
    publish(model, SECOND, registry, chunk_size=CHUNK, signer=UnverifiedSigner())  # type: ignore[arg-type]
    both = [str(FIRST), str(SECOND)]
    assert check_sound(registry) == both
    listings, _ = parse_index((registry / "api/v1/index.json").read_bytes())
    assert [str(listing.spec) for listing in listings] == both
    assert list((registry / "objects/tmp").iterdir()) == []


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A registry with the first version in it."""
    model = make_model(tmp_path / "first", {"a": 2 * CHUNK + 1}, seed=1)
    publish(model, FIRST, tmp_path / "base", chunk_size=CHUNK)
    return tmp_path / "base"


@pytest.mark.slow
def test_killed_before_every_change_it_makes(tmp_path: Path, base: Path) -> None:
    model = make_model(tmp_path / "model", {"a": CHUNK + 1, "b": 3 * CHUNK}, seed=2)
    half_done = 0
    for number in range(200):
        registry = tmp_path / f"registry{number}"
        shutil.copytree(base, registry)
        status = victim(model, registry, number).wait()
        half_done += str(FIRST) in check_sound(registry) and status != 0
        check_mended(model, registry)
        shutil.rmtree(registry)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    else:
        pytest.fail("the publisher never came to its end")
    assert half_done > 10
    report("kill_publisher", steps=number)


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path, base: Path) -> None:
    model = make_model(tmp_path / "model", {"a": 40 << 20, "b": 8 << 20}, seed=3)
    registry = tmp_path / "registry"
    moments = random.Random(SEED)
    shutil.copytree(base, registry)
    process, start = victim(model, registry, 10**6), time.monotonic()
    assert process.wait() == 0
    whole = time.monotonic() - start
    rounds, killed = kills(0.2, 8), 0
    for _ in range(rounds):
        shutil.rmtree(registry)
        shutil.copytree(base, registry)
        process = victim(model, registry, 10**6)
        time.sleep(moments.uniform(0, whole))  # the moment of the kill is what is tried out
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        check_sound(registry)
    check_mended(model, registry)
    assert killed
    report("kill_publisher_anytime", rounds=killed)
