"""Scrapes of a mount's or a server's metrics, as Prometheus does them."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    """Status and text of an answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def parsed(text: str) -> dict[str, float]:
    """The samples of OpenMetrics: `name{label values}`, in the order of the labels' names."""
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return {
        sample.name + "{" + ",".join(dict(sorted(sample.labels.items())).values()) + "}": float(
            sample.value
        )
        for metric in families
        for sample in metric.samples
    }


def scrape(port: int) -> dict[str, float]:
    """The samples that a port serves."""
    status, text = get(port, "/metrics", Accept=OPENMETRICS)
    assert status == 200, text
    return parsed(text)
