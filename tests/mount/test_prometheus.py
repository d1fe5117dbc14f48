"""A real Prometheus scrapes a real mount in trouble, and the alerts of packaging/ fire."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.mount.conftest import FILES, MountFactory, end, run_axonfs, settled, source_bytes
from tests.mount.test_bytes import flip, object_path, without_tables
from tests.support.disks import MIB, Disk
from tests.support.prometheus import Prometheus, prometheus
from tests.support.registry import RegistryServer
from tests.support.scraping import free_port

pytestmark = [
    pytest.mark.mount,
    pytest.mark.complains,
    pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own needs root"),
]
OPTIONS = ("--cache-size", "10G", "--prefetch", "off", "--metrics")
NAME = "model.safetensors"


def test_a_mount_in_trouble(registry_dir: Path, start_mount: MountFactory, tmp_path: Path) -> None:
    """Nothing fires for a mount that is well. Then an object is wrong, the worker is killed, the
    disk is full and the source goes away: each has its alert, which names the mount."""
    without_tables(registry_dir, "1.0.0")
    flip(object_path(registry_dir, source_bytes(tmp_path, 0, NAME)), 7)
    disk, port = Disk.tmpfs(tmp_path / "disk", 40 * MIB), free_port()
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as source:
        registry = source.enter_context(RegistryServer(registry_dir))
        stack.callback(disk.close)
        mount = start_mount(registry.url, cache=disk.path / "cache", options=(*OPTIONS, str(port)))
        stack.callback(mount.stop)
        watcher = stack.enter_context(prometheus(tmp_path / "prometheus", port))
        deep = mount.path / "nlp/org/deep/0.1.0"
        assert (deep / "vocab.txt").read_bytes() == source_bytes(tmp_path, 2, "vocab.txt")
        received = f'sum(axonfs_source_received_bytes_total{{source="{registry.url}/"}})'
        settled(lambda: value(watcher, received) == FILES["vocab.txt"])
        assert watcher.firing() == {}

        with pytest.raises(OSError, match="Input/output"):
            (mount.path / "nlp/tiny/1.0.0" / NAME).read_bytes()
        settled(lambda: fires(watcher, "AxonfsQuarantine", "AxonfsReadersFail"))
        end(mount.worker())
        settled(lambda: fires(watcher, "AxonfsWorkerFails"))
        disk.fill()
        assert (deep / NAME).read_bytes() == source_bytes(tmp_path, 2, NAME)
        settled(lambda: fires(watcher, "AxonfsDiskFault"))
        source.close()
        with contextlib.suppress(OSError):
            os.listdir(mount.path / "nlp/none")
        settled(lambda: fires(watcher, "AxonfsSourceDown"))
        found = watcher.firing()
        assert found["AxonfsSourceDown"]["source"] == f"{registry.url}/"
        assert found["AxonfsReadersFail"]["errno"] == "EIO"
        assert {one["instance"] for one in found.values()} == {f"127.0.0.1:{port}"}
        assert value(watcher, "axonfs_answering") == 1
        done = run_axonfs("status", "--check", mount.path, check=False)
        assert done.returncode == 4
        checks = [line.partition(":")[0] for line in done.stdout.splitlines()]
        assert checks == ["disk", "sources", "quarantine"]


def value(watcher: Prometheus, expression: str) -> float | None:
    """Its value, None as long as there is none."""
    with contextlib.suppress(ValueError):
        return watcher.value(expression)
    return None


def fires(watcher: Prometheus, *names: str) -> bool:
    return set(names) <= watcher.firing().keys()
