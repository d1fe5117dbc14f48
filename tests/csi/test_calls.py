"""The specification's table of calls: fields, errors, codes and idempotence, over gRPC against the
real plugin with real mounts."""

from __future__ import annotations

import os
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from axonfs._version import __version__
from axonfs.csi.messages import PACKAGE, number
from axonfs.csi.node import DRIVER
from tests.csi.conftest import FILES, digest, refused
from tests.csi.node import EPHEMERAL, READER_ONLY, Node
from tests.support.registry import RegistryServer

READABLE = {"mount": {}, "access_mode": {"mode": READER_ONLY}}
VERSION = {"model": "nlp/tiny", "version": "1.0.0"}


def request(node: Node, name: str, **changes: Any) -> dict[str, Any]:
    """A valid request to publish, but for `changes`."""
    return {
        "volume_id": f"csi-{name}",
        "target_path": str(node.target(name)),
        "volume_capability": READABLE,
        "volume_context": VERSION,
        "readonly": True,
        **changes,
    }


def mounts_at(path: Path) -> list[str]:
    """The options of each mount at a path."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[5] for line in lines if line.split()[4] == str(path)]


def test_who_it_is(node: Node) -> None:
    """The plugin's name is a domain, its version the program's; it is ready if the mount is."""
    found = node.call("GetPluginInfo")
    assert (found.name, found.vendor_version) == (DRIVER, __version__)
    assert not found.manifest
    node.call("GetPluginCapabilities")
    assert node.call("Probe").ready.value


def test_what_the_node_can(node: Node) -> None:
    """There is no limit of volumes and no topology; staging and expansion are not claimed."""
    info = node.call("NodeGetInfo")
    assert (info.node_id, info.max_volumes_per_node) == ("node-1", 0)
    kinds = {one.rpc.type for one in node.call("NodeGetCapabilities").capabilities}
    names = {"GET_VOLUME_STATS", "VOLUME_CONDITION", "VOLUME_MOUNT_GROUP"}
    assert kinds == {number("NodeServiceCapability.RPC.Type", name) for name in names}


@pytest.mark.parametrize(
    "method",
    ["Node/NodeStageVolume", "Node/NodeExpandVolume", "Controller/CreateVolume"],
)
def test_what_is_not_implemented(node: Node, method: str) -> None:
    with grpc.insecure_channel(f"unix:{node.socket}") as channel:
        ask = channel.unary_unary(f"/{PACKAGE}.{method}")
        refused("UNIMPLEMENTED", lambda: ask(b"", timeout=10))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"volume_id": ""}, "volume_id is missing"),
        ({"target_path": ""}, "target_path is missing"),
        ({"volume_capability": None}, "volume_capability is missing"),
        ({"volume_capability": {"mount": {}}}, "volume_capability is missing"),
        ({"volume_capability": {"access_mode": {"mode": READER_ONLY}}}, "missing or empty"),
        ({"volume_capability": {**READABLE, "block": {}}}, "not block devices"),
        ({"volume_capability": {"mount": {}, "access_mode": {"mode": 1}}}, "ReadOnlyMany"),
        ({"volume_capability": {"mount": {}, "access_mode": {"mode": 5}}}, "ReadOnlyMany"),
        (
            {"volume_capability": {**READABLE, "mount": {"mount_flags": ["rw"]}}},
            "mount option 'rw'",
        ),
        (  # container runtimes drop it
            {"volume_capability": {**READABLE, "mount": {"mount_flags": ["noexec"]}}},
            "mount option 'noexec'",
        ),
        ({"volume_context": {"modell": "nlp/tiny"}}, "no attribute 'modell'"),
        ({"volume_context": {"version": "1.0.0"}}, "a version without a model"),
        ({"volume_context": {"model": "nlp/tiny", "pin": "true"}}, "need a version"),
        ({"volume_context": {**VERSION, "pin": "yes"}}, "neither 'true' nor 'false'"),
        ({"volume_context": {**VERSION, "ready": "soon"}}, "neither lazy nor complete"),
        ({"volume_context": {**VERSION, "ready": "complete", "pin": "false"}}, "needs pin"),
        ({"volume_context": {"model": "nlp/tiny@1.0.0"}}, "has a version"),
        ({"volume_context": {"model": "../etc"}}, "is not a model"),
        ({"volume_context": {"model": "nlp/../tiny", "version": "1.0.0"}}, "is not a model"),
        ({"volume_context": {"model": "nlp/tiny", "version": "../1.0.0"}}, "neither a version"),
        ({"volume_context": {"model": "nlp/\x1b[31mtiny"}}, "'nlp/?[31mtiny' is not a model"),
    ],
)
def test_an_invalid_request(node: Node, changes: dict[str, Any], said: str) -> None:
    """A field that is missing or invalid is INVALID_ARGUMENT, and nothing is made."""
    target = node.target("invalid")
    call = request(node, "invalid", **changes)
    assert said in refused("INVALID_ARGUMENT", lambda: node.call("NodePublishVolume", **call))
    assert not target.exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("kubelet/pods/x/mount", "plain form"),
        ("/etc", "not below"),
        ("{kubelet}", "not below"),
        ("{kubelet}/../models", "plain form"),
        ("{kubelet}/pods//x/mount", "plain form"),
        ("{kubelet}/pods/link/mount", "is a link"),
    ],
)
def test_a_target_elsewhere(node: Node, path: str, said: str) -> None:
    """A target that is not below the kubelet's directory, or leads through a link, is refused; also
    for unpublishing."""
    kubelet = node.host / "kubelet"
    elsewhere = node.host / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    if not (kubelet / "pods/link").is_symlink():
        (kubelet / "pods/link").symlink_to(elsewhere)
    target = path.format(kubelet=kubelet)
    call = request(node, "elsewhere", target_path=target)
    assert said in refused("INVALID_ARGUMENT", lambda: node.call("NodePublishVolume", **call))
    gone: dict[str, Any] = {"volume_id": "x", "target_path": target}
    assert said in refused("INVALID_ARGUMENT", lambda: node.call("NodeUnpublishVolume", **gone))
    assert os.listdir(elsewhere) == []


def test_a_target_that_is_a_link(node: Node) -> None:
    """The last name of a target may be no link either."""
    target = node.target("linked")
    target.symlink_to(node.host / "models")
    call = request(node, "linked")
    refused("FAILED_PRECONDITION", lambda: node.call("NodePublishVolume", **call))
    assert target.is_symlink()
    target.unlink()


def test_a_target_without_its_directory(node: Node) -> None:
    """The kubelet makes the directory that a target is in."""
    target = node.host / "kubelet/pods/nowhere/volumes/mount"
    call = request(node, "outside", target_path=str(target))
    refused("FAILED_PRECONDITION", lambda: node.call("NodePublishVolume", **call))
    node.call("NodeUnpublishVolume", volume_id="csi-nowhere", target_path=str(target))


@pytest.mark.parametrize(
    "attributes",
    [
        {"model": "nlp/none", "version": "1.0.0"},
        {"model": "nlp/none"},
        {"model": "nlp/tiny", "version": "9.9.9"},
        {"model": "nlp/tiny", "version": "^7"},
    ],
)
def test_a_model_that_does_not_exist(node: Node, attributes: dict[str, str]) -> None:
    said = refused("NOT_FOUND", lambda: node.publish("missing", **attributes))
    assert attributes["model"] in said
    node.unpublish("missing")


def test_a_version(node: Node, sources: Path) -> None:
    """A version's files are at the root of the volume, read-only, of any user, without suid and
    devices."""
    target = node.publish("one", model="nlp/tiny", version="^1.0")
    assert sorted(os.listdir(target)) == sorted([*FILES, "config.json", "manifest.yaml"])
    pod = node.pod(target)
    assert pod.ask("read part0.bin") == digest(sources, "part0.bin", "nlp/tiny@1.1.0")
    assert pod.ask("write part0.bin") == "EROFS"
    assert pod.ask("write new.bin") == "EROFS"
    assert {"ro", "nosuid", "nodev"} <= {*mounts_at(target)[0].split(",")}
    as_nobody: list[str | Path] = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        "cat",
        target / "config.json",
    ]
    tried = subprocess.run(as_nobody, capture_output=True, check=False)
    assert tried.returncode == 0 or b"ermission" in tried.stderr  # the way there may be root's
    pod.close()
    node.unpublish("one")
    assert not target.exists()


def test_all_versions_and_all_models(node: Node, sources: Path) -> None:
    """Without a version the volume has the versions of the model; without a model all models."""
    versions = node.publish("versions", model="nlp/tiny")
    assert {"1.0.0", "1.1.0", "latest"} <= {*os.listdir(versions)}
    every = node.publish("every")
    pod = node.pod(every)
    expected = digest(sources, "part1.bin", "nlp/org/deep@0.1.0")
    assert pod.ask("read nlp/org/deep/0.1.0/part1.bin") == expected
    pod.close()
    for name in ("versions", "every"):
        node.unpublish(name)


def test_the_second_pod_fetches_nothing(node: Node, sources: Path, server: RegistryServer) -> None:
    """Two pods on a node read the same bytes, which came once."""
    first = node.pod(node.publish("first", model="nlp/org/deep", version="0.1.0"))
    wanted = {name: digest(sources, name, "nlp/org/deep@0.1.0") for name in FILES}
    assert {name: first.ask(f"read {name}") for name in FILES} == wanted
    sent = server.bytes_sent
    second = node.pod(node.publish("second", model="nlp/org/deep", version="0.1.0"))
    assert {name: second.ask(f"read {name}") for name in FILES} == wanted
    assert server.bytes_sent == sent
    for name, pod in (("first", first), ("second", second)):
        pod.close()
        node.unpublish(name)


def test_publishing_again(node: Node) -> None:
    """The same call again changes nothing; with other attributes it is ALREADY_EXISTS, and a volume
    may be at several targets."""
    target = node.publish("again", **VERSION)
    node.publish("again", **VERSION)
    assert len(mounts_at(target)) == 1
    other = {"model": "nlp/tiny", "version": "1.1.0"}
    refused("ALREADY_EXISTS", lambda: node.publish("again", **other))
    refused("ALREADY_EXISTS", lambda: node.publish("again", volume_id="another", **VERSION))
    node.publish("beside", volume_id="csi-again", **VERSION)
    node.unpublish("again")
    assert os.listdir(node.target("beside"))
    node.call("NodeUnpublishVolume", volume_id="csi-again", target_path=str(node.target("beside")))


def test_a_version_stays_chosen(node: Node, sources: Path) -> None:
    """What a constraint chose once does not change under a pod, also if the kubelet republishes."""
    target = node.publish("chosen", model="nlp/tiny", version="~1.0")
    node.publish("chosen", model="nlp/tiny", version="~1.0")
    pod = node.pod(target)
    assert pod.ask("read part2.bin") == digest(sources, "part2.bin", "nlp/tiny@1.0.0")
    pod.close()
    node.unpublish("chosen")


def test_unpublishing(node: Node) -> None:
    """It may be called again, for a volume that was never there, and for a directory that is left;
    fields may not be missing."""
    target = node.publish("over", **VERSION)
    for _ in range(2):
        node.unpublish("over")
        assert not target.exists()
    target.mkdir()
    node.unpublish("over")
    assert not target.exists()
    for missing in ("volume_id", "target_path"):
        call: dict[str, Any] = {"volume_id": "x", "target_path": str(target), missing: ""}
        said = refused("INVALID_ARGUMENT", partial(node.call, "NodeUnpublishVolume", **call))
        assert said == f"{missing} is missing"


def test_unpublishing_removes_no_data(node: Node) -> None:
    """Files at a target that are no volume's, and other file systems, are left alone."""
    target = node.target("data")
    target.mkdir()
    (target / "precious").write_text("data")
    assert "left alone" in refused("INTERNAL", lambda: node.unpublish("data"))
    node.publish("data", **VERSION)
    assert "left alone" in refused("INTERNAL", lambda: node.unpublish("data"))
    assert (target / "precious").read_text() == "data"
    (target / "precious").unlink()
    subprocess.run(["mount", "-t", "tmpfs", "other", target], check=True)
    assert "tmpfs" in refused("INTERNAL", lambda: node.unpublish("data"))
    assert "tmpfs" in refused("FAILED_PRECONDITION", lambda: node.publish("data", **VERSION))
    subprocess.run(["umount", target], check=True)
    node.unpublish("data")
    assert not target.exists()


