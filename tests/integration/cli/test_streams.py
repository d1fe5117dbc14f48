"""Output on whatever standard output and error are: of any encoding, full, closed, left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.registry import RegistryServer, make_model

TEXT = "Übersetzer für 日本語 — naïve"


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "AXONFS_CONFIG": str(tmp_path / "config.yaml"),
        "AXONFS_CACHE_DIR": str(tmp_path / "cache"),
        "AXONFS_CACHE_SIZE": os.environ["AXONFS_CACHE_SIZE"],
        "AXONFS_SOURCES": "none",
        "HOME": str(tmp_path),
    }


@pytest.fixture
def registry(tmp_path: Path, settings: dict[str, str]) -> Iterator[RegistryServer]:
    """Two versions of a model whose description is not ASCII."""
    for number in (1, 2):
        model = make_model(tmp_path / f"m{number}", {"w.bin": 1000}, seed=number)
        spec, to = f"nlp/uebersetzer@{number}", tmp_path / "reg"
        done = axonfs(settings, "publish", model, spec, "--to", to, "--description", TEXT)
        assert done.returncode == 0, done.stderr
    with RegistryServer(tmp_path / "reg") as server:
        settings["AXONFS_REGISTRY"] = server.url
        yield server


def axonfs(
    settings: dict[str, str],
    *line: str | Path,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "axonfs", *map(str, line)]
    return subprocess.run(
        command, env=settings, stdout=stdout, stderr=stderr, check=False, timeout=60
    )


def test_a_home_and_a_path_may_have_any_bytes(settings: dict[str, str], tmp_path: Path) -> None:
    """What is no UTF-8 is shown as `?`, and is a path as good as any."""
    home = Path(os.fsdecode(os.fsencode(tmp_path) + b"/h\xff"))
    settings |= {"HOME": str(home), "AXONFS_CACHE_DIR": str(home / "c")}
    settings |= {"LC_ALL": "C.UTF-8", "AXONFS_SOURCES": "hf", "HF_ENDPOINT": "http://127.0.0.1:9"}
    made = make_model(home / "model", {"w.bin": 10})
    assert axonfs(settings, "publish", made, "nlp/x@1", "--to", home / "reg").returncode == 0
    with RegistryServer(home / "reg") as server:
        settings["AXONFS_REGISTRY"] = server.url
        pinned = axonfs(settings, "pin", "nlp/x", "--include", "*.bin")
        for line in (
            ["search"],
            ["search", "--source", "hf"],
            ["info"],
            ["pin", "nlp/x", "--include"],
        ):
            assert b"bug" not in axonfs(settings, *line, "\udcff").stderr
    assert (pinned.returncode, pinned.stderr) == (0, b"")
    shown = axonfs(settings, "cache", "stats").stdout.splitlines()[0]
    assert shown.endswith(b"/h?/c")


def test_a_path_for_a_script_keeps_its_bytes(settings: dict[str, str]) -> None:
    settings["PYTHONIOENCODING"] = "ascii"
    code = "import sys, axonfs.cli.output as output; output.echo_path(sys.argv[1])"
    path = "/home/jürgen/\udcff".encode(errors="surrogateescape")
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=settings, capture_output=True, check=True
    )
    assert done.stdout == path + b"\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16", "shift_jis"])
def test_what_a_stream_cannot_show_is_replaced(
    settings: dict[str, str], registry: RegistryServer, encoding: str
) -> None:
    settings["PYTHONIOENCODING"] = encoding
    found = axonfs(settings, "search", "naïve")
    assert (found.returncode, found.stderr) == (0, b"")
    assert TEXT.encode(encoding, "replace").decode(encoding) in found.stdout.decode(encoding)
    assert axonfs(settings, "pin", "nlp/uebersetzer@1").returncode == 0
    updated = axonfs(settings, "update")
    arrow = "→".encode(encoding, "replace").decode(encoding)
    assert f"1 {arrow} 2" in updated.stdout.decode(encoding)
    for line in (["--help"], ["pin", "--help"], ["doctor"], ["status"], ["cache", "list"]):
        done = axonfs(settings, *line)
        assert b"Error" not in done.stderr
        done.stdout.decode(encoding)
    wrong = axonfs(settings, "frobnicäte")
    assert wrong.returncode == 2
    assert "there is no command" in wrong.stderr.decode(encoding)


def test_a_locale_without_utf8_is_no_error(
    settings: dict[str, str], registry: RegistryServer
) -> None:
    plain = {**settings, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = axonfs(plain, "search", "ue")
    assert (found.returncode, found.stderr) == (0, b"")
    assert TEXT.encode("ascii", "replace") in found.stdout


@pytest.mark.parametrize("line", [["config", "list"], ["config", "list", "--json"], ["--help"]])
def test_a_full_disk_below_standard_output_is_said(
    settings: dict[str, str], line: list[str]
) -> None:
    with open("/dev/full", "wb") as full:
        done = axonfs(settings, *line, stdout=full.fileno())
    assert done.returncode == 1
    assert b"axonfs: cannot write standard output: No space left on device\n" in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_much_output_on_a_full_disk_is_said_too(settings: dict[str, str], tmp_path: Path) -> None:
    urls = "\n".join(f"- http://models.example.org/{number:0100}" for number in range(1000))
    (tmp_path / "config.yaml").write_text(f"registries:\n{urls}\n")
    with open("/dev/full", "wb") as full:
        done = axonfs(settings, "registry", "list", "--json", stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == b"axonfs: cannot write standard output: No space left on device\n"


def test_a_standard_error_that_takes_nothing_changes_no_exit_code(
    settings: dict[str, str],
) -> None:
    with open("/dev/full", "wb") as full:
        assert axonfs(settings, "frobnicate", stderr=full.fileno()).returncode == 2
        assert axonfs(settings, "config", "list", stderr=full.fileno()).returncode == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_none(settings: dict[str, str], tmp_path: Path, closed: str) -> None:
    """And no file of the cache gets its number, where a stray word would be written into it."""
    script = f'"{sys.executable}" -m axonfs cache stats {closed}; echo "exit $?"'
    done = subprocess.run(
        ["sh", "-c", script], env=settings, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.endswith(b"exit 0\n")
    assert done.stderr == b""


def test_a_reader_that_leaves_ends_a_command_quietly(
    settings: dict[str, str], registry: RegistryServer
) -> None:
    script = f'"{sys.executable}" -m axonfs search u --json | head -1'
    done = subprocess.run(
        ["bash", "-c", f"{script}; {script.replace('--json', '')}"],
        env=settings,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith(b"[\nSPEC")
    assert done.stderr == b""
