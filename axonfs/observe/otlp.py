"""Sends families by OTLP over HTTP, by OpenTelemetry's SDK: the one module that imports it.

The SDK's own environment variables say where to, how often and with which attributes. Metrics are
sent if OTEL_METRICS_EXPORTER names `otlp`, or if that is not set and one of the endpoints is. A
thread of its own gathers and sends.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from axonfs._version import __version__
from axonfs.distro import install_extra
from axonfs.names import printable
from axonfs.observe.family import Distribution, Family, Gather, Labels, Value

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"
_URL = re.compile(r"(\w+://|\burl: )\S+")
# Milliseconds between two sends where OTEL_METRIC_EXPORT_INTERVAL gives none, as the SDK has it.
_INTERVAL = 60_000


def asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for metrics by OTLP."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environment.get("OTEL_METRICS_EXPORTER", "").strip()
    if exporters:
        return "otlp" in [word.strip() for word in exporters.split(",")]
    return any(environment.get(name) for name in _ENDPOINTS)


def sender(gather: Gather, began: float | None = None) -> Sender | None:
    """What sends metrics from now on; None if the environment does not ask for it, or if that
    cannot be done, which is logged.

    Args:
        began: since when counters count, in unix seconds; from now on by default.
    """
    if not asked_for():
        return None
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), _HTTP)
    if protocol != _HTTP:
        log.warning("no metrics are sent: OTLP goes by %s only, not by %s", _HTTP, protocol)
        return None
    try:
        if importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is None:
            raise ModuleNotFoundError
    except ModuleNotFoundError:
        log.warning(
            "no metrics are sent, though OTEL_* variables ask for it: OpenTelemetry's SDK is not"
            " installed; %s",
            install_extra("otlp"),
        )
        return None
    try:
        return Sender(gather, time.time() if began is None else began)
    except Exception as exc:  # say of a plugin that is missing: no mount ends for that
        log.warning("no metrics are sent: the OTEL_* variables cannot be used: %s", _safe(exc))
        return None


class _Heard(logging.Handler):
    """Keeps the first message of the SDK, which would write each to standard error, with URLs whose
    queries may have keys."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.first = ""
        logger = logging.getLogger("opentelemetry")
        logger.handlers[:], logger.propagate = [self], False

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record.getMessage()


def _safe(text: object) -> str:
    """A message of the SDK without what may be secret in URLs."""
    return printable(_URL.sub(r"\1…", str(text)), 500)


class Sender:
    """Sends what `gather` gives, regularly, until it is closed."""

    def __init__(self, gather: Gather, began: float) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        self._heard = _Heard()
        self._fails = False
        self._gather = gather
        self._exporter = OTLPMetricExporter()
        self._resource = _resource()
        self._began = round(began * 1e9)
        self._over = threading.Event()
        threading.Thread(target=self._run, name="otlp", daemon=True).start()

    def close(self) -> None:
        """Stop sending; what is being sent may still arrive."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(_interval()):
            why = self._send()
            if why and not self._fails:
                log.warning("metrics are not taken by OTLP's receiver: %s", why)
            elif self._fails and not why:
                log.info("metrics are sent by OTLP again")
            self._fails = bool(why)

    def _send(self) -> str:
        """Send the metrics of now; why that failed, empty if it did not."""
        from opentelemetry.sdk.metrics.export import MetricExportResult

        self._heard.first = ""
        try:
            result = self._exporter.export(self._data(self._gather()))
        except Exception as exc:
            return _safe(f"{type(exc).__name__}: {exc}")
        return "" if result is MetricExportResult.SUCCESS else _safe(self._heard.first or "failed")

    def _data(self, families: list[Family]) -> MetricsData:
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        scope = InstrumentationScope("axonfs", __version__)
        now = time.time_ns()
        metrics = [_metric(one, self._began, now) for one in families]
        scoped = [ScopeMetrics(scope, metrics, "")]
        return MetricsData([ResourceMetrics(self._resource, scoped, "")])


def _resource() -> Resource:
    """What the environment says of this process, and what it is."""
    from opentelemetry.sdk.resources import Resource

    found = Resource.create()
    own = {"service.version": __version__}
    if str(found.attributes.get("service.name", "")).startswith("unknown_service"):
        own["service.name"] = "axonfs"
    return found.merge(Resource({**own}))


def _interval() -> float:
    """Seconds between two sends."""
    text = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
    usual = not re.fullmatch(r"[0-9]{1,9}", text)  # longer ones are no time to wait
    return max(_INTERVAL if usual else int(text), 100) / 1000


def _metric(one: Family, began: int, now: int) -> Any:
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Histogram,
        Metric,
        Sum,
    )

    total = AggregationTemporality.CUMULATIVE
    points = [
        _point(_pairs(one, labels), value, began, now) for labels, value in one.samples.items()
    ]
    if one.kind in ("histogram", "summary"):
        data: Any = Histogram(points, total)
    elif one.kind == "counter":
        data = Sum(points, total, is_monotonic=True)
    else:
        data = Gauge(points)
    name = one.name.removesuffix("_seconds").removesuffix("_bytes").replace("_", ".")
    return Metric(name, one.help, _unit(one.name), data)


def _unit(name: str) -> str:
    units = {"seconds": "s", "bytes": "By"}
    return units.get(name.rpartition("_")[2], "")


def _pairs(one: Family, labels: Labels) -> dict[str, str]:
    return dict(zip(one.labels, labels, strict=True))


def _point(attributes: dict[str, str], value: Value, began: int, now: int) -> Any:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint

    if not isinstance(value, Distribution):
        return NumberDataPoint(attributes, began, now, value)
    bounds = sorted(value.buckets)
    counts = [int(value.buckets[bound]) for bound in bounds]
    above = max(int(value.count) - sum(counts), 0)
    smallest: Any = None  # not kept, which the protocol allows and the type does not
    return HistogramDataPoint(
        attributes,
        began,
        now,
        int(value.count),
        value.seconds,
        [*counts, above],
        bounds,
        smallest,
        smallest,
    )
