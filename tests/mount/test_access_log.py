"""The access log of a mount: its lines, who may read it, and what its readers meet."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import (
    FILES,
    MODEL,
    NAME,
    Mount,
    MountFactory,
    read_and_closed,
    run_axonfs,
    settled,
)
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate, on_objects
from tests.support.registry import RegistryServer
from tests.support.stuck import stuck, until_asleep

pytestmark = pytest.mark.mount
NOBODY = 65534
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} (?P<program>\S+)\[(?P<pid>\d+)\] (?P<operation>[a-z]+)"
    r" (?:(?P<size>\d+)@(?P<offset>\d+)|-) (?P<seconds>\d+\.\d{6}) (?P<result>[a-zA-Z_]+)"
    r" (?P<path>.+)"
)


class Reader:
    """An open access log, which is read until its lines have what is looked for."""

    def __init__(self, log: Path, step: int = 1 << 16) -> None:
        self.descriptor = os.open(log, os.O_RDONLY)
        self._bytes = b""
        self._step = step

    def until(self, found: Callable[[list[str]], bool]) -> list[str]:
        """The complete lines so far, once `found` is true of them."""
        deadline = time.monotonic() + 20
        while not found(self._lines()):
            assert time.monotonic() < deadline, self._bytes
            self._bytes += os.read(self.descriptor, self._step)
        return self._lines()

    def _lines(self) -> list[str]:
        return [line.decode() for line in self._bytes.split(b"\n")[:-1]]


@contextmanager
def reading(mount: Mount, step: int = 1 << 16) -> Iterator[Reader]:
    reader = Reader(log_of(mount), step)
    try:
        yield reader
    finally:
        os.close(reader.descriptor)


@contextmanager
def waiting(mount: Mount, *, handled: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A `cat` of the access log that waits for a line; killed when the block is left."""
    command = ["cat", str(log_of(mount))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as cat:
        try:
            assert cat.stdout is not None
            assert cat.stdout.readline().startswith(b"# date time ")
            until_asleep(cat)
            yield cat
        finally:
            cat.kill()


def log_of(mount: Mount) -> Path:
    return mount.path / ".axonfs/accesslog"


def read_as(name: bytes, path: Path) -> None:
    """Read a file in a process with this name."""
    source = "import sys; open('/proc/self/comm', 'wb').write(sys.argv[2].encode('latin-1'))"
    source += "; open(sys.argv[1], 'rb').read()"
    subprocess.run([sys.executable, "-c", source, path, name.decode("latin-1")], check=True)


def released(lines: list[str]) -> bool:
    return any(" release - " in line and line.endswith(MODEL) for line in lines)


def all_read(lines: list[str]) -> bool:
    """Whether the lines have each byte of the model, and the name that is missing."""
    found = [match for line in lines if line.endswith(MODEL) and (match := LINE.fullmatch(line))]
    sizes = sum(int(one["size"] or 0) for one in found)
    return sizes >= FILES[NAME] and any(line.endswith("missing") for line in lines)


def test_lines(mount: Mount) -> None:
    """`.axonfs/accesslog` has a line for each request that was answered: time, program and process,
    operation, bytes and offset, seconds, result and path. Several programs can read it."""
    with reading(mount) as reader, reading(mount, step=7) as other:
        read_as(b"\x1b[31m a\n\xff[1]", mount.path / MODEL)
        assert not (mount.path / "nlp/tiny/1.0.0/missing").exists()
        lines = reader.until(all_read)
        same = other.until(all_read)
        both = min(len(lines), len(same))
        assert lines[:both] == same[:both]
    found = [match.groupdict() for line in lines[1:] if (match := LINE.fullmatch(line))]
    assert len(found) == len(lines) - 1
    of_model = [one for one in found if one["path"] == MODEL]
    (opened,) = (one for one in of_model if one["operation"] == "open")
    reads = [one for one in of_model if one["operation"] == "read"]
    assert {one["program"] for one in (opened, *reads)} == {"?[31m_a?\N{REPLACEMENT CHARACTER}[1]"}
    assert opened["result"] == "served"
    spans = [range(start := int(one["offset"]), start + int(one["size"])) for one in reads]
    # All of the file, of which the kernel may ask for a page again.
    assert set().union(*spans) == set(range(FILES[NAME]))
    assert {one["result"] for one in reads} <= {"cold", "cache"}
    assert "cold" in {one["result"] for one in reads}
    assert {one["pid"] for one in reads} == {opened["pid"]}


def test_an_open_of_a_file_that_the_kernel_reads(mount: Mount) -> None:
    """Of a file that the kernel reads itself the access log has the opens alone, and says so."""
    read_and_closed(mount)
    with reading(mount) as reader:
        (mount.path / MODEL).read_bytes()
        lines = reader.until(released)
    found = [match for line in lines if line.endswith(MODEL) and (match := LINE.fullmatch(line))]
    assert [one["result"] for one in found if one["operation"] == "open"] == ["passed_through"]
    # A thread may be late to tell of its last read of the time before.
    assert sum(int(one["size"] or 0) for one in found) <= 1 << 20 < FILES[NAME]


def test_programs_that_read_whatever_they_find(mount: Mount, tmp_path: Path) -> None:
    """No listing has the access log, so that a program that reads every file it finds comes to its
    end; its size is 0."""
    place = mount.path / ".axonfs"
    assert os.listdir(place) == ["status.json"]
    for command in (
        f"grep -r mountpoint {place}",
        f"cp -r {place} {tmp_path}/copy",
        f"tar cf - {place} 2>/dev/null | cat",
        f"find {place} -type f -exec cat {{}} +",
        f"tar cf - {place}/accesslog 2>/dev/null | cat",  # these go by its size
        f"file {place}/accesslog",
    ):
        done = subprocess.run(command, shell=True, capture_output=True, timeout=20, check=True)
        assert done.stdout or "cp" in command
    assert os.stat(place / "accesslog").st_size == 0


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
@pytest.mark.usefixtures("open_to_users", "open_path")
def test_other_users(start_mount: MountFactory, registry: RegistryServer) -> None:
    """Only the owner of the mount and root can read the access log, whatever `--allow-other`,
    `--uid` and `--mode` say."""
    options = ("--allow-other", "--uid", str(NOBODY), "--mode", "0444")
    mount = start_mount(registry.url, options=options)
    found = log_of(mount).stat()
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o400)
    source = "import sys\ntry: open(sys.argv[1])\nexcept OSError as exc: print(exc.errno)"
    done = subprocess.run(
        ["/usr/bin/env", "-i", sys.executable, "-c", source, log_of(mount)],
        user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout == f"{errno.EACCES}\n"


def test_what_all_users_see(start_mount: MountFactory, registry_dir: Path) -> None:
    """With `--allow-other` status.json, which all users can read, names no program that waits; the
    commands of the owner do."""
    gate = Gate(seconds=60)
    with FaultyOrigin(registry_dir) as origin:
        mount = start_mount(origin.url, options=("--allow-other",))
        os.listdir((mount.path / MODEL).parent)
        origin.always(on_objects(gate))
        try:
            with stuck("read", mount.path / MODEL) as reader:
                settled(lambda: mount.status()["waits"] != [])
                seen = {(wait["pid"], wait["program"]) for wait in mount.status()["waits"]}
                told = json.loads(run_axonfs("explain", mount.path, "--json").stdout)
                assert reader.pid in {wait["pid"] for wait in told["waits"]}
        finally:
            gate.open.set()
    assert seen == {(0, "")}


def test_signals(mount: Mount) -> None:
    """A signal ends a program that waits for a line of the access log, one that stops it stops it;
    with O_NONBLOCK it gets EAGAIN."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with waiting(mount) as cat:
            cat.send_signal(number)
            assert cat.wait(10) == -number
    with waiting(mount) as cat:
        cat.send_signal(signal.SIGSTOP)
        settled(lambda: "T (stopped)" in Path(f"/proc/{cat.pid}/status").read_text())
        cat.send_signal(signal.SIGCONT)
        os.stat(mount.path / "nlp/tiny")
        until_line(cat, "nlp/tiny")
    descriptor = os.open(log_of(mount), os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(descriptor, 1 << 16).startswith(b"# date")
    while True:  # what the open itself had the kernel ask
        try:
            os.read(descriptor, 1 << 16)
        except BlockingIOError:
            break
    assert select.select([descriptor], [], [], 0)[0], "poll does not wait: see the docs"
    os.close(descriptor)


def test_programs_that_share_it(mount: Mount) -> None:
    """Programs that share one open access log can all be killed while they wait for a line."""
    with reading(mount) as reader:
        reader.until(bool)
        cats = [
            subprocess.Popen(["cat"], stdin=reader.descriptor, stdout=subprocess.DEVNULL)
            for _ in range(2)
        ]
        for cat in cats:
            until_asleep(cat)
        for cat in reversed(cats):
            cat.kill()
            cat.wait(10)


@pytest.mark.complains
def test_the_next_worker(mount: Mount) -> None:
    """A program that reads the access log goes on reading over a restart and over the end of a
    worker, and learns of it; when the mount is ended its read ends."""
    with waiting(mount) as cat:
        assert cat.stdout is not None
        run_axonfs("restart", mount.path)
        until_line(cat, "# another worker answers from here on")
        os.stat(mount.path / MODEL)
        until_line(cat, MODEL)
        until_asleep(cat)
        mount.kill_worker()
        until_line(cat, "# another worker answers from here on")
        os.stat(mount.path / "nlp/tiny/1.1.0/vocab.txt")
        until_line(cat, "vocab.txt")
        refused = run_axonfs("umount", mount.path, check=False)
        assert refused.returncode == 1
        assert "busy" in refused.stderr or "in use" in refused.stderr
        run_axonfs("umount", "--force", mount.path)
        assert cat.wait(10) == 1
        assert mount.process.wait(20) == 0


def until_line(cat: subprocess.Popen[bytes], part: str) -> None:
    """Read lines until one contains `part`."""
    assert cat.stdout is not None
    deadline = time.monotonic() + 20
    while part not in (line := cat.stdout.readline().decode()):
        assert line, "cat ended"
        assert time.monotonic() < deadline, line


@pytest.mark.complains
def test_too_many_readers(mount: Mount) -> None:
    """At most 32 handles of the access log are open at a time; a further open gives EBUSY."""
    with reading(mount):
        more = [os.open(log_of(mount), os.O_RDONLY) for _ in range(31)]
        with pytest.raises(OSError, match="Device or resource busy"):
            os.open(log_of(mount), os.O_RDONLY)
        for descriptor in more:
            os.close(descriptor)
    settled(lambda: opens_again(mount))


def opens_again(mount: Mount) -> bool:
    try:
        os.close(os.open(log_of(mount), os.O_RDONLY))
    except OSError:
        return False
    return True
