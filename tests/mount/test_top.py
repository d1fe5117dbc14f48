"""`axonfs top` of real mounts: its keys, and mounts that hang, end or restart."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from axonfs.cli.mount_state import LiveState
from axonfs.cli.options import make_target
from axonfs.cli.top.app import Lines, Top
from axonfs.errors import AccessDeniedError
from tests.mount.conftest import MODEL, Mount, MountFactory, run_axonfs
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount
SPEC = "nlp/tiny@1.0.0"


@pytest.fixture
def reading(start_mount: MountFactory, registry: RegistryServer) -> Mount:
    """A mount that gets bytes slowly."""
    return start_mount(registry.url, options=("--bandwidth", "192K", "--prefetch", "off"))


@pytest.fixture
def reader(reading: Mount) -> Iterator[subprocess.Popen[bytes]]:
    """A program that reads a model in that mount."""
    with subprocess.Popen(["cat", reading.path / MODEL], stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def shown(app: Top) -> str:
    """The text on the screen."""
    widget = app.query_one(Lines)
    lines = [widget.render_line(number).text.rstrip() for number in range(app.size.height)]
    return "\n".join(lines)


async def until(app: Top, pilot: Pilot[None], words: str) -> str:
    """The text on the screen once it has something that matches `words`."""
    deadline = time.monotonic() + 30
    while not re.search(words, screen := shown(app)):
        assert time.monotonic() < deadline, screen
        await pilot.pause(0.05)
    return screen


@pytest.mark.usefixtures("reader")
def test_the_plain_form(reading: Mount) -> None:
    """In a pipe `axonfs top` prints blocks of text; `-n 1` is one shot."""
    blocks = run_axonfs("top", reading.path, "-n", "2", "--interval", "0.5").stdout.split(
        "\n\naxonfs"
    )
    assert len(blocks) == 2
    for block in blocks:
        assert re.search(
            rf"^{SPEC} +read +\[[#-]{{10}}\] +\d+ % +5.0 MiB +\d+ K?i?B/s ", block, re.M
        )
        assert re.search(rf"^{re.escape(MODEL)} .* \d+ % +5.0 MiB +1$", block, re.M)


@pytest.mark.usefixtures("reader")
def test_the_live_view(reading: Mount) -> None:
    """It shows loads, filters, sorts, shows a model's files, pauses, and follows the terminal."""

    async def steps() -> None:
        app = Top(LiveState(reading.path, make_target()), interval=0.3)
        async with app.run_test(size=(80, 32)) as pilot:
            screen = await until(app, pilot, r"LOADS 1 [^\n]*\n" + SPEC + r" .* \d+ K?i?B/s")
            assert screen.splitlines()[-1].startswith("q quit  ? help")
            await pilot.press("slash", *"no such", "enter")
            await until(app, pilot, r"only lines with 'no such'(.*\n)+LOADS 1?: none is under way")
            await pilot.press("escape", "2", "down", "enter")
            files = await until(app, pilot, r"FILES 4 (.*\n)+model.s.* \d+ %(.*\n)+vocab.txt")
            assert "pinned: no\n" in files
            assert f"path: {reading.path}/nlp/tiny/1.0.0\n" in files
            await pilot.press("question_mark")
            await until(app, pilot, "one table alone")
            await pilot.press("escape", "0", "space")
            before = await until(app, pilot, "PAUSED")
            await pilot.pause(1)
            assert shown(app) == before
            await pilot.press("space")
            await pilot.resize_terminal(50, 12)
            small = await until(app, pilot, r"LOADS 1 (.*\n)+q quit")
            assert len(small.splitlines()) == 12
            drawn = app.query_one(Lines).drawn
            await pilot.pause(2)
            assert app.query_one(Lines).drawn - drawn < 80  # not 12 lines 8 times
            await pilot.press("q")

    asyncio.run(steps())


def test_a_mount_that_hangs_restarts_and_ends_while_it_is_shown(
    reading: Mount, reader: subprocess.Popen[bytes]
) -> None:
    """It says since when there are no figures and why, and goes on when the mount is back."""

    async def steps() -> None:
        app = Top(LiveState(reading.path, make_target()), interval=0.3)
        async with app.run_test(size=(120, 24)) as pilot:
            await until(app, pilot, "LOADS 1 ")
            worker = reading.worker()
            os.kill(worker, signal.SIGSTOP)
            await until(app, pilot, r"figures of [\d:]+, \d+ s ago: it does not answer")
            os.kill(worker, signal.SIGCONT)
            await until(app, pilot, r"LOADS 1 ")
            reading.process.send_signal(signal.SIGHUP)
            while reading.worker() == worker:
                await pilot.pause(0.1)
            await until(app, pilot, r"(?s)^(?!.*figures of).*LOADS 1 ")
            reader.kill()
            reading.process.send_signal(signal.SIGTERM)
            await until(app, pilot, r"figures of .*: it is not mounted now|cannot be asked")

    asyncio.run(steps())


def test_another_users_mount(start_mount: MountFactory, registry: RegistryServer) -> None:
    """Where only the status file can be read, `top` uses that."""
    mount = start_mount(registry.url)
    source = LiveState(mount.path, make_target())
    source._cache = None
    assert source.read()["mountpoint"] == str(mount.path)
    with pytest.raises(AccessDeniedError, match="only root may ask this mount for it"):
        source.ask({"op": "ping"})


def test_a_mount_whose_socket_was_removed(mount: Mount) -> None:
    """The status file answers where the control socket is gone."""
    source = LiveState(mount.path, make_target())
    (mount.cache / "run/control.sock").unlink()
    assert source.read()["mountpoint"] == str(mount.path)


def child(pid: int) -> int:
    """The process that this one started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True)
    return int(found.stdout)


def test_a_signal_leaves_the_terminal_as_it_was(mount: Mount) -> None:
    command = f"{sys.executable} -m axonfs top {mount.path}; echo code $?; stty -a"
    with subprocess.Popen(
        ["script", "-qec", command, "/dev/null"],
        env={**os.environ, "TERM": "xterm"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdout is not None
        screen = ""
        while "WAITING" not in screen:
            screen += os.read(shell.stdout.fileno(), 65536).decode(errors="replace")
        os.kill(child(child(shell.pid)), signal.SIGTERM)
        after = shell.communicate(timeout=60)[0]
    assert "\x1b[?1049l" in after
    assert re.search(r"code 143(?s:.*)\bisig icanon\b", after)


def test_the_extra_is_named_where_it_is_missing(mount: Mount, tmp_path: Path) -> None:
    """Without textual `axonfs top` says what to install, and that the plain form works."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text(
        "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'textual' else f(name, *rest)\n"
    )
    command = f"axonfs top {mount.path}"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "hidden"), "TERM": "xterm"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "pip install 'axonfs[top]'; axonfs top --plain works without it" in done.stdout
