"""Traces as a mount would write them, made by hand, for what their pictures say and look like."""

from __future__ import annotations

from typing import Any

from axonfs.trace.reading import Trace, parse
from axonfs.trace.records import encoded

MIB = 1 << 20
FACTS = {"version": "1.0", "mountpoint": "/models", "bandwidth": 0, "prefetch": "auto"}


class Made:
    """The records of one worker; every method returns the trace itself."""

    def __init__(self, **facts: Any) -> None:
        self.records: list[list[Any]] = [["worker", 0.0, {**FACTS, **facts}]]
        self._files = self._jobs = 0

    def file(self, path: str, size: int, spec: str = "", *, local: bool = False) -> int:
        """A file; its number."""
        runs = [[0, size]] if local else []
        self.records.append(["file", self._files, path, size, runs, spec])
        self._files += 1
        return self._files - 1

    def program(self, number: int, name: str, pid: int = 7) -> None:
        self.records.append(["program", number, pid, name])

    def fetched(
        self,
        file: int,
        start: int,
        stop: int,
        asked: float,
        landed: float,
        priority: int = 1,
        stage: str = "",
    ) -> None:
        """Bytes that one request brings at once, and what it waited for all the time."""
        job = self._jobs
        self._jobs += 1
        self.records += [
            ["ask", asked, job, file, start, stop, priority],
            ["request", asked, job, priority, "http://registry.test/"],
            *([["stage", asked, job, stage]] if stage else []),
            ["land", landed, job, start, stop],
            ["end", landed, job, None],
        ]

    def read(
        self, file: int, start: int, stop: int, began: float, ended: float, *, waits: bool = False
    ) -> None:
        """A read of program 0."""
        waited = ended - began if waits else 0.0
        took = ended - began
        self.records.append(["read", began, took, file, 0, start, stop, stop - start, 1, waited])

    def waited(self, time: float, **causes: float) -> None:
        self.records.append(["waited", time, causes])

    def trace(self) -> Trace:
        return parse(1_800_000_000.0, encoded(self.records))


def loads(count: int, *, apart: float = 3.0, files: int = 1) -> Made:
    """So many models that one program loads, one after another."""
    made = Made()
    made.program(0, "vllm")
    for load in range(count):
        began = load * apart
        spec = f"nlp/model-{load:03}@1.0.0"
        for number in range(files):
            size = (64 + 8 * (load % 5)) * MIB
            name = f"{spec.replace('@', '/')}/model-{number + 1:05}-of-{files:05}.safetensors"
            file = made.file(name, size, spec)
            for part in range(4):
                start, stop = part * size // 4, (part + 1) * size // 4
                asked = began + 0.05 * part + 0.3 * number
                landed = began + 0.2 * (part + 1) + 0.3 * number
                made.fetched(
                    file, start, stop, asked, landed, stage=("receiving", "first_byte")[part % 2]
                )
                made.read(file, start, stop, asked, landed + 0.02, waits=True)
            made.waited(began + 0.5 + 0.3 * number, document=0.1)
    return made
