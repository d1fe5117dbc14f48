"""The commands of docs/install.md, and which of them tools/try_install runs.

A way of installing is a section of the page. Its blocks marked `sh` are, in this order, the
installation, an upgrade and the removal; after the installation of the Debian package come its
service and a user's. Every way goes on with the block of `A first model`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/install.md"
FIRST_MODEL = "A first model"


@dataclass(frozen=True)
class Way:
    """One way of installing, as one user of a fresh machine follows it.

    `path` is the directory of the command where no shell's PATH has it; `file` the pattern of
    the release's file that the user has downloaded. With `services` the section has two blocks
    more, which start the machine's mount and the user's.
    """

    name: str
    section: str
    path: str = ""
    file: str = ""
    services: bool = False

    @property
    def blocks(self) -> int:
        return 5 if self.services else 3


WAYS = (
    Way("pipx", "pipx"),
    Way("uv", "uv"),
    Way("pip", "pip", path="~/program/bin"),
    Way("deb", "Debian and Ubuntu", file="*.deb", services=True),
    Way("source", "From source", file="*.tar.gz"),
)
# Sections whose blocks are not run, and why.
NOT_RUN: dict[str, str] = {}


def blocks(text: str) -> dict[str, list[list[str]]]:
    """The commands of each block marked `sh`, by section, without comments."""
    found: dict[str, list[list[str]]] = {}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        for block in re.findall(r"^```sh\n(.*?)^```$", body, re.MULTILINE | re.DOTALL):
            lines = (re.sub(r"\s+#\s.*$", "", line) for line in block.splitlines())
            found.setdefault(title, []).append([line for line in lines if line.strip()])
    return found
