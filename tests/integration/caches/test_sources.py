"""Every kind of source behind a real nginx cache: its documents, its bytes, and its log-ins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.support.commands import Run
from tests.support.hub import TOKEN, HubServer, Repo
from tests.support.ocireader import log_in, model
from tests.support.registry import make_model
from tests.support.seaweed import NO_AWS
from tests.support.sitecaches import nginx_cache
from tests.support.tinyhub import FILES, LARGE
from tests.support.tinyoci import TinyOci, lay_out
from tests.support.tinys3 import BUCKET, TinyS3

SPEC = "nlp/tiny@1.0.0"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in NO_AWS.items():
        monkeypatch.setenv(name, text)
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("AXONFS_FALLBACK", "never")
    monkeypatch.setenv("AXONFS_RETRIES", "1")


def pinned(run: Run, tmp_path: Path, spec: str, *options: str) -> dict[str, int]:
    """Sizes of the files of a version that is pinned in an empty cache."""
    local = str(tmp_path / "local")
    done = run("pin", spec, *options, "--cache", local)
    assert done.code == 0, done.err
    (version,) = json.loads(run("list", *options, "--cache", local, "--json").out)
    found = run("info", version["spec"], "--files", *options, "--cache", local, "--json")
    files = json.loads(found.out)["files"]
    assert all(file["local"] == file["size"] for file in files)
    return {file["path"]: file["size"] for file in files}


def asked(home: Path) -> int:
    """The requests that the cache in `home` sent to its source."""
    return len((home / "asked.log").read_text().splitlines())


def test_a_bucket_is_read_through_a_cache_with_signatures_for_the_store(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(make_model(tmp_path / "model"), parse_spec(SPEC), tmp_path / "registry")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with (
        TinyS3(tmp_path / "registry") as store,
        nginx_cache(store.url, tmp_path / "cache") as cache,
    ):
        url = f"s3://{BUCKET}?endpoint_url={store.url}&addressing_style=path"
        monkeypatch.setenv("AXONFS_VIA", f"s3://{BUCKET}={cache}")
        assert pinned(run, tmp_path, SPEC, "--registry", url).keys() >= {"model.safetensors"}
    host = urlsplit(store.url).netloc
    assert {head["host"] for head in store.heads} == {host}
    assert all("Credential=reader/" in head["authorization"] for head in store.heads)
    assert all("axonfs-object" not in head for head in store.heads)
    assert len(store.requests) == asked(tmp_path / "cache")


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with docker's log-ins."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker/config.json"


def test_an_oci_registry_is_read_through_a_cache_with_its_tokens(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: Path
) -> None:
    lay_out(tmp_path / "site", "nlp/tiny", "1.0", model())
    with TinyOci(tmp_path / "site") as registry:
        registry.wants, registry.open_to_all, registry.signature = "bearer", False, "s"
        log_in(docker, registry.host)
        storage = registry.storage.url.rstrip("/").replace(".", "[.]")
        with nginx_cache(registry.origin.url, tmp_path / "cache", STORAGE=storage) as cache:
            monkeypatch.setenv("AXONFS_VIA", cache)
            options = ("--registry", f"oci://{registry.host}?alias=team")
            sizes = pinned(run, tmp_path, "oci/team/nlp/tiny@1.0", *options)
            assert sizes.keys() == {"config.json", "model.bin"}
        tokens = registry.seen("/token")
        assert tokens, "the server of tokens is asked itself"
        assert len(registry.origin.requests) - len(tokens) == asked(tmp_path / "cache")
        assert all("authorization" not in seen.headers for seen in registry.storage.requests)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    repo = Repo("acme/tiny", large=LARGE, private=True)
    repo.commit(FILES)
    with HubServer(repo, page=3) as server:
        yield server


def test_a_hub_is_read_through_a_cache_with_pages_and_signed_urls(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: HubServer
) -> None:
    storage = hub.storage.replace(".", "[.]")
    with nginx_cache(hub.url, tmp_path / "cache", STORAGE=storage) as cache:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("AXONFS_VIA", f"hf={cache}")
        sizes = pinned(run, tmp_path, "hf/acme/tiny")
        assert sizes == {path: len(body) for path, body in FILES.items()}
    own = [seen for seen in hub.requests if seen.origin == "hub"]
    assert len(own) == asked(tmp_path / "cache")
    assert all("authorization" not in seen.headers for seen in hub.asked(origin="storage"))
