"""A mount namespace in which mount(8) finds `mount.axonfs`, with an fstab of its own.

mount(8) looks for its helpers below /sbin. There `mount.fuse3` exists and is run as `mount.fuse`
for each fuse type without a helper, so `mount.axonfs` is mounted in its place, in this namespace
alone.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HELPER = Path(sys.executable).with_name("mount.axonfs")


def missing() -> str | None:
    """What this machine lacks for it; None if nothing."""
    if shutil.which("mount.fuse3", path="/usr/sbin:/sbin") is None:
        return "mount.fuse3 is not installed"
    return None if HELPER.exists() else f"{HELPER} is not installed"


@dataclass(frozen=True)
class Machine:
    """The namespace of the process `pid`."""

    pid: int
    fstab: Path

    @property
    def within(self) -> list[str]:
        """The words before a command that have it run there, in the present directory."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--wdns=."]

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.within, *map(str, words)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@contextlib.contextmanager
def machine(fstab: Path, *, helper: bool = True) -> Iterator[Machine]:
    """The namespace, until the end of the block; `helper` says whether mount.axonfs is found."""
    fstab.touch()
    program = shutil.which("mount.fuse3", path="/usr/sbin:/sbin")
    steps = [f'mount --bind "{fstab}" /etc/fstab']
    steps += [f'mount --bind "{HELPER}" "$(realpath {program})"'] if helper else []
    steps += ["echo ready", "exec sleep 600"]
    with _started(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec"], steps
    ) as process:
        yield Machine(process.pid, fstab)


@contextlib.contextmanager
def _started(words: Sequence[str], steps: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    script = "\n".join(steps)
    process = subprocess.Popen([*words, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()
