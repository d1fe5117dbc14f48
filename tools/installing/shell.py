"""A user at a shell of a machine: each command is a login shell of its own.

Used by tools/try_install. A shell begins in the directory in which the last one ended. Installers
get the host's network.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from tools.installing.machine import Machine

_SECONDS = 1800
FIRST_UID = 1000
_INSTALLER = re.compile(
    r"(sudo )?apt(-get)? |pipx (install|upgrade)\b|uv tool (install|upgrade)\b|\S*/pip install\b"
)
_ENDED = "the shell ended in "


class CommandError(Exception):
    """A command of the page failed, or did not do what the page says."""


@dataclass
class Shell:
    """`installing` are variables for installers; `path` comes before the PATH of each login."""

    machine: Machine
    user: str
    installing: Mapping[str, str]
    path: str = ""
    directory: str = "~"

    @property
    def home(self) -> str:
        return "/root" if self.user == "root" else f"/home/{self.user}"

    def run(self, command: str, fails: bool = False) -> str:
        """What the command prints, standard error too.

        Raises:
            CommandError: it failed, or with `fails` it did not.
        """
        start = time.monotonic()
        # Not a pipe: a mount in the background may keep it open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                self._words(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_SECONDS,
                check=False,
            )
            output.seek(0)
            printed, _, ended = output.read().rpartition(_ENDED)
        took = time.monotonic() - start
        print(f"{took:7.1f} s  {self.user}$ {command}", file=sys.stderr, flush=True)
        if (done.returncode != 0) != fails:
            wanted = "should have failed" if fails else f"exit code {done.returncode}"
            raise CommandError(
                f"{self.user}$ {command}: {wanted}\n{printed}{'' if printed else ended}"
            )
        self.directory = ended.strip()
        return printed

    def start(self, command: str) -> subprocess.Popen[str]:
        """A program in the background, with pipes to its standard input and output."""
        return subprocess.Popen(
            self._words(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _words(self, command: str) -> list[str]:
        network = _INSTALLER.match(command) is not None
        variables = {"HOME": self.home, "USER": self.user, "LOGNAME": self.user, "LANG": "C.UTF-8"}
        if self.user != "root":
            variables["XDG_RUNTIME_DIR"] = f"/run/user/{FIRST_UID}"
        if network:
            variables |= self.installing
        script = f"cd {self.directory if self.directory == '~' else shlex.quote(self.directory)}\n"
        if self.path:
            script += f"PATH={self.path}:$PATH\n"
        script += f"trap 'printf %s \"{_ENDED}$PWD\"' EXIT\n{command}\n"
        words = [*self.machine.words(network), "runuser", "-u", self.user, "--", "env", "-i"]
        return [
            *words,
            *(f"{name}={value}" for name, value in variables.items()),
            "bash",
            "-lc",
            script,
        ]


def ask(process: subprocess.Popen[str], line: str = "") -> str:
    """Send a program of `Shell.start` a line, and return the next one of its own."""
    streams: tuple[IO[str] | None, IO[str] | None] = (process.stdin, process.stdout)
    if streams[0] is None or streams[1] is None:
        raise ValueError("the program has no pipes")
    if line:
        streams[0].write(line + "\n")
        streams[0].flush()
    return streams[1].readline().strip()
