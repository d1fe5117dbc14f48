#!/usr/bin/env python3
"""Writes the scripts that complete axonfs in bash, zsh and fish, as packages install them.

python tools/completions.py OUTDIR

OUTDIR gets bash/axonfs (for /usr/share/bash-completion/completions), zsh/_axonfs (for
/usr/share/zsh/vendor-completions) and fish/axonfs.fish (for /usr/share/fish/vendor_completions.d).
"""

from __future__ import annotations

import sys
from pathlib import Path

from axonfs.cli.completion import SHELLS, script

NAMES = {"bash": "axonfs", "zsh": "_axonfs", "fish": "axonfs.fish"}


def write(directory: Path) -> list[Path]:
    """Write the scripts into `directory`; their paths."""
    found = []
    for shell in SHELLS:
        path = directory / shell / NAMES[shell]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(shell), encoding="utf-8")
        found.append(path)
    return found


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    write(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
