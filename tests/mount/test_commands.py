"""Commands with a mount: in the background, through its control socket, and taking it away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from axonfs.client.health import health, mount_at
from tests.mount.conftest import FILES, Mount, run_axonfs
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount
SPEC = "nlp/tiny@1.0.0"


def test_the_background_mount(place: Path, registry: RegistryServer, tmp_path: Path) -> None:
    """`axonfs mount` returns once the mount answers, and `axonfs umount` once it has ended."""
    started = run_axonfs("mount", place, "--registry", registry.url, "--prefetch", "all")
    assert started.stdout.startswith(f"mounted at {place} (pid ")
    assert (place / "nlp/tiny/1.0.0/vocab.txt").stat().st_size == FILES["vocab.txt"]
    status = json.loads(run_axonfs("status", place, "--json").stdout)
    assert status["mountpoint"] == str(place)
    assert status["prefetch"]["mode"] == "all"
    assert status["pid"] == health(mount_at(place) or pytest.fail("no mount")).pid
    again = run_axonfs("mount", place, "--registry", registry.url, check=False)
    assert again.returncode == 1
    assert f"already mounted by process {status['pid']}" in again.stderr
    run_axonfs("umount", place)
    assert not os.path.ismount(place)
    assert not alive(status["pid"])
    log = tmp_path / "cache/run/mount.log"
    assert status["log"] == str(log)
    assert log.stat().st_mode & 0o777 == 0o600


def test_where_the_log_is_and_what_form_it_has(
    place: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    log = tmp_path / "cache/run/mount.log"
    options = ("--registry", registry.url, "--log-format", "json")
    run_axonfs("mount", place, *options)
    shown = [line.split() for line in run_axonfs("status", place).stdout.splitlines()]
    assert ["log:", str(log)] in shown
    # Another mount of this machine may fail its check.
    doctor = run_axonfs("doctor", "--registry", registry.url, check=False).stdout
    assert f"log {log}" in doctor
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert f"mounted at {place}" in [line["message"] for line in lines]


def test_one_mount_needs_no_name(
    place: Path, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`restart` and `umount` take the configured mountpoint, and `mount` makes its directory."""
    place.rmdir()
    monkeypatch.setenv("AXONFS_MOUNTPOINT", str(place))
    assert run_axonfs("mount", place, "--registry", registry.url).returncode == 0
    worker = health(mount_at(place) or pytest.fail("no mount")).status["worker"]["pid"]
    assert f"restarted {place}" in run_axonfs("restart").stderr
    after = health(mount_at(place) or pytest.fail("no mount")).status["worker"]["pid"]
    assert after != worker
    assert run_axonfs("umount", check=False).stderr == f"unmounted {place}\n"
    assert place.is_dir()
    assert not os.path.ismount(place)
    deep = run_axonfs("mount", place / "a/b", "--registry", registry.url, check=False)
    assert deep.returncode == 2
    assert f"its parent directory does not exist; mkdir -p {place}/a/b" in deep.stderr
    assert not any(place.iterdir())


def test_a_path_for_scripts(mount: Mount) -> None:
    """`axonfs path --mounted` and `axonfs pin` say where a version is in the mount."""
    cache = ("--cache", str(mount.cache))
    for spec, version in (
        (SPEC, "1.0.0"),
        ("nlp/tiny", "1.1.0"),
        ("nlp/tiny@latest", "1.1.0"),
        ("nlp/tiny@~1.0", "1.0.0"),
    ):
        found = run_axonfs("path", "--mounted", spec, *cache).stdout
        assert found == f"{mount.path}/nlp/tiny/{version}\n"
        assert Path(found.strip(), "model.safetensors").is_file()
    told = json.loads(run_axonfs("path", "--mounted", "nlp/tiny", "--json", *cache).stdout)
    assert told == {"spec": "nlp/tiny@1.1.0", "path": f"{mount.path}/nlp/tiny/1.1.0"}
    missing = run_axonfs("path", "--mounted", "nlp/tiny@9", *cache, check=False)
    assert (missing.returncode, missing.stdout) == (1, "")
    as_json = run_axonfs("path", "--mounted", "nlp/tiny@9", *cache, "--json", check=False)
    assert json.loads(as_json.stdout)["error"]["spec"] == "nlp/tiny@9"
    pinned = run_axonfs("pin", SPEC, *cache).stdout
    assert pinned.splitlines()[-1] == f"  at {mount.path}/nlp/tiny/1.0.0"


