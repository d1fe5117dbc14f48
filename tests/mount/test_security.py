"""docs/security.md on real mounts: whose the files are, and what is never shown."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from axonfs.connection.mountinfo import mounts
from axonfs.daemon.holders import State, holder_at, holder_of, running
from axonfs.names import parse_spec
from tests.mount.conftest import FILES, MODEL, Mount, MountFactory, run_axonfs
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import on_objects
from tests.support.registry import RegistryServer
from tests.support.wiring import Authority

pytestmark = pytest.mark.mount
OTHER, NOBODY = 1000, 65534
SECRET = "t0ken-to-be-kept-secret"
ESCAPE = "\x1b[2J\x1b]0;owned\x07"


def read_as(uid: int, path: Path) -> int:
    return subprocess.run(
        ["cat", path], user=uid, group=uid, extra_groups=[], capture_output=True, check=False
    ).returncode  # fmt: skip


@pytest.mark.skipif(os.getuid() != 0, reason="becomes other users")
@pytest.mark.usefixtures("open_path")
def test_owner_and_mode_are_as_asked(start_mount: MountFactory, registry: RegistryServer) -> None:
    """With `--uid`, `--gid` and `--mode` files have that owner and mode; a directory has x wherever
    it has r."""
    options = ("--allow-other", "--uid", str(OTHER), "--gid", "7", "--mode", "0440")
    mount = start_mount(registry.url, options=options)
    for place in (".", "nlp", "nlp/tiny/1.0.0", "nlp/tiny/1.0.0/sub", ".axonfs"):
        found = (mount.path / place).stat()
        assert (found.st_mode, found.st_uid, found.st_gid) == (stat.S_IFDIR | 0o550, OTHER, 7)
    for place in ("nlp/tiny/1.0.0/vocab.txt", "nlp/tiny/1.0.0/manifest.yaml", MODEL):
        found = (mount.path / place).stat()
        assert (found.st_mode, found.st_uid, found.st_gid) == (stat.S_IFREG | 0o440, OTHER, 7)
    assert read_as(OTHER, mount.path / "nlp/tiny/1.0.0/vocab.txt") == 0
    assert read_as(NOBODY, mount.path / "nlp/tiny/1.0.0/vocab.txt") != 0
    old = mount.worker()
    run_axonfs("restart", mount.path)
    assert mount.worker() != old
    assert (mount.path / MODEL).stat().st_uid == OTHER


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
@pytest.mark.usefixtures("open_path")
def test_others_are_kept_out(mount: Mount) -> None:
    """Without `--allow-other` no other user sees anything below the mountpoint."""
    assert read_as(NOBODY, mount.path / "nlp/tiny/1.0.0/vocab.txt") != 0
    shown = subprocess.run(["ls", mount.path], user=NOBODY, check=False, capture_output=True)
    assert shown.returncode != 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--mode", "0644"), "write"),
        (("--mode", "4555"), "setuid"),
        (("--mode", "2444"), "setgid"),
        (("--mode", "1444"), "sticky"),
        (("--mode", "0044"), "owner"),
        (("--mode", "rw"), "octal"),
        (("--uid", "root"), "number"),
        (("--gid", "-1"), "number"),
        (("--uid", "4294967295"), "number"),
        (("--uid", "1000"), "--allow-other"),
    ],
)
def test_what_no_file_may_have_is_refused(
    registry: RegistryServer, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    """Write, setuid, setgid and sticky bits are refused, and so is an owner who cannot get in."""
    place = tmp_path / "place"
    place.mkdir()
    sources = ("--registry", registry.url, "--cache", tmp_path / "c")
    done = run_axonfs("mount", place, *sources, *options, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert not os.path.ismount(place)


def test_no_device_and_no_setuid(mount: Mount) -> None:
    """A mount is read-only, nosuid and nodev; it has only directories, plain files and symlinks,
    and none has a special bit."""
    line = next(
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if f" {mount.path} " in line
    )
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(","))
    for folder, folders, files in os.walk(mount.path):
        for name in (*folders, *files):
            mode = Path(folder, name).lstat().st_mode
            assert stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISLNK(mode)
            assert stat.S_ISLNK(mode) or not mode & 0o7222


@pytest.mark.complains
def test_a_token_is_in_no_place_that_others_see(
    registry_dir: Path, start_mount: MountFactory, tmp_path: Path
) -> None:
    """The token goes to the registry, and into no command line, log, status, error or cache file,
    whether the registry takes it or refuses it."""
    config = tmp_path / "config.yaml"
    with FaultyOrigin(registry_dir) as origin:
        config.write_text(yaml.safe_dump({"tokens": {origin.url.rstrip("/"): SECRET}}))
        config.chmod(0o600)
        mount = start_mount(origin.url, env={"AXONFS_CONFIG": str(config)})
        (mount.path / "nlp/tiny/1.0.0/vocab.txt").read_bytes()
        origin.always(on_objects(faulty.status(403)))
        with pytest.raises(PermissionError):
            (mount.path / MODEL).read_bytes()
        assert all(seen.headers["authorization"] == f"Bearer {SECRET}" for seen in origin.requests)
        processes = mount.processes()
        assert set(processes) == {mount.process.pid, mount.worker()}
        shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes]
        shown += [mount.log.read_bytes(), (mount.path / ".axonfs/status.json").read_bytes()]
        for command in (["status", mount.path], ["status", mount.path, "--json"], ["doctor"]):
            done = run_axonfs(*command, check=False)
            shown.append((done.stdout + done.stderr).encode())
        mount.stop()
    shown += [path.read_bytes() for path in mount.cache.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in text for text in shown)
    assert b"403" in mount.log.read_bytes()


@pytest.mark.complains
def test_a_registry_writes_no_terminal_commands(
    registry_dir: Path, start_mount: MountFactory, tmp_path: Path
) -> None:
    """Redirect targets, ETags, reasons and header texts of a registry reach log, status and
    commands as printable text."""
    games = [
        faulty.redirect(f"http://{ESCAPE}℀/".encode().decode("latin-1")),
        faulty.redirect(f"file:///{ESCAPE}"),
        faulty.status(401, WWW_Authenticate=ESCAPE),
        faulty.status(206, Content_Range=ESCAPE),
        faulty.status(200, Content_Encoding=ESCAPE),
        faulty.status(503, Retry_After=ESCAPE),
        faulty.status(200, ETag=f'"{ESCAPE}"'),
    ]
    with FaultyOrigin(registry_dir) as origin:
        mount = start_mount(origin.url, options=("--prefetch", "off"), env={"AXONFS_DEADLINE": "2"})
        assert (mount.path / MODEL).stat().st_size == FILES["model.safetensors"]
        for game in games:
            origin.always(game)
            with contextlib.suppress(OSError):
                (mount.path / MODEL).read_bytes()
            with contextlib.suppress(OSError):
                os.listdir(mount.path / "nlp/never/heard.of")
        status = run_axonfs("status", mount.path)
        doctor = run_axonfs("doctor", "--registry", origin.url, "--cache", mount.cache, check=False)
        raw = (mount.path / ".axonfs/status.json").read_text()
    for text in (mount.log.read_text(), status.stdout, doctor.stdout, raw):
        assert all(line.isprintable() for line in text.splitlines())
    assert "recent failures" in status.stdout


def test_a_private_authority(registry_dir: Path, start_mount: MountFactory, tmp_path: Path) -> None:
    """A private authority is trusted only where `ca_bundle` or SSL_CERT_FILE names it."""
    authority = Authority.make(tmp_path)
    with FaultyOrigin(registry_dir, authority) as origin:
        for number, name in enumerate(("AXONFS_CA_BUNDLE", "SSL_CERT_FILE")):
            cache, env = tmp_path / f"cache{number}", {name: str(authority.bundle)}
            mount = start_mount(origin.url, cache=cache, env=env)
            assert len((mount.path / MODEL).read_bytes()) == FILES["model.safetensors"]
        seen = len(origin.requests)
        done = run_axonfs("search", "x", "--registry", origin.url, "--cache", tmp_path / "c",
                          check=False)  # fmt: skip
        assert done.returncode == 1
        assert "certificate is not trusted" in done.stderr
        assert len(origin.requests) == seen


def test_what_a_mount_says_of_itself_is_not_believed(mount: Mount) -> None:
    """A process that says that a mount is its own is signalled only if it is the owner's."""
    (found,) = [one for one in mounts() if one.mountpoint == mount.path]
    assert found.owner == os.getuid()
    holder = holder_of(found)
    assert holder is not None
    assert holder.pid == mount.process.pid
    assert holder_of(replace(found, owner=OTHER)) is None


