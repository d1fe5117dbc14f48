"""What is listed and every byte, compared with what Hugging Face's own client gets.

From the tests' hub, from olah before it, and from olah's mirror of a git repository. hf-local-hub
3.0.0 is no server to compare with: it has no tree, revision or refs, and answers 404 for a model
that has an owner, so that the client cannot list a model's files either.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from axonfs.http_client import Limits
from axonfs.names import parse_spec
from axonfs.sources import HubCache
from axonfs.sources.huggingface import HuggingFace
from tests.support import tinyhub
from tests.support.fetching import Rig, rig
from tests.support.hub import HubServer, Repo
from tests.support.olah import git_repository, hub_python, olah
from tests.support.tinyhub import LARGE

pytestmark = [pytest.mark.hub, pytest.mark.slow]

FILES = {path: body for path, body in tinyhub.FILES.items() if body}  # each takes a request
FILES["dir/with space/ü.txt"] = b"a name that is quoted\n"
OLD = {"README.md": FILES["README.md"], "config.json": b"{}\n", "gone.txt": b"gone\n"}
# Huge next to what is needed: a test of answers must not fail for a slow machine.
PATIENT = Limits(deadline=60)

CLIENT = """
import json, sys
from huggingface_hub import HfApi, snapshot_download
api, repo, revision, where = HfApi(), *sys.argv[1:]
info = api.model_info(repo, revision=revision)
tree = api.list_repo_tree(repo, revision=revision, recursive=True)
files = {
    item.path: [item.size, item.lfs.sha256 if item.lfs else item.blob_id]
    for item in tree if hasattr(item, "blob_id")
}
snapshot_download(repo, revision=revision, local_dir=where)
snapshot_download(repo, revision=revision)
refs = api.list_repo_refs(repo)
named = {ref.name: ref.target_commit for ref in [*refs.branches, *refs.tags]}
print(json.dumps({"sha": info.sha, "files": files, "refs": named}))
"""


@pytest.fixture(params=["hub", "before", "mirror"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    hub_python()
    with ExitStack() as stack:
        if request.param == "mirror":
            place = tmp_path / "mirrors/models/acme/tiny"
            git_repository(place, [(OLD, "v1.0"), (FILES, None)], LARGE)
            yield stack.enter_context(olah(tmp_path / "olah", mirrors=tmp_path / "mirrors"))
            return
        hub = stack.enter_context(HubServer(Repo.tagged(FILES, LARGE, first=OLD)))
        if request.param == "hub":
            yield hub.url
        else:
            yield stack.enter_context(olah(tmp_path / "olah", before=hub.url))


def client(endpoint: str, revision: str, directory: Path) -> dict[str, object]:
    """What Hugging Face's client lists; it downloads the files into `directory`."""
    env = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(directory.parent / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [str(hub_python()), "-c", CLIENT, "acme/tiny", revision, str(directory)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


async def whole(parts: Rig, path: str, spec: str) -> bytes:
    feed = await parts.open(path, spec)
    try:
        await feed.prepare()
        return await parts.read(feed)
    finally:
        feed.close()


@pytest.mark.parametrize("revision", ["main", "v1.0"])
async def test_the_same_as_the_client(tmp_path: Path, endpoint: str, revision: str) -> None:
    reference = client(endpoint, revision, tmp_path / "reference")
    spec = f"hf/acme/tiny@{revision}"
    async with rig(
        tmp_path / "cache",
        limits=PATIENT,
        hubs=lambda documents, store: {"hf": HuggingFace(endpoint, documents, cache=store)},
    ) as parts:
        version = await parts.tree.version(parse_spec(spec))
        assert version.spec.version == reference["sha"]
        listed = {e.path: [e.size, e.git or e.digest] for e in version.manifest.files}
        assert listed == reference["files"]
        assert set(listed) == set(FILES if revision == "main" else OLD)
        assert (await parts.tree.versions("hf/acme/tiny")).aliases == reference["refs"]
        for path in listed:
            assert await whole(parts, path, spec) == (tmp_path / "reference" / path).read_bytes()
        assert parts.fetcher.statistics()["requests"] >= len(listed)
    async with rig(
        tmp_path / "second",
        limits=PATIENT,
        hubs=lambda documents, store: {"hf": HuggingFace(endpoint, documents, cache=store)},
        blobs=HubCache(tmp_path / "home/hub"),
    ) as parts:
        for path in listed:
            assert await whole(parts, path, spec) == (tmp_path / "reference" / path).read_bytes()
        assert parts.fetcher.statistics()["requests"] == 0, "the client's cache has all of it"
