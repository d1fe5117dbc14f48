"""docs/mounting.md: a mount below an automounter, as systemd and autofs have one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fstab import HELPER, missing
from tests.support.registry import RegistryServer

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.getuid() != 0, reason="mounts an autofs"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(
        "autofs" not in Path("/proc/filesystems").read_text(), reason="the kernel has no autofs"
    ),
]

# An automounter whose own process group mounts, as systemd does. Whoever else goes to the
# mountpoint waits for it until it says that it is mounted, which this one never does.
AUTOMOUNTER = """
import ctypes, os, select, subprocess, sys
place, command = sys.argv[1], sys.argv[2:]
asked, ask = os.pipe()
options = f"fd={ask},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"test", place.encode(), b"autofs", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
os.close(ask)
trigger = subprocess.Popen(["ls", place], start_new_session=True, stdout=subprocess.PIPE)
select.select([asked], [], [])
mounting = subprocess.run(command, timeout=60)
print(sorted(os.listdir(place + "/nlp/tiny")), mounting.returncode, trigger.poll())
subprocess.run(["axonfs", "umount", place], check=True)
subprocess.run(["umount", "-l", place], check=True)
trigger.kill()
"""


def test_below_an_automounter(place: Path, registry: RegistryServer) -> None:
    """The mount works while the access that it is made for still waits, and whose it is."""
    words = [sys.executable, "-c", AUTOMOUNTER, place, HELPER, registry.url, place, "-o", "rw"]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *map(str, words)],
        env={**os.environ, "PATH": f"{HELPER.parent}:{os.environ['PATH']}"},
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['1.0.0', '1.1.0', 'latest'] 0 None"), done.stdout
