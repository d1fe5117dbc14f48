"""What users expect of a command line: words, questions, errors as data, aligned columns."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs import __version__
from axonfs.cli.columns import clip, clip_start, width
from axonfs.cli.default_mount import default_mountpoint
from axonfs.cli.output import table
from axonfs.errors import AxonError, UsageError
from tests.support.axon import AxonRegistry
from tests.support.commands import Run
from tests.support.registry import SPEC, RegistryServer, published


@pytest.fixture
def registry(run: Run, tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(published(tmp_path)) as server:
        run("registry", "add", server.url)
        yield server


def error(run: Run, *line: str | Path) -> dict[str, object]:
    """The error object of a command that fails; nothing else is on stdout."""
    done = run(*line, "--json")
    document = json.loads(done.out)
    assert list(document) == ["error"]
    found = document["error"]
    assert found["exit_code"] == done.code != 0
    assert set(found) == {"message", "spec", "path", "source", "hint", "exit_code"}
    assert done.err.startswith("axonfs: ")  # the line for people stays
    return dict(found)


def test_errors_under_json_are_json(run: Run, registry: RegistryServer) -> None:
    missing = error(run, "info", "nlp/tiny@9")
    assert (missing["message"], missing["spec"]) == ("no such version", "nlp/tiny@9")
    assert missing["hint"] == "see axonfs versions nlp/tiny"
    assert error(run, "info", "not a spec")["exit_code"] == 2
    assert "missing argument" in str(error(run, "info")["message"])
    assert "no such option" in str(error(run, "list", "--bogus")["message"])
    assert "there is no command" in str(error(run, "frobnicate")["message"])
    down = error(run, "pin", "nlp/tiny", "--registry", "http://127.0.0.1:9")
    assert down["message"] == "Connection refused"
    assert str(down["source"]).startswith("http://127.0.0.1:9/")
    assert run("info", "nlp/tiny@9").out == ""


@pytest.mark.parametrize(
    ("line", "subject"),
    [
        (["pin", "hf/x/y"], "hf/x/y"),
        (["info", "hf/x/y@v1"], "hf/x/y@v1"),
        (["versions", "hf/x/y"], "hf/x/y"),
    ],
)
def test_a_hub_that_is_down_is_told_once_and_of_which_model(
    run: Run, monkeypatch: pytest.MonkeyPatch, line: list[str], subject: str
) -> None:
    monkeypatch.setenv("AXONFS_SOURCES", "hf")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AXONFS_RETRIES", "0")
    assert error(run, *line)["spec"] == subject
    assert run(*line).err.count("Connection refused") == 1


def test_a_check_that_fails_is_a_result_and_no_error(run: Run, registry: RegistryServer) -> None:
    done = run("pin", "--check", SPEC, "--json")
    assert done.code == 1
    assert json.loads(done.out)[0]["whole"] is False


def test_list_has_json_with_the_keys_of_the_other_commands(
    run: Run, registry: RegistryServer
) -> None:
    assert run("list", "--json").out == "[]\n"
    run("pin", SPEC)
    (item,) = json.loads(run("list", "--json").out)
    assert item["spec"] == SPEC
    assert item["pinned"] == "complete"
    assert item["path"] is None
    assert set(item) >= {"namespace", "name", "version", "size", "local"}
    (axon,) = json.loads(run("list", "--format", "json").out)
    assert axon["Namespace"] == "nlp"
    assert run("list", "--json", "--format", "names").code == 2


def test_clean_all_drops_no_pin_unasked(run: Run, registry: RegistryServer) -> None:
    run("pin", SPEC)
    plan = run("cache", "clean", "--all", "--dry-run")
    assert plan.code == 0
    assert "3.0 MiB would be freed, 3 objects would be dropped" in plan.out
    assert f"would no longer be pinned: {SPEC}" in plan.out
    refused = run("cache", "clean", "--all")
    assert (refused.code, refused.out) == (2, "")
    assert f"1 pinned version would be dropped: {SPEC}; add --yes" in refused.err
    assert run("pin", "--check").code == 0
    assert run("cache", "clean", "--dry-run").out.startswith("0 B would be freed")
    assert run("cache", "clean").code == 0  # nothing that is pinned goes, so nothing is asked
    assert run("pin", "--check").code == 0
    assert f"no longer pinned: {SPEC}" in run("cache", "clean", "--all", "--yes").out
    assert run("cache", "clean", "--all").code == 0  # there is no pin any more


@pytest.mark.parametrize(("answer", "code", "kept"), [("n", 1, True), ("y", 0, False)])
def test_clean_all_asks_on_a_terminal(
    run: Run, registry: RegistryServer, answer: str, code: int, kept: bool
) -> None:
    run("pin", SPEC)
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "axonfs", "cache", "clean", "--all"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE) as it:
        os.write(main, f"{answer}\n".encode())
        assert it.stderr is not None
        assert "drop them, 3.0 MiB in all?" in it.stderr.read().decode()
    os.close(main)
    os.close(terminal)
    assert it.returncode == code
    assert (SPEC in run("list").out) is kept


def test_the_words_of_a_search_may_stand_in_any_order(run: Run, tmp_path: Path) -> None:
    """Where there is no index, and the registry looks for the query as a whole, as Axon's does."""
    axon = AxonRegistry(tmp_path / "axon")
    for number in range(3):
        axon.add(f"vision/resnet50@1.{number}.0", {"w.bin": b"w" * 10})
    axon.add("vision/other@1.0.0", {"w.bin": b"w"}, description="Image segmentation")
    with axon as server:
        run("registry", "set", "default", server.url)
        ordered = run("search", "image", "classification", "--json")
        assert len(json.loads(ordered.out)) == 3
        for words in (["classification", "image"], ["CLASSIFICATION image"], ["residual", "image"]):
            found = json.loads(run("search", *words, "--json").out)
            assert {item["spec"] for item in found} == {
                item["spec"] for item in json.loads(ordered.out)
            }
        assert run("search", "image", "nonsense").err == "nothing matches\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("rm", "uninstall"),
        ("pull", "pin"),
        ("download", "pin"),
        ("get", "pin"),
        ("init", "registry add"),
        ("remove", "uninstall"),
        ("delete", "uninstall"),
        ("login", "registry add URL --with-token"),
        ("run", "mount"),
        ("serve", "registry serve"),
        ("ls", "list"),
        ("unmount", "umount"),
        ("LS", "list"),
        ("serch", "search"),
    ],
)
def test_other_tools_words_get_a_hint(run: Run, word: str, hint: str) -> None:
    done = run(word, "nlp/tiny")
    assert done.code == 2
    assert done.err.startswith(f"axonfs: there is no command '{word}'; did you mean {hint}")


