"""The program's edge: exit codes, messages, help, and what it costs to start."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest
import trio

from axonfs import __version__
from axonfs.cli.logs import log_like_messages
from axonfs.cli.main import COMMANDS, cli, main
from axonfs.cli.output import deferred, echo_json
from axonfs.cli.progress import ProgressDisplay
from axonfs.errors import AxonError, NotFoundError, StoppedError, UsageError


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AXONFS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "cache"))


def failing(monkeypatch: pytest.MonkeyPatch, exc: BaseException) -> int:
    """The exit code of a command that raises `exc`."""

    @click.command
    def version() -> None:
        raise exc

    monkeypatch.setattr("axonfs.cli.version.version", version)
    return main(["version"])


def test_a_command_that_fails_behind_its_json_prints_no_second_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command
    @click.option("--json", "as_json", is_flag=True)
    @click.option("--late", is_flag=True)
    def version(as_json: bool, late: bool) -> None:
        if late:
            echo_json({"seen": 1})
        raise AxonError("it has ended")

    monkeypatch.setattr("axonfs.cli.version.version", version)
    for options, found in ((["--late"], {"seen": 1}), ([], {"error": "it has ended"})):
        assert main(["version", "--json", *options]) == 1
        said = capsys.readouterr()
        document = json.loads(said.out)
        assert document == found or document["error"]["message"] == found["error"]
        assert said.err == "axonfs: it has ended\n"


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"axonfs {__version__}\n"


def test_every_command_of_the_table_exists_by_its_name() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize(
    ("exc", "code", "message"),
    [
        (
            NotFoundError("no such version", spec="a/b@1", hint="look"),
            1,
            "a/b@1: no such version; look",
        ),
        (UsageError("nonsense"), 2, "nonsense"),
        (ExceptionGroup("g", [ExceptionGroup("h", [AxonError("deep")])]), 1, "deep"),
        (
            FileNotFoundError(2, "No such file or directory", "/x"),
            1,
            "/x: No such file or directory",
        ),
        (ValueError("boo"), 1, "this is a bug: ValueError: boo; AXONFS_DEBUG=1 shows where"),
        (AxonError("evil\x1b[2J"), 1, "evil?[2J"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    exc: BaseException,
    code: int,
    message: str,
) -> None:
    assert failing(monkeypatch, exc) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"axonfs: {message}\n"


def test_a_traceback_is_shown_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AXONFS_DEBUG", "1")
    failing(monkeypatch, AxonError("x"))
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "exc", [KeyboardInterrupt(), click.Abort(), BaseExceptionGroup("g", [KeyboardInterrupt()])]
)
def test_an_interrupt_ends_with_130_and_no_words_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exc: BaseException
) -> None:
    assert failing(monkeypatch, exc) == 130
    assert "axonfs:" not in capsys.readouterr().err


SOURCE_FAULT = AxonError("it is down", source="http://models.example.org")


def warning_then(monkeypatch: pytest.MonkeyPatch, exc: BaseException | None, *options: str) -> None:
    """Run a command that is warned of a source that fails, and may then raise `exc`."""

    @click.command
    @click.option("--json", is_flag=True)
    def version(json: bool) -> None:
        log_like_messages()
        for _ in range(2):
            logging.getLogger("axonfs.catalog.outages").warning("%s", SOURCE_FAULT)
        if exc is not None:
            raise exc

    monkeypatch.setattr("axonfs.cli.version.version", version)
    with suppress(GeneratorExit):
        main(["version", *options])


@pytest.mark.parametrize(
    "exc",
    [
        None,
        SOURCE_FAULT,
        SOURCE_FAULT.located(spec="nlp/a@1"),
        AxonError(str(SOURCE_FAULT), hint="nothing was updated"),
        AxonError("something else"),
        ValueError("boo"),
        BrokenPipeError(),
        KeyboardInterrupt(),
        GeneratorExit(),  # what no handler of ours takes
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_the_warning_of_a_source_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    exc: BaseException | None,
    options: tuple[str, ...],
) -> None:
    warning_then(monkeypatch, exc, *options)
    assert capsys.readouterr().err.count(str(SOURCE_FAULT)) == 1


def test_a_command_that_goes_on_tells_a_warning_before_its_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("axonfs.cli.output.shown", set())
    deferred.append(str(SOURCE_FAULT))
    with ProgressDisplay(sys.stderr) as progress:
        progress({"event": "progress", "spec": "nlp/a@1", "done": 1, "total": 2, "fetched": 1})
        assert str(SOURCE_FAULT) in capsys.readouterr().err


def test_an_interrupt_wins_over_the_faults_it_caused(monkeypatch: pytest.MonkeyPatch) -> None:
    group = BaseExceptionGroup(
        "g", [AxonError("x"), BaseExceptionGroup("h", [KeyboardInterrupt()])]
    )
    assert failing(monkeypatch, group) == 130


def test_a_cancelled_nursery_does_not_hide_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise UsageError("inner")

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(fail)
    assert failing(monkeypatch, caught.value) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["frobnicate"], "there is no command 'frobnicate'; try axonfs --help"),
        (["serch", "x"], "did you mean search?"),
        (["mount", "--nonsense"], "no such option"),
        (["info"], "missing argument"),
        (["pin", "not a spec"], "is not a model"),
        (["pin"], "pin needs a SPEC"),
        (["uninstall", "a/b"], "names no version"),
        (["publish", ".", "a/b@", "--to", "x"], "empty version"),
        (["config", "get", "colour"], "no setting 'colour'"),
        (["config", "set", "streams", "many"], "streams: 'many'"),
        (["config", "set", "tokens", "s3cret"], "does not belong on the command line"),
        (
            ["registry", "add", "not-a-url"],
            "is not an http://, https://, s3:// or oci:// URL, nor a path",
        ),
        (["search", "x", "--registry", "nope"], "registries"),
        (["list", "--format", "xml"], "xml"),
    ],
)
def test_wrong_usage_is_said_in_one_line_and_ends_with_2(
    capsys: pytest.CaptureFixture[str], line: list[str], words: str
) -> None:
    code = main(line)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert words in captured.err
    assert captured.err.startswith("axonfs: ")
    assert captured.err.count("\n") == 1


def test_groups_without_a_command_show_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ([], ["cache"], ["registry"], ["registry", "set"], ["config"]):
        assert main(line) == 2
        assert "Usage:" in capsys.readouterr().err


def test_the_help_shows_every_command_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert line.endswith(".")
        assert not line.endswith("...")


def test_a_closed_pipe_is_no_error_worth_a_word(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "axonfs", "config", "list"],
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            timeout=30,
        )
    assert b"roken" not in done.stderr
    assert b"Traceback" not in done.stderr


def imported(code: str, heavy: list[str]) -> str:
    """Which of `heavy` a new interpreter has after `code`, as the repr of a list."""
    tail = f";import sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.splitlines()[-1]


def test_version_imports_nothing_heavy() -> None:
    heavy = ["trio", "httpcore", "lmdb", "yaml", "pyfuse3", "axonfs.engine", "axonfs.store"]
    code = "from axonfs.cli.main import main; main(['version'])"
    assert imported(code, heavy) == "[]"


def test_to_ask_a_mount_takes_no_engine() -> None:
    heavy = ["trio", "httpcore", "lmdb", "pyfuse3", "axonfs.engine", "axonfs.store"]
    assert imported("import axonfs.cli.models, axonfs.cli.pins, axonfs.cli.status", heavy) == "[]"


def test_the_package_imports_nothing_before_it_is_used() -> None:
    heavy = ["trio", "click", "yaml", "axonfs.errors", "axonfs.client", "fsspec"]
    assert imported("import axonfs", heavy) == "[]"


def test_a_client_beside_a_mount_takes_no_engine() -> None:
    heavy = ["trio", "httpcore", "lmdb", "pyfuse3", "click", "axonfs.engine", "axonfs.store"]
    assert imported("import axonfs; axonfs.Client()", heavy) == "[]"


def test_interrupted_is_what_shells_expect() -> None:
    assert StoppedError.exit_code == 128 + signal.SIGINT
