"""A hub's models that need a token, where the token goes, and what a search finds."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from axonfs.errors import AccessDeniedError
from axonfs.names import parse_spec
from tests.support.fetching import rig
from tests.support.hub import TOKEN, HubServer, Repo
from tests.support.tinyhub import FILES, NAME, at


async def test_a_gated_model_without_a_token(tmp_path: Path, hub: HubServer, repo: Repo) -> None:
    """It can be looked at; reading says where to ask for access."""
    repo.gated = "manual"
    async with rig(tmp_path, hubs=at(hub)) as parts:
        for path in ("config.json", "model.safetensors"):
            with pytest.raises(AccessDeniedError) as caught:
                await parts.content(path, NAME)
            assert caught.value.errno == errno.EACCES
            assert f"{hub.url}/acme/tiny" in str(caught.value)
            assert "HF_TOKEN" in str(caught.value)


async def test_a_private_model_without_a_token(tmp_path: Path, hub: HubServer, repo: Repo) -> None:
    repo.private = True
    async with rig(tmp_path / "cache", hubs=at(hub)) as parts:
        with pytest.raises(AccessDeniedError, match="private") as caught:
            await parts.tree.version(parse_spec(NAME))
        assert "HF_TOKEN" in str(caught.value)
    async with rig(tmp_path / "cache", hubs=at(hub, TOKEN)) as parts:
        assert await parts.content("config.json", NAME) == FILES["config.json"]


async def test_the_token_goes_to_the_hub_alone(tmp_path: Path, hub: HubServer, repo: Repo) -> None:
    repo.private, repo.gated, hub.page = True, "auto", 3
    async with rig(tmp_path, hubs=at(hub, TOKEN)) as parts:
        assert await parts.content("model.safetensors", NAME) == FILES["model.safetensors"]
        assert await parts.content("config.json", NAME) == FILES["config.json"]
        await parts.tree.versions(NAME)
        await parts.tree.hubs["hf"].search("tiny")
    for request in hub.requests:
        sent = request.headers.get("authorization")
        assert sent == (f"Bearer {TOKEN}" if request.origin == "hub" else None)
        assert TOKEN not in request.path
    assert hub.asked(origin="storage")
    assert TOKEN not in repr(parts.tree.hubs)


async def test_a_token_that_is_not_valid(tmp_path: Path, hub: HubServer, repo: Repo) -> None:
    repo.private = True
    async with rig(tmp_path, hubs=at(hub, "hf_old")) as parts:
        with pytest.raises(AccessDeniedError, match="token"):
            await parts.tree.version(parse_spec(NAME))


async def test_search_and_facts(tmp_path: Path, hub: HubServer) -> None:
    async with rig(tmp_path, hubs=at(hub)) as parts:
        source = parts.tree.hubs["hf"]
        (found,) = await source.search("TINY")
        assert str(found.spec) == f"{NAME}@main"
        assert found.license == "apache-2.0"
        assert "1234567 downloads" in found.description
        assert await source.search("nothing") == []
        facts = await source.facts(parse_spec(NAME))
        assert facts["downloads"] == 1234567
        assert facts["gated"] == "no"


async def test_branches_that_are_refused_take_no_model_away(
    tmp_path: Path, hub: HubServer, repo: Repo
) -> None:
    hub.fail("/refs", 403)
    async with rig(tmp_path, hubs=at(hub)) as parts:
        found = await parts.tree.versions(NAME)
        assert (found.latest, found.aliases) == (repo.branches["main"], {"main": found.latest})
