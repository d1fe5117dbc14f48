"""docs/security.md without a mount: a cache and a config are their owner's alone."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from axonfs import rundir
from axonfs.call import Event
from axonfs.cli.logfile import LOG, open_log
from axonfs.daemon import control
from axonfs.errors import AxonError, UnsupportedError
from axonfs.formats.manifest import FileEntry
from axonfs.http_client import Limits
from axonfs.settings.editing import edit_config
from axonfs.settings.settings import load
from axonfs.store import Store
from tests.support.commands import Run
from tests.support.registry import RegistryServer, published

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
DATA = bytes(200_000)
FAST = Limits(connect=5, first_byte=5, stall=5, deadline=20, attempts=1)
NOBODY = 65534


def test_a_config_with_tokens_is_closed_to_others(run: Run, tmp_path: Path) -> None:
    """A config file with tokens that others can read is refused with what to do; without tokens,
    or after the advice was taken, it is not. An edit closes it."""
    config = tmp_path / "config.yaml"
    config.write_text("registries: [http://a]\ntokens: {http://a: s3cret}\n")
    for mode in (0o644, 0o640, 0o604, 0o620):
        config.chmod(mode)
        done = run("config", "list")
        assert done.code == 2
        assert f"chmod 600 {config}" in done.err
        assert "s3cret" not in done.err
    config.chmod(0o600)
    assert run("config", "list").code == 0
    config.chmod(0o644)
    with edit_config() as document:
        document["streams"] = 3
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert load().token("http://a") == "s3cret"
    config.write_text("registries: [http://a]\n")
    config.chmod(0o644)
    assert run("config", "list").code == 0


def test_tokens_are_moved_to_a_file_of_their_own(run: Run, tmp_path: Path) -> None:
    """Tokens in the config file work, and the next edit moves them; others may read the rest."""
    config, tokens = tmp_path / "config.yaml", tmp_path / "tokens.yaml"
    config.write_text("registries: [http://a]\ntokens: {http://a: s3cret}\n")
    config.chmod(0o600)
    assert load().token("http://a") == "s3cret"
    assert run("registry", "add", "http://b").code == 0
    assert "s3cret" not in config.read_text()
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    assert load().token("http://a") == "s3cret"
    config.chmod(0o644)
    assert run("config", "set", "streams", "3").code == 0
    assert stat.S_IMODE(config.stat().st_mode) == 0o644
    assert load().token("http://a") == "s3cret"
    assert run("registry", "remove", "http://a").code == 0
    assert "s3cret" not in config.read_text() + tokens.read_text()


def test_a_tokens_file_is_closed_to_others(run: Run, tmp_path: Path) -> None:
    """One that others can read is refused with what to do, and no command shows what is in it."""
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text("http://a: s3cret\n")
    for mode in (0o644, 0o640, 0o604):
        tokens.chmod(mode)
        done = run("config", "list")
        assert done.code == 2
        assert f"chmod 600 {tokens}" in done.err
    tokens.chmod(0o600)
    shown = run("config", "list")
    assert shown.code == 0
    assert "s3cret" not in shown.out + shown.err
    tokens.write_text("[nonsense]\n")
    assert run("config", "list").code == 2


def test_everything_in_a_cache_is_its_owners(run: Run, tmp_path: Path) -> None:
    """Directories of a cache are 0700 and files 0600, whatever the umask is."""
    before = os.umask(0)
    try:
        with RegistryServer(published(tmp_path)) as server:
            assert run("pin", "nlp/tiny@1.0.0", "--registry", server.url).code == 0
    finally:
        os.umask(before)
    cache = tmp_path / "cache"
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [cache, *cache.rglob("*")]}
    assert len(modes) > 8
    assert [path for path, mode in modes.items() if mode & 0o077] == []


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_cache_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """No other user can put a link where the lock, the log, the index or an object is opened."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "something").touch()
    cache.chmod(mode)
    with pytest.raises(UnsupportedError, match="other users can write") as caught:
        Store.open(cache)
    assert caught.value.hint == f"chmod go-w {cache}"
    assert os.listdir(cache) == ["something"]


def test_an_empty_cache_directory_is_closed_to_others(tmp_path: Path) -> None:
    """A container's volume begins as an empty directory that all may write to."""
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    Store.open(cache).close()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o755


@pytest.mark.skipif(os.getuid() != 0, reason="gives files away")
@pytest.mark.parametrize("name", [".", "objects", "run", "index.lmdb", "index.lmdb-lock"])
def test_a_cache_of_another_user_is_refused(tmp_path: Path, run: Run, name: str) -> None:
    """What another user owns in a cache directory is not used, nor read; a sticky one included."""
    cache = tmp_path / "cache"
    Store.open(cache).close()
    cache.chmod(0o1777)
    Store.open(cache).close()
    os.lchown(cache / name, NOBODY, NOBODY)
    for owner in (True, False):
        with pytest.raises(UnsupportedError, match=f"uid {NOBODY}"):
            Store.open(cache, owner=owner)
    assert "fail  cache" in run("doctor").out


def _lock(cache: Path) -> None:
    rundir.take_lock(cache)


def _log(cache: Path) -> None:
    os.close(open_log(cache / LOG))


def _object(cache: Path) -> None:
    store = Store.open(cache)
    try:
        stored = store.object(FileEntry("x", 8, "ab" * 32))
        stored.hold()
        with pytest.raises(OSError, match="symbolic link"):
            stored.opened()
        assert not stored.readable
        stored.land(0, memoryview(bytes(8)))
    finally:
        store.close()


@pytest.mark.parametrize(
    ("name", "opened"),
    [("run/lock", _lock), ("run/mount.log", _log), (f"objects/ab/{'ab' * 32}", _object)],
)
def test_links_in_a_cache_lead_nowhere(
    tmp_path: Path, name: str, opened: Callable[[Path], None]
) -> None:
    """A symlink in the place of the lock, the log or an object is not followed."""
    cache, victim = tmp_path / "cache", tmp_path / "victim"
    rundir.prepare(cache)
    victim.write_text("precious")
    (cache / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (cache / name).symlink_to(victim)
    with contextlib.suppress(AxonError, OSError):  # an object is then read past the disk
        opened(cache)
    assert victim.read_text() == "precious"
    assert (cache / name).is_symlink()


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_the_control_socket_hears_its_owner_alone(tmp_path: Path) -> None:
    """Another user cannot reach the control socket; one who could is not answered."""
    cache = tmp_path / "cache"
    rundir.prepare(cache)
    with rundir.listen(cache) as listening:
        _ask_as_others(cache, listening)


def _ask_as_others(cache: Path, listening: socket.socket) -> None:
    path = cache / rundir.SOCKET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.chmod(0o755)
    path.chmod(0o666)
    for directory in (cache, *cache.parents):
        if directory.stat().st_mode & 0o011 != 0o011:
            directory.chmod(directory.stat().st_mode | 0o011)

    async def ask(uid: int) -> str:
        async def handle(request: Event) -> AsyncIterator[Event]:
            yield {"event": "result", "secret": 42}

        program = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(b'{}\\n'); print(s.makefile().read())"
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, listening, handle, control.UnderWay())
            done = await trio.run_process(
                ["/usr/bin/python3", "-c", program, str(path)],
                capture_stdout=True, user=uid, group=uid, check=False,
            )  # fmt: skip
            nursery.cancel_scope.cancel()
        return done.stdout.decode()

    assert "42" in trio.run(ask, 0)
    assert "42" not in trio.run(ask, NOBODY)
