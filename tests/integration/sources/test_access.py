"""Registries that refuse: what is absent, what is denied, and what was there before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from axonfs.errors import AccessDeniedError, NotFoundError
from axonfs.http_client import Documents, Routes
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.sources import RegistrySource
from axonfs.store import Store
from tests.support import faulty
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import make_model

SPEC = parse_spec("nlp/tiny@1.0.0")


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyOrigin]:
    make_model(tmp_path / "source", {"a": 10})
    publish(tmp_path / "source", SPEC, tmp_path / "registry")
    with FaultyOrigin(tmp_path / "registry") as origin:
        yield origin


def absent_is(status: int) -> faulty.Fault:
    def fault(exchange: Exchange) -> None:
        if exchange.status == 404:
            faulty.status(status)(exchange)

    return fault


Source = Callable[..., RegistrySource]


@pytest.fixture
async def source(origin: FaultyOrigin, store: Store) -> AsyncIterator[Source]:
    async with Documents(routes=Routes({})) as documents:

        def made(token: str | None = None) -> RegistrySource:
            return RegistrySource(origin.url, documents, token, cache=store)

        yield made


NOWHERE = parse_spec("nlp/tiny@2.0.0")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_what_is_absent_without_a_token(
    origin: FaultyOrigin, source: Source, status: int
) -> None:
    origin.always(absent_is(status))
    registry = source()
    assert await registry.manifest(NOWHERE) is None, "though nothing was asked before"
    assert await registry.manifest(SPEC) is not None
    assert await registry.versions("nlp/none") is None
    assert registry.denial is None


async def test_a_401_to_a_token_is_about_the_token(origin: FaultyOrigin, source: Source) -> None:
    origin.always(absent_is(401))
    registry = source("s3cret")
    assert await registry.listings() is not None
    with pytest.raises(AccessDeniedError, match="token"):
        await registry.manifest(NOWHERE)
    with pytest.raises(AccessDeniedError):
        await registry.versions("nlp/none")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("token", [None, "s3cret"])
async def test_one_that_refuses_everything(
    origin: FaultyOrigin, source: Source, status: int, token: str | None
) -> None:
    origin.always(faulty.status(status))
    registry = source(token)
    with pytest.raises(AccessDeniedError, match="with-token"):
        await registry.manifest(SPEC)
    with pytest.raises(AccessDeniedError, match="with-token"):
        await registry.search("tiny")
    assert registry.denial is not None
    origin.always(None)
    assert await registry.manifest(SPEC) is not None
    assert registry.denial is None


async def test_what_was_there_is_refused_and_not_absent(
    origin: FaultyOrigin, source: Source
) -> None:
    """A token that expires takes no model away."""
    registry = source()
    assert await registry.listings() is not None
    assert await registry.versions("nlp/tiny") is not None
    for again in (registry, source()):
        origin.always(faulty.status(403))
        with pytest.raises(AccessDeniedError):
            await again.listings()
        with pytest.raises(AccessDeniedError):
            await again.versions("nlp/tiny")
        with pytest.raises(AccessDeniedError):
            await again.manifest(SPEC)


async def test_a_registry_without_a_search_or_an_index(
    origin: FaultyOrigin, source: Source, tmp_path: Path
) -> None:
    (tmp_path / "registry/api/v1/index.json").unlink()
    origin.always(absent_is(403))
    registry = source()
    assert await registry.manifest(SPEC) is not None
    with pytest.raises(NotFoundError, match="neither a search nor an index"):
        await registry.search("tiny")