def alive(pid: int) -> bool:
    """Whether the process runs; one that init has yet to reap does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_background_mount_that_fails_says_why(
    place: Path, registry: RegistryServer, mount: Mount
) -> None:
    """The cause is that of the mount's own log, not just that it ended."""
    done = run_axonfs(
        "mount", place, "--registry", registry.url, "--cache", mount.cache, check=False
    )
    assert done.returncode == 1
    assert str(mount.process.pid) in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_token_is_not_on_the_command_line_of_the_mount(
    place: Path, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user of the machine can read the arguments of a process."""
    monkeypatch.setenv("AXONFS_TOKEN", "s3cret-token")
    run_axonfs("mount", place, "--registry", registry.url)
    status = run_axonfs("status", place, "--json").stdout
    arguments = Path(f"/proc/{json.loads(status)['pid']}/cmdline").read_bytes()
    assert b"mount" in arguments
    assert b"s3cret" not in arguments
    assert "s3cret" not in status


def test_commands_use_what_the_mount_has(mount: Mount, registry: RegistryServer) -> None:
    """`pin` fetches through the mount: what was read before is not fetched again."""
    (mount.path / "nlp/tiny/1.0.0/model.safetensors").read_bytes()
    cache = ("--cache", mount.cache)
    done = run_axonfs("pin", SPEC, *cache)
    read = FILES["model.safetensors"]
    assert mount.fetched() == sum(FILES.values()) + config_size(mount)
    assert f"{read / (1 << 20):.1f} MiB was local" in done.stdout
    (listed,) = json.loads(run_axonfs("list", "--format", "json", *cache).stdout)
    assert listed["Path"] == str(mount.path / "nlp/tiny/1.0.0")
    assert run_axonfs("pin", "--check", *cache).returncode == 0
    assert run_axonfs("verify", *cache).returncode == 0
    run_axonfs("uninstall", SPEC, *cache)
    assert (mount.path / "nlp/tiny/1.0.0/model.safetensors").stat().st_blocks == 8


def config_size(mount: Mount) -> int:
    """The size of config.json, which make_model adds to every model."""
    return (mount.path / "nlp/tiny/1.0.0/config.json").stat().st_size


def test_a_mount_in_use(mount: Mount) -> None:
    """`umount` of a mount in use fails and says how to see who uses it; `--force` takes it away."""
    with (mount.path / "nlp/tiny/1.0.0/vocab.txt").open("rb"):
        done = run_axonfs("umount", mount.path, check=False)
        assert done.returncode == 1
        assert f"fuser -vm {mount.path}" in done.stderr
        assert os.path.ismount(mount.path)
        run_axonfs("umount", mount.path, "--force")
        assert not os.path.ismount(mount.path)
        mount.process.wait(20)


@pytest.mark.complains
def test_a_wedged_mount(mount: Mount) -> None:
    """`umount --force` frees a mount whose process is stuck, and the readers that wait for it."""
    worker = mount.worker()
    os.kill(worker, signal.SIGSTOP)
    reader = subprocess.Popen(
        [sys.executable, "-c", f"open('{mount.path}/nlp/tiny/1.1.0/vocab.txt').read()"],
        stderr=subprocess.DEVNULL,
    )
    try:
        before = time.monotonic()
        assert mount_check(mount) == "wedged"
        run_axonfs("umount", mount.path, "--force")
        assert time.monotonic() - before < 30
        assert reader.wait(20) != 0
        assert mount_at(mount.path) is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)
        reader.kill()
        reader.wait()


def mount_check(mount: Mount) -> str:
    """What the commands think of it, without touching it from this process."""
    found = mount_at(mount.path)
    assert found is not None
    return health(found, patience=1.0).state
