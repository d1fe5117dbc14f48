"""Publishing over HTTP, with the server or the publisher killed before each of its writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.errors import AxonError
from axonfs.formats.listing import parse_index
from axonfs.publish import publish
from axonfs.serve import Grant, create_token
from axonfs.storage import HttpStorage
from tests.chaos.http_victims import LIMITS
from tests.chaos.test_publish_kill import CHUNK, FIRST, SECOND, check_sound
from tests.support.profile import report
from tests.support.registry import make_model
from tests.support.signing import UnverifiedSigner


class Victims:
    """The program with the victims; see http_victims.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, *words: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    @contextlib.contextmanager
    def serving(self, registry: Path, tokens: Path, number: int) -> Iterator[tuple[str, int]]:
        """Yield the URL and the pid of a server; its exit status is the next line."""
        self.start("server", registry, tokens, number)
        url, pid = self.line().split()
        yield url, int(pid)


@pytest.fixture
def victims() -> Iterator[list[Victims]]:
    """Two programs, for a server and a client at the same time."""
    command = [sys.executable, "-m", "tests.chaos.http_victims"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        yield [
            Victims(stack.enter_context(subprocess.Popen(command, cwd=ROOT, **pipes)))  # type: ignore[call-overload]
            for _ in range(2)
        ]


ROOT = Path(__file__).parents[2]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A registry with the first version in it."""
    model = make_model(tmp_path / "first", {"a": 2 * CHUNK + 1}, seed=1)
    publish(model, FIRST, tmp_path / "base", chunk_size=CHUNK)
    return tmp_path / "base"


def mended(registry: Path) -> None:
    assert check_sound(registry) == [str(FIRST), str(SECOND)]
    listings, _ = parse_index((registry / "api/v1/index.json").read_bytes())
    assert [str(listing.spec) for listing in listings] == [str(FIRST), str(SECOND)]


@pytest.mark.slow
def test_a_server_killed_before_every_change_it_makes(
    tmp_path: Path, base: Path, victims: list[Victims]
) -> None:
    """The next server, and the same command again, complete what was begun."""
    model = make_model(tmp_path / "model", {"a": CHUNK + 1}, seed=2)
    tokens = tmp_path / "server-tokens.yaml"
    token = create_token(tokens, Grant("ci", publish=frozenset({"nlp"})))

    def publish_to(url: str) -> None:
        signer, storage = UnverifiedSigner(), HttpStorage(url, token, LIMITS)
        publish(model, SECOND, storage, chunk_size=CHUNK, signer=signer)  # type: ignore[arg-type]

    half_done = 0
    for number in range(100):
        registry = tmp_path / f"registry{number}"
        shutil.copytree(base, registry)
        with victims[0].serving(registry, tokens, number) as (url, pid):
            try:
                publish_to(url)
                os.kill(pid, signal.SIGTERM)
            except AxonError:
                half_done += 1
            status = int(victims[0].line())
        assert status in (0, -signal.SIGKILL)
        assert str(FIRST) in check_sound(registry)
        with victims[0].serving(registry, tokens, 10**6) as (url, pid):
            publish_to(url)
            os.kill(pid, signal.SIGTERM)
            assert int(victims[0].line()) == 0
        mended(registry)
        shutil.rmtree(registry)
        if status == 0:
            break
    else:
        pytest.fail("the server was never let alone")
    assert half_done > 20
    report("kill_server", steps=number)


@pytest.mark.slow
def test_a_publisher_killed_before_each_request_that_writes(
    tmp_path: Path, base: Path, victims: list[Victims]
) -> None:
    model = make_model(tmp_path / "model", {"a": (16 << 20) + 1, "b": 1000}, seed=2)
    tokens = tmp_path / "server-tokens.yaml"
    token = create_token(tokens, Grant("ci", publish=frozenset({"nlp"})))
    for number in range(30):
        registry = tmp_path / f"registry{number}"
        shutil.copytree(base, registry)
        with victims[0].serving(registry, tokens, 10**6) as (url, pid):
            victims[1].start("client", model, SECOND, url, token, number)
            status = int(victims[1].line())
            assert status in (0, -signal.SIGKILL)
            assert str(FIRST) in check_sound(registry)
            storage = HttpStorage(url, token, LIMITS)
            publish(model, SECOND, storage, signer=UnverifiedSigner())  # type: ignore[arg-type]
            os.kill(pid, signal.SIGTERM)
            assert int(victims[0].line()) == 0
        mended(registry)
        shutil.rmtree(registry)
        if status == 0:
            break
    else:
        pytest.fail("the publisher never came to its end")
    assert number == 7, "three parts, the ends of two objects, the signature, and the manifest"
    report("kill_publisher_http", steps=number)
