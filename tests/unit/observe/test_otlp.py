"""When the SDK's variables ask for metrics by OTLP."""

from __future__ import annotations

import logging
import threading

import pytest

from axonfs.observe import otlp
from axonfs.observe.family import Family
from axonfs.observe.otlp import asked_for, sender


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "console, otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_METRICS_EXPORTER": "otlp"}, False),
    ],
)
def test_asked_for(environment: dict[str, str], asked: bool) -> None:
    assert asked_for(environment) is asked


def test_a_receiver_that_does_not_answer_is_logged_once_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The SDK's own lines, one for each attempt and with the URL, go nowhere."""
    endpoint = "http://u:SECRET@127.0.0.1:1/?key=SECRET"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1.5")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    again = threading.Semaphore(0)

    def gather() -> list[Family]:
        again.release()
        return []

    with caplog.at_level(logging.INFO, "axonfs"):
        found = sender(gather)
        assert found is not None
        assert all(again.acquire(timeout=30) for _ in range(3))
        found.close()
        for thread in threading.enumerate():
            if thread.name == "otlp":  # its last attempt would go on beside other tests
                thread.join(timeout=30)
    (line,) = caplog.messages
    assert line.startswith("metrics are not taken by OTLP's receiver: ")
    assert "refused" in line
    assert "SECRET" not in line + capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 60), ("5000", 5), ("1", 0.1), ("²", 60), ("9" * 30, 60), ("-5", 60), ("1e3", 60)],
)
def test_the_interval(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", text)
    assert otlp._interval() == seconds


def test_variables_that_the_sdk_does_not_take_end_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_METRICS_CREDENTIAL_PROVIDER", "none")
    assert sender(list) is None
    assert "the OTEL_* variables cannot be used" in caplog.text
