"""docs/semantics.md on objects without a chunk table whose servers have ETags of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import CHUNK, MountFactory
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import on_objects, without_tables
from tests.support.registry import make_model

pytestmark = pytest.mark.mount

SIZE = 20 * CHUNK + 17  # several ranged GETs
SPEC = "nlp/tiny@1.0.0"


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyOrigin]:
    make_model(tmp_path / "source", {"model.bin": SIZE})
    publish(tmp_path / "source", parse_spec(SPEC), tmp_path / "registry", chunk_size=CHUNK)
    without_tables(tmp_path / "registry", SPEC)
    with FaultyOrigin(tmp_path / "registry") as origin:
        yield origin


def test_etags(origin: FaultyOrigin, start_mount: MountFactory, tmp_path: Path) -> None:
    """If servers of such an object have different ETags, no reader gets more of it before the
    digest of the whole object matched."""
    number = itertools.count()

    def answer(exchange: Exchange) -> None:
        exchange.headers["ETag"] = f'"server {next(number) % 2}"'

    origin.always(on_objects(answer))
    mount = start_mount(origin.url)
    whole = (tmp_path / "source/model.bin").read_bytes()
    path = mount.path / "nlp/tiny/1.0.0/model.bin"
    with path.open("rb", buffering=0) as file:
        assert file.read(10) == whole[:10]
        file.seek(18 * CHUNK)
        assert file.read(10) == whole[18 * CHUNK :][:10]
        assert mount.fetched() == SIZE
    assert path.read_bytes() == whole


@pytest.mark.complains
def test_a_server_with_other_bytes(
    origin: FaultyOrigin, start_mount: MountFactory, tmp_path: Path
) -> None:
    """A reader that was given some of them is told; the next one has the right ones, also those
    pages that the kernel had."""

    def wrong(exchange: Exchange) -> None:
        exchange.headers["ETag"] = '"old"'
        exchange.body = exchange.body[::-1]

    origin.plan(wrong, of="/objects/")
    mount = start_mount(origin.url)
    whole = (tmp_path / "source/model.bin").read_bytes()
    path = mount.path / "nlp/tiny/1.0.0/model.bin"
    with path.open("rb", buffering=0) as file:
        assert file.read(10) != whole[:10]
        file.seek(18 * CHUNK)
        with pytest.raises(OSError, match="Input/output error"):
            file.read(10)
    assert path.read_bytes() == whole
    assert "got wrong ones" in mount.status()["failures"][0]["message"]
