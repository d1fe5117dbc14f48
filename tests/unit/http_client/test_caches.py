"""Site caches: which one is asked for what, at which URL, and when a failed one is asked again."""

import posixpath
from collections import Counter
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import UnavailableError
from axonfs.http_client import caches
from axonfs.http_client.caches import Cache, Caches, SiteCaches, Through
from axonfs.http_client.urls import Url, split_url

SOURCE = "https://reg.example/models"
THREE = tuple(f"http://cache-{number}:8080/m" for number in (1, 2, 3))
BROKEN = UnavailableError("the server answered 502")


def site(source: str = SOURCE, *urls: str) -> SiteCaches:
    return SiteCaches(source, urls or THREE)


def at(address: str, url: str = "http://cache:80/m") -> Url:
    found = split_url(url)
    return replace(found, origin=found.origin._replace(address=address))


def test_the_order_is_the_same_on_every_host_and_in_every_release() -> None:
    """A change of this order sends each slice of a running fleet to another cache."""
    for caches_ in (site(), site(SOURCE, *reversed(THREE))):
        orders = [[THREE.index(cache.name) for cache in caches_.order(key)] for key in ("a", "b")]
        assert orders == [[1, 0, 2], [0, 2, 1]]


def test_each_cache_gets_its_share_and_one_that_goes_moves_only_its_own() -> None:
    all_three, two = site(), site(SOURCE, *THREE[:2])
    keys = [f"digest:{number}" for number in range(3000)]
    first = {key: all_three.order(key)[0].name for key in keys}
    assert all(900 < count < 1100 for count in Counter(first.values()).values())
    moved = [key for key in keys if two.order(key)[0].name != first[key]]
    assert {first[key] for key in moved} == {THREE[2]}
    assert [all_three.order(key)[1].name for key in moved] == [
        two.order(key)[0].name for key in moved
    ]


@pytest.mark.parametrize(
    ("source", "url", "signed", "asked"),
    [
        (SOURCE, f"{SOURCE}/objects/sha256/ab/abc?x=1", None, "/m/objects/sha256/ab/abc?x=1"),
        (SOURCE + "/", f"{SOURCE}/a%20b", None, "/m/a%20b"),
        ("https://huggingface.co", "https://huggingface.co/a/b", None, "/m/a/b"),
        ("oci://r.example/team?alias=x", "oci://r.example/v2/team/a/blobs/sha256:ab",
         "https://r.example/v2/team/a/blobs/sha256:ab", "/m/v2/team/a/blobs/sha256:ab"),
        ("s3://bucket/models", "s3://bucket/models/objects/x",
         "https://s3.example/bucket/models/objects/x", "/m/bucket/models/objects/x"),
    ],
)  # fmt: skip
def test_where_a_cache_is_asked(source: str, url: str, signed: str | None, asked: str) -> None:
    caches_ = site(source)
    cache = caches_.order("")[0]
    found = caches_.rewritten(cache, url, split_url(signed) if signed else None)
    assert found is not None
    assert (found.origin, found.target) == (cache.url.origin, asked)
    if not signed:
        assert caches_.restored(cache, found) == url


@pytest.mark.parametrize(
    "url",
    ["https://reg.example/modelsx/a", "https://reg.example/", "http://reg.example/models/a",
     "https://other.example/models/a", "https://reg.example:444/models/a", "s3://reg.example/models/a",
     f"{SOURCE}/../secret", f"{SOURCE}/a/%2e%2E/%2e./secret", "nonsense", "http://[::1/"],
)  # fmt: skip
def test_what_is_not_below_the_source_has_no_cache(url: str) -> None:
    caches_ = site()
    assert caches_.rewritten(caches_.order("")[0], url) is None
    assert Caches([caches_]).of(url) is None


@given(st.text("abz./%\\?#@:2eE5cC0", max_size=12))
def test_no_url_leads_above_the_cache_s_or_to_another_host(rest: str) -> None:
    caches_ = site()
    cache = caches_.order("")[0]
    found = caches_.rewritten(cache, f"{SOURCE}/{rest}")
    if found is not None:
        assert found.origin == cache.url.origin
        path = unquote(found.target.partition("?")[0])
        assert found.target.startswith("/m/")
        assert (posixpath.normpath(path) + "/").startswith("/m/")
        assert not {".", ".."} & set(path.split("/"))


