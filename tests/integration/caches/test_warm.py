"""`axonfs warm`: real nginx caches have a model before a host reads it."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.store import Store
from tests.support.commands import Run
from tests.support.nginx import free_port, nginx
from tests.support.packages import add_package
from tests.support.registry import make_model
from tests.support.sitecaches import nginx_cache

SPEC, MIB = "nlp/tiny@1.0.0", 1 << 20
FILES = {"a.safetensors": 40 * MIB + 5, "b.bin": 3 * MIB, "empty": 0}


class Site:
    """A registry of files behind nginx, and two site caches."""

    def __init__(self, work: Path, stack: contextlib.ExitStack) -> None:
        publish(make_model(work / "model", FILES), parse_spec(SPEC), work / "registry")
        self.work = work
        self.origin = stack.enter_context(nginx(work / "registry", work / "origin"))
        self.caches = [
            stack.enter_context(nginx_cache(self.origin, work / f"cache-{number}"))
            for number in range(2)
        ]
        self.size = sum(path.stat().st_size for path in (work / "model").iterdir())

    def flags(self, *caches: str) -> list[str]:
        via = [part for cache in caches or self.caches for part in ("--via", cache)]
        return [SPEC, "--registry", self.origin, "--cache", str(self.work / "local"), *via]

    def sent(self) -> int:
        """Bytes of objects that the origin sent."""
        lines = (self.work / "origin/access.log").read_text().splitlines()
        return sum(int(line.split()[9]) for line in lines if "/objects/" in line)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("AXONFS_RETRIES", "2")
    with contextlib.ExitStack() as stack:
        yield Site(tmp_path, stack)


def test_the_caches_have_one_copy_and_the_host_none(site: Site, run: Run) -> None:
    done = run("warm", *site.flags(), "--json")
    assert (done.code, done.err) == (0, "")
    [version] = json.loads(done.out)
    assert version["bytes"] == site.size
    tables = sum(version["caches"].values()) - site.size
    assert 0 < tables < 1 << 16
    assert set(version["caches"]) == set(site.caches)
    assert all(version["caches"].values()), "both have some of it"
    first = site.sent()
    assert first <= site.size + (4 << 20), "the origin has sent one copy"
    done = run("warm", *site.flags())
    assert done.out.startswith(f"{SPEC} is in its site caches: ")
    assert site.sent() == first
    assert json.loads(run("cache", "list", "--cache", site.work / "local", "--json").out) == []


@pytest.mark.parametrize("sums", [True, False])
def test_a_package_of_the_registry_is_asked_for_once(site: Site, run: Run, sums: bool) -> None:
    """Where its files are nowhere else, whether the manifest says so or not."""
    files = {name: random.Random(name).randbytes(MIB) for name in ("a.bin", "b.bin")}
    size = len(add_package(site.work / "registry", "vision/packed@1.0", files, sums=sums))
    done = run("warm", "vision/packed@1.0", *site.flags()[1:], "--json")
    assert (done.code, done.err) == (0, "")
    lines = (site.work / "origin/access.log").read_text().splitlines()
    assert sum(int(line.split()[9]) for line in lines if "/packages/" in line) == size


def test_beside_a_mount(site: Site, run: Run) -> None:
    """Which has the cache of this host for itself."""
    with contextlib.closing(Store.open(site.work / "local")):
        done = run("warm", *site.flags())
    assert (done.code, done.err) == (0, "")
    assert site.sent() >= site.size


def test_a_cache_that_is_away_leaves_its_part_to_the_next(site: Site, run: Run) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    done = run("warm", *site.flags(site.caches[0], away))
    assert done.code == 0
    assert f"{away} does not answer (Connection refused)" in done.err
    done = run("warm", *site.flags(away))
    assert done.code == 1
    assert "Connection refused" in done.err
    assert away in done.err


def test_what_a_cache_has_wrong_is_said(site: Site, run: Run) -> None:
    assert run("warm", *site.flags(site.caches[0])).code == 0
    for stored in (site.work / "cache-0").rglob("*"):
        if stored.is_file() and stored.stat().st_size > MIB:
            raw = bytearray(stored.read_bytes())
            raw[-1] ^= 1
            stored.write_bytes(raw)
    done = run("warm", *site.flags(site.caches[0]))
    assert done.code == 1
    assert "has the wrong digest" in done.err
    assert "a.safetensors" in done.err or "b.bin" in done.err
    assert site.caches[0] in done.err


def test_a_file_without_a_chunk_table_is_compared_as_a_whole(site: Site, run: Run) -> None:
    """As of a hub, or of Axon's registries."""
    path = next((site.work / "registry").rglob("1.0.0/manifest.yaml"))
    manifest = yaml.safe_load(path.read_text())
    for file in manifest["spec"]["format"]["files"]:
        file.pop("chunks", None)
    path.write_text(yaml.safe_dump(manifest))
    assert run("warm", *site.flags()).code == 0
    entry = next(file for file in manifest["spec"]["format"]["files"] if file["path"] == "b.bin")
    entry["sha256"], right = "a" * 64, entry["sha256"]
    stored = site.work / f"registry/objects/sha256/{right[:2]}/{right}"
    wrong = site.work / f"registry/objects/sha256/aa/{'a' * 64}"
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_bytes(stored.read_bytes())
    path.write_text(yaml.safe_dump({**manifest, "metadata": manifest["metadata"]}))
    # The other caches keep the manifest for a minute.
    with nginx_cache(site.origin, site.work / "new") as cache:
        done = run("warm", *site.flags(cache), "--cache", site.work / "other")
    assert done.code == 1
    assert f"{SPEC} b.bin: what its site caches sent does not match its sha256" in done.err


def test_a_source_without_caches_is_said(site: Site, run: Run) -> None:
    flags = ["--registry", site.origin, "--cache", str(site.work / "local")]
    done = run("warm", SPEC, *flags)
    assert done.code == 2
    assert f"{SPEC}: its source has no site caches" in done.err
    assert "name them: --via CACHE_URL" in done.err
