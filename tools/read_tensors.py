"""Read every tensor of a model directory with safetensors, and print their number and size.

Works for types that numpy has, so not for bfloat16.

    python tools/read_tensors.py MODEL
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors import safe_open


def read(model: Path) -> tuple[int, int]:
    """The number of tensors in the directory's safetensors files, and their bytes."""
    count = size = 0
    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                count += 1
                size += tensors.get_tensor(name).nbytes
    return count, size


def main(arguments: list[str]) -> int:
    """Print one line, or the usage; return 1 if the directory has no tensors."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    count, size = read(Path(arguments[0]))
    print(f"{count} tensors, {size / 1e6:.1f} MB")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
