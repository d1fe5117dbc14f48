"""Where the models of a target are mounted, as far as mounts come, go and answer late."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from axonfs.call import Event
from axonfs.client import mounted
from axonfs.client.mounted import Mounted
from axonfs.client.target import Target
from axonfs.client.transport import Sink, Transport, ignore
from axonfs.connection.mountinfo import Mount
from axonfs.errors import AxonError
from axonfs.settings.settings import Settings


@dataclass
class Machine:
    """The mounts that there are, and the one that answers a request for its status."""

    mounts: list[Mount] = field(default_factory=list)
    answer: str | None = None
    asked: int = 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()

    def ask_worker(self: Transport, request: Event, sink: Sink = ignore) -> Event | None:
        assert request == {"op": "status"}
        found.asked += 1
        return {"status": {"mountpoint": found.answer}} if found.answer else None

    monkeypatch.setattr(Transport, "ask_worker", ask_worker)
    monkeypatch.setattr(mounted, "mounts", lambda: list(found.mounts))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Mounted:
    def here(settings: Settings, request: Event, sink: Sink) -> Event:
        raise AssertionError(request)

    target = Target(Settings(cache=tmp_path), explicit_cache=True)
    return Mounted(Transport(target, lambda text: None, here))


def test_a_mount_is_asked_once_and_again_when_mounts_change(
    machine: Machine, place: Mounted
) -> None:
    assert place.mountpoint() is None
    assert machine.asked == 0
    machine.mounts.append(Mount(Path("/one"), 1))
    machine.answer = "/one"
    assert [place.mountpoint() for _ in range(3)] == [Path("/one")] * 3
    assert machine.asked == 1
    machine.mounts.append(Mount(Path("/other"), 2))
    machine.answer = "/other"
    assert place.mountpoint() == Path("/other")
    machine.mounts.clear()
    assert place.mountpoint() is None


def test_a_mount_that_does_not_answer_yet_is_asked_again(machine: Machine, place: Mounted) -> None:
    machine.mounts.append(Mount(Path("/one"), 1))
    assert place.mountpoint() is None
    machine.answer = "/one"
    assert place.mountpoint() == Path("/one")


def test_where_nothing_is_mounted_there_is_no_directory(machine: Machine, place: Mounted) -> None:
    with pytest.raises(AxonError, match="nlp/a@latest: nothing is mounted; run axonfs mount"):
        place.directory("nlp/a", ignore)
