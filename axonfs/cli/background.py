"""Starts a mount in the background and waits until it answers.

The command starts `axonfs mount --foreground` in a new session and passes it the write end of a
pipe. One byte on the pipe means that the mount answers; end of file without a byte means that the
process gave up. If the command ends before the byte, it ends the mount too.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import axonfs
from axonfs import rundir
from axonfs.cli.logfile import LOG, open_log
from axonfs.cli.unmounting import await_ended
from axonfs.connection import clear_dead
from axonfs.connection.mountinfo import top_at
from axonfs.errors import AxonError, NoSpaceError
from axonfs.rundir import FREE_SPACE
from axonfs.settings.keys import KEYS
from axonfs.settings.listening import parse_listening
from axonfs.settings.mount_options import as_option
from axonfs.settings.parsers import parse_path, parse_registry_urls
from axonfs.settings.settings import Settings
from axonfs.settings.signers import NONE, parse_signature_rules

READY_VARIABLE = "AXONFS_READY_FD"
READY_TIMEOUT = 60.0
# Seconds for a holder to unmount and to end its worker after SIGTERM.
END_TIMEOUT = 45.0
LITTLE_SPACE = 1 << 20
# The mount runs in `/`, so a relative path in one of these variables has to be made absolute, as
# those of registries and of keys.
_PATH_VARIABLES = (
    "AXONFS_CONFIG",
    "AXONFS_CA_BUNDLE",
    "AXONFS_TRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)

# The flags of `axonfs mount` beside those that are spelled out in `_words`.
_SWITCHES = {
    "offline": ("--offline", "--online"),
    "allow_other": ("--allow-other", "--only-me"),
    "passthrough": ("--passthrough", "--no-passthrough"),
}
_VALUES = (
    "fallback",
    "cache_size",
    "keep_free",
    "cache_ttl",
    "bandwidth",
    "prefetch",
    "uid",
    "gid",
    "mode",
    "log_format",
    "log_level",
)

_OTHERS = ("cache", "cache_quotas", "registries", "via", "metrics", "trace", "mountpoint")
# What -o alone can say: the settings that have no flag of their own, and how to mount.
_OPTIONS = [name for name in KEYS if name not in (*_SWITCHES, *_VALUES, *_OTHERS, "tokens")]
_OPTIONS.append("fsname")

Flags: TypeAlias = Mapping[str, Any]


def start(flags: Flags, settings: Settings, mountpoint: Path) -> int:
    """Start the mount and return its pid once it answers.

    Args:
        flags: the flags of the command line; each worker reads the other settings itself.

    Raises:
        AxonError: the mount ended or did not answer in time, and nothing is mounted; the message
            has the last lines of its log.
    """
    await_ended(settings.cache)
    rundir.prepare(settings.cache)
    log = settings.cache / LOG
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        with os.fdopen(open_log(log), "ab") as output:
            start_of_run = os.fstat(output.fileno()).st_size
            process = subprocess.Popen(
                mount_command(flags, settings.cache, mountpoint),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=_environment(write_end),
                pass_fds=[write_end],
                # An automounter would have any other process group wait for this very mount.
                start_new_session=not is_automount(mountpoint),
            )
    finally:
        os.close(write_end)
    try:
        answer = _wait(read_end, READY_TIMEOUT)
    except BaseException:  # Ctrl-C: the user cancelled the mount
        _end(process, mountpoint)
        raise
    finally:
        os.close(read_end)
    if answer == b"1":
        process.returncode = 0  # it outlives this process: Popen must not warn of that
        return process.pid
    _end(process, mountpoint, at_once=answer is None)
    raise _failed(answer is None, log, start_of_run)


def mount_command(flags: Flags, cache: Path, mountpoint: Path) -> list[str]:
    """The command line of the foreground mount. It never has tokens, which others could see."""
    return [*_program("mount"), "--foreground", *_words(flags, cache), "--", str(mountpoint)]


def worker_command(flags: Flags, cache: Path, mountpoint: Path) -> list[str]:
    """The command line of that mount's worker."""
    _find_checkout()
    return [*_program("worker"), *_words(flags, cache), "--", str(mountpoint)]


def _program(name: str) -> list[str]:
    # -P: Python does not import modules from the working directory.
    return [sys.executable, "-P", "-m", "axonfs", name]


