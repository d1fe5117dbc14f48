"""The man pages: every command has one, and the programs that show them have no complaint."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from axonfs.cli.main import COMMANDS
from axonfs.settings.keys import KEYS
from tools import completions, man_pages


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return man_pages.write(tmp_path_factory.mktemp("man"))


def test_every_command_and_setting_is_in_a_page(pages: list[Path]) -> None:
    names = {page.name for page in pages}
    assert {f"axonfs-{name}.1" for name in COMMANDS} <= names
    assert {"axonfs.1", "axonfs.yaml.5", "mount.axonfs.8"} <= names
    texts = {page.name: page.read_text() for page in pages}
    assert all(f"\\fB{name}\\fR" in texts["axonfs.yaml.5"] for name in KEYS)
    assert "\\-\\-prefetch" in texts["axonfs-mount.1"]
    assert "axonfs registry token create" in texts["axonfs-registry.1"]


@pytest.mark.parametrize(
    "words",
    [["mandoc", "-Tlint", "-Wwarning"], ["man", "--warnings", "-Tutf8", "-Z", "-EUTF-8", "-l"]],
    ids=["mandoc", "man"],
)
def test_no_page_has_a_fault(words: list[str], pages: list[Path]) -> None:
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run(
        [*words, *pages], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_text_is_no_request() -> None:
    """A line of text cannot be a request of roff, and a backslash is one."""
    assert man_pages.escaped(".de x") == "\\&.de x"
    assert man_pages.escaped(r"\040") == r"\e040"
    assert man_pages.inline("a `b-c` d") == r"a \fBb\-c\fR d"


def test_a_date_for_reproducible_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    first, second = man_pages.write(tmp_path / "1"), man_pages.write(tmp_path / "2")
    assert [page.read_bytes() for page in first] == [page.read_bytes() for page in second]
    assert "1970-01-02" in first[0].read_text()


@pytest.mark.parametrize("tool", [man_pages, completions])
def test_they_run_as_programs(tool: object, tmp_path: Path) -> None:
    program = str(tool.__file__)  # type: ignore[attr-defined]
    for words, code in (([], 2), ([str(tmp_path / "out")], 0)):
        done = subprocess.run([sys.executable, program, *words], capture_output=True, check=False)
        assert done.returncode == code, done.stderr
    assert list((tmp_path / "out").iterdir())
