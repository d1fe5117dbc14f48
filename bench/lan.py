"""Hosts in namespaces of their own, joined by a switch; each has a line of its own.

A host has a network namespace and a mount namespace. A line is a pair of veth devices with a token
bucket (tc tbf) at each end, so it has the same rate in both directions. The switch is a bridge in
one more namespace. Nothing of it is visible in the machine's own network, and all of it goes when
this process ends. Needs root; raises NotRunError if something is missing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.experiment import NotRunError
from bench.network import BURST, bucket, run

# Addresses that RFC 2544 keeps for benchmarks; the namespaces have no route to anything else.
NETWORK = "198.18.{}.{}"
SUBNET = 250
QUEUE_SECONDS = 0.032
# Hosts that know each other from the start. All namespaces share one table of neighbours, which is
# full at 1024 that were asked for (gc_thresh3): with 33 hosts, connections fail at random.
KNOWN = 256


@dataclass(frozen=True)
class Host:
    """Namespaces, held by the process `pid`, and the address on the switch."""

    pid: int
    address: str

    def inside(self) -> tuple[str, ...]:
        """The prefix of a command that runs in the host."""
        return ("nsenter", f"--target={self.pid}", "--net", "--mount", "--wd=.")

    def seen(self, path: Path) -> Path:
        """A path of the host as this process reaches it."""
        return Path(f"/proc/{self.pid}/root{path}")

    def carried(self) -> tuple[int, int]:
        """The bytes that the line has carried to the host, and from it."""
        for line in Path(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            device, _, counters = line.partition(":")
            if device.strip() == "eth0":
                fields = counters.split()
                return int(fields[0]), int(fields[8])
        raise LookupError(self.address)

    def connections(self) -> int:
        """The TCP connections, both ends of those within the host."""
        lines = Path(f"/proc/{self.pid}/net/sockstat").read_text().splitlines()
        [tcp] = [line.split() for line in lines if line.startswith("TCP:")]
        return int(tcp[2])


class Switch:
    """The switch, which makes the hosts.

    Args:
        stack: ends the hosts.
        pid: the process that holds the switch's namespace.
        known: a file with the commands of iproute2 that introduce the other hosts to one.
    """

    def __init__(self, stack: contextlib.ExitStack, pid: int, known: str) -> None:
        self._stack = stack
        self._known = known
        self._inside = ("nsenter", f"--target={pid}", "--net")
        self._count = 0
        self._run("ip", "link", "add", "switch", "type", "bridge")
        self._run("ip", "link", "set", "switch", "up")

    def host(self, bits_per_second: int) -> Host:
        """A new host whose line has this rate in both directions."""
        self._count += 1
        address = _address(self._count)
        host = Host(self._stack.enter_context(_namespaces("--net", "--mount")), address)
        port = f"port{self._count}"
        far = ("peer", "name", "eth0", "address", _mac(self._count), "netns", str(host.pid))
        self._run("ip", "link", "add", port, "type", "veth", *far)
        self._run("ip", "link", "set", port, "master", "switch", "up")
        within = host.inside()
        run(*within, "ip", "address", "add", f"{address}/16", "dev", "eth0")
        run(*within, "ip", "link", "set", "eth0", "up")
        run(*within, "ip", "link", "set", "lo", "up")
        run(*within, "ip", "-batch", self._known)
        queue = max(BURST, int(bits_per_second / 8 * QUEUE_SECONDS))
        limit = ("root", *bucket(bits_per_second, queue))
        self._run("tc", "qdisc", "add", "dev", port, *limit)
        run(*within, "tc", "qdisc", "add", "dev", "eth0", *limit)
        return host

    def _run(self, *command: str) -> None:
        run(*self._inside, *command)


def _address(number: int) -> str:
    return NETWORK.format(*divmod(number, SUBNET))


def _mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


@contextlib.contextmanager
def switch() -> Iterator[Switch]:
    """A switch without hosts; it and its hosts are removed at the end."""
    if os.geteuid():
        raise NotRunError("hosts with lines of their own need root, for namespaces and tc")
    with tempfile.NamedTemporaryFile("w") as known, contextlib.ExitStack() as stack:
        for number in range(1, KNOWN + 1):
            other = f"{_address(number)} lladdr {_mac(number)} dev eth0 nud permanent"
            print("neighbour replace", other, file=known)
        known.flush()
        yield Switch(stack, stack.enter_context(_namespaces("--net")), known.name)


@contextlib.contextmanager
def _namespaces(*kinds: str) -> Iterator[int]:
    """New namespaces; yields the process that holds them, which ends with this one."""
    command = ["unshare", *kinds, "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if not holder.stdout or holder.stdout.readline() != b"\n":
            raise NotRunError(f"unshare {' '.join(kinds)} failed: namespaces need CAP_SYS_ADMIN")
        yield holder.pid
