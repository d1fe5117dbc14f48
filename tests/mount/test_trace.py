"""Traces of real mounts: what they have, who goes on with them, and what they never touch."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from axonfs.ranges import Range
from axonfs.trace.reading import Trace, read
from axonfs.trace.recorder import KEPT
from tests.mount.conftest import (
    FILES,
    MODEL,
    NAME,
    Mount,
    MountFactory,
    patched,
    run_axonfs,
    settled,
    source_bytes,
)
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount
SIZE = FILES[NAME]


def covered(spans: list[Range]) -> int:
    """How many of the file's bytes the spans have; none has a byte of another one."""
    at = 0
    for span in sorted(spans):
        assert span.start >= at
        at = span.stop
    return sum(span.size for span in spans)


def landed(trace: Trace) -> list[Range]:
    return [
        landing.span for job in trace.jobs for landing in job.landings if job.file.path == MODEL
    ]


def test_a_trace_has_opens_reads_requests_and_landings(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """`axonfs mount --trace FILE` records opens, the reads of each program, requests and what they
    brought. FILE is its owner's alone."""
    path = tmp_path / "load.trace"
    mount = start_mount(registry.url, options=("--trace", str(path), "--no-passthrough"))
    subprocess.run(["cat", mount.path / MODEL], stdout=subprocess.DEVNULL, check=True)
    assert mount.status()["trace"]["file"] == str(path)
    settled(lambda: sum(one.size for one in read(path).reads) == SIZE)
    mount.stop()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read(path)
    (file,) = [one for one in found.files if one.path == MODEL]
    assert (file.size, file.local, file.spec) == (SIZE, [], "nlp/tiny@1.0.0")
    assert [(one.program.name, one.passed_through) for one in found.opens] == [("cat", False)]
    assert {one.program.name for one in found.reads} == {"cat"}
    assert covered(landed(found)) == SIZE
    whole = [job for job in found.jobs if job.file is file]
    assert {request.source for job in whole for request in job.requests} == {f"{registry.url}/"}
    assert all(job.ended is not None and job.error is None for job in whole)
    assert whole[0].priority == 0  # a reader waited
    assert (found.lost, found.malformed) == (0, 0)


@pytest.mark.complains
def test_a_trace_goes_on_after_a_kill(
    place: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    """A recording that was started by a command goes on in the same file with the next worker,
    and `axonfs trace stop` ends it for good."""
    path = tmp_path / "load.trace"
    run_axonfs("mount", place, "--registry", registry.url)
    mount = Mount(place, tmp_path / "cache", tmp_path / "cache/run/mount.log", None)  # type: ignore[arg-type]
    assert str(path) in run_axonfs("trace", "start", place, "-o", path).stdout
    shown = run_axonfs("status", place).stdout.splitlines()
    assert any(line.startswith("trace:") and str(path) in line for line in shown)
    again = run_axonfs("trace", "start", place, check=False)
    assert (again.returncode, "records a trace already" in again.stderr) == (1, True)
    (place / "nlp/tiny/1.0.0/vocab.txt").read_bytes()
    settled(lambda: b'"read"' in path.read_bytes())
    mount.kill_worker()
    assert (place / MODEL).read_bytes() == source_bytes(tmp_path, 0, NAME)
    done = run_axonfs("trace", "stop", place)
    assert str(path) in done.stdout
    size = path.stat().st_size
    found = read(path)
    assert (len(found.workers), found.malformed) == (2, 0)
    assert covered(landed(found)) == SIZE
    assert {file.path for file in found.files} >= {MODEL, "nlp/tiny/1.0.0/vocab.txt"}
    run_axonfs("restart", place)
    assert mount.status()["trace"]["file"] is None
    assert path.stat().st_size == size
    refused = run_axonfs("trace", "stop", place, check=False)
    assert "the mount records no trace" in refused.stderr


def test_the_setting_begins_and_ends_a_recording_at_once(
    place: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    """The setting `trace` applies to a running mount; its worker goes on."""
    path = tmp_path / "load.trace"
    run_axonfs("mount", place, "--registry", registry.url)
    status = place / ".axonfs/status.json"
    worker = json.loads(status.read_text())["worker"]
    assert "applies now" in run_axonfs("config", "set", "trace", path).stderr
    assert json.loads(status.read_text())["trace"]["file"] == str(path)
    (place / MODEL).read_bytes()
    settled(lambda: covered(landed(read(path))) == SIZE)
    assert "applies now" in run_axonfs("config", "set", "trace", "default").stderr
    after = json.loads(status.read_text())
    assert (after["trace"]["file"], after["worker"]) == (None, worker)
    assert read(path).stops[-1][1] == "asked for"
    refused = run_axonfs("config", "set", "trace", tmp_path / "config.yaml")
    assert "exists, and is not a trace" in refused.stderr
    assert json.loads(status.read_text())["trace"]["file"] is None


def test_no_other_file_is_recorded_into(
    mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace never takes the place of another file, and follows no symbolic link."""
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "none.yaml"))
    other, link = tmp_path / "other.txt", tmp_path / "link"
    other.write_text("a letter")
    link.symlink_to(tmp_path / "new")
    for path, why in ((other, "is not a trace"), (link, "symbolic link")):
        done = run_axonfs("trace", "start", mount.path, "-o", path, check=False)
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    inside = run_axonfs("trace", "start", mount.path, "-o", mount.path / "new", check=False)
    assert "is in the mount itself" in inside.stderr
    assert other.read_text() == "a letter"
    assert not (tmp_path / "new").exists()


@pytest.mark.complains
def test_a_full_trace_ends_and_the_mount_goes_on(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """A recording ends when its file is full; reads go on, and the log and the trace say why."""
    path = tmp_path / "load.trace"
    small = patched(tmp_path, "import axonfs.trace.file as file; file.MOST = 1000")
    mount = start_mount(registry.url, options=("--trace", str(path)), env=small)
    assert (mount.path / MODEL).read_bytes() == source_bytes(tmp_path, 0, NAME)
    settled(lambda: mount.status()["trace"]["file"] is None)
    assert "is full" in mount.status()["trace"]["ended"]
    ((_, why),) = read(path).stops
    assert "is full" in why
    assert any("is full" in line for line in mount.complaints())


@pytest.mark.complains
def test_a_disk_that_hangs_holds_up_no_reader(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """A recording ends when its disk does not answer; reads and restarts go on."""
    hangs = """
import time
from axonfs.trace import file, recorder
recorder.PATIENCE = 0.5
def append(self, lines, before=file.TraceFile.append):
    before(self, lines) if self.size == 0 else time.sleep(3600)
file.TraceFile.append = append
"""
    path = tmp_path / "load.trace"
    options = ("--trace", str(path))
    mount = start_mount(registry.url, options=options, env=patched(tmp_path, hangs))
    assert (mount.path / MODEL).read_bytes() == source_bytes(tmp_path, 0, NAME)
    settled(lambda: mount.status()["trace"]["file"] is None)
    assert "has not answered" in mount.status()["trace"]["ended"]
    run_axonfs("restart", mount.path)
    assert (mount.path / MODEL).read_bytes() == source_bytes(tmp_path, 0, NAME)


def test_the_configured_cache_names_the_mount(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """With several mounts, commands that name none are about the one with the configured cache, to
    which a symbolic link may lead. That cache keeps the newest traces."""
    mounts = [start_mount(registry.url, cache=tmp_path / name) for name in "ab"]
    traces = mounts[1].cache / "traces"
    traces.mkdir()
    old = [traces / f"2026-11-01T00-00-{second:02}.trace" for second in range(KEPT)]
    for path in old:
        path.touch(0o600)
    link = tmp_path / "link"
    link.symlink_to(mounts[1].cache)
    for cache in (mounts[1].cache, link):
        done = run_axonfs("trace", "start", "--cache", cache)
        assert str(mounts[1].cache) in done.stdout
        assert [one.status()["trace"]["file"] is None for one in mounts] == [True, False]
        run_axonfs("trace", "stop", "--cache", cache)
    assert len(list(traces.iterdir())) == KEPT
    assert (old[0].exists(), old[-1].exists()) == (False, True)
