"""Hosts of a small site: network namespaces on one switch, which `ssh` and `scp` of a test reach.

Each host has a home directory, a /var/cache, addresses and processes of its own; files elsewhere
are the machine's. Needs root. All of it goes when the block is left.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

NETWORK = "198.18.1."  # kept for such uses by RFC 2544
_SSH = """#!/bin/sh
at={site}/$1; shift
exec nsenter --target="$(cat "$at/pid")" --net --mount --pid env HOME="$at/home" \
    AXONFS_CACHE_DIR="$at/home/.cache/axonfs" sh -c "cd; $*"
"""
_SCP = """#!/bin/sh
while [ $# -gt 1 ]; do from="$from $1"; shift; done
exec cp $from "{site}/${{1%:}}/home/"
"""


@contextlib.contextmanager
def hosts(site: Path, names: Sequence[str]) -> Iterator[Path]:
    """The directory with `ssh` and `scp`, while the hosts are up."""
    commands = site / "bin"
    commands.mkdir(parents=True)
    for name, text in (("ssh", _SSH), ("scp", _SCP)):
        (commands / name).write_text(text.format(site=site))
        (commands / name).chmod(0o755)
    known = [f"{NETWORK}{number} {name}" for number, name in enumerate(names, 1)]
    (site / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known, ""]))
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(_namespaces("--net"))
        _run(switch, "ip link add lan type bridge", "ip link set lan up")
        for number, name in enumerate(names, 1):
            _start(site, name, stack, switch, number)
        for name in names:
            _introduce(int((site / name / "pid").read_text()), len(names))
        yield commands


def _start(site: Path, name: str, stack: contextlib.ExitStack, switch: int, number: int) -> None:
    for directory in ("home", "cache"):
        (site / name / directory).mkdir(parents=True)
    kinds = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    host = stack.enter_context(_namespaces(*kinds))
    (site / name / "pid").write_text(str(host))
    far = f"eth0 address {_mac(number)} netns {host}"
    link = f"ip link add port{number} type veth peer name {far}"
    _run(switch, link, f"ip link set port{number} master lan up")
    address = f"ip address add {NETWORK}{number}/24 dev eth0"
    _run(host, address, "ip link set eth0 up", "ip link set lo up")
    _run(host, f"mount --bind {site}/hosts /etc/hosts")
    _run(host, f"mount --bind {site}/{name}/cache /var/cache")


def _mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _introduce(host: int, count: int) -> None:
    """Tell a host the others: all namespaces share one table of neighbours, which may be full."""
    for number in range(1, count + 1):
        known = f"{NETWORK}{number} lladdr {_mac(number)} dev eth0 nud permanent"
        _run(host, f"ip neighbour replace {known}")


def _run(process: int, *commands: str) -> None:
    inside = ["nsenter", f"--target={process}", "--net", "--mount"]
    for command in commands:
        subprocess.run([*inside, *command.split()], check=True, capture_output=True)


@contextlib.contextmanager
def _namespaces(*kinds: str) -> Iterator[int]:
    """New namespaces; yields a process within them, whose end ends all others there."""
    command = ["unshare", *kinds, "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"\n"
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        try:
            yield int(children[0]) if children else holder.pid
        finally:
            holder.kill()
