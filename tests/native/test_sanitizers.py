"""The native core under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

Each test runs a program in a process of its own, which plays the kernel and Python. It fails if the
program does, or if a sanitizer reports anything.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.native.build import ADDRESS, THREAD, Sanitizer, build, run
from tests.support.profile import SEED, report, scaled

_LIMIT = scaled(120, 2400)


@pytest.fixture(scope="session", params=[ADDRESS, THREAD], ids=lambda sanitizer: sanitizer.name)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Sanitizer, Path]:
    sanitizer: Sanitizer = request.param
    return sanitizer, build(sanitizer, tmp_path_factory.mktemp(sanitizer.name))


def test_every_read_gets_right_bytes_or_the_right_error_once(
    built: tuple[Sanitizer, Path], tmp_path: Path
) -> None:
    figures: Counter[str] = Counter()
    for seed in range(SEED, SEED + scaled(1, 5)):
        said = run(*built, "drive_world", scaled(4, 30), seed, tmp_path, limit=_LIMIT)
        figures.update(json.loads(said.splitlines()[0]))
    report("native", **figures)


def test_no_request_that_a_kernel_may_send_or_not_does_harm(
    built: tuple[Sanitizer, Path], tmp_path: Path
) -> None:
    run(*built, "drive_fuzz", scaled(20, 1000), SEED, tmp_path, limit=_LIMIT)


def test_the_threads_begin_and_end_at_any_time(
    built: tuple[Sanitizer, Path], tmp_path: Path
) -> None:
    run(*built, "drive_cycles", scaled(5, 100), SEED, tmp_path, limit=_LIMIT)