def test_groups_have_hints_too(run: Run) -> None:
    assert "did you mean clean?" in run("cache", "clear").err
    assert "did you mean remove?" in run("registry", "rm", "x").err
    assert "did you mean stats?" in run("cache", "info").err
    assert "did you mean list?" in run("config", "show").err
    assert "did you mean serve?" in run("registry", "sevre").err


def test_places_on_other_machines_are_no_directories_here(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/w.bin").touch()
    for place in ("user@host:/srv/reg", "user@host.example:reg", "host:/srv/reg"):
        done = run("publish", str(tmp_path / "model"), "nlp/x@1", "--to", place)
        assert done.code == 2
        assert f"the registry's directory: '{place}' is " in done.err


def test_version_is_an_option_as_well(run: Run) -> None:
    assert run("--version").out == run("version").out == f"axonfs {__version__}\n"


def test_path_says_what_to_do_where_nothing_is_mounted(run: Run, registry: RegistryServer) -> None:
    done = run("path", "--mounted", SPEC)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"axonfs: {SPEC}: nothing is mounted; run axonfs mount first\n"
    assert run("path", "nonsense").code == 2


def test_a_pin_says_where_the_model_is(
    run: Run, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXONFS_MOUNTPOINT", "/srv/models")
    assert run("pin", SPEC).out.splitlines()[-1] == (
        "  axonfs mount shows it at /srv/models/nlp/tiny/1.0.0"
    )


WIDE = (
    "日本語モデル",
    "한국어",
    "naïve",
    "e\N{COMBINING ACUTE ACCENT}te",
    "👍",
    "☀\ufe0f",
    "plain",
)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("日本", 4),
        ("ﾊﾟ", 2),
        ("e\u0301", 1),
        ("👍🏽", 4),
        ("☀\ufe0f", 2),
        ("ᄒ\u1161\u11ab", 2),
        ("a", 1),
    ],
)
def test_a_character_has_the_width_that_a_terminal_gives_it(text: str, columns: int) -> None:
    assert width(text) == columns


def test_columns_are_aligned_for_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    table(("NO", "NAME", "X"), [("1", text, "|") for text in WIDE], widest=8)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len({width(line) for line in lines}) == 1
    assert lines[0] == "1   日本語…  |"


def test_what_is_cut_fits_and_keeps_whole_characters() -> None:
    for text in (*WIDE, "a日本b語", "x" * 20):
        for columns in range(12):
            for cut in (clip(text, columns), clip_start(text, columns)):
                assert width(cut) <= columns
                assert not cut or not unicodedata.combining(cut[0])
    assert clip("abcdef", 4) == "abc…"
    assert clip_start("a/b/c.bin", 6) == "…c.bin"


def test_the_mount_that_is_meant() -> None:
    default, one, other = Path("/models"), Path("/a"), Path("/b")
    assert default_mountpoint({one}, default, chosen=False) == one
    assert default_mountpoint({one, default}, default, chosen=False) == default
    with pytest.raises(UsageError, match="there are 2 mounts: /a, /b; name one"):
        default_mountpoint({other, one}, default, chosen=False)
    with pytest.raises(AxonError, match="nothing is mounted"):
        default_mountpoint(set(), default, chosen=False)
    # A place that was configured is the only one that is meant.
    with pytest.raises(AxonError, match="no AxonFS is mounted there; name a mountpoint: /a"):
        default_mountpoint({one}, default, chosen=True)
