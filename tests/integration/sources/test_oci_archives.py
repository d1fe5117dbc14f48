"""Listing the files of layers that are archives."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from axonfs.errors import (
    MalformedError,
)
from axonfs.http_client import Limits
from axonfs.names import parse_spec
from axonfs.oci import place_of
from axonfs.sources import OciRegistry
from tests.support.dockerregistry import Packed, archive, sha256
from tests.support.faulty import Exchange, Fault, reset_within, status
from tests.support.ocireader import (
    REPOSITORY,
    Opened,
    url_of,
)
from tests.support.tinyoci import TinyOci, lay_out


@pytest.mark.parametrize("packing", ["tar", "tar+gzip"])
async def test_an_archive_is_listed_in_spite_of_faults_that_pass(
    tiny: TinyOci, opened: Opened, tmp_path: Path, packing: str
) -> None:
    body = archive({f"d/{n}": bytes(100_000) for n in range(3)}, packed=packing == "tar+gzip")
    layer = Packed().add("d", body, f"application/vnd.cncf.model.weight.v1.{packing}")
    digest = lay_out(tmp_path / "site", REPOSITORY, "packed", layer)
    reader = opened(url_of(tiny))
    source = OciRegistry(place_of(url_of(tiny)), reader.source._documents, bodies=reader.bodies)
    reader.bodies.limits = Limits(attempts=3, backoff_min=0)
    tiny.fault = faults(status(503), reset_within, of=sha256(body))
    found = await source.manifest(parse_spec(f"oci/team/nlp/tiny@{digest}"))
    assert found is not None
    assert [(entry.path, entry.size) for entry in found[0].files] == [
        (f"d/{n}", 100_000) for n in range(3)
    ]


@pytest.mark.parametrize(("files", "size", "most"), [(500, 10_000, 10), (3, 3 << 20, 4)])
async def test_an_archive_of_small_files_takes_few_requests_and_one_of_large_files_few_bytes(
    tiny: TinyOci, opened: Opened, tmp_path: Path, files: int, size: int, most: int
) -> None:
    body = archive({f"d/{n}": bytes(size) for n in range(files)}, packed=False)
    layer = Packed().add("d", body, "application/vnd.cncf.model.weight.v1.tar")
    digest = lay_out(tmp_path / "site", REPOSITORY, "packed", layer)
    reader = opened(url_of(tiny))
    source = OciRegistry(place_of(url_of(tiny)), reader.source._documents, bodies=reader.bodies)
    found = await source.manifest(parse_spec(f"oci/team/nlp/tiny@{digest}"))
    assert found is not None
    assert {entry.path: entry.size for entry in found[0].files} == {
        f"d/{n}": size for n in range(files)
    }
    ranges = [seen.headers["range"] for seen in tiny.origin.requests if sha256(body) in seen.path]
    assert len(ranges) <= most
    if size > 1 << 20:
        ends = [text.removeprefix("bytes=").split("-") for text in ranges]
        assert max(int(last) - int(first) for first, last in ends) < 64 << 10


@pytest.mark.parametrize("packing", ["tar", "tar+gzip"])
async def test_an_archive_that_ends_within_a_file_is_refused(
    tiny: TinyOci, opened: Opened, tmp_path: Path, packing: str
) -> None:
    body = archive({"d/whole": bytes(9), "d/cut": bytes(100_000)}, packed=False)[:50_000]
    body = gzip.compress(body) if packing == "tar+gzip" else body
    layer = Packed().add("d", body, f"application/vnd.cncf.model.weight.v1.{packing}")
    digest = lay_out(tmp_path / "site", REPOSITORY, "cut", layer)
    reader = opened(url_of(tiny))
    source = OciRegistry(place_of(url_of(tiny)), reader.source._documents, bodies=reader.bodies)
    with pytest.raises(MalformedError, match="the archive ends within 'd/cut'"):
        await source.manifest(parse_spec(f"oci/team/nlp/tiny@{digest}"))


async def test_a_file_in_an_archive_may_not_be_larger_than_any_disk(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("d/huge")
        info.pax_headers = {"size": str(10**19 - 1)}
        tar.addfile(info)
    body = made.getvalue()
    layer = Packed().add("d", body, "application/vnd.cncf.model.weight.v1.tar")
    digest = lay_out(tmp_path / "site", REPOSITORY, "huge", layer)
    reader = opened(url_of(tiny))
    source = OciRegistry(place_of(url_of(tiny)), reader.source._documents, bodies=reader.bodies)
    with pytest.raises(MalformedError, match="the archive ends within 'd/huge'"):
        await source.manifest(parse_spec(f"oci/team/nlp/tiny@{digest}"))


def faults(*plan: Fault, of: str) -> Fault:
    left = list(plan)

    def fault(exchange: Exchange) -> None:
        if of in exchange.seen.path and left:
            left.pop(0)(exchange)

    return fault


@pytest.mark.parametrize("packing", ["tar", "tar+gzip"])
async def test_an_empty_archive_is_refused(
    tiny: TinyOci, opened: Opened, tmp_path: Path, packing: str
) -> None:
    layer = Packed().add("d", b"", f"application/vnd.cncf.model.weight.v1.{packing}")
    digest = lay_out(tmp_path / "site", REPOSITORY, "empty", layer)
    reader = opened(url_of(tiny))
    source = OciRegistry(place_of(url_of(tiny)), reader.source._documents, bodies=reader.bodies)
    with pytest.raises(MalformedError, match="the layer is empty"):
        await source.manifest(parse_spec(f"oci/team/nlp/tiny@{digest}"))


def packed_as(files: dict[str, bytes], layer: Packed) -> Packed:
    body = archive(files, packed=False)
    return layer.add("d", body, "application/vnd.cncf.model.weight.v1.tar")


CLASHES = {
    "an archive and a file": packed_as({"d/a": b"1", "d/b": b"2"}, Packed().add("d/a", b"3")),
    "two archives": packed_as({"d/a": b"1"}, packed_as({"d/a": b"2"}, Packed())),
    "below a file": packed_as({"d/a": b"1"}, Packed().add("d", b"2")),
}


@pytest.mark.parametrize("name", CLASHES)
async def test_files_of_layers_that_need_one_path_are_refused(
    tiny: TinyOci, opened: Opened, tmp_path: Path, name: str
) -> None:
    digest = lay_out(tmp_path / "site", REPOSITORY, "clash", CLASHES[name])
    reader = opened(url_of(tiny))
    source = OciRegistry(place_of(url_of(tiny)), reader.source._documents, bodies=reader.bodies)
    with pytest.raises(MalformedError, match=r"two files of its layers need the path 'd/a'"):
        await source.manifest(parse_spec(f"oci/team/nlp/tiny@{digest}"))
