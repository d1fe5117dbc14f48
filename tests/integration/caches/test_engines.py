"""What every engine does: each byte is asked for once, and nothing is told to the wrong reader."""

from __future__ import annotations

import http.client
import re
from urllib.parse import urlsplit

from axonfs.http_client.caches import SLICE
from tests.integration.caches.conftest import BODY, TOKEN, Engine
from tests.support.sitecaches import CACHES


def check(engine: Engine, path: str, digest: str, start: int, stop: int, **more: str) -> None:
    got = engine.part(path, digest, start, stop, **more)
    stop = min(stop, len(BODY))
    assert got.status == 206
    assert got.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"
    assert got.body == BODY[start:stop]


def test_an_object_leaves_the_source_once(engine: Engine) -> None:
    digest, path = engine.digest(), "/objects/once"
    for _ in range(2):
        for start in range(0, len(BODY), SLICE):
            check(engine, path, digest, start, start + SLICE)
    slices = 1 if engine.name == "squid" else 3
    assert len(engine.source.paths(path)) == slices


def test_readers_of_one_slice_at_the_same_time_ask_once(engine: Engine) -> None:
    asked = {"Range": f"bytes=0-{SLICE - 1}", "Axonfs_Object": engine.digest()}
    answers = engine.all_at_once(8, "/objects/together", **asked)
    assert {answer.body == BODY[:SLICE] for answer in answers} == {True}
    assert len(engine.source.paths("/objects/together")) == 1


def test_the_digest_is_the_key_whatever_the_url_is(engine: Engine) -> None:
    digest = engine.digest()
    check(engine, "/objects/one-mirror?signature=1", digest, 0, SLICE)
    check(engine, "/objects/other-mirror?signature=2", digest, 0, SLICE)
    assert not engine.source.paths("/objects/other-mirror")


def test_no_cache_replaces_wrong_bytes(engine: Engine) -> None:
    digest, path = engine.digest(), "/objects/wrong"
    try:
        engine.source.body = bytes(len(BODY))
        assert engine.part(path, digest, 0, SLICE).body == bytes(SLICE)
    finally:
        engine.source.body = BODY
    assert engine.part(path, digest, 0, SLICE).body == bytes(SLICE)
    check(engine, path, digest, 0, SLICE, Cache_Control="no-cache")
    check(engine, path, digest, 0, SLICE)


def test_a_fleets_question_is_one(engine: Engine) -> None:
    answers = engine.all_at_once(8, "/documents/branch")
    assert {answer.status for answer in answers} == {200}
    # Squid asks again for who comes after the first answer, since the source says no-cache.
    assert len(engine.source.paths("/documents/branch")) <= (4 if engine.name == "squid" else 1)


def test_what_a_token_may_read_is_not_told_to_others(engine: Engine) -> None:
    digest, path = engine.digest(), "/private/weights"
    assert engine.part(path, digest, 0, SLICE).status == 401
    check(engine, path, digest, 0, SLICE, Authorization=TOKEN)
    assert engine.part(path, digest, 0, SLICE).status == 401
    assert engine.get("/private/manifest", Authorization=TOKEN).status == 200
    assert engine.get("/private/manifest").status == 401
    assert engine.get("/private/manifest", Authorization="Bearer wrong").status == 401


def test_a_limit_of_requests_is_passed_on_and_not_kept(engine: Engine) -> None:
    for _ in range(2):
        got = engine.part("/busy", engine.digest(), 0, SLICE)
        assert (got.status, got.headers["retry-after"]) == (429, "7")
    assert len(engine.source.paths("/busy")) == 2


def test_nothing_but_the_source_is_reached(engine: Engine) -> None:
    at = urlsplit(engine.url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
    elsewhere = urlsplit(engine.storage.url)
    connection.request("GET", f"{engine.storage.url}/objects/elsewhere")
    connection.getresponse().read()
    connection.close()
    with_host = {"Host": elsewhere.netloc, "Axonfs_Object": engine.digest()}
    engine.get("/objects/elsewhere", **with_host)
    assert not engine.storage.paths("/objects/elsewhere")


def test_only_reading_is_allowed(engine: Engine) -> None:
    at = urlsplit(engine.url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
    connection.request("POST", "/objects/posted", body=b"x")
    assert connection.getresponse().status in (403, 405)
    connection.close()
    assert not engine.source.paths("/objects/posted")


def test_nginx_cuts_slices_as_axonfs_asks_for_them() -> None:
    text = (CACHES / "nginx.conf.template").read_text()
    assert re.findall(r"\bslice (\d+)m;", text) == [str(SLICE >> 20)]
