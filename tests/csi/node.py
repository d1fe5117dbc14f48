"""A node of a cluster, as far as the plugin sees one: a host's directory that all containers share,
the kubelet's calls, and pods as readers in mount namespaces of their own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from axonfs.csi.messages import METHODS, PACKAGE, message, number

READY_SECONDS = 30.0
EPHEMERAL = {"csi.storage.k8s.io/ephemeral": "true"}
READER_ONLY = number("VolumeCapability.AccessMode.Mode", "MULTI_NODE_READER_ONLY")
READER = Path(__file__).with_name("reader.py")


def until(done: Callable[[], Any], what: str | Path) -> Any:
    """What `done` returns once it is true, for what has no event.

    Args:
        what: what is wrong if it does not become true, or the log that says so.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not (found := done()):
        late = time.monotonic() > deadline
        assert not late, what.read_text() if isinstance(what, Path) else what
        time.sleep(0.02)
    return found


def children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def descendants(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *descendants(child))]


def program(pid: int) -> str:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


class Container:
    """A process in mount and pid namespaces of its own, which end with it, as a container's.

    Args:
        host_pids: it has the pid namespace of the host, as with hostPID.
    """

    def __init__(
        self, log: Path, *args: str | Path, env: Mapping[str, str], host_pids: bool = False
    ) -> None:
        self.log = log
        self._host_pids = host_pids
        own_pids = () if host_pids else ("-p", "-f", "--kill-child")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *("unshare", "-m", *own_pids, "--propagation", "unchanged"),
                    *(sys.executable, "-m", "axonfs", *map(str, args)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **env},
            )

    @property
    def pid(self) -> int:
        """The pid of its first process, as the test sees it."""
        if self._host_pids:
            return self._process.pid
        (pid,) = until(lambda: children(self._process.pid), self.log)
        return int(pid)

    def kill(self) -> None:
        """What the kernel does at OOM, or the runtime at the end of a grace period.

        With the host's pid namespace it is the runtime that ends what the first process started.
        """
        others = descendants(self.pid) if self._host_pids else []
        self.signal(signal.SIGKILL)
        self.wait()
        for pid in others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        return self._process.wait(READY_SECONDS)

    def stop(self) -> int:
        """SIGTERM, as at the end of a pod; the exit code."""
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()