# What any root of a container can do: it says that the mount of its standard input is its own.
FORGER = """\
import os, sys
state = os.memfd_create("axonfs-state")
print("ready", flush=True)
os.write(state, sys.stdin.readline().encode())
print("said", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="makes a mount namespace")
def test_a_holder_of_another_container_is_not_preferred(
    start_mount: MountFactory, registry: RegistryServer
) -> None:
    command = ["unshare", "-m", sys.executable, "-c", FORGER, "axonfs"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as forger:
        assert forger.stdin is not None
        assert forger.stdout is not None
        assert forger.stdout.readline() == "ready\n"
        mount = start_mount(registry.url)
        (found,) = [one for one in mounts() if one.mountpoint == mount.path]
        state = State(str(mount.path), "/", connection=found.connection)
        forger.stdin.write(json.dumps(asdict(state)) + "\n")
        forger.stdin.flush()
        assert forger.stdout.readline() == "said\n"
        assert forger.pid in {each.pid for each in running()}
        for holder in (holder_of(found), holder_at(mount.path)):
            assert holder is not None
            assert holder.pid == mount.process.pid
        forger.stdin.close()


def test_specs_that_climb_out_are_not_specs(mount: Mount) -> None:
    """No name that is looked up leaves the mount, and none reaches the registry as a path."""
    for name in ("..%2f..", "a\x1b[2J", "-rf", ".hidden", "a b"):
        with pytest.raises(FileNotFoundError):
            os.stat(mount.path / "nlp" / name / "1.0.0")
    assert parse_spec("nlp/tiny@1.0.0").segments == ("nlp", "tiny", "1.0.0")
