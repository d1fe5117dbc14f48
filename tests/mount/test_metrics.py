"""`axonfs mount --metrics`: what a scrape says, in every state of the mount."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from axonfs.call import call
from axonfs.distro import install_extra
from tests.mount.conftest import (
    FILES,
    MODEL,
    NAME,
    MountFactory,
    end,
    object_requests,
    patched,
    run_axonfs,
    settled,
)
from tests.support.registry import RegistryServer
from tests.support.scraping import free_port, get, scrape

pytestmark = pytest.mark.mount


@pytest.fixture
def port() -> int:
    return free_port()


def test_a_scrape(start_mount: MountFactory, registry: RegistryServer, port: int) -> None:
    """Counts are those of what readers and the network did; `status` says where they are."""
    mount = start_mount(registry.url, options=("--metrics", str(port)))
    (mount.path / MODEL).read_bytes()
    url, size = f"{registry.url}/", FILES[NAME]
    settled(lambda: scrape(port)[f"axonfs_source_received_bytes_total{{,{url}}}"] == size)
    found = scrape(port)
    assert found[f"axonfs_source_requests_total{{,{url}}}"] == len(object_requests(registry))
    landed = [value for name, value in found.items() if name.startswith("axonfs_landed_bytes")]
    assert sum(landed) == size
    assert found["axonfs_cache_used_bytes{}"] == size
    reads = [found.get(f"axonfs_read_duration_seconds_count{{{kind}}}", 0) for kind in KINDS]
    assert sum(reads) == mount.status()["reads"]
    assert reads[1] >= 1
    assert found[f"axonfs_source_up{{{url}}}"] == 1
    assert found["axonfs_answering{}"] == 1
    assert found["process_open_fds{}"] > 10
    assert mount.status()["metrics"]["url"] == f"http://127.0.0.1:{port}/metrics"
    assert (get(port, "/healthz"), get(port, "/readyz")) == ((200, "ok\n"), (200, "ok\n"))
    status, text = get(port, "/")
    assert (status, text) == (404, "404 there is only /metrics, /healthz, /readyz\n")
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics")
    request.add_header("Accept-Encoding", "gzip")
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"axonfs_answering 1.0" in gzip.decompress(answer.read())


KINDS = ("cache", "cold")


@pytest.mark.complains
def test_counters_go_on(start_mount: MountFactory, registry: RegistryServer, port: int) -> None:
    """A worker that is killed, and a restart with the installed program, lose no count that was
    scraped; only the killed worker counts as failed."""
    mount = start_mount(registry.url, options=("--metrics", str(port)))
    received = f"axonfs_source_received_bytes_total{{,{registry.url}/}}"
    for round_, name in enumerate(FILES):
        (mount.path / "nlp/tiny/1.0.0" / name).read_bytes()
        size = sum(list(FILES.values())[: round_ + 1])
        settled(partial(has, port, received, size))
        before = scrape(port)
        if round_ == 0:
            end(mount.worker())
        else:
            run_axonfs("restart", mount.path)
        settled(lambda: answers(port))
        after = scrape(port)
        for key in before:
            if "_total{" in key and key.startswith("axonfs_"):
                assert after[key] >= before[key], key
        assert after["axonfs_worker_starts_total{}"] == round_ + 2
        assert after["axonfs_worker_failures_total{}"] == 1
    assert after["axonfs_read_duration_seconds_count{cold}"] >= 3


def has(port: int, name: str, value: float) -> bool:
    return scrape(port)[name] == value


def answers(port: int) -> bool:
    try:
        return get(port, "/readyz")[0] == 200
    except OSError:
        return False


STANDS_STILL = """
import time
import axonfs.service.service as service, axonfs.observe.observer as observer
observer.DEAD_SECONDS = observer.PATIENCE = 1.0
async def info(context, request):
    time.sleep(5)  # the event loop stands still
    return {}