def test_a_volume_in_use_is_unpublished(node: Node, sources: Path) -> None:
    """A program with an open file reads on; the target is gone all the same."""
    target = node.publish("busy", **VERSION)
    with (target / "part3.bin").open("rb") as file:
        node.unpublish("busy")
        assert not target.exists()
        wanted = (sources / "models/nlp/tiny@1.0.0/part3.bin").read_bytes()
        assert file.read() == wanted


def test_stats(node: Node) -> None:
    """The bytes of the version, those that are local, and the number of files; NOT_FOUND where the
    volume is not published."""
    target = node.publish("stats", **VERSION)
    for name in FILES:
        (target / name).read_bytes()
    found = node.call("NodeGetVolumeStats", volume_id="csi-stats", volume_path=str(target))
    sizes, inodes = found.usage
    assert sizes.total >= sizes.used >= sum(FILES.values())
    assert sizes.available == sizes.total - sizes.used
    assert inodes.total == len(FILES) + 1
    assert not found.volume_condition.abnormal
    for changes in ({"volume_id": "other"}, {"volume_path": str(node.target("none"))}):
        call: dict[str, Any] = {"volume_id": "csi-stats", "volume_path": str(target), **changes}
        refused("NOT_FOUND", partial(node.call, "NodeGetVolumeStats", **call))
    for changes in ({"volume_id": ""}, {"volume_path": ""}):
        call = {"volume_id": "csi-stats", "volume_path": str(target), **changes}
        refused("INVALID_ARGUMENT", partial(node.call, "NodeGetVolumeStats", **call))
    node.unpublish("stats")
    call = {"volume_id": "csi-stats", "volume_path": str(target)}
    refused("NOT_FOUND", lambda: node.call("NodeGetVolumeStats", **call))


def test_access_modes(node: Node) -> None:
    """An inline volume has no mode of its own, so the one that the kubelet sends is taken; a group
    may be named, since everybody may read the files."""
    writer = {"mount": {"volume_mount_group": "4711"}, "access_mode": {"mode": 1}}
    context = {**VERSION, **EPHEMERAL}
    call = request(node, "modes", volume_capability=writer, volume_context=context, readonly=False)
    node.call("NodePublishVolume", **call)
    assert "ro" in mounts_at(node.target("modes"))[0].split(",")
    node.unpublish("modes")


def test_calls_at_once(node: Node) -> None:
    """Calls for one target at a time exclude each other with ABORTED; others go on side by side."""
    codes: list[str] = []

    def publish(name: str) -> None:
        try:
            node.publish(name, **VERSION)
        except grpc.RpcError as exc:
            codes.append(exc.code().name)
        else:
            codes.append("OK")

    names = [*["same"] * 8, *(f"other{number}" for number in range(8))]
    threads = [threading.Thread(target=publish, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(codes) == len(names)
    assert {*codes} <= {"OK", "ABORTED"}
    assert codes.count("OK") >= 9
    assert len(mounts_at(node.target("same"))) == 1
    for name in {*names}:
        node.unpublish(name)
