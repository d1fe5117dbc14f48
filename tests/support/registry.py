"""Registries for tests: made-up models, published for real, served by the built-in server."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import axonfs.serve
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE
from axonfs.names import Spec, parse_spec
from axonfs.publish import publish
from axonfs.serve import RegistryHandler
from axonfs.serve.resources import Resource

SPEC = "nlp/tiny@1.0.0"
CONFIG = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}\n'
SIZES: Mapping[str, int] = {"model.safetensors": 3 * (1 << 20) + 12345, "tokenizer.json": 4321}


def make_model(directory: Path, sizes: Mapping[str, int] = SIZES, seed: int = 0) -> Path:
    """Writes files of random bytes, the same for the same seed, and a config.json; returns
    `directory`."""
    for name, size in sizes.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(f"{seed}/{name}").randbytes(size))
    (directory / "config.json").write_bytes(CONFIG)
    return directory


def published(
    tmp_path: Path,
    sizes: Mapping[str, int] = SIZES,
    *,
    spec: str = SPEC,
    seed: int = 0,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
) -> Path:
    """The registry directory `tmp_path/registry` with one more version in it; its files lie in
    `tmp_path/models/<namespace>/<name>/<version>`."""
    parsed = parse_spec(spec)
    directory = make_model(tmp_path.joinpath("models", *parsed.segments), sizes, seed)
    registry = tmp_path / "registry"
    publish(directory, parsed, registry, chunk_size=chunk_size)
    return registry


class RegistryServer:
    """The built-in server of `directory` on a free loopback port, in a thread, from `with` on.

    `requests` holds (method, path with query, Range header) in the order of arrival;
    `bytes_sent` counts the bytes of bodies that come from files.
    """

    ranges = True

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.requests: list[tuple[str, str, str | None]] = []
        self.bytes_sent = 0
        self._directory = directory
        self._port = port
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._server.url

    def paths(self, prefix: str = "/") -> list[str]:
        """The paths asked for that begin with `prefix`."""
        return [path for _, path, _ in self.requests if path.startswith(prefix)]

    def received(self, method: str, path: str, header: str | None) -> None:
        with self._lock:
            self.requests.append((method, path, header))

    def sent(self, count: int) -> None:
        with self._lock:
            self.bytes_sent += count

    def handler(self) -> type[RegistryHandler]:
        return _handler(self)

    def __enter__(self) -> Self:
        self._server = axonfs.serve.RegistryServer(
            self._directory, "127.0.0.1", self._port, self.handler()
        )
        self._port = self._server.server_address[1]  # the same one, if it is entered again
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._thread.join()


class NoRangeServer(RegistryServer):
    """As a server that has never heard of ranges: always 200 and the whole body."""

    ranges = False


def _handler(log: RegistryServer) -> type[RegistryHandler]:
    class Recorder(RegistryHandler):
        def do_GET(self) -> None:  # noqa: N802
            log.received(self.command, self.path, self.headers.get("Range"))
            if not log.ranges:
                del self.headers["Range"]
            super().do_GET()

        do_HEAD = do_GET  # noqa: N815

        def send_header(self, keyword: str, value: str) -> None:
            if log.ranges or keyword != "Accept-Ranges":
                super().send_header(keyword, value)

        def send_body(self, resource: Resource, start: int, stop: int) -> None:
            # Counted before it is sent, or a client could see its end before we do.
            log.sent(stop - start)
            resource.file.seek(start)
            try:
                super().send_body(resource, start, stop)
            finally:  # sendfile leaves the file where it stopped
                log.sent(resource.file.tell() - stop)

    return Recorder


def at_once(publish: Callable[[Spec], object], specs: Sequence[Spec]) -> None:
    """Publish each of `specs` in a thread of its own; the first error of any is raised."""
    with ThreadPoolExecutor(len(specs)) as threads:
        list(threads.map(publish, specs))