@dataclass
class Node:
    """The host's directories, and the two containers of the node."""

    host: Path
    cache: Path
    url: str
    logs: Path
    options: tuple[str, ...] = ()  # of the mount
    plugin_options: tuple[str | Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mount_env: Mapping[str, str] = field(default_factory=dict)
    host_pids: bool = False  # of the mount's container
    mount: Container | None = None
    plugin: Container | None = None
    _channel: Any = None
    _pods: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("models", "kubelet/pods", "csi"):
            (self.host / name).mkdir(parents=True)

    @property
    def models(self) -> Path:
        return self.host / "models"

    @property
    def guard(self) -> Path:
        return self.host / "guard.sock"

    def start_mount(self) -> Container:
        args: tuple[str | Path, ...] = (
            "--cache",
            self.cache,
            "--registry",
            self.url,
            "--allow-other",
            *self.options,
        )
        self.mount = Container(
            self.logs / "mount.log",
            *("mount", self.models, "--guard", self.guard, *args),
            env={"AXONFS_CONFIG": str(self.host / "none.yaml"), **self.env, **self.mount_env},
            host_pids=self.host_pids,
        )
        return self.mount

    def start_plugin(self) -> Container:
        self.plugin = Container(
            self.logs / "plugin.log",
            *("csi", self.models, "--cache", self.cache, "--guard", self.guard),
            *("--endpoint", f"unix://{self.socket}", "--kubelet-dir", self.host / "kubelet"),
            *("--node-id", "node-1", *self.plugin_options),
            env={"AXONFS_CONFIG": str(self.host / "none.yaml"), **self.env},
        )
        if self._channel is not None:
            self._channel.close()
        until(self.socket.exists, self.plugin.log)
        self._channel = grpc.insecure_channel(f"unix:{self.socket}")
        return self.plugin

    @property
    def socket(self) -> Path:
        return self.host / "csi/csi.sock"

    def start(self) -> None:
        """Both containers, until the mount answers and the plugin has its descriptors."""
        self.start_mount()
        self.start_plugin()
        until(self.ready, "the mount does not answer")
        self.guarded()

    def ready(self) -> bool:
        return bool(self.call("Probe").ready.value)

    def guarded(self) -> None:
        """Return once the present plugin has the descriptors of the mount."""
        assert self.plugin is not None
        pid = self.plugin.pid
        # Once the container that opened the device has ended, its path begins there.
        until(lambda: {"/dev/fuse", "/fuse"} & {*links(pid)}, "the plugin has no descriptors")

    def call(self, method: str, seconds: float | None = 20.0, **fields: Any) -> Any:
        """The answer of a call.

        Raises:
            grpc.RpcError: it fails; `code()` and `details()` say why.
        """
        service = next(name for name, methods in METHODS.items() if method in methods)
        ask = self._channel.unary_unary(
            f"/{PACKAGE}.{service}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message(f"{method}Response").FromString,
        )
        request = message(f"{method}Request")(**fields)
        return ask(request, timeout=seconds, wait_for_ready=True)

    def target(self, name: str) -> Path:
        """Where the kubelet wants the volume of a pod; the directory above is there."""
        path = self.host / "kubelet/pods" / name / "volumes/kubernetes.io~csi/model/mount"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(
        self, name: str, *, volume_id: str = "", namespace: str = "team-a", **given: Any
    ) -> Path:
        """Publish an inline volume for the pod `name`; its target. `given` are attributes."""
        secrets = given.pop("secrets", {})
        seconds = given.pop("seconds", 20.0)
        target = self.target(name)
        pod = {"csi.storage.k8s.io/pod.namespace": namespace, "csi.storage.k8s.io/pod.name": name}
        self.call(
            "NodePublishVolume",
            seconds,
            volume_id=volume_id or f"csi-{name}",
            target_path=str(target),
            volume_capability={"mount": {}, "access_mode": {"mode": READER_ONLY}},
            volume_context={**given, **pod, **EPHEMERAL},
            secrets=secrets,
            readonly=True,
        )
        return target

    def unpublish(self, name: str) -> None:
        self.call(
            "NodeUnpublishVolume", volume_id=f"csi-{name}", target_path=str(self.target(name))
        )

    def pod(self, target: Path, *, propagation: str = "private") -> Pod:
        """A program in a pod that has the target as its volume."""
        place = self.host / f"pod{len(self._pods)}"
        place.mkdir()
        pod = Pod(target, place, propagation, self.logs / f"{place.name}.log")
        self._pods.append(pod)
        return pod

    def processes(self) -> dict[str, int]:
        """The keeper, holder and worker of the mount."""
        assert self.mount is not None
        keeper = self.mount.pid

        def found() -> dict[str, int] | None:
            (holder, *_), workers = [*children(keeper), 0], []
            if holder and (workers := children(holder)) and "worker" in program(workers[0]):
                return {"keeper": keeper, "holder": holder, "worker": workers[0]}
            return None

        return dict(until(found, self.mount.log))

    def close(self) -> None:
        for pod in self._pods:
            pod.close()
        if self._channel is not None:
            self._channel.close()
        for container in (self.mount, self.plugin):
            if container is not None and container._process.poll() is None:
                container.kill()


def links(pid: int) -> list[str]:
    """What the descriptors of a process are."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.append(os.readlink(link))
    return found


class Pod:
    """A reader behind a bind mount of a target, which a runtime makes when a container begins."""

    def __init__(self, target: Path, place: Path, propagation: str, log: Path) -> None:
        script = 'mount --rbind "$1" "$2" && mount --make-r$3 "$2" && exec "$4" "$5" "$2"'
        self.place = place
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    *("unshare", "-m", "--propagation", "unchanged", "sh", "-ec", script, "pod"),
                    *(target, place, propagation, sys.executable, READER),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str) -> str:
        """The reader's answer to one line; see reader.py."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        assert select.select([self._process.stdout], [], [], READY_SECONDS)[0], command
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(READY_SECONDS)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


@contextmanager
def shared_directory(path: Path) -> Iterator[Path]:
    """A file system whose mounts propagate, as the root of a node is by systemd's doing."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "host", path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", path], check=True)
        yield path
    finally:
        subprocess.run(["umount", "-R", "-l", path], check=False)
