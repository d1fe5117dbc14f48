"""Pages of docs/ that show a terminal: their commands are run, and must say what the page says.

A block marked `console` has lines that begin with `$ ` and what each prints, standard output and
error together. In what is printed `…` stands for anything, on a line of its own for any number of
lines; more than one blank is as good as two. A command fails if and only if the page shows a
complaint of its own for it, a line like `axonfs: …` or `cat: …`. The blocks of a page share one
shell's environment and directory.

A block marked `pycon` is a Python session of its own, in that directory: a doctest, in which `…`
stands for anything as well.

Between two blocks `<!-- meanwhile: NAME -->` is what another user does, which the test knows.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PART = re.compile(
    r"^```console\n(?P<block>.*?)^```$|^```pycon\n(?P<session>.*?)^```$"
    r"|^<!-- meanwhile: (?P<event>\w+) -->$",
    re.MULTILINE | re.DOTALL,
)
SECONDS = 60
_DOCTEST = """
import doctest, sys
test = doctest.DocTestParser().get_doctest(sys.stdin.read(), {}, "page", None, 0)
doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
"""


@dataclass(frozen=True)
class Step:
    """One command of a page, and what the page says it prints."""

    command: str
    printed: str

    @property
    def fails(self) -> bool:
        complaints = ("axonfs: ", f"{self.command.split()[0]}: ")
        return any(line.startswith(complaints) for line in self.printed.splitlines())

    def matches(self, printed: str) -> bool:
        pattern = "".join(map(_line_pattern, _squeezed(self.printed).splitlines(keepends=True)))
        return re.fullmatch(pattern, _squeezed(printed)) is not None


@dataclass(frozen=True)
class Meanwhile:
    """What another user does between two commands, by its name."""

    event: str


@dataclass(frozen=True)
class Examples:
    """A Python session, as a doctest."""

    text: str


def _line_pattern(line: str) -> str:
    return r"(?:.*\n)*" if line == "…\n" else re.escape(line).replace("…", ".*")


def _squeezed(text: str) -> str:
    return re.sub(r" +$", "", re.sub(r" {2,}", "  ", text), flags=re.MULTILINE)


def steps(page: str) -> Iterator[Step | Meanwhile | Examples]:
    """The commands of a page and what happens between them, in order."""
    for part in _PART.finditer(page):
        if event := part["event"]:
            yield Meanwhile(event)
            continue
        if session := part["session"]:
            yield Examples(session)
            continue
        for text in re.split(r"^\$ ", part["block"], flags=re.MULTILINE)[1:]:
            command, _, printed = text.partition("\n")
            yield Step(command, printed)


@dataclass(frozen=True)
class Terminal:
    """Where the commands run; `names` are what the page calls things, and what they are here.
    `within` are words before each command."""

    directory: Path
    environment: Mapping[str, str]
    names: Mapping[str, str]
    within: Sequence[str] = ()

    def run_examples(self, examples: Examples) -> str:
        """What doctest says of a Python session; nothing if it prints what the page says.

        What it writes to standard error is left out: a progress bar, say.
        """
        text = examples.text.replace("…", "...")
        for shown, real in self.names.items():
            text = text.replace(shown, real)
        done = subprocess.run(
            [sys.executable, "-c", _DOCTEST],
            cwd=self.directory,
            env=dict(self.environment),
            input=text,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, step: Step) -> tuple[int, str]:
        """Exit code and output of a command, in the page's words."""
        command = step.command
        for shown, real in self.names.items():
            command = command.replace(shown, real)
        done = subprocess.run(
            [*self.within, "bash", "-c", command],
            cwd=self.directory,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        printed = done.stdout
        for shown, real in self.names.items():
            printed = printed.replace(real, shown)
        return done.returncode, printed
