"""nginx follows the redirects of hubs, OCI registries and stores to signed URLs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from axonfs.http_client.caches import SLICE
from tests.integration.caches.conftest import BODY, TOKEN, Engine, Source
from tests.integration.caches.test_engines import check
from tests.support.rawserver import RawServer
from tests.support.sitecaches import CACHES, nginx_cache
from tests.support.wiring import Authority

only_nginx = pytest.mark.parametrize("engine", ["nginx"], indirect=True)


@only_nginx
def test_a_redirect_to_storage_is_followed_without_credentials(engine: Engine) -> None:
    digest = engine.digest()
    before = len(engine.storage.seen)
    for start in range(0, len(BODY), SLICE):
        check(engine, "/hub/weights", digest, start, start + SLICE, Authorization=TOKEN)
    at_storage = engine.storage.seen[before:]
    assert len(at_storage) == 3
    assert all("authorization" not in seen.headers for seen in at_storage)
    assert all("axonfs-object" not in seen.headers for seen in at_storage)
    hub = [seen for seen in engine.source.seen if seen.path == "/hub/weights"]
    assert [seen.headers["authorization"] for seen in hub] == [TOKEN]  # the redirect is kept


@only_nginx
def test_a_part_of_a_slice_is_a_whole_slice_to_the_source(engine: Engine) -> None:
    digest = engine.digest()
    check(engine, "/hub/parts", digest, SLICE + 1000, SLICE + 2000)
    check(engine, "/hub/parts", digest, SLICE, 2 * SLICE)
    check(engine, "/hub/parts", digest, 2 * SLICE - 5, 2 * SLICE + 5)  # of two slices
    assert len(engine.source.paths("/hub/parts")) == 1


@only_nginx
def test_a_renamed_model_takes_two_redirects(engine: Engine) -> None:
    check(engine, "/renamed/weights", engine.digest(), 0, SLICE, Authorization=TOKEN)
    asked = [seen for seen in engine.source.seen if seen.path == "/hub/new-name"]
    assert [seen.headers["authorization"] for seen in asked] == [TOKEN]


@only_nginx
def test_a_redirect_to_any_other_host_is_refused(engine: Engine) -> None:
    assert engine.part("/away/weights", engine.digest(), 0, SLICE).status == 502
    assert not engine.source.paths("/objects/a")


@only_nginx
def test_documents_are_asked_again_as_they_were_written(engine: Engine) -> None:
    engine.get("/documents/refs%2Fpr%2F1?cursor=a%3D")
    assert engine.source.seen[-1].path == "/documents/refs%2Fpr%2F1?cursor=a%3D"


def test_what_nginx_keeps_it_has_after_a_restart_and_while_the_source_is_away(
    tmp_path: Path,
) -> None:
    digest = f"sha256:{19:064x}"
    with Source() as source:
        for _ in range(2):
            with nginx_cache(source.url, tmp_path / "cache") as url:
                cache = Engine("nginx", url, source, source)
                check(cache, "/objects/weights", digest, 0, SLICE)
                assert cache.get("/documents/list").body == b"2"
        assert source.paths() == ["/objects/weights", "/documents/list"]
    with nginx_cache(source.url, tmp_path / "cache") as url:
        check(Engine("nginx", url, source, source), "/objects/weights", digest, 0, SLICE)


def test_the_storage_of_known_hubs_is_as_the_page_says(tmp_path: Path) -> None:
    page = (CACHES.parents[1] / "docs/fleet.md").read_text()
    found = re.findall(r"^\| .* \| `([a-z.]+)` \| `(https:.*)` \|$", page, re.MULTILINE)
    storage = {host: pattern.replace("\\|", "|") for host, pattern in found}
    assert storage.keys() == {"huggingface.co", "modelscope.cn", "ghcr.io"}
    for hub, url in (
        ("huggingface.co", "https://cas-bridge.xethub.hf.co"),
        ("huggingface.co", "https://cdn-lfs-us-1.huggingface.co"),
        ("ghcr.io", "https://pkg-containers.githubusercontent.com"),
    ):
        assert re.fullmatch(storage[hub], url)
        assert not re.fullmatch(storage[hub], f"{url}.example.org")
        assert not re.fullmatch(storage[hub], "https://evil.example.org")
    every = "|".join(storage.values())
    with Source() as source, nginx_cache(source.url, tmp_path / "cache", STORAGE=every) as url:
        assert Engine("nginx", url, source, source).get("/documents/list").status == 200


def test_a_tls_source_is_verified_by_its_name(tmp_path: Path) -> None:
    for directory in ("tls", "other"):
        (tmp_path / directory).mkdir()
    authority, other = Authority.make(tmp_path / "tls"), Authority.make(tmp_path / "other")
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with RawServer(lambda _: body, authority=authority, closes=True) as server:
        source = server.url.rstrip("/").replace("127.0.0.1", "localhost")
        for bundle, status in ((authority.bundle, 200), (other.bundle, 502)):
            home = tmp_path / bundle.parent.name / "cache"
            with nginx_cache(source, home, CA_BUNDLE=str(bundle)) as url:
                assert Engine("nginx", url, Source(), Source()).get("/list").status == status
