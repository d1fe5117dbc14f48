"""A real mount of registries of other kinds over an origin that fails a third of all requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.test_origin import (
    CHAOS,
    CHUNK,
    DEADLINE,
    DOCUMENTED,
    MANY,
    PATIENCE,
    Readers,
    Site,
)
from tests.chaos.workers import is_idle
from tests.mount.conftest import MountFactory, settled
from tests.support import faulty
from tests.support.dockerregistry import Packed
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import published
from tests.support.seaweed import NO_AWS
from tests.support.tinyoci import lay_out

pytestmark = pytest.mark.mount
SECONDS = 6
# What the origin serves, the URL of its registry, and the model's directory in a mount of it.
Kind = tuple[Path, Callable[[FaultyOrigin], str], str]


def object_store(home: Path) -> Kind:
    """The origin speaks S3, with the bucket in the path, as stores with an endpoint do."""
    published(home, MANY, chunk_size=CHUNK)
    (home / "site").mkdir()
    (home / "registry").rename(home / "site/models")
    return home / "site", lambda origin: f"s3://models?endpoint_url={origin.url}", "nlp/tiny/1.0.0"


def oci_registry(home: Path) -> Kind:
    """The origin speaks OCI: a layer for each file, as a blob."""
    published(home, MANY, chunk_size=CHUNK)
    model = Packed()
    for name in MANY:
        model.add(name, (home / "models/nlp/tiny/1.0.0" / name).read_bytes())
    lay_out(home / "site", "nlp/tiny", "1.0.0", model)

    def url(origin: FaultyOrigin) -> str:
        return f"oci://{origin.url.partition('//')[2].rstrip('/')}?alias=team"

    return home / "site", url, "oci/team/nlp/tiny/1.0.0"


@pytest.mark.slow
@pytest.mark.complains
@pytest.mark.parametrize("kind", [object_store, oci_registry])
def test_a_storm(tmp_path: Path, start_mount: MountFactory, kind: Callable[[Path], Kind]) -> None:
    """Readers of a cache that is too small get the right bytes or a documented errno; afterwards
    all bytes are there."""
    root, url, folder = kind(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(f"deadline: {DEADLINE}\nstreams: 8\n")
    environment = {**NO_AWS, "AXONFS_CONFIG": str(config), "DOCKER_CONFIG": str(tmp_path)}
    with FaultyOrigin(root) as origin:
        options = ("--cache-size", "2M")
        mount = start_mount(url(origin), options=options, env=environment)
        site = Site(mount, origin, tmp_path / "models/nlp/tiny/1.0.0", folder)
        for name, size in MANY.items():
            assert site.read(0, 100, name) == site.expected(0, 100, name), size
        # Without a chunk table a wrong bit is noticed in the whole object, which is quarantined.
        faults = [fault for fault in CHAOS if fault is not faulty.flip or kind is object_store]
        draws, lock = faulty.chaos(1, faults, 0.35), threading.Lock()

        def draw(exchange: Exchange) -> None:
            if "/objects/" in exchange.seen.path or "/blobs/" in exchange.seen.path:
                with lock:
                    fault = next(draws)
                fault(exchange)

        before = len(origin.requests)
        origin.always(draw)
        readers = Readers(site)
        with ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(readers.run, number) for number in range(4)]
            time.sleep(SECONDS)  # how long the storm lasts
            readers.stop.set()
            for end in ends:
                end.result(PATIENCE)
        assert readers.reads > 20
        assert len(origin.requests) - before > 50
        assert readers.refused <= DOCUMENTED
        assert not [line for line in mount.complaints() if "Traceback" in line or "bug" in line]
        origin.always(None)
        for name, size in MANY.items():
            assert site.read(0, size, name) == site.expected(0, size, name)
        settled(lambda: is_idle(mount))
