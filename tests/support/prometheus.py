"""A real Prometheus on a loopback port, and its promtool: Debian's package `prometheus`."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.scraping import free_port

MONITORING = Path(__file__).resolve().parents[2] / "packaging" / "monitoring"
UP_SECONDS = 20.0
_CONFIG = """\
global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: axonfs
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus")
    return found


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API."""
        address = f"{self.url}/api/v1/{path}?{urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]

    def firing(self) -> dict[str, dict[str, str]]:
        """The labels of the alerts that fire, by their name."""
        alerts = self.ask("alerts")["alerts"]
        return {one["labels"]["alertname"]: one["labels"] for one in alerts}

    def value(self, expression: str) -> float:
        """The value of an expression that has one."""
        (found,) = self.ask("query", query=expression)["result"]
        return float(found["value"][1])


@contextlib.contextmanager
def prometheus(directory: Path, port: int) -> Iterator[Prometheus]:
    """Scrapes `port` five times a second, with the alerts of packaging/, which wait for nothing."""
    directory.mkdir()
    rules = (MONITORING / "alerts.yml").read_text()
    (directory / "alerts.yml").write_text(re.sub(r"for: \w+", "for: 0s", rules))
    (directory / "prometheus.yml").write_text(_CONFIG.format(port=port))
    own = f"127.0.0.1:{free_port()}"
    options = (
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address={own}",
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program("prometheus"), *options], stdout=log, stderr=log, cwd=directory
        )
    try:
        _wait(f"http://{own}/-/ready", directory / "log")
        yield Prometheus(f"http://{own}")
    finally:
        process.terminate()
        process.wait(20)


def _wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
