"""The first bytes of a cold file at 20 ms: how many round trips they take.

The mount has read another file of the version before, so it has connections and the manifest. A
round trip is a ranged GET of one byte on a warm connection. The time that a chunk takes on the line
is subtracted first, because a reader gets bytes only once their chunk is complete and verified.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE
from bench.experiment import Answer, experiment
from bench.fixtures import MIB, cold_mount, publish_model, scratch, write_model
from bench.measure import rounds_of, seconds, summaries
from bench.network import GBIT, line
from bench.origin import serving
from bench.readers import first_page

SPEC = "bench/first@1.0.0"
RTT = 0.02
TARGET = 2.0
CHUNK_SECONDS = DEFAULT_CHUNK_SIZE * 8 / GBIT
# Long enough for the readahead of the file before to have ended.
QUIET_SECONDS = 0.3


def next_file(files: Iterator[Path]) -> Mapping[str, float]:
    """Read the first bytes of a file that was never read before."""
    file = next(files)
    time.sleep(QUIET_SECONDS)
    took = seconds(lambda: first_page(file))
    return {"seconds": took, "without_chunk": took - CHUNK_SECONDS}


class Probe:
    """One kept-alive connection to the origin."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.netloc)

    def get(self) -> None:
        self._connection.request("GET", self._path, headers={"Range": "bytes=0-0"})
        self._connection.getresponse().read()

    def round_trip(self) -> Mapping[str, float]:
        return {"seconds": seconds(self.get)}


def main() -> None:
    with experiment("firstbyte", __doc__) as trial, scratch() as work:
        rounds = 3 * trial.rounds
        publish_model(write_model(work / "model", rounds + 1, 2 * MIB), SPEC, work / "registry")
        with (
            line(GBIT, RTT) as limited,
            serving(work / "registry", work, line=limited) as origin,
            # Else a second file that is opened has the next ones fetched.
            cold_mount(origin.url, work, "--prefetch", "off") as mount,
        ):
            files = iter(sorted(mount.version(SPEC).glob("*.safetensors")))
            probe = Probe(origin.objects()[0][0])
            probe.get()
            first_page(next(files))
            ways = {"mount": lambda: next_file(files), "round trip": probe.round_trip}
            found = rounds_of(ways, rounds)
        trial.figures |= summaries(found)
        trial.figures["chunk_seconds"] = CHUNK_SECONDS
        figures = trial.figures
        trips = figures["mount"]["without_chunk"]["median"]
        trips /= figures["round trip"]["seconds"]["median"]
        against = "a round trip, less one chunk's time"
        trial.answer(Answer("first byte, 20 ms", against, trips, "round trips", TARGET))


if __name__ == "__main__":
    main()
