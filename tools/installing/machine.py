"""A fresh Debian machine of namespaces: systemd as its first process, and a disk of its own.

Used by tools/try_install, as root. A machine has mount, PID, network, IPC, UTS and cgroup
namespaces of its own; its disk is an overlay over a directory that debootstrap made, and its
network is the loopback interface. A command that installs something runs in the host's network
instead, and shares all else with the machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_BOOT = r"""
set -e
cd "$PLACE"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$PLACE/upper,workdir=$PLACE/work" root
cd root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755,dev tmpfs dev
for device in null zero full random urandom tty fuse; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
while [ $# -gt 0 ]; do
    mkdir -p "./$2"
    mount --bind "$1" "./$2"
    mount -o remount,bind,ro "./$2"
    shift 2
done
hostname "$NAME"
pivot_root . mnt
exec chroot . env -i container=axonfs sh -c 'umount -l /mnt && exec /sbin/init --show-status=0'
"""
_BOOT_SECONDS = 60


@dataclass
class Machine:
    """One machine. `lower` is what its disk has at first, `place` a new directory for what it
    writes. `binds` are directories of the host, read-only, and where they are in the machine."""

    name: str
    lower: Path
    place: Path
    binds: Mapping[Path, str]
    init: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def cgroup(self) -> Path:
        mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
        return Path(next(each[1] for each in mounts if each[2] == "cgroup2")) / self.place.name

    @property
    def root(self) -> Path:
        """The machine's file system, as root of the host sees it."""
        return Path(f"/proc/{self.init}/root")

    def boot(self) -> None:
        for each in ("upper", "work", "root"):
            (self.place / each).mkdir(parents=True)
        self.cgroup.mkdir()
        spaces = ["mount", "uts", "ipc", "net", "pid", "cgroup"]
        command = ["unshare", *(f"--{space}" for space in spaces), "--fork", "--kill-child"]
        command += ["--propagation", "private", "bash", "-c", _BOOT, "boot"]
        for source, target in self.binds.items():
            command += [str(source), target]
        with (self.place / "console").open("wb") as console:
            self._process = subprocess.Popen(
                ["sh", "-c", f'echo $$ >{self.cgroup}/cgroup.procs && exec "$@"', "sh", *command],
                env={
                    **os.environ,
                    "LOWER": str(self.lower),
                    "PLACE": str(self.place),
                    "NAME": self.name,
                },
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self._await_systemd(self._process)

    def _await_systemd(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError, IndexError, ValueError):
                self.init = int(children.read_text().split()[0])
                if Path(f"/proc/{self.init}/comm").read_text() == "systemd\n":
                    done = self._entered(["systemctl", "is-system-running", "--wait"])
                    if done.stdout.strip() in {"running", "degraded"}:
                        return
            time.sleep(0.1)
        raise SystemExit(f"{self.name} did not boot:\n{(self.place / 'console').read_text()}")

    def stop(self) -> None:
        if self.init:
            with suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        if self.cgroup.is_dir():
            subprocess.run(
                ["find", self.cgroup, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"],
                check=False,
            )

    def words(self, network: bool = False) -> list[str]:
        """What to put before a command so that it runs in the machine."""
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", *([] if network else ["--net"])]
        return ["nsenter", "--target", str(self.init), *spaces, "--"]

    def _entered(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words(), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def copy(self, source: Path, target: str) -> None:
        file = self.root / target.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", source, file], check=True)
