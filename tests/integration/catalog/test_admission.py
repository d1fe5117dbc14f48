"""Which versions are admitted, with real registries: how often one asks, and what counts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from axonfs.catalog.tree import Tree
from axonfs.engine import open_engine
from axonfs.errors import UnavailableError, UntrustedError
from axonfs.names import parse_spec
from axonfs.publish.registry import Registry
from axonfs.publish.signatures import sign
from axonfs.settings.settings import Settings
from axonfs.signatures import verdict, verifying
from axonfs.signatures.signing import key_signer
from axonfs.storage import Directory
from tests.support.faulty import hang_up_before, redirect, status
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import SPEC, published
from tests.support.signing import Authority, key_pair, no_password

VERSION = parse_spec(SPEC)
SIZES = {"weights.bin": 5000}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_pair(tmp_path / "keys", "team")


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(published(tmp_path, SIZES)) as origin:
        yield origin


def add(origin: FaultyOrigin, key: Path, certificate: Path | None = None) -> None:
    registry = Registry(Directory(origin.directory))
    signer = key_signer(key, no_password, certificate)
    sign(registry, registry.published(VERSION), signer)


@asynccontextmanager
async def tree(tmp_path: Path, url: str, *rules: Path | str) -> AsyncIterator[Tree]:
    settings = Settings(
        (url.rstrip("/"),),
        tmp_path / "cache",
        cache_size=1 << 30,
        deadline=2,
        retries=0,
        require_signature=tuple(map(str, rules)),
    )
    async with open_engine(settings) as engine:
        yield engine.tree


def asked(origin: FaultyOrigin) -> int:
    return sum("signatures.jsonl" in seen.path for seen in origin.requests)


async def test_many_readers_ask_once(tmp_path: Path, origin: FaultyOrigin, key: Path) -> None:
    add(origin, key)
    for _ in range(2):  # the second time from the cache
        async with tree(tmp_path, origin.url, key.with_suffix(".pub")) as found:
            async with trio.open_nursery() as readers:
                for _ in range(20):
                    readers.start_soon(found.version, VERSION)
            assert asked(origin) == 1


async def test_a_refusal_is_for_a_moment(
    tmp_path: Path, origin: FaultyOrigin, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tree(tmp_path, origin.url, key.with_suffix(".pub")) as found:
        for _ in range(3):
            with pytest.raises(UntrustedError, match="it has no signature"):
                await found.version(VERSION)
        assert asked(origin) == 1
        add(origin, key)
        with pytest.raises(UntrustedError):
            await found.version(VERSION)
        now = time.time() + verdict.REFUSED_FOR + 1
        monkeypatch.setattr(time, "time", lambda: now)
        await found.version(VERSION)
        assert asked(origin) == 2


async def test_a_refusal_ends_when_the_clock_is_set_back(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine was started with a wrong clock, by which the certificate has expired."""
    authority = Authority(tmp_path / "keys", "authority")
    certificate = authority.issue(tmp_path, "alice@example.org", stop=1)
    add(origin, certificate.with_suffix(".key"), certificate)
    with monkeypatch.context() as wrong:
        then = time.time() + 2 * 24 * 3600
        wrong.setattr(time, "time", lambda: then)
        wrong.setattr(verifying, "outdated", lambda _: "expired on 2026-01-01")
        async with tree(tmp_path, origin.url, authority.path) as found:
            with pytest.raises(UntrustedError, match="expired on"):
                await found.version(VERSION)
            wrong.undo()
            await found.version(VERSION)


async def test_a_registry_that_does_not_answer_is_no_refusal(
    tmp_path: Path, origin: FaultyOrigin, key: Path
) -> None:
    add(origin, key)
    async with tree(tmp_path, origin.url, key.with_suffix(".pub")) as found:
        origin.plan(status(503), hang_up_before, of="signatures.jsonl")
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await found.version(VERSION)
        await found.version(VERSION)


async def test_a_certificate_that_ends_is_looked_at_again(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "keys", "authority")
    certificate = authority.issue(tmp_path, "alice@example.org", stop=1)
    add(origin, certificate.with_suffix(".key"), certificate)
    async with tree(tmp_path, origin.url, authority.path) as found:
        for _ in range(2):
            await found.version(VERSION)
        then = time.time() + 2 * 24 * 3600
        monkeypatch.setattr(time, "time", lambda: then)
        ended = "expired on that day"
        monkeypatch.setattr(
            verifying, "outdated", lambda one: ended if "alice" in str(one.subject) else None
        )
        with pytest.raises(UntrustedError, match=f"a certificate of its signature {ended}"):
            await found.version(VERSION)
        renewed = authority.issue(tmp_path, "bob@example.org")
        add(origin, renewed.with_suffix(".key"), renewed)
        later = then + verdict.REFUSED_FOR + 1
        monkeypatch.setattr(time, "time", lambda: later)
        await found.version(VERSION)
        assert asked(origin) == 3


async def test_a_redirect_leads_past_no_rule(
    tmp_path: Path, origin: FaultyOrigin, key: Path
) -> None:
    published(tmp_path / "elsewhere", SIZES)
    with FaultyOrigin(tmp_path / "elsewhere/registry") as elsewhere:
        path = f"api/v1/models/{'/'.join(VERSION.segments)}/manifest.yaml"
        rule = f"{origin.url.rstrip('/')}={key.with_suffix('.pub')}"
        async with tree(tmp_path, origin.url, rule) as found:
            origin.plan(redirect(f"{elsewhere.url}{path}"), of="manifest.yaml")
            with pytest.raises(UntrustedError, match="it has no signature"):
                await found.version(VERSION)
        assert len(elsewhere.requests) == 2
