"""Site caches of a mounted registry: real nginx before it, of which some end and come back."""

from __future__ import annotations

import contextlib
import errno
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.mount.conftest import CHUNK, MountFactory, run_axonfs, settled
from tests.support.nginx import free_port
from tests.support.registry import RegistryServer, published
from tests.support.sitecaches import nginx_cache

pytestmark = pytest.mark.mount

SIZES = {"a.bin": 40 * CHUNK, "b.bin": 40 * CHUNK, "c.bin": 40 * CHUNK}
DIRECTORY = "nlp/tiny/1.0.0"


class Caches:
    """nginx as three site caches; each can be stopped and started again."""

    def __init__(self, source: str, home: Path) -> None:
        self._source, self._home = source, home
        self._running: dict[int, ExitStack] = {}
        self.ports = [free_port() for _ in range(3)]
        self.urls = [f"http://127.0.0.1:{port}" for port in self.ports]
        for number in range(3):
            self.start(number)

    def start(self, number: int) -> None:
        home = self._home / str(number)
        (home / "nginx.pid").unlink(missing_ok=True)
        stack = self._running[number] = ExitStack()
        stack.enter_context(nginx_cache(self._source, home, port=self.ports[number]))

    def stop(self, number: int) -> None:
        self._running.pop(number).close()

    def close(self) -> None:
        for number in list(self._running):
            self.stop(number)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(published(tmp_path, SIZES)) as server:
        yield server


@pytest.fixture
def caches(registry: RegistryServer, tmp_path: Path) -> Iterator[Caches]:
    with contextlib.closing(Caches(registry.url, tmp_path / "caches")) as found:
        yield found


def right(tmp_path: Path, mount: Path, name: str) -> bool:
    return (mount / DIRECTORY / name).read_bytes() == (
        tmp_path / "models" / DIRECTORY / name
    ).read_bytes()


@pytest.mark.complains
def test_a_mount_reads_through_its_caches_and_one_that_ends_is_used_again_when_it_is_back(
    tmp_path: Path, registry: RegistryServer, caches: Caches, start_mount: MountFactory
) -> None:
    via = [word for url in caches.urls for word in ("--via", url)]
    options = (*via, "--fallback", "never", "--prefetch", "off")
    mount = start_mount(registry.url, options=options)

    def states() -> list[dict[str, Any]]:
        (item,) = mount.status()["registries"]
        assert item["fallback"] == "never"
        found: list[dict[str, Any]] = item["caches"]
        return found

    assert right(tmp_path, mount.path, "a.bin")
    assert sorted(state["url"] for state in states()) == sorted(caches.urls)
    assert sum(state["bytes"] for state in states()) >= SIZES["a.bin"]
    assert sum(state["share"] for state in states()) == pytest.approx(1)
    assert all(state["fault"] is None for state in states())
    said = run_axonfs("status", mount.path).stdout
    assert "only its site caches are asked" in said
    assert f"site cache {caches.urls[0]}: " in said

    names = iter(range(10_000))

    def first() -> dict[str, Any]:
        """The state of the first cache, after some documents were asked for."""
        for _ in range(3):
            with contextlib.suppress(FileNotFoundError):
                (mount.path / "nlp" / f"other-{next(names)}").stat()
        (state,) = [state for state in states() if state["url"] == caches.urls[0]]
        return state

    caches.stop(0)
    settled(lambda: first()["fault"] is not None, 30)
    assert right(tmp_path, mount.path, "b.bin")
    gone = first()
    assert "Connection refused" in gone["fault"]
    assert gone["since"] == pytest.approx(time.time(), abs=60)
    assert "set aside since" in run_axonfs("status", mount.path).stdout

    caches.start(0)
    settled(lambda: first()["fault"] is None, 20)
    assert first()["requests"] > gone["requests"]
    assert right(tmp_path, mount.path, "c.bin")

    for number in range(3):
        caches.stop(number)
    asked = len(registry.requests)
    with pytest.raises(OSError, match=rf"Errno {errno.EIO}\b"):
        (mount.path / "nlp/new/1.0.0/config.json").read_bytes()
    assert "no site cache of" in mount.complaints()[-1]
    assert len(registry.requests) == asked, "the registry is never asked itself"


def test_a_running_mount_begins_to_use_caches(
    tmp_path: Path,
    registry: RegistryServer,
    caches: Caches,
    start_mount: MountFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"registries": [registry.url], "prefetch": "off"}))
    monkeypatch.setenv("AXONFS_CONFIG", str(config))
    mount = start_mount(env={"AXONFS_CONFIG": str(config)})
    assert right(tmp_path, mount.path, "a.bin")
    via = [word for url in caches.urls for word in ("--via", url)]
    done = run_axonfs("registry", "add", registry.url, *via, "--fallback", "never")
    assert f"applies now to the mount at {mount.path}" in done.stderr
    assert right(tmp_path, mount.path, "b.bin")
    (item,) = mount.status()["registries"]
    assert sum(state["bytes"] for state in item["caches"]) >= SIZES["b.bin"]
    checks = json.loads(run_axonfs("doctor", "--json", check=False).stdout)
    assert [check["state"] for check in checks if check["name"].startswith("site cache")] == [
        "ok",
        "ok",
        "ok",
    ]
    caches.stop(1)
    checks = json.loads(run_axonfs("doctor", "--json", check=False).stdout)
    (dead,) = [check for check in checks if check["name"] == f"site cache {caches.urls[1]}"]
    assert dead["state"] == "fail"
    assert "Connection refused" in dead["text"]


@pytest.mark.complains
def test_what_the_caches_have_is_read_while_the_registry_is_down(
    tmp_path: Path, caches: Caches, registry: RegistryServer, start_mount: MountFactory
) -> None:
    """By a host that never asked the registry itself, and though it asks for other things."""
    url, via = registry.url, [word for url in caches.urls for word in ("--via", url)]
    warming = start_mount(url, options=tuple(via))
    assert all(right(tmp_path, warming.path, name) for name in SIZES)
    warming.stop()
    with down(registry):
        other, env = tmp_path / "other", {"AXONFS_RETRIES": "0"}
        mount = start_mount(url, options=tuple(via), cache=other, env=env)
        for name in SIZES:
            assert right(tmp_path, mount.path, name)
            with pytest.raises(OSError, match=rf"Errno {errno.EIO}\b"):
                (mount.path / f"nlp/not-{name}").stat()
        (item,) = mount.status()["registries"]
        assert sum(state["bytes"] for state in item["caches"]) >= sum(SIZES.values())


@contextlib.contextmanager
def down(registry: RegistryServer) -> Iterator[None]:
    registry.__exit__()
    try:
        yield
    finally:
        registry.__enter__()
