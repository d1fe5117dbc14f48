"""A pin that was interrupted or failed: what it is called, what it spoils, and how it goes on."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from axonfs.names import parse_spec
from axonfs.store import Store
from tests.support.commands import Run
from tests.support.faulty import stall_before, status
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import SPEC, published

LARGE = "nlp/large@1.0.0"
MIB = 1 << 20


@pytest.fixture
def origin(run: Run, tmp_path: Path) -> Iterator[FaultyOrigin]:
    """A healthy model that is pinned, and a large one."""
    directory = published(tmp_path)
    published(tmp_path, {"w.bin": 40 * MIB, "z.bin": MIB}, spec=LARGE)
    with FaultyOrigin(directory) as server:
        run("registry", "add", server.url)
        assert run("pin", SPEC).code == 0
        yield server


def unproven(cache: Path, spec: str) -> None:
    """As a kill leaves a pin after its last byte came, and before it was proven."""
    with closing(Store.open(cache)) as store:
        (pin,) = (pin for pin in store.pins() if pin.spec == parse_spec(spec))
        store.put_pin(replace(pin, complete=False, chunks=0, size=0))


def test_a_failed_pin_spoils_no_check_of_the_others(
    run: Run, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_DEADLINE", "1")
    origin.plan(*[status(404)] * 100, of="/objects/")
    failed = run("pin", LARGE)
    assert failed.code == 1
    assert f"{LARGE} is incomplete: its pin did not finish, 0 % is local; axonfs pin" in failed.err
    assert "in 2 versions, 1 incomplete" in run("cache", "stats").out
    every = run("pin", "--check")
    assert every.code == 0
    assert f"{SPEC} is complete" in every.out
    assert (
        f"{LARGE} is incomplete: its pin did not finish, 0 % is local; axonfs pin {LARGE}"
        in every.out
    )
    assert f"axonfs unpin {LARGE} cancels it" in every.out
    assert run("pin", "--check", SPEC).code == 0
    named = run("pin", "--check", LARGE)
    assert named.code == 1
    assert f"{LARGE} w.bin: all of its 40 MiB are missing" in named.out
    assert json.loads(run("pin", "--check", "--json").out)[0]["ended"] is False
    assert json.loads(run("status", "--json").out)["pins"] == {"count": 2, "incomplete": [LARGE]}
    assert f"pinned: 2 versions; incomplete: {LARGE}" in " ".join(run("status").out.split())
    run("unpin", LARGE)
    assert LARGE not in run("pin", "--check").out


def test_a_pin_of_which_nothing_came_is_none(
    run: Run, origin: FaultyOrigin, tmp_path: Path
) -> None:
    published(tmp_path, {"config.json": 1, "v.bin": MIB}, spec="nlp/gone@1.0.0")
    (digest,) = {path.name for path in (tmp_path / "registry/objects").rglob("*")} & {
        hashlib.sha256((tmp_path / "models/nlp/gone/1.0.0/v.bin").read_bytes()).hexdigest()
    }
    (tmp_path / "registry/objects/sha256" / digest[:2] / digest).unlink()
    done = run("pin", "nlp/gone@1.0.0", "--include", "v.bin")
    assert done.code == 1
    assert done.err.startswith("axonfs: nlp/gone@1.0.0 v.bin: ")
    assert "nlp/gone" not in run("list").out
    assert "nlp/gone" not in run("pin", "--check").out


def test_damage_to_a_pin_that_was_whole_goes_on_failing_the_check(
    run: Run, origin: FaultyOrigin, tmp_path: Path
) -> None:
    with closing(Store.open(tmp_path / "cache")) as store:
        for digest in store.pinned_digests():
            store.drop(digest)
    for _ in range(2):
        assert run("pin", "--check").code == 1


def test_a_pin_that_was_whole_outlives_one_that_fails(
    run: Run, origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its damage nor its absence is hidden because it could not be mended."""
    monkeypatch.setenv("AXONFS_DEADLINE", "1")
    with closing(Store.open(tmp_path / "cache")) as store:
        for digest in store.pinned_digests():
            store.drop(digest)
    origin.plan(*[status(404)] * 100, of="/objects/")
    assert run("pin", SPEC).code == 1
    assert SPEC in run("list").out
    assert run("pin", "--check").code == 1