def _words(flags: Flags, cache: Path) -> list[str]:
    """The flags as command-line words. The cache of a mount never changes."""
    words = ["--cache", str(cache)]
    for url in parse_registry_urls(flags.get("registries") or ()):
        words += ["--registry", url]
    for text in flags.get("via") or ():
        words += ["--via", str(text)]
    for text in flags.get("cache_quotas") or ():
        words += ["--cache-quota", str(text)]
    if metrics := flags.get("metrics"):  # a relative path names another place in `/`
        words += ["--metrics", parse_listening(metrics) or "off"]
    for name, (on, off) in _SWITCHES.items():
        if flags.get(name) is not None:
            words.append(on if flags[name] else off)
    if flags.get("trace") is not None:
        words += ["--trace", str(parse_path(flags["trace"]))]
    for name in _VALUES:
        if flags.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(flags[name])]
    for name in _OPTIONS:
        if (value := flags.get(name)) is not None:
            words += ["-o", as_option(name, value)]
    return [*words, "-o", "noexec"] if flags.get("noexec") else words


def is_automount(mountpoint: Path) -> bool:
    """Whether an automounter watches this mountpoint, and nothing is mounted there yet."""
    top = top_at(mountpoint)
    return top is not None and top.filesystem == "autofs"


def frozen(settings: Settings) -> dict[str, str | bool]:
    """The settings that cannot change while mounted, as flags: the kernel has them."""
    found: dict[str, str | bool] = {
        "allow_other": settings.allow_other,
        "passthrough": settings.passthrough,
        "mode": f"{settings.mode:04o}",
    }
    owner = {"uid": settings.uid, "gid": settings.gid}
    return found | {name: str(number) for name, number in owner.items() if number is not None}


def _environment(ready: int) -> dict[str, str]:
    _find_checkout()
    environment = {**os.environ, READY_VARIABLE: str(ready)}
    for name in _PATH_VARIABLES:
        if environment.get(name):
            environment[name] = os.path.abspath(environment[name])
    if urls := environment.get("AXONFS_REGISTRY"):
        environment["AXONFS_REGISTRY"] = " ".join(parse_registry_urls(urls))
    if rules := environment.get("AXONFS_REQUIRE_SIGNATURE"):
        environment["AXONFS_REQUIRE_SIGNATURE"] = " ".join(parse_signature_rules(rules)) or NONE
    if metrics := environment.get("AXONFS_METRICS"):
        environment["AXONFS_METRICS"] = parse_listening(metrics) or "off"
    return environment


def _find_checkout() -> None:
    """Put the package on PYTHONPATH for child processes, if it runs from a checkout."""
    checkout = str(Path(axonfs.__file__).parent.parent)
    path = os.environ.get("PYTHONPATH", "")
    if Path(checkout, "pyproject.toml").exists() and checkout not in path.split(os.pathsep):
        os.environ["PYTHONPATH"] = f"{checkout}{os.pathsep}{path}" if path else checkout


def _wait(descriptor: int, timeout: float) -> bytes | None:
    """The byte; b"" if the other side closed the pipe, None on timeout."""
    ready, _, _ = select.select([descriptor], [], [], timeout)
    return os.read(descriptor, 1) if ready else None


def _end(process: subprocess.Popen[bytes], mountpoint: Path, *, at_once: bool = True) -> None:
    """End the processes of a mount that did not come up, and unmount what is left of it."""
    if at_once:
        process.terminate()
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT)
    clear_dead(mountpoint)


def _failed(timed_out: bool, log: Path, start_of_run: int) -> AxonError:
    if timed_out:
        hint = f"see {log}"
        return AxonError(f"the mount did not answer within {READY_TIMEOUT:.0f} s", hint=hint)
    if message := _last_error(log, start_of_run):
        return AxonError(message)
    disk = os.statvfs(log.parent)
    if disk.f_bavail * disk.f_frsize < LITTLE_SPACE:  # too full to log the error
        return NoSpaceError("the cache's disk is full", source=str(log.parent), hint=FREE_SPACE)
    return AxonError(f"the mount ended at once; see {log}")


def _last_error(log: Path, start_of_run: int) -> str:
    """The last error in this run's log, else the log's last lines."""
    with log.open("rb") as file:
        file.seek(max(start_of_run, file.seek(0, os.SEEK_END) - 65536))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    errors = [line for line in lines if line.startswith("axonfs: ")]
    if errors:
        return errors[-1].removeprefix("axonfs: ")
    return " | ".join(lines[-5:])


def take_ready_pipe() -> int:
    """The pipe of the parent, made close-on-exec; -1 without a parent."""
    number = os.environ.pop(READY_VARIABLE, "")
    if not number.isdigit():
        return -1
    os.set_inheritable(int(number), False)
    return int(number)
