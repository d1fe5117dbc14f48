"""A publisher to an object store, killed before each of its writes, leaves a sound registry."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from axonfs.formats.chunktable import parse_table
from axonfs.formats.layout import (
    INDEX,
    MODELS,
    object_key,
    signatures_key,
    spec_of_manifest,
    table_key,
)
from axonfs.formats.listing import parse_index
from axonfs.formats.manifest import parse_manifest
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.publish.signatures import checked
from axonfs.storage import S3Storage
from axonfs.storage.parts import PART_BYTES
from tests.support.profile import report
from tests.support.registry import make_model
from tests.support.signing import UnverifiedSigner

FIRST = parse_spec("nlp/tiny@1.0.0")
SECOND = parse_spec("nlp/tiny@1.1.0")
MIB = 1 << 20


def killed(model: Path, url: str, number: int) -> int:
    """The exit status of a publisher that dies before its write with this number."""
    command = [sys.executable, "-m", "tests.chaos.publish_s3_victim"]
    arguments = [str(model), str(SECOND), url, str(number)]
    done = subprocess.run(
        command + arguments, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, check=False
    )
    assert done.stdout == b"begins\n"
    return done.returncode


def read(storage: S3Storage, key: str) -> bytes:
    found = storage.read(key, 64 * MIB)
    assert found is not None, key
    return found.body


def check_sound(storage: S3Storage) -> list[str]:
    """All that a reader can reach is whole, the second version signed; the versions."""
    keys = [listed.key for listed in storage.list(MODELS)]
    specs = [spec for spec in map(spec_of_manifest, keys) if spec]
    for spec in specs:
        manifest = parse_manifest(
            read(storage, f"{MODELS}{'/'.join(spec.segments)}/manifest.yaml"), spec
        )
        if spec == SECOND:
            assert checked(read(storage, signatures_key(spec)), manifest), "unsigned"
        for entry in manifest.files:
            data = read(storage, object_key(entry.digest))
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.size, entry.digest)
            assert entry.chunks is not None
            table = read(storage, table_key(entry.digest))
            parse_table(table, size=entry.size, chunks=entry.chunks)
    listings, skipped = parse_index(read(storage, INDEX))
    assert skipped == 0
    assert {listing.spec for listing in listings} <= set(specs)
    return sorted(map(str, specs))


@pytest.mark.slow
def test_killed_before_each_of_its_writes(tmp_path: Path, bucket_url: str) -> None:
    first = make_model(tmp_path / "first", {"a": 1000}, seed=1)
    model = make_model(tmp_path / "model", {"a": PART_BYTES + 1, "b": 1000}, seed=2)
    half_done = 0
    for number in range(50):
        storage = S3Storage(f"{bucket_url}{number}")
        publish(first, FIRST, storage)
        status = killed(model, storage.name, number)
        found = check_sound(storage)
        half_done += found == [str(FIRST)] and status != 0
        publish(model, SECOND, storage, signer=UnverifiedSigner())  # type: ignore[arg-type]
        assert check_sound(storage) == [str(FIRST), str(SECOND)]
        listed = [str(listing.spec) for listing in parse_index(read(storage, INDEX))[0]]
        assert listed == [str(FIRST), str(SECOND)]
        if status == 0:
            break
        assert status == -signal.SIGKILL
    else:
        pytest.fail("the publisher never came to its end")
    assert half_done > 8
    report("kill_publisher_s3", steps=number)
