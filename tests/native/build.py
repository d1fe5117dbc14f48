"""Builds the native core for tests, with a sanitizer and with faults, and runs programs with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "axonfs" / "fuse" / "native"
_FAULTS = Path(__file__).with_name("faults.c")
_WRAPPED = "-Wl,--wrap=malloc,--wrap=write,--wrap=preadv64v2,--wrap=pthread_create"
# With a sanitizer gcc says more than it knows of what is initialized.
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-maybe-uninitialized")
# Leaks of the interpreter are its own affair; `leaks` finds those of the core in the report.
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:exitcode=66",
    "LSAN_OPTIONS": "exitcode=0:report_objects=0:max_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:exitcode=66:second_deadlock_stack=1",
}


@dataclass(frozen=True)
class Sanitizer:
    """A build of the core. `flags` are the compiler's; `runtime` is loaded before Python."""

    name: str
    flags: tuple[str, ...]
    runtime: str


ADDRESS = Sanitizer(
    "address", ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"), "libasan.so"
)
THREAD = Sanitizer("thread", ("-fsanitize=thread", "-Wno-tsan"), "libtsan.so")


@cache
def compiler() -> str:
    found = shutil.which("cc")
    if found is None:
        pytest.skip("there is no C compiler")
    return found


def runtime(sanitizer: Sanitizer) -> str:
    """The path of the sanitizer's library."""
    command = [compiler(), f"-print-file-name={sanitizer.runtime}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"the compiler has no {sanitizer.runtime}")
    return path


@cache
def _unrandomized() -> list[str]:
    """What makes a command's memory less random, where that is allowed."""
    command = [shutil.which("setarch") or "setarch", "-R"]
    try:
        subprocess.run([*command, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return command


def build(sanitizer: Sanitizer, directory: Path, sources: Path = SOURCES) -> Path:
    """Compile the core with faults.c; returns the path of the extension."""
    target = directory / f"_native_{sanitizer.name}.so"
    fuse = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=True
    ).stdout.split()
    command = [compiler(), "-std=gnu11", "-O1", "-g", "-fno-omit-frame-pointer", "-shared", "-fPIC"]
    command += ["-fvisibility=hidden", "-D_FILE_OFFSET_BITS=64", "-DPy_LIMITED_API=0x030b0000"]
    command += [*_WARNINGS, *sanitizer.flags]
    command += [f"-I{sysconfig.get_path('include')}", "-o", str(target), str(_FAULTS)]
    command += [*map(str, sorted(sources.glob("*.c"))), *fuse, "-ldl", _WRAPPED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def run(sanitizer: Sanitizer, extension: Path, program: str, *arguments: object, limit: int) -> str:
    """Run a module of this folder with the extension; returns its output.

    Args:
        limit: in seconds.
    """
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        f"tests.native.{program}",
        str(extension),
    ]
    command += map(str, arguments)
    if sanitizer is THREAD:  # it cannot map its memory where much is random
        command = [*_unrandomized(), *command]
    environment = os.environ | _OPTIONS | {"LD_PRELOAD": runtime(sanitizer)}
    environment |= {"PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit,
        check=False,
    )
    output = done.stdout + done.stderr
    if "unexpected memory mapping" in output:
        pytest.skip("ThreadSanitizer does not work here: it needs memory without randomization")
    assert (done.returncode, done.stdout[-7:]) == (0, "passed\n"), output[-20000:]
    assert not (found := leaks(output)), found
    return done.stdout


def leaks(report: str) -> str:
    """The core's leaks in LeakSanitizer's report: the sources are in a folder named native."""
    blocks = report.split("\n\n")
    return "\n\n".join(block for block in blocks if "leak of" in block and "/native/" in block)
