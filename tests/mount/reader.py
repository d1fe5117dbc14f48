"""Opens, reads and maps files again and again, and compares each time.

Run as a program: ROUNDS SEED PATH=SHA256…; ends with 1 and a line if bytes or an errno were wrong.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import sys


def main(rounds: str, seed: str, *pairs: str) -> None:
    choices = random.Random(int(seed))
    for _ in range(int(rounds)):
        path, _, want = choices.choice(pairs).rpartition("=")
        with open(path, "rb") as file:
            # What the page cache has would be asked for no more, evicted or not.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if choices.random() < 0.5:
                found = hashlib.sha256(file.read()).hexdigest()
            else:
                with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
                    found = hashlib.sha256(mapping).hexdigest()
        if found != want:
            sys.exit(f"{path} has other bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