def test_further_files_that_do_not_come_leave_a_pin_as_it_was(
    run: Run, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_DEADLINE", "1")
    assert run("pin", LARGE, "--include", "z.bin").code == 0
    origin.plan(*[status(404)] * 100, of="/objects/")
    assert run("pin", LARGE, "--include", "w.bin").code == 1
    checked = run("pin", "--check", LARGE)
    assert (checked.code, "is complete: 1 file" in checked.out) == (0, True)


def test_what_is_not_whole_is_never_100_percent(
    run: Run, origin: FaultyOrigin, tmp_path: Path
) -> None:
    unproven(tmp_path / "cache", SPEC)
    for line in (["list"], ["info", SPEC], ["versions", "nlp/tiny"]):
        shown = run(*line).out
        assert "99 %" in shown, line
        assert "100 %" not in shown
    assert "incomplete" in run("list").out
    # All of it is there, as the check finds.
    assert run("pin", "--check").out.startswith(f"{SPEC} is complete")
    assert "100 %" in run("list").out


def interrupted(origin: FaultyOrigin, *line: str) -> tuple[int, str]:
    """Ctrl-C on a terminal once progress is shown; exit code and what was shown."""
    origin.plan(*[stall_before] * 100, of="/objects/")
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "axonfs", *line]
    shown, stopped = b"", False
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, start_new_session=True) as it:
        os.close(terminal)
        watch = threading.Timer(30, it.kill)
        watch.start()
        with suppress(OSError):
            while piece := os.read(main, 65536):
                shown += piece
                if b"of 41 MiB" in shown and not stopped:
                    stopped = True
                    it.send_signal(signal.SIGINT)
        watch.cancel()
    os.close(main)
    return it.returncode, shown.decode()


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_says_what_stays_and_how_to_go_on(run: Run, origin: FaultyOrigin) -> None:
    code, shown = interrupted(origin, "pin", "nlp/large")
    assert code == 130
    end = f"interrupted: 63 B of 41 MiB of {LARGE} stay local; axonfs pin {LARGE} resumes it\r\n"
    assert shown.endswith(f"axonfs: {end}")
    assert "Traceback" not in shown


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_forgets_neither_files_nor_models(run: Run, origin: FaultyOrigin) -> None:
    """No shorter command goes on with several models, or with some of their files."""
    for line in ([SPEC, LARGE], [LARGE, "--include", "*.bin"]):
        _, shown = interrupted(origin, "pin", *line)
        assert shown.endswith(f"of {LARGE} stay local; the same command resumes it\r\n")


def test_a_pin_of_some_files_goes_on_as_one(run: Run, origin: FaultyOrigin, tmp_path: Path) -> None:
    assert run("pin", LARGE, "--include", "z.bin").code == 0
    unproven(tmp_path / "cache", LARGE)
    with closing(Store.open(tmp_path / "cache")) as store:
        store.drop(next(p for p in store.pins() if p.spec == parse_spec(LARGE)).files[0])
    said = f"axonfs pin {LARGE}"
    checked = run("pin", "--check").out
    assert "pinning the same files again resumes it" in checked
    assert said not in checked


def test_an_update_that_did_not_end_goes_on(run: Run, origin: FaultyOrigin, tmp_path: Path) -> None:
    """The version that it began with is no version that the model is at already."""
    published(tmp_path, {"w.bin": MIB, "x.bin": 1}, spec="nlp/large@1.1.0", seed=2)
    assert run("pin", LARGE, "--include", "w.bin").code == 0
    assert run("update", "nlp/large").code == 0
    unproven(tmp_path / "cache", "nlp/large@1.1.0")
    digest = hashlib.sha256((tmp_path / "models/nlp/large/1.1.0/w.bin").read_bytes()).hexdigest()
    with closing(Store.open(tmp_path / "cache")) as store:
        store.drop(digest)
    done = run("update", "nlp/large")
    assert done.out.startswith("nlp/large: 1.0.0 → 1.1.0 (")
    assert "1.0 MiB fetched" in done.out
    assert run("pin", "--check", "nlp/large@1.1.0").out.count("1 file,") == 1
    assert "is at its newest version" in run("update", "nlp/large").out


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_before_anything_came_leaves_no_pin(run: Run, origin: FaultyOrigin) -> None:
    code, _ = interrupted(origin, "pin", LARGE, "--include", "*.bin")
    assert code == 130
    assert LARGE not in run("pin", "--check").out


def test_an_interrupted_pin_goes_on(run: Run, origin: FaultyOrigin, tmp_path: Path) -> None:
    assert run("pin", LARGE, "--include", "z.bin").code == 0
    unproven(tmp_path / "cache", LARGE)
    done = run("pin", LARGE)
    assert "(40 MiB fetched, 1.0 MiB was local)" in done.out
    assert run("pin", "--check", LARGE).code == 0
