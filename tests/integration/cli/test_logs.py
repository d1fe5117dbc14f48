"""The log of a mount: its file is rotated by the processes that share it, and its two forms."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from axonfs.cli.logfile import LOG, MAX_LOG_BYTES, open_log

# What holder and worker do: each installs the log, and writes through it and past it.
WRITER = """
import logging, sys
from pathlib import Path
from axonfs.cli.logs import log_to_stderr
from axonfs.errors import UnavailableError

log_to_stderr("json" if "json" in sys.argv else "text", "warning", Path(sys.argv[1]))
for line in sys.stdin:
    logging.getLogger("axonfs.test").warning("%s", line.strip())
    logging.getLogger("axonfs.test").info("less severe than what is written")
    print("past the log", file=sys.stderr, flush=True)
    print("written", flush=True)
if "json" in sys.argv:
    error = UnavailableError("refused", spec="nlp/a@1", path="w.bin", source="http://r/")
    logging.getLogger("axonfs.test").error("%s [%s]", error, "EIO")
"""


class Writer:
    """A process whose standard error is the log of `cache`."""

    def __init__(self, cache: Path, *arguments: str) -> None:
        with open(open_log(cache / LOG), "ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(cache), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )

    def write(self, text: str) -> None:
        """Returns once the line is in the log."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(text, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "written\n"

    def end(self) -> None:
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


def test_a_large_log_is_set_aside_while_both_processes_write(cache: Path) -> None:
    path, before = cache / LOG, cache / "run/mount.log.1"
    holder, worker = Writer(cache), Writer(cache)
    try:
        holder.write("first of the holder")
        with path.open("ab") as file:
            file.truncate(MAX_LOG_BYTES + 1)
        worker.write("first of the worker")
        holder.write("second of the holder")
        assert before.stat().st_size == MAX_LOG_BYTES + 1
        for written in ("first of the worker", "second of the holder"):
            assert written in path.read_text()
        # The second time the old one goes, and nothing but the two is there.
        with path.open("ab") as file:
            file.truncate(MAX_LOG_BYTES + 1)
        holder.write("third of the holder")
        worker.write("second of the worker")
        text = path.read_text()
        assert "third of the holder" in text
        assert "second of the worker" in text
        assert text.count("past the log") == 2
        assert "less severe" not in text
    finally:
        holder.end()
        worker.end()
    assert sorted(item.name for item in path.parent.iterdir()) == ["mount.log", "mount.log.1"]
    assert before.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o600


def test_a_worker_that_inherits_an_old_log_follows(cache: Path) -> None:
    """A worker gets the standard error of its holder, who may not have written since."""
    path = cache / LOG
    worker = Writer(cache)
    try:
        path.replace(cache / "run/mount.log.1")
        worker.write("a line of the worker")
        assert "a line of the worker" in path.read_text()
    finally:
        worker.end()


def test_json_lines_have_the_model_the_file_and_the_source_apart(cache: Path) -> None:
    writer = Writer(cache, "json")
    writer.write("a plain warning")
    writer.end()
    lines = [line for line in (cache / LOG).read_text().splitlines() if line.startswith("{")]
    plain, failure = map(json.loads, lines)
    assert plain | {"time": ""} == {
        "time": "",
        "level": "warning",
        "logger": "axonfs.test",
        "message": "a plain warning",
    }
    assert failure | {"time": "", "message": ""} == {
        "time": "",
        "level": "error",
        "logger": "axonfs.test",
        "message": "",
        "spec": "nlp/a@1",
        "path": "w.bin",
        "source": "http://r/",
        "cause": "refused",
        "errno": "EIO",
    }
    assert failure["message"] == "nlp/a@1 w.bin: refused (from http://r/) [EIO]"


HOSTILE = '\x1b]0;x\x07\n{"level": "forged"}\r\u202e\u2028\x9b31m\'</script>\udc80'
FORGER = """
import logging, sys
from axonfs.cli.logs import log_to_stderr
from axonfs.errors import UnavailableError

log_to_stderr(sys.argv[1])
names = dict.fromkeys(("spec", "path", "source", "hint"), eval(sys.argv[2]))
error = UnavailableError(names["path"], **names)
logging.getLogger("axonfs.test").error("%s [%s]", error, "EIO")
try:
    raise ValueError(names["path"])
except ValueError as exc:
    logging.getLogger("axonfs.test").warning("a bug", exc_info=exc)
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_hostile_texts_forge_no_line(form: str) -> None:
    """Names and texts from outside stay within their line, and control no terminal; in the journal
    each line has its priority."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        here = os.fstat(theirs.fileno())
        command = [sys.executable, "-c", FORGER, form, ascii(HOSTILE)]
        env = {**os.environ, "JOURNAL_STREAM": f"{here.st_dev}:{here.st_ino}"}
        subprocess.run(command, stderr=theirs.fileno(), env=env, check=True)
        theirs.close()
        lines = ours.makefile("rb").read().decode().split("\n")[:-1]
    assert [line[:3] for line in lines] == ["<3>"] + ["<4>"] * (len(lines) - 1)
    assert all(line.isascii() and line.isprintable() for line in lines)
    if form == "text":
        assert [line[3:].split()[1] for line in lines if line[3] == "2"] == ["ERROR", "WARNING"]
        return
    failure, bug = (json.loads(line[3:]) for line in lines)
    assert failure["level"] == "error"
    assert {failure[name] for name in ("spec", "path", "source", "cause", "hint")} == {HOSTILE}
    assert HOSTILE in bug["traceback"]