def test_an_answer_from_elsewhere_stands_for_no_url_of_the_source() -> None:
    caches_ = site()
    cache = caches_.order("")[0]
    assert caches_.restored(cache, split_url("http://other:8080/m/a")) is None
    assert caches_.restored(cache, replace(cache.url, target="/mm/a")) is None


def test_a_url_belongs_to_the_source_with_the_longest_url() -> None:
    outer, inner = site("https://reg.example"), site()
    found = Caches([outer, inner])
    assert found.of(f"{SOURCE}/a") is inner
    assert found.of("https://reg.example/other") is outer


def test_a_failed_cache_is_passed_over_and_tried_by_one_request_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    caches_ = site()
    first, second, third = caches_.order("key")
    assert caches_.choose("key") is first
    first.failed(BROKEN)
    assert (caches_.choose("key"), first.state.fault) == (second, BROKEN.what)
    second.failed(BROKEN)
    assert caches_.choose("key", [third]) is None
    trials = []
    for _ in range(200):  # 20 seconds
        now[0] += 0.1
        trials += [now[0]] if first.admits() else []
        assert not first.admits()
    assert [round(trial - 100) for trial in trials] == [1, 3, 7, 12, 17]
    first.answered()
    assert caches_.choose("key") is first
    assert first.state.since is None


def test_many_failures_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    cache = Cache(split_url(THREE[0]))
    for _ in range(16):
        cache.failed(BROKEN)
    now[0] += caches.FIRST_PAUSE
    assert cache.admits()


def test_it_counts_requests_and_bytes() -> None:
    cache = Cache(at("10.0.0.1"))
    cache.asked()
    cache.received(5)
    assert (cache.state.requests, cache.state.bytes, cache.state.address) == (1, 5, "10.0.0.1")
    assert cache.name == "http://cache/m at 10.0.0.1"


def test_each_address_of_a_name_is_a_cache_and_those_known_stay() -> None:
    caches_ = SiteCaches(SOURCE, ["http://cache/m/"])
    caches_.locate("http://cache/m/", [at("10.0.0.1"), at("10.0.0.2")])
    before = {cache.url.origin.address: cache for cache in caches_}
    assert set(before) == {"10.0.0.1", "10.0.0.2"}
    before["10.0.0.2"].failed(BROKEN)
    caches_.locate("http://cache/m/", [at("10.0.0.2"), at("10.0.0.3"), at("10.0.0.3")])
    after = {cache.url.origin.address: cache for cache in caches_}
    assert set(after) == {"10.0.0.2", "10.0.0.3"}
    assert after["10.0.0.2"] is before["10.0.0.2"]


def test_the_error_without_caches_names_what_they_said() -> None:
    caches_ = SiteCaches(SOURCE, THREE, fallback=False)
    for cache in caches_:
        cache.failed(BROKEN)
    error = caches_.none_left(f"{SOURCE}/a")
    assert error.transient
    assert "http://cache-1:8080/m: the server answered 502" in error.what


@pytest.mark.parametrize(
    ("source", "cache", "asked", "told"),
    [
        ("https://reg.example/models", "http://d:4001", "", "https://reg.example/models"),
        ("https://reg.example/models", "http://d:4001/models", "", "https://reg.example"),
        ("https://reg.example", "http://d:4001/elsewhere", "", None),
        ("s3://models/prod", "http://d:4001", "https://s3.example/models/a", "https://s3.example"),
        ("oci://oci.example", "http://d:4001", "https://oci.example/v2/", "https://oci.example"),
    ],
)
def test_a_dragonfly_is_told_its_source(
    source: str, cache: str, asked: str, told: str | None
) -> None:
    """So that it makes the URL of the source of what it is asked for, which it only appends."""
    site = SiteCaches(source, [cache])
    signed = split_url(asked or source)
    headers = Through(site, next(iter(site))).headers(signed)
    assert headers == ({} if told is None else {"X-Dragonfly-Registry": told})
