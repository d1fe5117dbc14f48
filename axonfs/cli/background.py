"""A mount in the background: a process of its own that says when it answers, and where it logs.

The parent starts `axonfs mount --foreground` in a new session with the write end of a pipe. One
byte on it means that the mount answers; its end without one means that the process gave up.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import axonfs
from axonfs import rundir
from axonfs.cli.logfile import LOG, open_log
from axonfs.config import Settings
from axonfs.errors import AxonError, NoSpaceError
from axonfs.rundir import FREE_SPACE

READY_VARIABLE = "AXONFS_READY_FD"
READY_TIMEOUT = 60.0
LITTLE_SPACE = 1 << 20
# A relative path in one of these would mean another file in the mount's own directory, `/`.
_PATH_VARIABLES = ("AXONFS_CONFIG", "AXONFS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def start(settings: Settings, mountpoint: Path) -> int:
    """Start the mount and return its pid once it answers.

    Raises:
        AxonError: it ended or did not answer in time; the message has the last lines of its log.
    """
    rundir.prepare(settings.cache)
    log = settings.cache / LOG
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        with os.fdopen(open_log(log), "ab") as output:
            start_of_run = os.fstat(output.fileno()).st_size
            process = subprocess.Popen(
                mount_command(settings, mountpoint),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=_environment(write_end),
                pass_fds=[write_end],
                start_new_session=True,
            )
    finally:
        os.close(write_end)
    try:
        answer = _wait(read_end, READY_TIMEOUT)
    finally:
        os.close(read_end)
    if answer == b"1":
        process.returncode = 0  # it lives on without this process; that is no leak to warn of
        return process.pid
    raise _failed(process, answer is None, log, start_of_run)


def mount_command(settings: Settings, mountpoint: Path) -> list[str]:
    """The foreground mount with these settings; tokens travel in the config or a variable only."""
    return [*_program("mount"), "--foreground", *_flags(settings), "--", str(mountpoint)]


def worker_command(settings: Settings, mountpoint: Path) -> list[str]:
    """The worker of that mount."""
    _find_checkout()
    return [*_program("worker"), *_flags(settings), "--", str(mountpoint)]


def _program(name: str) -> list[str]:
    # -P: no module is taken from the directory it runs in.
    return [sys.executable, "-P", "-m", "axonfs", name]


def _flags(settings: Settings) -> list[str]:
    flags = ["--cache", str(settings.cache)]
    flags += [part for url in settings.registries for part in ("--registry", url)]
    if settings.cache_size is not None:
        flags += ["--cache-size", str(settings.cache_size)]
    flags.append("--offline" if settings.offline else "--online")
    flags += ["--prefetch", settings.prefetch]
    flags.append("--allow-other" if settings.allow_other else "--only-me")
    flags += ["--mode", f"{settings.mode:04o}"]
    for name, number in (("--uid", settings.uid), ("--gid", settings.gid)):
        flags += [] if number is None else [name, str(number)]
    flags.append("--passthrough" if settings.passthrough else "--no-passthrough")
    flags += ["--log-format", settings.log_format, "--log-level", settings.log_level]
    return flags


def _environment(ready: int) -> dict[str, str]:
    _find_checkout()
    environment = {**os.environ, READY_VARIABLE: str(ready)}
    for name in _PATH_VARIABLES:
        if environment.get(name):
            environment[name] = os.path.abspath(environment[name])
    return environment


def _find_checkout() -> None:
    """Run from a checkout that is not installed, children must find the package as well."""
    checkout = str(Path(axonfs.__file__).parent.parent)
    path = os.environ.get("PYTHONPATH", "")
    if Path(checkout, "pyproject.toml").exists() and checkout not in path.split(os.pathsep):
        os.environ["PYTHONPATH"] = f"{checkout}{os.pathsep}{path}" if path else checkout


def _wait(descriptor: int, timeout: float) -> bytes | None:
    """The byte; b"" if the other side closed, None if time ran out."""
    ready, _, _ = select.select([descriptor], [], [], timeout)
    return os.read(descriptor, 1) if ready else None


def _failed(
    process: subprocess.Popen[bytes], timed_out: bool, log: Path, start_of_run: int
) -> AxonError:
    if timed_out:
        process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if timed_out:
        hint = f"see {log}"
        return AxonError(f"the mount did not answer within {READY_TIMEOUT:.0f} s", hint=hint)
    if said := _last_error(log, start_of_run):
        return AxonError(said)
    disk = os.statvfs(log.parent)
    if disk.f_bavail * disk.f_frsize < LITTLE_SPACE:  # no room for what it had to say either
        return NoSpaceError("the cache's disk is full", source=str(log.parent), hint=FREE_SPACE)
    return AxonError(f"the mount ended at once; see {log}")


def _last_error(log: Path, start_of_run: int) -> str:
    """What this run's log says last: its own error line, else its last lines."""
    with log.open("rb") as file:
        file.seek(max(start_of_run, file.seek(0, os.SEEK_END) - 65536))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    errors = [line for line in lines if line.startswith("axonfs: ")]
    if errors:
        return errors[-1].removeprefix("axonfs: ")
    return " | ".join(lines[-5:])


def take_ready_pipe() -> Callable[[], None]:
    """What the mount calls once it answers; the pipe of the parent is kept from other programs."""
    number = os.environ.pop(READY_VARIABLE, "")
    if not number.isdigit():
        return lambda: None
    descriptor = int(number)
    os.set_inheritable(descriptor, False)

    def ready() -> None:
        try:
            os.write(descriptor, b"1")
        except BrokenPipeError:
            logging.getLogger(__name__).info("nobody waits for the mount any more")
        os.close(descriptor)

    return ready
