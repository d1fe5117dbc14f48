"""The names that OCI registries list, have and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from axonfs.errors import (
    MalformedError,
    NotFoundError,
    UnavailableError,
)
from axonfs.names import oci_version, parse_spec
from axonfs.sources.oci_lists import OciLists
from tests.support.dockerregistry import DockerRegistry, Packed
from tests.support.faulty import Exchange, Fault, status
from tests.support.ocireader import (
    REPOSITORY,
    SPEC,
    Opened,
    model,
    url_of,
)
from tests.support.tinyoci import TinyOci


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
