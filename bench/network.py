"""A limited line: a network namespace for the origin, a token bucket, and a long round trip.

The origin runs inside the namespace behind a veth pair, the readers outside. The bucket (tc tbf) is
on the origin's end. The delay comes from netem if the kernel has it, else from relay.py inside the
namespace. Needs root; raises NotRunError if something is missing.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.experiment import NotRunError

PREFIX = "axonfs-bench-"
GBIT = 10**9
# The burst of the bucket, and the queue in front of it: 32 ms at 1 Gbit/s.
BURST = 256 << 10
QUEUE = 4 << 20
RELAY_PORT = 8090


@dataclass(frozen=True)
class Line:
    """A limited line: the namespace of the origin, and its distance."""

    namespace: str
    address: str
    bits_per_second: int
    rtt: float
    netem: bool

    def inside(self) -> list[str]:
        """The prefix of a command that runs at the origin's end."""
        return ["ip", "netns", "exec", self.namespace]

    @contextlib.contextmanager
    def reached(self, port: int) -> Iterator[int]:
        """The port that reaches a server on `port` at the origin's end."""
        if self.netem or not self.rtt:
            yield port
            return
        relay = [sys.executable, "-m", "bench.relay", self.address, str(RELAY_PORT), str(port)]
        command = [*self.inside(), *relay, str(self.rtt * 1000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_CHECKOUT) as process:
            try:
                if not process.stdout or process.stdout.readline() != b"ready\n":
                    raise NotRunError("the delaying relay did not start")
                yield RELAY_PORT
            finally:
                process.terminate()


_CHECKOUT = Path(__file__).parents[1]


@contextlib.contextmanager
def line(bits_per_second: int, rtt: float) -> Iterator[Line]:
    """A line with this rate towards the readers, and this round trip in seconds."""
    if os.geteuid():
        raise NotRunError("a limited line needs root, for a network namespace and tc")
    _sweep()
    namespace, net = f"{PREFIX}{os.getpid()}", f"198.18.{os.getpid() % 250}"
    near, far = f"axb{os.getpid()}a", f"axb{os.getpid()}b"
    _ip("netns", "add", namespace)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
        _ip("address", "add", f"{net}.1/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", namespace, "address", "add", f"{net}.2/30", "dev", far)
        _ip("-n", namespace, "link", "set", far, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        limit = ("root", *bucket(bits_per_second, QUEUE))
        run("tc", "-n", namespace, "qdisc", "add", "dev", far, *limit)
        netem = bool(rtt) and _netem(near, rtt)
        yield Line(namespace, f"{net}.2", bits_per_second, rtt, netem)
    finally:
        # Processes inside keep the namespace and its veth pair alive, so they are ended first.
        subprocess.run(["ip", "link", "del", near], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)


def _netem(device: str, rtt: float) -> bool:
    """Delay packets that leave `device`, which lengthens every round trip by the same time."""
    delay = f"netem delay {rtt * 1e6:.0f}us limit 100000"
    command = ["tc", "qdisc", "add", "dev", device, "root", *delay.split()]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def bucket(bits_per_second: int, queue: int) -> list[str]:
    """The words of a token bucket for tc, with so many bytes of queue in front of it."""
    return f"tbf rate {bits_per_second}bit burst {BURST} limit {queue}".split()


def _sweep() -> None:
    """Remove the namespaces of earlier runs that were killed."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/run/netns"):
            found = re.fullmatch(rf"{PREFIX}(\d+)", name)
            if found and not Path(f"/proc/{found[1]}").exists():
                _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    run("ip", *arguments)


def run(*command: str) -> None:
    """Run a command of iproute2."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise NotRunError(f"{command[0]} is missing: install iproute2") from exc
    except subprocess.CalledProcessError as exc:
        raise NotRunError(f"{' '.join(command)}: {exc.stderr.strip()}") from exc
