"""A pod's reads go on while worker, holder, keeper and plugin are each killed or replaced."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.csi.conftest import NodeFactory, digest
from tests.csi.node import Container, Node, Pod, children, until

KUBERNETES = Path(__file__).parents[2] / "packaging/kubernetes"


def process(name: str) -> Callable[[Node], None]:
    def kill(node: Node) -> None:
        before = node.processes()
        os.kill(before[name], signal.SIGKILL)
        until(lambda: node.processes()["worker"] != before["worker"], f"no worker after {name}")

    return kill


def mount_container(node: Node) -> None:
    assert node.mount is not None
    node.mount.kill()
    node.start_mount()


def mount_pod(node: Node) -> None:
    """The next pod of the mount is there before the old one ends (maxSurge)."""
    old = node.mount
    node.start_mount()
    assert isinstance(old, Container)
    assert old.stop() == 0
    until(lambda: "continuing the mount" in old.log.read_text(), old.log)


def plugin(node: Node) -> None:
    assert node.plugin is not None
    node.plugin.kill()
    node.start_plugin()
    node.guarded()


def plugin_pod(node: Node) -> None:
    assert node.plugin is not None
    assert node.plugin.stop() == 0
    node.start_plugin()
    node.guarded()


def hot_restart(node: Node) -> None:
    """`axonfs restart`, or a reload: the holder executes the installed version."""
    before = node.processes()
    os.kill(before["keeper"], signal.SIGHUP)
    until(lambda: node.processes()["worker"] != before["worker"], "no new worker")
    assert node.processes()["holder"] == before["holder"]


def both_upgraded(node: Node) -> None:
    """Both pods end at the same time, and each waits for the other's next one."""
    old_mount, old_plugin = node.mount, node.plugin
    assert old_mount is not None
    assert old_plugin is not None
    old_mount.signal(signal.SIGTERM)
    old_plugin.signal(signal.SIGTERM)
    old_mount.wait()
    node.start_mount()
    old_plugin.wait()
    node.start_plugin()
    node.guarded()


EVENTS = (
    process("worker"),
    process("holder"),
    mount_container,
    plugin,
    hot_restart,
    mount_pod,
    plugin_pod,
    both_upgraded,
)


def test_reads_go_on(node: Node, sources: Path) -> None:
    """A file that is open, one that was never read, and listings stay as they are for a pod,
    without an error, whatever dies; the pods' own mounts are never touched."""
    pod = node.pod(node.publish("reader", model="nlp/tiny", version="^1.0, <1.1"))
    names = pod.ask("list")
    assert pod.ask("open part0.bin") == "open"
    assert pod.ask("next") == str(1 << 16)
    for number, event in enumerate(EVENTS):
        event(node)
        name = f"part{number}.bin"
        assert pod.ask(f"read {name}") == digest(sources, name), event
        assert pod.ask("next") == str(1 << 16), event
    assert pod.ask("list") == names
    assert pod.ask("rest") == digest(sources, "part0.bin")
    pod.close()
    node.unpublish("reader")


def test_all_die_at_once(node: Node, sources: Path) -> None:
    """Only if no process is left that has the descriptors do readers get ENOTCONN. The kubelet's
    next call mounts the same version of the new mount over the dead one: a container sees it that
    has its volume with HostToContainer, another one when it starts again."""
    target = node.publish("lost", model="nlp/tiny", version="1.0.0")
    pods = {kind: node.pod(target, propagation=kind) for kind in ("private", "slave")}
    for pod in pods.values():
        assert pod.ask("read part0.bin") == digest(sources, "part0.bin")
    assert node.plugin is not None
    assert node.mount is not None
    node.plugin.kill()
    node.mount.kill()
    for pod in pods.values():
        assert pod.ask("read part1.bin") == "ENOTCONN"
    node.start()
    stats = node.call("NodeGetVolumeStats", volume_id="csi-lost", volume_path=str(target))
    assert stats.volume_condition.abnormal
    node.publish("lost", model="nlp/tiny", version="1.0.0")
    assert pods["slave"].ask("read part1.bin") == digest(sources, "part1.bin")
    assert pods["private"].ask("read part1.bin") == "ENOTCONN"
    again: Pod = node.pod(target)
    assert again.ask("read part1.bin") == digest(sources, "part1.bin")
    for pod in (*pods.values(), again):
        pod.close()
    node.unpublish("lost")
    assert not target.exists()


