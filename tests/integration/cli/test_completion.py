"""Completion: what is offered where, in the shells themselves, and with names that mean harm."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from axonfs.cli.completing import complete, known
from axonfs.cli.completion import SHELLS
from axonfs.formats.document import Document
from axonfs.store import Store
from tests.support.commands import Run
from tests.support.registry import published
from tools import completions

PROGRAM = Path(sys.executable).with_name("axonfs")
HARM = (
    "$(touch HARM)",
    "`touch HARM`",
    "x;touch HARM",
    "a b",
    "-rf",
    "x\ny",
    "x'y",
    "\x1b[31m",
    "é",
)


@pytest.fixture
def cache(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which a version is pinned, and a registry's index with further names."""
    cache = tmp_path / "cache"
    for name, value in (("CACHE_DIR", cache), ("CONFIG", tmp_path / "config.yaml")):
        monkeypatch.setenv(f"AXONFS_{name}", str(value))
    registry = published(tmp_path)
    run("pin", "nlp/tiny@1.0.0", "--registry", str(registry))
    models = [{"namespace": "cv", "name": name, "version": "2.0"} for name in ("big", *HARM)]
    models += [{"namespace": "nlp", "name": "tiny", "version": version} for version in HARM]
    body = json.dumps({"apiVersion": "axonfs/v1", "models": [*models, 7, None]}).encode()
    url = "https://models.example.org/api/v1/index.json"
    with contextlib.closing(Store.open(cache)) as store:
        store.put_document(url, Document(body, None, 0.0, url))
    return cache


def offered(line: str) -> list[str]:
    """What is offered for the last word of a line."""
    words = complete.split(line)
    found, _ = complete.candidates(words[1:])
    return [name for name, _ in found if name.startswith(words[-1])]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("axonfs mou", ["mount"]),
        ("axonfs registry tok", ["token"]),
        ("axonfs registry token rev", ["revoke"]),
        ("axonfs mount --pre", ["--prefetch"]),
        ("axonfs mount --prefetch a", ["auto", "all"]),
        ("axonfs mount --prefetch=a", ["--prefetch=auto", "--prefetch=all"]),
        ("axonfs mount -o allow_other,bandw", ["allow_other,bandwidth"]),
        ("axonfs config get bandw", ["bandwidth"]),
        ("axonfs config set prefetch o", ["off"]),
        ("axonfs config set offline t", ["true"]),
        ("axonfs pin nlp/t", ["nlp/tiny"]),
        ("axonfs pin nlp/tiny@", ["nlp/tiny@latest", "nlp/tiny@1.0.0"]),
        ("axonfs pin other nlp/tiny@1", ["nlp/tiny@1.0.0"]),
        ("axonfs info cv/b", ["cv/big"]),
        ("axonfs versions nlp/tiny", ["nlp/tiny"]),
        ("axonfs info nlp/tiny x", []),
        ("axonfs pin nlp/tiny --include mod", ["model.safetensors"]),
        ("axonfs path nlp/tiny mod", ["model.safetensors"]),
        ("axonfs cache rm nlp/tiny@1", ["nlp/tiny@1.0.0"]),
        ("axonfs completion ", list(SHELLS)),
        ("axonfs frob", []),
    ],
)
@pytest.mark.usefixtures("cache")
def test_what_is_offered(line: str, expected: list[str]) -> None:
    """Commands, options, settings, models, versions and files."""
    assert offered(line) == expected


def test_only_plain_names_are_offered(cache: Path) -> None:
    found = known.specs(str(cache), "") + known.specs(str(cache), "nlp/tiny@")
    assert sorted(found) == [
        "cv/-rf",
        "cv/big",
        "nlp/tiny",
        "nlp/tiny@1.0.0",
        "nlp/tiny@latest",
    ]
    assert all(known.SAFE.fullmatch(name) for name in found)
    assert not [name for name in found if set(name) & set("$`;&|<>()'\"\\ \t\n*?[]{}!#~")]