service.OPERATIONS["info"] = info
"""


def test_an_event_loop_that_stands_still(
    start_mount: MountFactory, registry: RegistryServer, port: int, tmp_path: Path
) -> None:
    """Scrapes and probes are answered, and say for how long the event loop has not."""
    env = patched(tmp_path, STANDS_STILL)
    mount = start_mount(registry.url, options=("--metrics", str(port)), env=env)
    asking = threading.Thread(target=lambda: list(call(mount.cache, {"op": "info"})))
    asking.start()
    settled(lambda: scrape(port)["axonfs_answering{}"] == 0, 5)
    settled(lambda: get(port, "/healthz")[0] == 503, 5)
    found, (_, text) = scrape(port), get(port, "/healthz")
    assert text.startswith("503 the mount's event loop has not answered for ")
    assert found["axonfs_event_loop_silent_seconds{}"] >= 1
    assert get(port, "/readyz")[0] == 503
    asking.join()
    settled(lambda: scrape(port)["axonfs_answering{}"] == 1, 5)
    assert scrape(port)["axonfs_event_loop_lag_seconds_sum{}"] > 2


@pytest.mark.complains
def test_clients_that_misbehave(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """On a Unix socket: a thousand connections that send nothing, and some that send garbage,
    leave room for a scrape. The next worker replaces the socket of one that was killed."""
    path = tmp_path / "metrics.sock"
    mount = start_mount(registry.url, options=("--metrics", f"unix:{path}"))
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connected(path))
        for garbage in (b"\0" * 9000, b"GET / HTTP/9.9\r\n\r\n", b"\xff\xfe\r\n\r\n", b"A" * 70000):
            with connected(path) as client:
                exchange(client, garbage)
        with connected(path) as client:
            answer = exchange(client, b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b" 200 OK\r\n" in answer
        assert b"axonfs_answering 1.0" in answer
    end(mount.worker())
    settled(lambda: serves(path))


def serves(path: Path) -> bool:
    with suppress(OSError), connected(path) as client:
        return b" 200 OK" in exchange(client, b"GET /readyz HTTP/1.0\r\n\r\n")
    return False


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))  # waits while the backlog is full, as it does not with a timeout
        client.settimeout(20)
        yield client


def exchange(client: socket.socket, request: bytes) -> bytes:
    answer = b""
    try:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        while piece := client.recv(1 << 16):
            answer += piece
    except OSError:  # it hung up on garbage
        pass
    return answer


@pytest.mark.complains
def test_a_port_in_use(start_mount: MountFactory, registry: RegistryServer, port: int) -> None:
    """A mount that begins says so and ends; a worker that takes over works without metrics, and
    serves them once the port is free."""
    mount = start_mount(registry.url, options=("--metrics", str(port)))
    other = mount.path.with_name("other")
    options = ("--registry", registry.url, "--cache", other.with_name("cache2"))
    done = run_axonfs("mount", other, *options, "--metrics", str(port), check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"axonfs: cannot serve metrics at 127.0.0.1:{port}: Address already in use;"
        " choose another address with --metrics\n"
    )
    assert not os.path.ismount(other)
    worker = mount.worker()
    mount.process.send_signal(signal.SIGSTOP)
    end(worker)
    with socket.create_server(("127.0.0.1", port)):
        mount.process.send_signal(signal.SIGCONT)
        settled(lambda: mount.status()["metrics"]["fault"] is not None)
        assert (mount.path / MODEL).read_bytes()
        assert "Address already in use" in run_axonfs("status", mount.path).stdout
    settled(lambda: answers(port))
    assert mount.status()["metrics"]["fault"] is None
    assert len([line for line in mount.complaints() if "cannot serve metrics" in line]) == 1


@pytest.mark.complains
def test_the_setting(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path, port: int
) -> None:
    """A running mount serves metrics where its config says now, or stops to; the worker stays. A
    port in use is no fault of the other settings."""
    config = tmp_path / "config.yaml"
    config.write_text("")
    mount = start_mount(registry.url, env={"AXONFS_CONFIG": str(config)})
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as other:
        patch.setenv("AXONFS_CONFIG", str(config))
        worker = mount.worker()
        run_axonfs("config", "set", "metrics", str(other.getsockname()[1]))
        settled(lambda: mount.status()["metrics"]["fault"] is not None)
        run_axonfs("config", "set", "metrics", str(port))
        settled(lambda: answers(port))
        run_axonfs("config", "set", "metrics", "off")
        settled(lambda: not answers(port))
    assert mount.status()["metrics"] == {"address": None, "url": None, "fault": None}
    assert mount.worker() == worker


def test_the_library_is_missing(registry: RegistryServer, place: Path, tmp_path: Path) -> None:
    """Nothing is mounted, and the message says what to install; a mount without metrics works."""
    env = patched(tmp_path, "import sys; sys.modules['prometheus_client'] = None")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", env["PYTHONPATH"])
        options = ("--registry", registry.url, "--metrics", "9464")
        done = run_axonfs("mount", place, *options, check=False)
        assert not os.path.ismount(place)
        assert run_axonfs("mount", place, "--registry", registry.url).returncode == 0
    assert done.stderr == (
        "axonfs: metrics need prometheus-client, which is not installed;"
        f" {install_extra('metrics')}\n"
    )