def test_what_probes_leave(node: Node) -> None:
    """The first process of the mount's container gets processes whose parents have ended, as when
    a probe takes too long; it leaves none of them as a zombie."""
    assert node.mount is not None
    keeper, holder = node.mount.pid, node.processes()["holder"]
    within = ["nsenter", "-t", str(keeper), "-m", "-p"]
    for _ in range(3):
        subprocess.run([*within, "sh", "-c", "cat /dev/zero >/dev/null & kill -9 $$"], check=False)
    left = until(lambda: len(found := children(keeper)) == 4 and found, "they went elsewhere")
    for pid in {*left} - {holder}:
        os.kill(pid, signal.SIGKILL)
    until(lambda: children(keeper) == [holder], "the keeper has zombies")


def test_who_reads(nodes: NodeFactory, sources: Path) -> None:
    """With hostPID, as the manifest has it, the mount names the programs of pods, also once its
    container was killed; without it the kernel does not."""
    manifest = yaml.safe_load((KUBERNETES / "base/mount.yaml").read_text())
    node = nodes(host_pids=manifest["spec"]["template"]["spec"]["hostPID"])
    node.start()
    pod = node.pod(node.publish("named", model="nlp/tiny", version="1.0.0"))
    for name in ("part0.bin", "part1.bin"):
        log = os.open(node.models / ".axonfs/accesslog", os.O_RDONLY)
        assert os.read(log, 1 << 16).startswith(b"# date time program[pid]")
        assert pod.ask(f"read {name}") == digest(sources, name)
        assert f"[{pod.pid}] open".encode() in os.read(log, 1 << 16)
        os.close(log)
        mount_container(node)
    pod.close()


def test_a_guard_of_another_mount(node: Node, tmp_path: Path, sources: Path) -> None:
    """A mount that is given the guard of another one says so, and leaves that one alone."""
    target = node.publish("guarded", model="nlp/tiny", version="1.0.0")
    other = Container(
        tmp_path / "log",
        *("mount", tmp_path / "models", "--cache", tmp_path / "cache", "--guard", node.guard),
        *("--registry", node.url),
        env={"AXONFS_CONFIG": str(tmp_path / "none.yaml")},
    )
    assert other.wait() == 2
    assert f"the guard keeps the mount at {node.models}" in other.log.read_text()
    pod = node.pod(target)
    assert pod.ask("read part3.bin") == digest(sources, "part3.bin")
    pod.close()
    node.unpublish("guarded")


def test_an_end_in_order(node: Node) -> None:
    """Where the last process of the mount ends and none comes, nothing is left mounted. The probe
    of the mount's pod, in any container of it, says whether the node's mount answers."""
    assert node.mount is not None
    assert node.plugin is not None
    assert probed(node) == 0
    assert node.plugin.stop() == 0
    node.mount.signal(signal.SIGINT)
    assert node.mount.wait() == 0
    assert not os.path.ismount(node.models)
    assert probed(node) == 1


def probed(node: Node) -> int:
    """The exit code of the probe, in a container beside the one that has the mount."""
    manifest = yaml.safe_load((KUBERNETES / "base/mount.yaml").read_text())
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    command = container["readinessProbe"]["exec"]["command"]
    places = {"AXONFS_CACHE_DIR": str(node.cache), "AXONFS_MOUNTPOINT": str(node.models)}
    environment = {**os.environ, "AXONFS_CONFIG": str(node.host / "none.yaml"), **places}
    within = ["unshare", "-m", "-p", "-f", "--propagation", "unchanged"]
    return subprocess.run(
        [*within, *command], env=environment, capture_output=True, timeout=60, check=False
    ).returncode