def test_paths_and_mounts_are_left_to_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "mountpoints", lambda: ["/models"])
    assert complete.candidates(["trace", "show", ""]) == ([], "files")
    assert complete.candidates(["mount", "--cache", ""]) == ([], "dirs")
    assert complete.candidates(["umount", "/mo"])[0] == [("/models", "")]
    assert complete.candidates(["umount", "/x"])[1] == "dirs"
    config = tmp_path / "config.yaml"
    config.write_text("registries: [https://a.example.org, {url: https://b.example.org}]\n")
    monkeypatch.setenv("AXONFS_CONFIG", str(config))
    found, _ = complete.candidates(["registry", "remove", ""])
    assert [name for name, _ in found] == ["https://a.example.org", "https://b.example.org"]


def test_a_cache_that_is_missing_or_damaged_offers_nothing(tmp_path: Path) -> None:
    assert known.specs(str(tmp_path), "") == []
    (tmp_path / "index.lmdb").write_bytes(os.urandom(1 << 16))
    (tmp_path / "index.lmdb-lock").write_bytes(b"")
    assert known.specs(str(tmp_path), "") == []


def test_the_words_of_a_line() -> None:
    assert complete.split('axonfs pin "nlp/t') == ["axonfs", "pin", "nlp/t"]
    assert complete.split(r"axonfs a\ b 'c d' ") == ["axonfs", "a b", "c d", ""]
    assert complete.split("") == [""]


def test_it_imports_nothing_that_takes_long(cache: Path) -> None:
    """Completion answers within 100 ms: Python itself takes 20 of them, click would take 60."""
    script = (
        "import sys; sys.argv = ['axonfs', '__complete', 'fish', 'axonfs', 'pin', 'nlp/'];"
        "before = set(sys.modules);"
        "from axonfs.__main__ import main; main(); print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert "nlp/tiny" in done.stdout
    modules = done.stdout.splitlines()[-1]
    for heavy in ("click", "dataclasses", "yaml", "trio", "httpcore", "axonfs.store", "subprocess"):
        assert f"'{heavy}'" not in modules


def typed(shell: list[str], text: str, wanted: str, environment: dict[str, str]) -> str:
    """What a shell in a terminal shows after `text`, until it has shown `wanted`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(shell[0], shell, environment)
    shown, deadline = "", time.monotonic() + 30
    try:
        for part in re.split(r"(?<=\n)", text):
            os.write(terminal, part.encode())
        while wanted not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 65536).decode("utf-8", "replace")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown


@pytest.mark.parametrize("shell", SHELLS)
def test_in_the_shell_itself(shell: str, cache: Path, tmp_path: Path) -> None:
    """Tab completes a version, and a name that means harm runs nothing."""
    if shutil.which(shell) is None or not PROGRAM.exists():
        pytest.skip(f"{shell} or the program axonfs is not installed")
    paths = dict(zip(SHELLS, completions.write(tmp_path / "scripts"), strict=True))
    environment = {
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        **{name: os.environ[name] for name in ("AXONFS_CACHE_DIR", "AXONFS_CONFIG")},
    }
    if shell == "fish":
        asked = "complete -C 'axonfs pin nlp/tiny@1'; complete -C 'axonfs info cv/b'"
        line = f"source {paths[shell]}; {asked}"
        words = ["fish", "--no-config", "-c", line]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["nlp/tiny@1.0.0", "cv/big"]
    else:
        words = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
        start = {"bash": "", "zsh": f"autoload -U compinit; compinit -u -d {tmp_path}/dump;"}[shell]
        text = f"cd {tmp_path}; {start} source {paths[shell]}\naxonfs pin nlp/tiny@1\t-end\n"
        for wanted, line in ((".0.0", text), ("ig", text.replace("pin nlp/tiny@1", "info cv/b"))):
            assert wanted in typed(words, line, wanted, environment)
    assert not list(tmp_path.glob("**/HARM"))


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_script(shell: str, run: Run) -> None:
    assert run("completion", shell).out.endswith("\n")
    assert "axonfs __complete" in run("completion", shell).out
