"""Many readers of a mount, each a process of its own (tests/chaos/reader.py), and what they got."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = Path(__file__).parents[1] / "chaos/reader.py"


class Readers:
    """Readers that read until the block is left, where each must end with 0.

    Args:
        kinds: one reader for each.
        pairs: (file in the mount, plain file with the same bytes).
        errnos: what a read may fail with.
        seconds: what one read may take.
        got: called for each chunk that was read and right, with the number of the file and the
            chunk's, in one of several threads.
    """

    def __init__(
        self,
        kinds: Iterable[str],
        pairs: Sequence[tuple[Path, Path]],
        *,
        chunk: int,
        seed: int,
        errnos: Iterable[int] = (),
        seconds: float = 120,
        got: Callable[[int, int], None] = lambda file, chunk: None,
    ) -> None:
        common = [str(chunk), ",".join(map(str, errnos)), str(seconds)]
        common += [f"{mounted}={plain}" for mounted, plain in pairs]
        self._commands = [
            [sys.executable, "-I", "-S", str(PROGRAM), kind, f"{seed}/{number}", *common]
            for number, kind in enumerate(kinds)
        ]
        self._got = got
        self._progress = threading.Semaphore(0)
        self._lock = threading.Lock()
        self.chunks = 0
        self.errnos: Counter[int] = Counter()

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._processes = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            for command in self._commands
        ]
        self._threads = [
            threading.Thread(target=self._listen, args=(process,)) for process in self._processes
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        ends = [self._end(process, error is not None) for process in self._processes]
        for thread in self._threads:
            thread.join()
        if error is None:
            assert set(ends) == {(0, "")}, ends

    def _end(self, process: subprocess.Popen[str], failed: bool) -> tuple[int, str]:
        """Exit code and complaint; after a failure, readers that may hang are not waited for."""
        if failed:
            process.kill()
        assert process.stderr is not None
        with process.stderr as said:
            complaint = said.read()
        return process.wait(60), complaint

    def wait(self, chunks: int) -> None:
        """Return when `count` more chunks have been read."""
        for _ in range(chunks):
            assert self._progress.acquire(timeout=60), "the readers stand still"

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as said:
            for line in said:
                what, *numbers = line.split()
                self._note(what, list(map(int, numbers)))

    def _note(self, what: str, numbers: list[int]) -> None:
        with self._lock:
            if what == "errno":
                self.errnos[numbers[0]] += 1
                return
            self.chunks += 1
        self._got(*numbers)
        self._progress.release()
