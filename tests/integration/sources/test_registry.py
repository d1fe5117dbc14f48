"""A registry as the program sees it: the built-in server, and origins that fall short."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from axonfs.errors import (
    AccessDeniedError,
    CorruptError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    VanishedError,
)
from axonfs.formats.document import Document
from axonfs.http_client import Documents, Limits, Routes
from axonfs.names import parse_spec
from axonfs.sources import RegistrySource
from axonfs.sources.registry import NO_INDEX_TTL, base_of
from axonfs.store import Store
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import SPEC, RegistryServer, published

FAST = Limits(connect=2, first_byte=1, stall=1, deadline=2, attempts=1)
TINY = parse_spec(SPEC)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return published(tmp_path, {"model.safetensors": 300_000}, chunk_size=65536)


@pytest.fixture
async def documents() -> AsyncIterator[Documents]:
    async with Documents(FAST, routes=Routes({})) as documents:
        yield documents


async def test_from_the_index_to_the_bytes(server: RegistryServer, documents: Documents) -> None:
    source = RegistrySource(server.url, documents)
    listings = await source.listings()
    assert listings is not None
    assert [listing.spec for listing in listings] == [TINY]
    versions = await source.versions(TINY.model)
    assert versions is not None
    assert versions.latest == TINY.version
    found = await source.manifest(TINY)
    assert found is not None
    manifest, base = found
    assert base == source.url
    entry = manifest.file("model.safetensors")
    assert entry is not None
    table = await source.table(base, entry)
    assert table is not None
    assert (table.size, table.chunk_size) == (300_000, 65536)
    location = source.locate(base, entry)
    fetched = await documents.get(location.url, limit=entry.size)
    assert fetched is not None
    assert len(fetched.body) == entry.size


async def test_what_is_not_there_is_none(server: RegistryServer, documents: Documents) -> None:
    source = RegistrySource(server.url, documents)
    assert await source.manifest(parse_spec("nlp/none@1.0.0")) is None
    assert await source.versions("nlp/none") is None


@pytest.mark.parametrize("words", ["tiny", "nothing-like-it"])
async def test_search_by_the_registry_or_by_its_index(
    server: RegistryServer, origin: FaultyOrigin, documents: Documents, words: str
) -> None:
    answers = [
        [listing.spec for listing in await RegistrySource(url, documents).search(words)]
        for url in (server.url, origin.url)
    ]
    assert answers[0] == answers[1] == ([TINY] if words == "tiny" else [])


async def test_a_page_for_every_path_is_no_search(
    origin: FaultyOrigin, documents: Documents
) -> None:
    def page(exchange: faulty.Exchange) -> None:
        exchange.status = 200
        exchange.body = b"<!doctype html><p>Welcome"
        exchange.headers = {"Content-Length": str(len(exchange.body))}

    origin.plan(page)
    found = await RegistrySource(origin.url, documents).search("tiny")
    assert [listing.spec for listing in found] == [TINY]


async def test_axon_s_search_results_are_understood(
    origin: FaultyOrigin, documents: Documents
) -> None:
    item = {"name": "deep/net", "namespace": "vision", "version": "2", "description": "d"}

    def axon(exchange: faulty.Exchange) -> None:
        exchange.status = 200
        exchange.body = json.dumps([item, {"name": "../x"}]).encode()
        exchange.headers = {"Content-Length": str(len(exchange.body))}

    origin.plan(axon)
    (found,) = await RegistrySource(origin.url, documents).search("ne&t")
    assert found.spec == parse_spec("vision/deep/net@2")
    assert origin.requests[0].path == "/api/v1/search?q=ne%26t"


async def test_neither_search_nor_index_is_an_error(
    registry: Path, origin: FaultyOrigin, documents: Documents
) -> None:
    (registry / "api/v1/index.json").unlink()
    source = RegistrySource(origin.url, documents)
    assert await source.listings() is None
    with pytest.raises(NotFoundError, match="neither a search nor an index"):
        await source.search("tiny")


async def test_a_missing_index_is_remembered(
    registry: Path, origin: FaultyOrigin, documents: Documents, clock: MockClock
) -> None:
    index = registry / "api/v1/index.json"
    kept = index.read_bytes()
    index.unlink()
    source = RegistrySource(origin.url, documents)
    assert await source.listings() is None
    assert await source.listings() is None
    assert len(origin.requests) == 1
    index.write_bytes(kept)
    clock.jump(NO_INDEX_TTL)
    assert await source.listings() is not None


async def test_a_broken_index_is_named(
    registry: Path, origin: FaultyOrigin, documents: Documents
) -> None:
    (registry / "api/v1/index.json").write_bytes(b"{")
    with pytest.raises(MalformedError, match="index"):
        await RegistrySource(origin.url, documents).listings()


async def test_a_304_costs_no_body(
    origin: FaultyOrigin, documents: Documents, store: Store
) -> None:
    source = RegistrySource(origin.url, documents, cache=store)
    first = await source.listings()
    url = origin.url + "api/v1/index.json"
    known = store.document(url)
    assert known is not None
    store.touch_document(url, 0.0)
    assert await source.listings() == first
    assert origin.requests[1].headers["if-none-match"] == known.etag
    touched = store.document(url)
    assert touched is not None
    assert touched.fetched >= known.fetched


async def test_a_registry_that_is_down(registry: Path, documents: Documents, store: Store) -> None:
    with FaultyOrigin(registry) as origin:
        source = RegistrySource(origin.url, documents, cache=store)
        listed = await source.listings()
        versions = await source.versions(TINY.model)
    for call in (source.listings, lambda: source.versions(TINY.model)):
        with pytest.raises(UnavailableError):
            await call()
    assert await source.listings(allow_stale=True) == listed
    assert await source.versions(TINY.model, allow_stale=True) == versions
    with pytest.raises(UnavailableError):
        await source.versions("nlp/other", allow_stale=True)


async def test_an_invalid_document_is_not_kept(
    registry: Path, documents: Documents, store: Store
) -> None:
    """A login page that answers for the registry does not take the place of what it said."""

    def login(exchange: faulty.Exchange) -> None:
        exchange.status, exchange.body = 200, b"<html>Please log in</html>"
        exchange.headers = {"Content-Length": str(len(exchange.body))}

    with FaultyOrigin(registry) as origin:
        source = RegistrySource(origin.url, documents, cache=store)
        said = await source.listings(), await source.versions(TINY.model)
        origin.always(login)
        for call in (source.listings, lambda: source.versions(TINY.model)):
            with pytest.raises(MalformedError, match="not JSON"):
                await call()
        assert await source.listings(offline=True) == said[0]
        assert await source.versions(TINY.model, offline=True) == said[1]


async def test_offline_sends_nothing(
    origin: FaultyOrigin, documents: Documents, store: Store
) -> None:
    source = RegistrySource(origin.url, documents, cache=store)
    assert await source.listings(offline=True) is None
    assert await source.versions(TINY.model, offline=True) is None
    assert origin.requests == []
    listed = await source.listings()
    assert await source.listings(offline=True) == listed
    assert len(origin.requests) == 1


async def test_a_changed_document_replaces_the_stored_one(
    origin: FaultyOrigin, documents: Documents, store: Store
) -> None:
    url = origin.url + "api/v1/index.json"
    store.put_document(url, Document(b"old", '"old"', 1.0, url))
    source = RegistrySource(origin.url, documents, cache=store)
    assert await source.listings()
    known = store.document(url)
    assert known is not None
    assert known.body != b"old"


async def test_a_mirror_is_where_the_manifest_was_found(
    registry: Path, origin: FaultyOrigin, documents: Documents
) -> None:
    with FaultyOrigin(registry) as mirror:
        tail = "api/v1/models/nlp/tiny/1.0.0/manifest.yaml"
        origin.plan(faulty.redirect(mirror.url + tail + "?signed=1"))
        source = RegistrySource(origin.url, documents, "secret")
        found = await source.manifest(TINY)
        assert found is not None
        manifest, base = found
        assert base == mirror.url
        entry = manifest.files[-1]
        location = source.locate(base, entry)
        assert location.url.startswith(mirror.url)
        assert location.headers == {}
        assert await source.table(base, entry) is not None
        assert all("authorization" not in seen.headers for seen in mirror.requests)
    assert source.locate(origin.url, entry).headers == {"Authorization": "Bearer secret"}
    assert "secret" not in repr(source.locate(origin.url, entry))


async def test_every_document_is_asked_for_with_the_token(
    origin: FaultyOrigin, documents: Documents
) -> None:
    source = RegistrySource(origin.url, documents, "secret")
    await source.search("x")
    await source.versions(TINY.model)
    found = await source.manifest(TINY)
    assert found is not None
    await source.table(found[1], found[0].files[0])
    assert len(origin.requests) == 5
    assert all(seen.headers["authorization"] == "Bearer secret" for seen in origin.requests)
    origin.plan(faulty.status(401))
    with pytest.raises(AccessDeniedError, match="token"):
        await source.manifest(TINY)


async def test_another_model_s_manifest_is_refused(
    registry: Path, origin: FaultyOrigin, documents: Documents
) -> None:
    models = registry / "api/v1/models/nlp"
    (models / "tiny").rename(models / "other")
    with pytest.raises(MalformedError, match=r"manifest\.yaml"):
        await RegistrySource(origin.url, documents).manifest(parse_spec("nlp/other@1.0.0"))


async def test_a_table_that_is_wrong_or_gone(origin: FaultyOrigin, documents: Documents) -> None:
    source = RegistrySource(origin.url, documents)
    found = await source.manifest(TINY)
    assert found is not None
    entry = found[0].file("model.safetensors")
    assert entry is not None
    origin.plan(faulty.flip)
    with pytest.raises(CorruptError, match="chunks/sha256") as caught:
        await source.table(found[1], entry)
    assert caught.value.path == "model.safetensors"
    origin.plan(faulty.status(404))
    with pytest.raises(VanishedError, match="chunk table"):
        await source.table(found[1], entry)


@pytest.mark.parametrize(
    ("manifest", "model", "base"),
    [
        ("http://h/api/v1/models/a/b/1/manifest.yaml", "a/b", "http://h/"),
        ("http://h:1/deep/api/v1/models/a/b+/c/1/manifest.yaml?x", "a/b+/c", "http://h:1/deep/"),
        ("http://h/api/v1/models/api/v1/models/1/manifest.yaml", "api/v1/models", "http://h/"),
        ("http://h/api/v1/models/b/b/1/manifest.yaml", "a/b", None),
        ("http://h/elsewhere/manifest.yaml", "a/b", None),
    ],
)
def test_the_base_of_a_manifest(manifest: str, model: str, base: str | None) -> None:
    assert base_of(manifest, model) == base


def test_a_registry_s_name_and_url_have_no_secrets() -> None:
    async def check() -> None:
        async with Documents(routes=Routes({})) as documents:
            source = RegistrySource("https://me:pw@h/deep", documents, "secret")
            assert (source.name, source.url) == ("h/deep", "https://h/deep/")
            assert "pw" not in repr(source)

    trio.run(check)
