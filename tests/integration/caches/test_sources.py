"""Two hosts pin a model of each kind of source through nginx, and nothing else is asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import Run
from tests.support.dockerregistry import DockerRegistry
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import objects_asked
from tests.support.hub import HubServer, Repo, sha256
from tests.support.registry import SPEC, make_model, published
from tests.support.seaweed import Seaweed
from tests.support.sitecaches import ENGINES, nginx_cache, varnish_cache
from tests.support.tinyhub import FILES, LARGE

MIB = 1 << 20
SIZES = {"model.safetensors": 20 * MIB + 5}
PARTS = 3 + 1  # slices of the weights, and config.json

Pins = Callable[[str], None]


@pytest.fixture
def on_two_hosts(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Pins:
    """Pin a model with an empty cache, and then again with another one."""
    monkeypatch.setenv("AXONFS_FALLBACK", "never")
    monkeypatch.setenv("AXONFS_RETRIES", "1")

    def pin(spec: str) -> None:
        for host in ("one", "two"):
            done = run("pin", spec, "--cache", tmp_path / host)
            assert (done.code, done.err) == (0, ""), done

    return pin


def check_asked(cache: Path) -> None:
    """The source was asked once for each document and each part, over all its URLs."""
    log = (cache / "asked.log").read_text()
    asked = re.findall(r'"GET (\S+) HTTP/1.1" \d+ \d+ "(\S+)"', log)
    assert len(asked) == len(set(asked))
    assert len([part for _, part in asked if part != "-"]) == PARTS


@pytest.mark.parametrize("engine", ENGINES)
def test_a_registry_of_files(
    tmp_path: Path, engine: str, on_two_hosts: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(tmp_path, SIZES)
    with FaultyOrigin(tmp_path / "registry") as origin:
        monkeypatch.setenv("AXONFS_REGISTRY", origin.url)
        with ENGINES[engine](origin.url, tmp_path / engine) as url:
            monkeypatch.setenv("AXONFS_VIA", url)
            on_two_hosts(SPEC)
        whole = engine == "squid"
        assert objects_asked(origin) == (2 if whole else PARTS)


def test_varnish_before_the_part_of_nginx_that_follows(
    tmp_path: Path, on_two_hosts: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer(Repo.tagged(FILES, LARGE)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with (
            nginx_cache(hub.url, tmp_path / "nginx", STORAGE=hub.storage) as nginx,
            varnish_cache(nginx.replace("127.0.0.1", "127.0.0.3"), tmp_path / "varnish") as url,
        ):
            monkeypatch.setenv("AXONFS_VIA", f"hf={url}")
            on_two_hosts("hf/acme/tiny@main")
        assert len(hub.asked(sha256(FILES["model.safetensors"]), "storage")) == 1


def test_a_hub(tmp_path: Path, on_two_hosts: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer(Repo.tagged(FILES, LARGE)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with nginx_cache(hub.url, tmp_path / "nginx", STORAGE=hub.storage) as url:
            monkeypatch.setenv("AXONFS_VIA", f"hf={url}")
            on_two_hosts("hf/acme/tiny@main")
        asked = [request.path for request in hub.requests]
        weights = sha256(FILES["model.safetensors"])
        assert len(hub.asked(weights, "storage")) == 1
        assert len(asked) == len(set(asked)), "a fleet asks once"


def test_an_oci_registry(
    tmp_path: Path,
    docker_registry: DockerRegistry,
    on_two_hosts: Pins,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = docker_registry.host
    model = make_model(tmp_path / "model", SIZES)
    assert run("publish", model, "--to", f"oci://{host}/fleet/tiny:1.0").code == 0
    monkeypatch.setenv("AXONFS_REGISTRY", f"oci://{host}")
    with nginx_cache(f"http://{host}", tmp_path / "nginx", READERS="same") as url:
        monkeypatch.setenv("AXONFS_VIA", url)
        on_two_hosts(f"oci/{host.replace(':', '-')}/fleet/tiny@1.0")
    check_asked(tmp_path / "nginx")


def test_a_bucket(
    tmp_path: Path,
    bucket_url: str,
    seaweed: Seaweed,
    on_two_hosts: Pins,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The signatures are for the store's own name, and hold for each slice."""
    model = make_model(tmp_path / "model", SIZES)
    assert run("publish", model, SPEC, "--to", bucket_url).code == 0
    monkeypatch.setenv("AXONFS_REGISTRY", bucket_url)
    with nginx_cache(seaweed.endpoint, tmp_path / "nginx", READERS="same") as url:
        monkeypatch.setenv("AXONFS_VIA", url)
        on_two_hosts(SPEC)
    check_asked(tmp_path / "nginx")
