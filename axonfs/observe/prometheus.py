"""Families in the words of Prometheus, by prometheus-client: the one module that imports it.

The library chooses between OpenMetrics and Prometheus' own text by the Accept header, and brings
the metrics of the process: memory, processor time, descriptors. Any thread.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from axonfs.distro import install_extra
from axonfs.errors import UsageError
from axonfs.observe.family import Distribution, Family, Labels, Value
from axonfs.observe.listener import Page

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


def check_library() -> None:
    """
    Raises:
        UsageError: prometheus-client is not installed.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        what = "metrics need prometheus-client, which is not installed"
        raise UsageError(what, hint=install_extra("metrics"))


def metrics_page(families: Iterable[Family], headers: Mapping[str, str]) -> Page:
    """The answer to a scrape with these headers; what is malformed in them is ignored."""
    from prometheus_client.exposition import choose_encoder, gzip_accepted

    try:
        encode, content_type = choose_encoder(headers.get("accept", ""))
    except ValueError:  # of a version that is no number
        encode, content_type = choose_encoder("")
    body = encode(_Collected(families))
    if gzip_accepted(headers.get("accept-encoding", "")):
        packed = gzip.compress(body, 1)
        return Page(packed, content_type=content_type, more={"Content-Encoding": "gzip"})
    return Page(body, content_type=content_type)


class _Collected:
    """A `Collector` of the library, for its encoders."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.process_collector import ProcessCollector

        yield from map(_metric, self._families)
        yield from ProcessCollector(registry=None).collect()


def _metric(one: Family) -> Metric:
    from prometheus_client.metrics_core import Metric

    metric = Metric(one.name, one.help, one.kind)
    for labels, value in one.samples.items():
        for suffix, more, number in _samples(one, value):
            metric.add_sample(one.name + suffix, {**_pairs(one, labels), **more}, number)
    return metric


def _pairs(one: Family, labels: Labels) -> dict[str, str]:
    return dict(zip(one.labels, labels, strict=True))


def _samples(one: Family, value: Value) -> Iterator[tuple[str, dict[str, str], float]]:
    if not isinstance(value, Distribution):
        yield {"counter": "_total", "info": "_info"}.get(one.kind, ""), {}, value
        return
    if one.kind == "histogram":
        below = 0.0
        for bound in sorted(value.buckets):
            below += value.buckets[bound]
            yield "_bucket", {"le": str(bound)}, below
        yield "_bucket", {"le": "+Inf"}, value.count
    yield "_count", {}, value.count
    yield "_sum", {}, value.seconds
