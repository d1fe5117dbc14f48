"""Invalid requests on the control socket of a mount, which answers or hangs up, and goes on."""

from __future__ import annotations

import json
import random
import socket
from typing import Any

import pytest

from axonfs.rundir import SOCKET, reachable
from axonfs.service.service import OPERATIONS
from tests.mount.conftest import Mount
from tests.support.profile import SEED, report, scaled

pytestmark = [pytest.mark.mount, pytest.mark.complains, pytest.mark.timeout(1800)]

SPECS = ["nlp/tiny@1.0.0", "nlp/tiny", "nlp/none@1", "../..", "", "a@", "x" * 5000, "nlp/ti\nny@1"]
VALUES: list[Any] = [None, True, -1, 1e308, "", "…", [], [None], [[]], {}, {"a": []}, ["*"], SPECS]
KEYS = [
    "specs",
    "spec",
    "model",
    "query",
    "include",
    "exclude",
    "all",
    "drop",
    "repair",
    "registries",
]
RAW = [
    b"",
    b"\n",
    b"\0" * 100 + b"\n",
    b"\xff\xfe\n",
    b"nonsense\n",
    b'{"op": "status"',
    b"[" * 100_000 + b"\n",
    b'{"op": ' * 50_000 + b"\n",
    b"9" * 10_000 + b"\n",
    b"x" * (2 << 20),
    b"null\n",
    b'"status"\n',
    b'["status"]\n',
    b'{"op": "status"}\n{"op": "status"}\n',
]


def say(mount: Mount, data: bytes, *, leave: bool) -> list[dict[str, Any]]:
    """The events that come back, unless the asker leaves before it hears them."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        with reachable(mount.cache / SOCKET) as address:
            connection.connect(address)
        try:
            connection.sendall(data)
            if leave:
                return []
            if not data.endswith(b"\n"):
                connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                return [json.loads(line) for line in answer]
        except (BrokenPipeError, ConnectionResetError):  # it hung up on us
            return []


def request(chance: random.Random) -> bytes:
    """A request that has the form of one, but for what chance does to it."""
    asked: dict[str, Any] = {"op": chance.choice([*OPERATIONS, "nonsense", None, 7, ["pin"]])}
    for key in chance.sample(KEYS, chance.randrange(4)):
        asked[key] = chance.choice([*VALUES, [chance.choice(SPECS)], chance.choice(SPECS)])
    line = json.dumps(asked).encode() + b"\n"
    if chance.random() < 0.2:
        at = chance.randrange(len(line))
        line = line[:at] + chance.randbytes(3) + line[at:]
    return line


def test_nonsense_on_the_control_socket(mount: Mount) -> None:
    """Each request ends, none ends the worker, and none is a bug."""
    worker, chance = mount.worker(), random.Random(SEED)
    count = scaled(200, 4000)
    for data in RAW:
        assert all(event["event"] != "result" for event in say(mount, data, leave=False)) or (
            b'"status"}' in data
        )
    for _ in range(count):
        events = say(mount, request(chance), leave=chance.random() < 0.1)
        assert "a bug" not in json.dumps(events), events
    assert mount.worker() == worker
    assert "a bug" not in mount.log.read_text()
    report("control", requests=count + len(RAW))
