"""The way without a mount: download with curl or aria2, then read the files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.experiment import NotRunError
from bench.origin import Origin

STREAMS = 4
CONNECTIONS = 8


@dataclass(frozen=True)
class Wanted:
    """One file to download."""

    url: str
    size: int
    name: str


def program(name: str) -> str:
    """The path of a command that is compared with AxonFS.

    Raises:
        NotRunError: the command is not installed.
    """
    found = shutil.which(name)
    if not found:
        raise NotRunError(f"{name} is not installed; tools/bench does that")
    return found


def four_streams(origin: Origin, wanted: Sequence[Wanted], folder: Path) -> list[Path]:
    """Download one file as four ranges, or four of several files at a time; the paths to read."""
    if len(wanted) == 1:
        return curl_ranges(origin, wanted[0], folder)
    curl_files(origin, wanted, folder, STREAMS)
    return [folder / file.name for file in wanted]


def curl_ranges(origin: Origin, wanted: Wanted, folder: Path) -> list[Path]:
    """Download one file as four ranges at the same time; return the parts in order."""
    step = -(-wanted.size // STREAMS)
    parts, commands = [], []
    for at in range(0, wanted.size, step):
        parts.append(folder / f"{wanted.name}.{at // step}")
        span = f"{at}-{min(at + step, wanted.size) - 1}"
        commands.append([*_curl(origin), "-r", span, "-o", str(parts[-1]), wanted.url])
    _all_at_once(commands)
    return parts


def curl_files(origin: Origin, wanted: Sequence[Wanted], folder: Path, streams: int) -> None:
    """Download whole files, `streams` at a time, on kept-alive connections."""
    command = [*_curl(origin), "--parallel", "--parallel-max", str(streams), "--parallel-immediate"]
    for file in wanted:
        command += ["-o", str(folder / file.name), file.url]
    subprocess.run(command, check=True)


def _curl(origin: Origin) -> list[str]:
    trusted = ["--cacert", str(origin.bundle)] if origin.bundle else []
    return [program("curl"), "-sSf", "--no-progress-meter", *trusted]


def aria2_files(wanted: Sequence[Wanted], folder: Path) -> None:
    """Download with aria2c -x8: up to eight connections per file, eight files at a time."""
    lines = "".join(f"{file.url}\n out={file.name}\n" for file in wanted)
    limit = str(CONNECTIONS)
    command = [program("aria2c"), "--quiet", "--no-conf", "--file-allocation=none", "-i", "-"]
    command += ["-x", limit, "-s", limit, "-j", limit, "-d", str(folder)]
    subprocess.run(command, input=lines, text=True, check=True)


def _all_at_once(commands: Sequence[list[str]]) -> None:
    running = [subprocess.Popen(command) for command in commands]
    try:
        failed = [process.wait() for process in running]
    finally:
        for process in running:
            process.kill()
    if any(failed):
        raise RuntimeError(f"failed: {' '.join(commands[0])}")
