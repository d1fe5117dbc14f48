"""What a hub lists: files, pages, branches and tags, and the listings that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.errors import MalformedError, NotFoundError
from axonfs.formats.manifest import SNAPSHOT, git_digest, parse_manifest
from axonfs.names import parse_spec
from axonfs.sources.huggingface import HuggingFace
from tests.support.fetching import rig
from tests.support.hub import DATE_SECONDS, TOKEN, HubServer, Repo, git_oid, sha256
from tests.support.tinyhub import FILES, LARGE, NAME, at


async def test_a_commit_becomes_a_snapshot(tmp_path: Path, hub: HubServer, repo: Repo) -> None:
    """All files, with sizes and digests, from two answers and no byte of a file."""
    async with rig(tmp_path, hubs=at(hub)) as parts:
        version = await parts.tree.version(parse_spec(f"{NAME}@main"))
    manifest, main = version.manifest, repo.branches["main"]
    assert str(version.spec) == f"{NAME}@{main}"
    assert {entry.path: entry.size for entry in manifest.files} == {
        path: len(body) for path, body in FILES.items()
    }
    for entry in manifest.files:
        body = FILES[entry.path]
        if entry.path in LARGE:
            assert (entry.digest, entry.git) == (sha256(body), None)
        else:
            assert (entry.git, entry.digest) == (git_oid(body), git_digest(git_oid(body)))
    assert manifest.license == "apache-2.0"
    assert manifest.framework == "transformers"
    assert manifest.created == DATE_SECONDS
    assert version.base == f"hf://acme/tiny@{main}/"
    assert not hub.asked("/resolve/")
    again = parse_manifest(manifest.raw, version.spec)
    assert again == manifest
    assert again.kind == SNAPSHOT


async def test_pages_are_joined(tmp_path: Path, hub: HubServer) -> None:
    hub.page = 2
    async with rig(tmp_path, hubs=at(hub)) as parts:
        version = await parts.tree.version(parse_spec(NAME))
        assert {entry.path for entry in version.manifest.files} == set(FILES)
    assert len(hub.asked("/tree/")) == 5


async def test_a_next_page_elsewhere_is_refused(tmp_path: Path, hub: HubServer) -> None:
    """It would be asked for with the token."""
    hub.page, url = 2, hub.url
    hub.url = hub.storage
    async with rig(tmp_path, hubs=lambda d, s: {"hf": HuggingFace(url, d, TOKEN)}) as parts:
        with pytest.raises(MalformedError, match="another host"):
            await parts.tree.version(parse_spec(NAME))
    assert not hub.asked(origin="storage")


async def test_a_mirror_may_name_the_official_host_s_next_page(
    tmp_path: Path, hub: HubServer
) -> None:
    hub.page, url = 2, hub.url
    hub.url = "https://huggingface.co"
    async with rig(tmp_path, hubs=lambda d, s: {"hf": HuggingFace(url, d, TOKEN)}) as parts:
        version = await parts.tree.version(parse_spec(NAME))
        assert {entry.path for entry in version.manifest.files} == set(FILES)
    assert len(hub.asked("/tree/", "hub")) == 5


async def test_branches_and_tags_follow_the_hub(tmp_path: Path, hub: HubServer, repo: Repo) -> None:
    async with rig(tmp_path, hubs=at(hub)) as parts:
        main = repo.branches["main"]
        for name in ("main", "latest", main):
            assert await parts.tree.target(parse_spec(f"{NAME}@{name}")) == main
        assert await parts.tree.target(parse_spec(f"{NAME}@v1.0")) == repo.tags["v1.0"]
        assert await parts.tree.target(parse_spec(f"{NAME}@none")) is None
        versions = await parts.tree.versions(NAME)
        assert versions.latest == main
        assert versions.aliases == {"main": main, "v1.0": repo.tags["v1.0"]}
        moved = repo.commit({"config.json": b"{ }\n"})
        assert await parts.tree.target(parse_spec(f"{NAME}@main")) == main, "within the TTL"
        parts.tree.invalidate()
        assert (await parts.tree.versions(NAME, fresh=True)).latest == moved
        old = await parts.tree.version(parse_spec(f"{NAME}@{main}"))
        assert set(FILES) == {entry.path for entry in old.manifest.files}


async def test_names_that_do_not_exist(tmp_path: Path, hub: HubServer) -> None:
    async with rig(tmp_path, hubs=at(hub, TOKEN)) as parts:
        for text in (f"{NAME}@none", f"{NAME}@{'0' * 40}", "hf/acme/none", "hf/a/b/c/d"):
            with pytest.raises(NotFoundError):
                await parts.tree.version(parse_spec(text))


async def test_a_renamed_model_and_one_without_an_organisation(
    tmp_path: Path, hub: HubServer
) -> None:
    hub.renamed = {"tiny": "acme/tiny", "old/tiny": "acme/tiny"}
    async with rig(tmp_path, hubs=at(hub, TOKEN)) as parts:
        for name in ("hf/tiny@main", "hf/old/tiny"):
            assert await parts.content("config.json", name) == FILES["config.json"]
            assert await parts.content("model.safetensors", name) == FILES["model.safetensors"]


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "file", "path": "a", "size": -1, "oid": "0" * 40},
        {"type": "file", "path": "a", "size": 1, "oid": "main"},
        {"type": "file", "path": "a", "size": 1, "oid": "0" * 40, "lfs": {"oid": "x", "size": 1}},
        {"type": "file", "size": 1, "oid": "0" * 40},
        {"type": "file", "path": "a", "size": True, "oid": "0" * 40},
        "a",
    ],
)
async def test_a_listing_that_breaks_a_rule_is_refused(
    tmp_path: Path, hub: HubServer, repo: Repo, entry: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = repo.tree(repo.branches["main"])
    monkeypatch.setattr(Repo, "tree", lambda self, commit: [*listed, entry])
    async with rig(tmp_path, hubs=at(hub)) as parts:
        with pytest.raises(MalformedError):
            await parts.tree.version(parse_spec(NAME))


async def test_odd_files_are_left_out_and_the_others_served(
    tmp_path: Path,
    hub: HubServer,
    repo: Repo,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def file(path: str, size: int = 1) -> dict[str, object]:
        return {"type": "file", "path": path, "size": size, "oid": "0" * 40}

    odd = ["../up", "/abs", "a//b", "a/./b", "nul\0", "x" * 256, "\udc80", "config.json/x"]
    legal = ["joiner\u200d.txt", "a\nb", "\u202eevil", "Config.json", "größe", "gro\u0308ße", "-"]
    body = FILES["config.json"]
    same = repo.entry("config.json", body)
    other = {**same, "oid": "1" * 40}
    listed = [*repo.tree(repo.branches["main"]), *map(file, odd + legal), same, other]
    monkeypatch.setattr(Repo, "tree", lambda self, commit: listed)
    async with rig(tmp_path, hubs=at(hub)) as parts:
        version = await parts.tree.version(parse_spec(NAME))
        manifest = version.manifest
        assert {entry.path for entry in manifest.files} == {*FILES, *legal}
        assert len(manifest.left_out) == len(odd) + 1, "the second of two that differ is one too"
        assert all(path.isprintable() for path in manifest.left_out)
        assert await parts.content("config.json", NAME) == body
    assert [record.levelname for record in caplog.records if "no directory" in record.message] == [
        "WARNING"
    ]
    async with rig(tmp_path, offline=True, hubs=at(hub)) as parts:
        again = (await parts.tree.version(parse_spec(NAME))).manifest
        assert (again.left_out, again.files) == (manifest.left_out, manifest.files)
