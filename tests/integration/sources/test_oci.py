"""Reading OCI registries: log-ins and tokens, redirects, mirrors, lists, and odd answers."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

import pytest

from axonfs.errors import (
    AccessDeniedError,
    ChangedError,
    DeadlineError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from axonfs.http_client import Answer, Bodies, Documents, Limits, Location, Routes
from axonfs.names import Spec, oci_version, parse_spec
from axonfs.oci import OciSigner, place_of, tokens
from axonfs.oci.credentials import Credentials
from axonfs.sources import OciRegistry, oci_registries
from axonfs.sources.oci_lists import OciLists
from tests.support.dockerregistry import DockerRegistry, Packed, archive, sha256
from tests.support.faulty import Exchange, Fault, drip, drip_headers, reset_within, status
from tests.support.tinyoci import PASSWORD, USER, TinyOci, lay_out, put_blob, put_manifest

BODY = bytes(range(256)) * 400
REPOSITORY = "nlp/tiny"
SPEC = parse_spec("oci/team/nlp/tiny@1.0")
LIMITS = Limits(attempts=1)
DIRECT = Routes({})


def model() -> Packed:
    return Packed().add("config.json", b"{}").add("model.bin", BODY)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's config file, without credentials."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker/config.json"


def log_in(docker: Path, host: str, password: str = PASSWORD) -> None:
    entry = {"username": USER, "password": password}
    docker.write_text(json.dumps({"auths": {host: entry}}))


@pytest.fixture
def tiny(tmp_path: Path, docker: Path) -> Iterator[TinyOci]:
    lay_out(tmp_path / "site", REPOSITORY, "1.0", model())
    with TinyOci(tmp_path / "site") as server:
        yield server


class Reader:
    """A source, and what its bytes are read with."""

    def __init__(self, url: str, signer: OciSigner, documents: Documents, bodies: Bodies) -> None:
        signer.learn([url])
        self.source = OciRegistry(place_of(url), documents)
        self.bodies = bodies

    async def version(self) -> Spec:
        found = await self.source.alias(SPEC)
        assert found is not None
        return Spec(SPEC.namespace, SPEC.name, found)

    async def location(self) -> Location:
        found = await self.source.manifest(await self.version())
        assert found is not None
        manifest, base = found
        entry = manifest.file("model.bin")
        assert entry is not None
        return self.source.locate(base, entry)

    def read(self, location: Location, start: int, stop: int, size: int = len(BODY)) -> bytes:
        taken = bytearray()
        self.bodies.read(
            location, start, stop, size, lambda _, piece: taken.extend(piece), unit=1 << 16
        )
        return bytes(taken)


Opened: TypeAlias = Callable[[str], Reader]


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    async with AsyncExitStack() as stack:
        signer = OciSigner()
        signers = {"oci": signer}
        documents = Documents(LIMITS, routes=DIRECT, signers=signers)
        await stack.enter_async_context(documents)
        bodies = stack.enter_context(Bodies(LIMITS, routes=DIRECT, signers=signers))
        yield lambda url: Reader(url, signer, documents, bodies)


def url_of(tiny: TinyOci, more: str = "") -> str:
    return f"oci://{tiny.host}?alias=team{more}"


async def test_a_token_is_requested_for_the_repository_and_used_until_it_expires(
    tiny: TinyOci, opened: Opened
) -> None:
    tiny.wants = "bearer"
    reader = opened(url_of(tiny))
    location = await reader.location()
    assert reader.read(location, 0, 50) == BODY[:50]
    asked = {"service": ["tiny"], "scope": [f"repository:{REPOSITORY}:pull"]}
    assert tiny.queries == [asked]
    tiny.token = "second"  # the first one is no longer accepted
    assert reader.read(location, 50, len(BODY)) == BODY[50:]
    assert tiny.queries == [asked, asked]


async def test_a_token_is_renewed_before_its_end(tiny: TinyOci, opened: Opened) -> None:
    tiny.wants, tiny.lifetime = "bearer", 0.001  # type: ignore[assignment]
    reader = opened(url_of(tiny))
    location = await reader.location()
    refused = len(tiny.origin.requests) - len(tiny.seen("/token"))
    reader.read(location, 0, 50)
    reader.read(location, 50, 60)
    requests = len(tiny.origin.requests) - len(tiny.seen("/token")) - refused
    assert requests == 2  # neither was refused first


@pytest.mark.parametrize(
    "lifetime",
    [10**400, math.nan, math.inf, -1, "soon"],
    ids=["huge", "nan", "inf", "past", "text"],
)
async def test_a_token_with_an_odd_lifetime_is_used(
    tiny: TinyOci, opened: Opened, lifetime: float
) -> None:
    tiny.wants, tiny.lifetime = "bearer", lifetime  # type: ignore[assignment]
    reader = opened(url_of(tiny))
    assert reader.read(await reader.location(), 0, 50) == BODY[:50]


async def test_readers_that_wait_for_a_token_fail_together(
    tiny: TinyOci, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "SETTLED", 0)
    tiny.wants = "bearer"
    reader = opened(url_of(tiny))
    location = await reader.location()
    tiny.token, asked, readers = "revoked", len(tiny.queries), 4

    def broken(exchange: Exchange, _: str) -> None:
        while len(tiny.seen("/blobs/")) < readers:
            time.sleep(0.01)
        status(503)(exchange)

    def read() -> None:
        with pytest.raises(UnavailableError, match="the server of tokens answered 503"):
            reader.read(location, 0, 50)

    monkeypatch.setattr(tiny, "_give_token", broken)
    with ThreadPoolExecutor(readers) as pool:
        reading = [pool.submit(read) for _ in range(readers)]
        for one in reading:
            one.result()
    assert len(tiny.queries) - asked == tokens.ATTEMPTS


async def test_tokens_for_two_repositories_are_requested_at_once(
    tiny: TinyOci, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path / "site", "other", "1.0", model())
    tiny.wants, give, both = "bearer", tiny._give_token, threading.Barrier(2)

    def together(exchange: Exchange, authorization: str) -> None:
        both.wait(10)
        give(exchange, authorization)

    monkeypatch.setattr(tiny, "_give_token", together)
    reader = opened(url_of(tiny))
    urls = [f"oci://{tiny.host}/v2/{name}/blobs/{sha256(BODY)}" for name in (REPOSITORY, "other")]
    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(reader.read, Location(url, signed=True), 0, 50) for url in urls]
        assert [one.result() for one in reading] == [BODY[:50]] * 2


@pytest.mark.parametrize("slow", [drip(0.01), drip_headers(0.01)], ids=["body", "headers"])
async def test_a_server_of_tokens_that_sends_single_bytes_holds_no_reader(
    tiny: TinyOci, opened: Opened, monkeypatch: pytest.MonkeyPatch, slow: Fault
) -> None:
    monkeypatch.setattr(tokens, "PATIENCE", 0.5)

    def answer(exchange: Exchange, _: str) -> None:
        status(200, Content_Length="1000")(exchange)
        exchange.body = bytes(1000)
        slow(exchange)

    monkeypatch.setattr(tiny, "_give_token", answer)
    tiny.wants = "bearer"
    with pytest.raises(DeadlineError, match=r"no whole answer within 1 s .*/token"):
        await opened(url_of(tiny)).location()


@pytest.mark.parametrize("wants", ["bearer", "basic"])
async def test_the_users_log_in_is_used(
    tiny: TinyOci, opened: Opened, docker: Path, wants: str
) -> None:
    log_in(docker, tiny.host)
    tiny.wants, tiny.open_to_all = wants, False
    reader = opened(url_of(tiny))
    assert reader.read(await reader.location(), 0, 50) == BODY[:50]


@pytest.mark.parametrize("wants", ["bearer", "basic"])
async def test_a_wrong_log_in_says_what_to_do(
    tiny: TinyOci, opened: Opened, docker: Path, wants: str
) -> None:
    tiny.wants, tiny.open_to_all = wants, False
    reader = opened(url_of(tiny))
    with pytest.raises(AccessDeniedError, match=rf"log in: docker login {tiny.host}"):
        await reader.location()
    log_in(docker, tiny.host, "wrong")
    with pytest.raises(AccessDeniedError, match=r"use an account that may .*: docker login"):
        await reader.location()
    log_in(docker, tiny.host)  # a mount goes on once the user has logged in again
    assert reader.read(await reader.location(), 0, 50) == BODY[:50]


async def test_blobs_may_be_behind_signed_urls_which_expire_and_get_no_token(
    tiny: TinyOci, opened: Opened, docker: Path
) -> None:
    log_in(docker, tiny.host)
    tiny.wants, tiny.signature = "bearer", "one"
    reader = opened(url_of(tiny))
    location = await reader.location()
    before = len(tiny.seen("/blobs/"))
    for start in range(0, 3000, 1000):
        assert reader.read(location, start, start + 1000) == BODY[start : start + 1000]
    assert len(tiny.seen("/blobs/")) == before + 1
    tiny.signature = "two"
    assert reader.read(location, 3000, len(BODY)) == BODY[3000:]
    assert len(tiny.seen("/blobs/")) == before + 2
    assert tiny.storage.requests
    assert all("authorization" not in seen.headers for seen in tiny.storage.requests)


async def test_a_registry_that_names_no_usable_server_of_tokens_gets_no_password(
    tiny: TinyOci, opened: Opened, docker: Path
) -> None:
    log_in(docker, tiny.host)

    def elsewhere(exchange: Exchange) -> None:
        exchange.status = 401
        exchange.headers["WWW-Authenticate"] = 'Bearer realm="ftp://evil.example.com/"'

    tiny.fault = elsewhere
    with pytest.raises(MalformedError, match="no usable server of tokens"):
        await opened(url_of(tiny)).location()


def page(exchange: Exchange) -> None:
    exchange.status, exchange.body = 200, b"<html>Log in</html>"
    exchange.headers = {"Content-Length": str(len(exchange.body))}


async def test_a_web_page_is_no_registry(tiny: TinyOci, opened: Opened) -> None:
    tiny.fault = page
    reader = opened(url_of(tiny))
    for failing in (
        lambda: reader.source.alias(SPEC),
        lambda: reader.source.manifest(Spec("oci", "team/nlp/tiny", oci_version("a" * 64))),
        reader.source.ping,
    ):
        with pytest.raises(MalformedError, match=r"web page.*oci://.*; check the"):
            await failing()
    with pytest.raises(MalformedError, match=r"list is not JSON.*; check its URL"):
        await reader.source.versions(SPEC.model)


async def test_a_manifest_with_other_bytes_than_its_digest_says_is_refused(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    reader = opened(url_of(tiny))
    spec = await reader.version()
    manifests = tmp_path / "site/v2" / REPOSITORY / "manifests"
    digest = spec.version.replace("-", ":")
    (manifests / digest).write_bytes(json.dumps(Packed().add("x", b"y").manifest).encode())
    with pytest.raises(MalformedError, match=rf"sent other bytes.*@{digest}"):
        await reader.source.manifest(spec)


async def test_a_manifest_that_is_huge_is_refused(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    put_manifest(tmp_path / "site", REPOSITORY, "huge", b" " * (4 << 20) + b"{}")
    with pytest.raises(MalformedError, match=r"larger than 4\.0 MiB"):
        await opened(url_of(tiny)).source.alias(parse_spec("oci/team/nlp/tiny@huge"))


async def test_a_layer_with_another_size_than_its_manifest_says_is_refused(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    reader = opened(url_of(tiny))
    location = await reader.location()
    put_blob(tmp_path / "site", REPOSITORY, sha256(BODY), BODY + b"!")
    with pytest.raises(ChangedError, match="bytes now"):
        reader.read(location, 0, 50)


async def test_a_mirror_is_read_first_and_the_registry_where_it_does_not_answer(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    lay_out(tmp_path / "other", f"proxy/{REPOSITORY}", "1.0", model())
    with TinyOci(tmp_path / "other") as mirror:
        reader = opened(url_of(tiny, f"&mirror={mirror.host}/proxy"))
        location = await reader.location()
        assert reader.read(location, 0, 50) == BODY[:50]
        assert tiny.origin.requests == []
        blob = tmp_path / "other/v2/proxy" / REPOSITORY / "blobs" / sha256(BODY)
        blob.unlink()
        assert reader.read(location, 50, 99) == BODY[50:99]
        assert len(tiny.origin.requests) == 1
    with pytest.raises(UsageError, match="used with other options"):
        opened(url_of(tiny))
    assert reader.read(location, 99, 199) == BODY[99:199]  # the mirror is gone


async def test_the_registry_is_read_where_its_mirror_gives_no_token(
    tiny: TinyOci, opened: Opened, docker: Path, tmp_path: Path
) -> None:
    lay_out(tmp_path / "other", REPOSITORY, "1.0", model())
    with TinyOci(tmp_path / "other") as mirror:
        mirror.wants, mirror.lifetime = "bearer", 0.001  # type: ignore[assignment]
        reader = opened(url_of(tiny, f"&mirror={mirror.host}"))
        location = await reader.location()
        log_in(docker, mirror.host, "wrong")
        assert reader.read(location, 0, 50) == BODY[:50]
        assert len(tiny.origin.requests) == 1


async def test_a_mirror_behind_a_web_page_is_not_read(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    with TinyOci(tmp_path) as mirror:
        mirror.fault = page
        reader = opened(url_of(tiny, f"&mirror={mirror.host}"))
        assert reader.read(await reader.location(), 0, 50) == BODY[:50]


def test_each_registry_of_a_host_has_its_own_log_in(docker: Path) -> None:
    signer, urls = OciSigner(), ("oci://h?alias=h", "oci://h/a", "oci://h/a/b?alias=b")
    challenge = Answer("https://h/v2/", 401, {"www-authenticate": "Basic realm=x"})

    def used(repository: str) -> str | None:
        scope = f"repository:{repository}:pull"
        signer.host("h").refused(scope, None, challenge, b"")
        return signer.host("h").authorization(scope)

    with pytest.raises(AccessDeniedError):
        used("a/x")
    signer.learn(urls, {urls[1]: "one:1", urls[2]: "two:2"})  # later than the first use
    assert used("a/x") == Credentials("one", "1").basic
    assert used("a/b/x") == Credentials("two", "2").basic
    with pytest.raises(AccessDeniedError):
        used("ab/x")


async def test_a_list_in_pages_is_read_to_its_end(tiny: TinyOci, opened: Opened) -> None:
    def pages(exchange: Exchange) -> None:
        if "/tags/list" not in exchange.seen.path:
            return
        last = "last=a" in exchange.seen.path
        exchange.body = json.dumps({"tags": ["1.0"] if last else ["a", "-bad", 3]}).encode()
        exchange.headers["Content-Length"] = str(len(exchange.body))
        if not last:
            exchange.headers["Link"] = f'</v2/{REPOSITORY}/tags/list?last=a&n=2>; rel="next"'

    tiny.fault = pages
    found = await opened(url_of(tiny)).source.versions(SPEC.model)
    assert found is not None
    assert list(found.aliases) == ["1.0"]  # nothing is behind the tag `a`
    assert tiny.seen("last=a")


async def test_a_list_that_does_not_end_is_refused(tiny: TinyOci, opened: Opened) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.headers["Link"] = '<?last=a>; rel="next"'

    tiny.fault = endless
    with pytest.raises(MalformedError, match="does not end"):
        await opened(url_of(tiny)).source.versions(SPEC.model)


def tags_of(total: int, page: int) -> Fault:
    """A list of tags, which are numbers, in pages."""

    def pages(exchange: Exchange) -> None:
        if "/tags/list" not in exchange.seen.path:
            return
        query = parse_qs(urlsplit(exchange.seen.path).query)
        start = int(query.get("last", ["-1"])[0]) + 1
        stop = min(start + page, total)
        status(200)(exchange)
        exchange.body = json.dumps({"tags": list(map(str, range(start, stop)))}).encode()
        exchange.headers["Content-Length"] = str(len(exchange.body))
        if stop < total:
            exchange.headers["Link"] = f'<https://elsewhere/?last={stop - 1}>; rel="next"'

    return pages


async def test_a_list_in_many_small_pages_is_read_to_its_end(tiny: TinyOci, opened: Opened) -> None:
    tiny.fault = tags_of(120, 1)
    lists = OciLists(tiny.host, opened(url_of(tiny)).source._documents, None)
    assert len(await lists.names(f"{REPOSITORY}/tags/list", "tags")) == 120


async def test_a_repository_of_which_no_tag_can_be_read_is_not_listed_as_empty(
    tiny: TinyOci, opened: Opened
) -> None:
    def busy(exchange: Exchange) -> None:
        if "/manifests/" in exchange.seen.path:
            status(429)(exchange)

    tiny.fault = busy
    with pytest.raises(UnavailableError, match="429"):
        await opened(url_of(tiny)).source.versions(SPEC.model)


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


@pytest.mark.parametrize("name", ["UPPER/x@1", "a.@1", "__pycache__@1", "a@1+2", f"a@{'b' * 200}"])
async def test_a_name_that_no_registry_can_have_is_not_requested(
    tiny: TinyOci, opened: Opened, name: str
) -> None:
    tiny.fault = status(400)
    spec = parse_spec(f"oci/team/{name}")
    source = opened(url_of(tiny)).source
    assert await source.alias(spec) is None
    assert not tiny.origin.requests


async def test_a_name_that_the_registry_refuses_does_not_exist(
    tiny: TinyOci, opened: Opened
) -> None:
    def refuse(exchange: Exchange) -> None:
        status(400)(exchange)
        exchange.body = b'{"errors": [{"code": "NAME_INVALID", "message": "no project"}]}'
        exchange.headers["Content-Length"] = str(len(exchange.body))

    tiny.fault = refuse
    source = opened(url_of(tiny)).source
    assert await source.alias(SPEC) is None
    assert await source.versions(SPEC.model) is None


async def test_a_repository_may_be_called_blobs(
    docker_registry: DockerRegistry, opened: Opened, docker: Path
) -> None:
    source = opened(f"oci://{docker_registry.host}?alias=team").source
    assert await source.alias(parse_spec("oci/team/blobs@1")) is None
    docker_registry.push("blobs", "1", model())
    assert await source.alias(parse_spec("oci/team/blobs@1")) is not None


async def test_a_registry_that_limits_requests_says_so(tiny: TinyOci, opened: Opened) -> None:
    def limit(exchange: Exchange) -> None:
        status(429, Retry_After="7")(exchange)
        exchange.body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate limit"}]}'
        exchange.headers["Content-Length"] = str(len(exchange.body))

    tiny.fault = limit
    with pytest.raises(UnavailableError, match=r"429 .*TOOMANY.*pull rate.*log-in") as caught:
        await opened(url_of(tiny)).source.alias(SPEC)
    assert (caught.value.transient, caught.value.retry_after) == (True, 7)


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


async def test_latest_is_the_tag_else_the_newest_release(
    docker_registry: DockerRegistry, opened: Opened, docker: Path
) -> None:
    tags = {name: docker_registry.push("pick/one", name, named(name)) for name in ("1.9", "1.10")}
    source = opened(f"oci://{docker_registry.host}?alias=team").source
    spec = parse_spec("oci/team/pick/one")
    assert await source.alias(spec) == oci_version(tags["1.10"].removeprefix("sha256:"))
    digest = docker_registry.push("pick/one", "latest", named("latest"))
    assert await source.alias(spec) == oci_version(digest.removeprefix("sha256:"))
    assert await source.alias(parse_spec("oci/team/pick/none")) is None
    found = await source.versions(spec.model)
    assert found is not None
    assert (len(found.versions), found.latest) == (3, oci_version(digest.removeprefix("sha256:")))


def named(name: str) -> Packed:
    return Packed().add("name", name.encode())


async def test_a_search_lists_repositories_where_the_registry_allows_it(
    docker_registry: DockerRegistry, tiny: TinyOci, opened: Opened
) -> None:
    docker_registry.push("find/alpha-model", "1", named("1"))
    docker_registry.push("find/beta-model", "1", named("1"))
    source = opened(f"oci://{docker_registry.host}/find?alias=team").source
    assert [str(hit.spec) for hit in await source.search("model beta")] == [
        "oci/team/beta-model@latest"
    ]
    assert len(await source.search("model")) == 2
    other = opened(url_of(tiny)).source  # it has no list, so only a whole name is found
    assert [str(hit.spec) for hit in await other.search(REPOSITORY)] == ["oci/team/nlp/tiny@latest"]
    with pytest.raises(NotFoundError, match=r"does not list .* 404.* oci/team/REPOSITORY$"):
        await other.search("tin")
    tiny.wants = "basic"
    with pytest.raises(NotFoundError, match=r"does not list .* denied.*, or log in: docker login"):
        await other.search("tin")


async def test_the_config_of_a_model_says_what_it_is(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    told = {
        "descriptor": {
            "description": "a  test",
            "licenses": ["MIT"],
            "createdAt": "2026-01-02T03:04:05Z",
        },
        "config": {"format": "safetensors"},
    }
    packed = Packed(config=json.dumps(told).encode()).add("a", b"b")
    lay_out(tmp_path / "site", REPOSITORY, "told", packed)
    source = opened(url_of(tiny)).source
    version = await source.alias(parse_spec("oci/team/nlp/tiny@told"))
    found = await source.manifest(Spec(SPEC.namespace, SPEC.name, str(version)))
    assert found is not None
    made = found[0]
    assert (made.description, made.license, made.format) == ("a test", "MIT", "safetensors")
    assert made.created == 1767323045.0


async def test_a_model_is_served_without_its_config(
    tiny: TinyOci, opened: Opened, tmp_path: Path
) -> None:
    packed = model()
    (tmp_path / "site/v2" / REPOSITORY / "blobs" / sha256(packed.config)).unlink()
    reader = opened(url_of(tiny))
    assert reader.read(await reader.location(), 0, 50) == BODY[:50]


async def test_two_registries_with_one_alias_are_refused(opened: Opened, tiny: TinyOci) -> None:
    urls = ["oci://a.example.com?alias=x", "oci://b.example.com?alias=x"]
    with pytest.raises(UsageError, match=r"would both be oci/x.*alias=NAME"):
        oci_registries(urls, opened(url_of(tiny)).source._documents, None)


async def test_the_digest_of_a_version_is_that_of_its_manifest(
    docker_registry: DockerRegistry, opened: Opened
) -> None:
    digest = docker_registry.push("a/b/c", "v1", model())
    source = opened(f"oci://{docker_registry.host}/a?alias=team").source
    version = await source.alias(parse_spec("oci/team/b/c@v1"))
    assert version == digest.replace(":", "-")
    spec = parse_spec(f"oci/team/b/c@{digest}")
    found = await source.manifest(spec)
    assert found is not None
    assert [(entry.path, entry.digest) for entry in found[0].files] == [
        ("config.json", hashlib.sha256(b"{}").hexdigest()),
        ("model.bin", hashlib.sha256(BODY).hexdigest()),
    ]
    assert found[1] == f"oci://{docker_registry.host}/a/b/c@{digest}/"
    absent = parse_spec(f"oci/team/b/c@sha256:{'0' * 64}")
    assert await source.manifest(absent) is None
