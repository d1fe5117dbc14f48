"""The shell functions under tools/test and tools/demo, run by a real bash."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from pathlib import Path

LIBRARY = Path(__file__).parents[2] / "tools" / "lib.sh"


def bash(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `script` after sourcing the library."""
    return subprocess.run(
        ["bash", "-c", f"source '{LIBRARY}'\n{script}"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=inherited() | environment,
    )


def inherited() -> dict[str, str]:
    """This environment without what tools/test, which may be running us, exported for uv."""
    told = ("UV_", "PIP_", "SSL_CERT_FILE")
    return {name: value for name, value in os.environ.items() if not name.startswith(told)}


def test_cleanups_run_latest_first_and_keep_the_status() -> None:
    done = bash("at_exit 'echo first'; at_exit 'echo second; false'; exit 7")
    assert done.stdout.split() == ["second", "first"]
    assert done.returncode == 7


def test_failed_step_ends_the_script_and_cleans_up() -> None:
    done = bash("at_exit 'echo cleaned'; step 'a step' false; echo not reached")
    assert done.stdout.split() == ["cleaned"]
    assert done.returncode == 1


def test_interrupted_script_cleans_up() -> None:
    done = bash("at_exit 'echo cleaned'; kill -TERM $$; sleep 5; echo not reached")
    assert done.stdout.split() == ["cleaned"]
    assert done.returncode == 143


def test_what_runs_in_the_background_ends_with_the_script(tmp_path: Path) -> None:
    """The programs that it started too, which may download gigabytes."""
    log = tmp_path / "log"
    done = bash(
        f"""
        work() {{ sh -c 'echo $$; exec sleep 100'; }}
        at_exit 'echo cleaned'
        in_background '{log}' work
        until grep -q . '{log}'; do :; done
        exit 7
        """
    )
    assert (done.returncode, done.stdout) == (7, "cleaned\n")
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(int(log.read_text()))
        assert select.select([process], [], [], 20)[0]
        os.close(process)


def test_a_failure_in_the_background_is_known() -> None:
    done = bash("in_background /dev/null false; wait $BACKGROUND || echo failed")
    assert done.stdout == "failed\n"


def test_stop_process_leaves_nothing() -> None:
    done = bash("sleep 100 & pid=$!; stop_process $pid; kill -0 $pid 2>/dev/null || echo gone")
    assert done.stdout.split() == ["gone"]


def test_steps_are_timed() -> None:
    done = bash("step 'one' true; step 'two' sleep 0.2; say_timings")
    summary = done.stderr[done.stderr.index("Time of each step") :]
    assert [line.split()[-1] for line in summary.splitlines()[1:]] == ["one", "two"]
    assert float(summary.splitlines()[2].split()[0]) >= 0.2


def test_the_end_says_what_failed() -> None:
    done = bash("failed=(mypy pytest); conclude 'All passed.'; echo not reached")
    assert (done.returncode, done.stdout) == (1, "")
    assert "failed: mypy pytest; the output above says why." in done.stderr
    done = bash("failed=(); conclude 'All passed.'")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "All passed.")


def test_pip_settings_reach_uv(tmp_path: Path) -> None:
    """A mirror or a wheel directory that pip knows is known to uv, wherever pip was told."""
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://mirror.example/simple\nextra-index-url =\n a\n b\n"
    )
    done = bash(
        f"VENV='{sys.prefix}'; export_pip_settings\n"
        'echo "$UV_FIND_LINKS|$UV_DEFAULT_INDEX|$UV_INDEX"',
        PIP_CONFIG_FILE=str(config),
        PIP_FIND_LINKS="/x /y",
    )
    assert done.stdout == "/x,/y|https://mirror.example/simple|a b\n", done.stderr
