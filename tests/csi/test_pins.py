"""Pins of volumes: `pin` keeps a version, `ready: complete` waits for it; the last pod ends it."""

from __future__ import annotations

import http.client
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from axonfs.call import call
from tests.csi.conftest import FILES, NodeFactory, digest, refused
from tests.csi.node import Node, until
from tests.support.faulty import stall_before, status
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate, on_objects

PINNED = {"model": "nlp/tiny", "version": "1.0.0", "pin": "true"}
COMPLETE = {"model": "nlp/tiny", "version": "1.1.0", "ready": "complete"}


@pytest.fixture(scope="module")
def origin(sources: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(sources / "registry") as origin:
        yield origin


@pytest.fixture(scope="module")
def node(
    nodes: NodeFactory, origin: FaultyOrigin, tmp_path_factory: pytest.TempPathFactory
) -> Node:
    metrics = tmp_path_factory.mktemp("metrics") / "socket"
    node = nodes(origin.url, plugin_options=("--metrics", f"unix:{metrics}"))
    node.start()
    return node


def asked(node: Node, **request: Any) -> dict[str, Any]:
    *_, last = call(node.cache, request)
    return last


def pins(node: Node) -> dict[str, bool]:
    """The pinned versions, and whether they are complete."""
    found = asked(node, op="pin_check")["pins"]
    return {item["spec"]: item["whole"] for item in found}


def test_a_pin_lasts_as_long_as_its_volumes(node: Node) -> None:
    """The pod starts at once, and what is missing comes; the last volume's end drops the pin, and
    the bytes stay."""
    for name in ("one", "two"):
        node.publish(name, **PINNED)
    until(lambda: pins(node) == {"nlp/tiny@1.0.0": True}, "it is not pinned")
    node.unpublish("one")
    assert pins(node) == {"nlp/tiny@1.0.0": True}
    node.unpublish("two")
    until(lambda: pins(node) == {}, "it stays pinned")
    found = asked(node, op="info", spec="nlp/tiny@1.0.0")["version"]
    assert found["local"] == found["size"]


def test_a_refusal_ends_the_pin_of_an_earlier_call(
    nodes: NodeFactory, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The kubelet may not ask again, so nothing is left of a volume that is refused now."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules: [{namespaces: '*', models: '*'}]")
    node = nodes(origin.url, plugin_options=("--policy", policy))
    node.start()
    gate = Gate(seconds=60)
    origin.always(on_objects(gate))
    refused("ABORTED", lambda: node.publish("waits", seconds=6.0, **COMPLETE))
    until(lambda: pins(node) != {}, "it is not being pinned")
    policy.write_text("rules: [{namespaces: '*', models: '*', pin: refused}]")
    refused("PERMISSION_DENIED", lambda: node.publish("waits", **COMPLETE))
    origin.always(None)
    gate.open.set()
    until(lambda: pins(node) == {}, "it stays pinned")


def test_a_pod_waits_until_all_is_local(node: Node, origin: FaultyOrigin, sources: Path) -> None:
    """Until then the call is ABORTED with how far it is, and nothing is mounted; the fetch goes on
    in between, and the kubelet's next call finds it."""
    gate = Gate(seconds=60)
    origin.always(on_objects(gate))
    said = refused("ABORTED", lambda: node.publish("waits", seconds=6.0, **COMPLETE))
    assert "nlp/tiny@1.1.0 is not complete yet: " in said
    assert not node.target("waits").exists()
    origin.always(None)
    gate.open.set()
    target = node.publish("waits", **COMPLETE)
    assert pins(node) == {"nlp/tiny@1.1.0": True}
    found = node.call("NodeGetVolumeStats", volume_id="csi-waits", volume_path=str(target))
    assert found.usage[0].used == found.usage[0].total >= sum(FILES.values())
    pod = node.pod(target)
    assert pod.ask("read part0.bin") == digest(sources, "part0.bin", "nlp/tiny@1.1.0")
    pod.close()
    node.unpublish("waits")
    until(lambda: pins(node) == {}, "it stays pinned")


def test_a_source_that_is_silent(node: Node, origin: FaultyOrigin) -> None:
    """A version that is named exactly and known is published without a question to its source."""
    node.publish("known", **PINNED)
    until(lambda: pins(node) == {"nlp/tiny@1.0.0": True}, "it is not pinned")
    origin.always(stall_before)
    asked_before = len(origin.requests)
    target = node.publish("silent", **PINNED)
    node.call("NodeGetVolumeStats", volume_id="csi-silent", volume_path=str(target))
    assert (target / "part0.bin").stat().st_size == FILES["part0.bin"]
    assert len(origin.requests) == asked_before
    origin.always(None)
    for name in ("known", "silent"):
        node.unpublish(name)
    until(lambda: pins(node) == {}, "it stays pinned")


def test_a_pin_that_fails(node: Node, origin: FaultyOrigin) -> None:
    """A version that cannot be complete is an error, after which nothing is left: no pin either."""
    deep = {"model": "nlp/org/deep", "version": "0.1.0", "ready": "complete"}
    origin.always(on_objects(status(404)))
    refused("INTERNAL", lambda: node.publish("fails", seconds=60.0, **deep))
    origin.always(None)
    assert not node.target("fails").exists()
    until(lambda: pins(node) == {}, "it stays pinned")
    node.publish("fails", **deep)
    node.unpublish("fails")
    until(lambda: pins(node) == {}, "it stays pinned")


def test_a_pin_of_someone_else_stays(node: Node) -> None:
    """What was pinned before a volume asked for it is pinned after it."""
    asked(node, op="pin", specs=["nlp/org/deep@0.1.0"])
    node.publish("borrows", model="nlp/org/deep", version="0.1.0", pin="true")
    node.unpublish("borrows")
    assert pins(node) == {"nlp/org/deep@0.1.0": True}
    asked(node, op="unpin", specs=["nlp/org/deep@0.1.0"])


def test_the_plugin_remembers(node: Node) -> None:
    """The next plugin drops the pins of volumes that the last one made."""
    node.publish("kept", **PINNED)
    until(lambda: pins(node) == {"nlp/tiny@1.0.0": True}, "it is not pinned")
    assert node.plugin is not None
    node.plugin.kill()
    node.start_plugin()
    node.publish("kept", **PINNED)
    node.unpublish("kept")
    until(lambda: pins(node) == {}, "it stays pinned")


def test_what_a_boot_leaves(node: Node) -> None:
    """A plugin that starts forgets targets that are gone, with their pins."""
    target = node.publish("gone", **PINNED)
    until(lambda: pins(node) == {"nlp/tiny@1.0.0": True}, "it is not pinned")
    assert node.plugin is not None
    node.plugin.kill()
    subprocess.run(["umount", "-l", target], check=True)
    target.rmdir()
    node.start_plugin()
    until(lambda: pins(node) == {}, "it stays pinned")


def scraped(node: Node, path: str) -> str:
    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(node.plugin_options[1]).removeprefix("unix:"))

    connection = Connection("plugin")
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return text


def test_metrics_and_probes(node: Node) -> None:
    """Calls are counted by method and code; /readyz follows the mount, /healthz the plugin."""
    node.guarded()
    refused("NOT_FOUND", lambda: node.publish("counted", model="nlp/none", version="1"))
    node.publish("volume", model="nlp/tiny")
    text = scraped(node, "/metrics")
    line = 'axonfs_csi_calls_total{code="NOT_FOUND",method="NodePublishVolume"} 1.0'
    assert line in text
    for line in (
        "axonfs_csi_volumes 1.0",
        "axonfs_csi_guarded 1.0",
        "axonfs_csi_mount_answers 1.0",
    ):
        assert line in text.splitlines()
    assert scraped(node, "/healthz") == "ok\n" == scraped(node, "/readyz")
    node.unpublish("volume")
