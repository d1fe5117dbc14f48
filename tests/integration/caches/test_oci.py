"""OCI registries through site caches: documents that their URL says nothing of, of which one cache
has a page of a login, and the bytes that a source reads itself."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.manifest import FileEntry
from axonfs.http_client import Bodies, Caches, Documents, Limits, Location, Routes, SiteCaches
from axonfs.http_client.answers import Answer
from axonfs.http_client.signing import Signed
from axonfs.http_client.urls import split_url
from axonfs.oci.manifest import IMAGE, Descriptor, Layer, digest_of
from axonfs.sources.oci_documents import OciDocuments
from axonfs.sources.oci_layers import files_of
from axonfs.sources.oci_lists import OciLists
from axonfs.sources.oci_tables import made_again
from tests.support import faulty
from tests.support.dockerregistry import archive
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.files import write_files

MIB = 1 << 20

HOST, REPOSITORY, DIGEST = "r.example", "nlp/tiny", "a" * 64
PAGE = b"<html>please log in</html>"
INDEX = {"schemaVersion": 2, "mediaType": IMAGE, "manifests": []}
FILES = {
    "tags/list": {"name": REPOSITORY, "tags": ["1.0"]},
    "manifests/1.0": INDEX,
    f"referrers/sha256:{DIGEST}": INDEX,
}

Ask = Callable[[Documents], Awaitable[object]]
ASKS: dict[str, Ask] = {
    "tags/list": lambda some: OciLists(HOST, some, None).names(f"{REPOSITORY}/tags/list", "tags"),
    "manifests/1.0": lambda some: OciDocuments(HOST, some).named(REPOSITORY, "1.0"),
    f"referrers/sha256:{DIGEST}": lambda some: OciDocuments(HOST, some)._referrers(
        REPOSITORY, DIGEST
    ),
}


class Anonymous:
    """Signs nothing."""

    def sign(self, url: str) -> Signed:
        return Signed(split_url(url.replace("oci:", "https:")), {})

    def refused(self, url: str, signed: Signed, answer: Answer, said: bytes) -> bool:
        return False


def page(exchange: Exchange) -> None:
    exchange.status, exchange.body = 200, PAGE
    exchange.headers = {"Content-Type": "text/html", "Content-Length": str(len(PAGE))}


@pytest.mark.parametrize("path", FILES, ids=["tags", "tag", "referrers"])
async def test_a_page_of_one_cache_is_its_own_fault(tmp_path: Path, path: str) -> None:
    whole = {f"v2/{REPOSITORY}/{name}": json.dumps(body).encode() for name, body in FILES.items()}
    files = write_files(tmp_path / "www", whole)
    query = "?n=1000" if path == "tags/list" else ""
    url = f"oci://{HOST}/v2/{REPOSITORY}/{path}{query}"
    with FaultyOrigin(files) as one, FaultyOrigin(files) as other:
        site = SiteCaches(f"oci://{HOST}", [one.url, other.url], fallback=False)
        first = site.order(url)[0]
        bad = one if str(first.url) in one.url else other
        bad.always(page)
        signers, caches = {"oci": Anonymous()}, Caches([site])
        async with Documents(routes=Routes({}), signers=signers, caches=caches) as client:
            found = await ASKS[path](client)
        assert found != PAGE
        assert len(bad.requests) == 1
    assert "web page" in str(first.state.fault) or "not JSON" in str(first.state.fault)


class Registry:
    """One that has a blob, and three caches, of which the first and the second fail."""

    def __init__(self, stack: ExitStack, files: Path) -> None:
        self.caches = [stack.enter_context(FaultyOrigin(files)) for _ in range(3)]
        self.caches[0].always(faulty.status(502))
        self.caches[1].plan(faulty.reset_within)
        self.site = SiteCaches(f"oci://{HOST}", [one.url for one in self.caches], fallback=False)
        signers, caches = {"oci": Anonymous()}, Caches([self.site])
        self.bodies = stack.enter_context(Bodies(Limits(), signers=signers, caches=caches))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[bytes], tuple[Registry, Location]]]:
    with ExitStack() as stack:

        def make(body: bytes) -> tuple[Registry, Location]:
            path = f"v2/{REPOSITORY}/blobs/sha256:{digest_of(body)}"
            found = Registry(stack, write_files(tmp_path / "www", {path: body}))
            return found, Location(f"oci://{HOST}/{path}", signed=True)

        yield make


Open = Callable[[bytes], tuple[Registry, Location]]


@pytest.mark.parametrize("packing", ["tar", "tar+gzip"])
def test_the_files_of_an_archive_are_listed_through_the_caches(opened: Open, packing: str) -> None:
    """Though the registry may not be asked, whose host does not even exist."""
    files = {f"d/{n}": random.Random(n).randbytes(3_000_000) for n in range(4)}
    body = archive(files, packed=packing == "tar+gzip")
    registry, location = opened(body)
    layer = Layer(Descriptor("", digest_of(body), len(body)), "d", packing)
    found = files_of(layer, location, registry.bodies)
    assert found == [(path, 3_000_000) for path in files]
    for one in registry.caches:
        assert all(seen.headers["axonfs-object"] for seen in one.requests)


def test_a_table_is_made_again_from_what_the_caches_have(opened: Open) -> None:
    body = random.Random(3).randbytes(9 * MIB + 5)
    registry, location = opened(body)
    chunks = (body[at : at + MIB] for at in range(0, len(body), MIB))
    table = ChunkTable(len(body), MIB, b"".join(map(chunk_digest, chunks)))
    entry = FileEntry("model.bin", len(body), digest_of(body), table.ref)
    assert made_again(registry.bodies, location, entry, bool) == table
