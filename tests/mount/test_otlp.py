"""Metrics by OTLP, to a receiver that reads them with opentelemetry-proto's own messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from axonfs.distro import install_extra
from tests.mount.conftest import FILES, MODEL, NAME, MountFactory, patched, run_axonfs, settled
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount


class Receiver:
    """Keeps the last request; `points` has its data points by metric."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = ""
        self.last = ExportMetricsServiceRequest()

    def attributes(self) -> dict[str, str]:
        (found,) = self.last.resource_metrics
        return {one.key: one.value.string_value for one in found.resource.attributes}

    def points(self, name: str) -> list[Any]:
        metrics = [
            metric
            for resource in self.last.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [
            point for one in metrics for point in getattr(one, one.WhichOneof("data")).data_points
        ]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.path, found.last = self.path, ExportMetricsServiceRequest.FromString(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receiver(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield found
        server.shutdown()


def test_metrics_are_sent(
    start_mount: MountFactory, registry: RegistryServer, receiver: Receiver
) -> None:
    """The SDK's variables alone switch it on, and say where to, how often and as what."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_RESOURCE_ATTRIBUTES": "rack=7",
    }
    mount = start_mount(registry.url, env=env)
    (mount.path / MODEL).read_bytes()

    def received() -> bool:
        points = receiver.points("axonfs.source.received")
        return [one.as_int for one in points] == [FILES[NAME]]

    settled(received)
    assert receiver.path == "/v1/metrics"
    attributes = receiver.attributes()
    assert (attributes["service.name"], attributes["rack"]) == ("axonfs", "7")
    (point,) = receiver.points("axonfs.source.received")
    assert {one.key: one.value.string_value for one in point.attributes} == {
        "source": f"{registry.url}/",
        "cache": "",
    }
    cold = [
        one
        for one in receiver.points("axonfs.read.duration")
        if one.attributes[0].value.string_value == "cold"
    ]
    assert cold[0].count == sum(cold[0].bucket_counts) >= 1
    assert len(cold[0].bucket_counts) == len(cold[0].explicit_bounds) + 1
    assert mount.status()["metrics"]["url"] is None
    run_axonfs("restart", mount.path)
    settled(lambda: [one.as_int for one in receiver.points("axonfs.worker.starts")] == [2])
    (later,) = receiver.points("axonfs.source.received")
    assert later.as_int >= point.as_int
    assert later.start_time_unix_nano == point.start_time_unix_nano


@pytest.mark.complains
def test_the_sdk_is_missing(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Any
) -> None:
    """The variables may be there for other programs: the mount works, and says what it lacks."""
    env = patched(tmp_path, "import sys; sys.modules['opentelemetry'] = None")
    mount = start_mount(registry.url, env={**env, "OTEL_METRICS_EXPORTER": "otlp"})
    assert (mount.path / MODEL).read_bytes()
    (line,) = mount.complaints()
    assert line.endswith(f"OpenTelemetry's SDK is not installed; {install_extra('otlp')}")
