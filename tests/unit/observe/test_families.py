"""The metrics of a state: their names and values, also with names that are made to break them."""

from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from axonfs.observe.families import Facts, families_of, names, silent_families
from axonfs.observe.family import Distribution
from axonfs.observe.prometheus import metrics_page

HOSTILE = 'a"b\\c\nd\x1b[31m\u202e</script>\udcff' + "x" * 255
FACTS = Facts(Distribution(3, 0.5, {0.1: 2}), True, {"complete": 2, "incomplete": 1}, (100, 40))
STATE = {
    "version": "1",
    "mountpoint": f"/models/{HOSTILE}",
    "since": 5.0,
    "registries": [
        {
            "url": "https://one/",
            "state": "failing",
            "caches": [{"url": "http://near", "address": "10.0.0.1", "fault": HOSTILE}],
        },
        {"url": "https://two/", "state": "ok"},
        {"url": "https://three/", "state": "not asked"},
    ],
    "operations": {
        "read": {
            "count": 4,
            "seconds": 90.5,
            "errors": {"EIO": 2, "ENOENT": 9},
            "kinds": {
                "cold": {
                    "count": 4,
                    "seconds": 90.5,
                    "buckets": {"0.000128": 1, "0.000256": 1, "0.262144": 1, "inf": 1},
                }
            },
        },
        "lookup": {"count": 7, "seconds": 0.25, "buckets": {}, "errors": {"ENOENT": 3}},
    },
    "waits": [{"cause": "disk", "seconds": 4.5}, {"cause": HOSTILE, "seconds": 1}],
    "waited": {"disk": 12.5, "queued": 1},
    "fetch": {
        "landed": {"demand": 11},
        "sources": [
            {
                "source": f"https://{HOSTILE}",
                "cache": None,
                "bytes": 5,
                "requests": 2,
                "errors": {"503": 1},
            }
        ],
    },
    "quarantined": [{"sha256": "00"}],
}


def values(accept: str) -> dict[tuple[str, tuple[str, ...]], float]:
    text = metrics_page(families_of(STATE, FACTS), {"accept": accept}).body.decode()
    parse = text_string_to_metric_families if "openmetrics" in accept else plain_families
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for metric in parse(text)
        for sample in metric.samples
    }


@pytest.mark.parametrize("accept", ["application/openmetrics-text", "text/plain", "x;version=y"])
def test_values(accept: str) -> None:
    found = values(accept)
    assert found["axonfs_source_up", ("https://one/",)] == 0
    assert found["axonfs_source_up", ("https://two/",)] == 1
    assert ("axonfs_source_up", ("https://three/",)) not in found
    assert found["axonfs_site_cache_up", ("http://near at 10.0.0.1", "https://one/")] == 0
    cold = [
        value for (name, _), value in found.items() if name == "axonfs_read_duration_seconds_bucket"
    ]
    assert cold == [0, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4]
    assert found["axonfs_read_duration_seconds_sum", ("cold",)] == 90.5
    assert found["axonfs_operation_duration_seconds_count", ("lookup",)] == 7
    assert found["axonfs_errors_total", ("EIO", "read")] == 2
    assert ("axonfs_errors_total", ("ENOENT", "lookup")) not in found
    assert found["axonfs_waits", ("disk",)] == 1
    assert found["axonfs_waits", ("queued",)] == 0
    assert found["axonfs_wait_seconds_total", ("disk",)] == 12.5
    assert found["axonfs_longest_wait_seconds", ()] == 4.5
    assert found["axonfs_landed_bytes_total", ("demand",)] == 11
    assert found["axonfs_pins", ("incomplete",)] == 1
    assert found["axonfs_disk_free_bytes", ()] == 40
    assert found["axonfs_worker_failures_total", ()] == 1
    assert found["axonfs_quarantined_objects", ()] == 1


def test_names_from_outside_are_printable_lines() -> None:
    for accept in ("application/openmetrics-text", "text/plain"):
        body = metrics_page(families_of(STATE, FACTS), {"accept": accept}).body.decode()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", body)
        assert all(line.startswith(("#", "axonfs_", "process_")) for line in body.splitlines())


def test_names_follow_the_rules() -> None:
    families = [*families_of(STATE, FACTS), *silent_families(3)]
    assert all(re.fullmatch(r"axonfs(_[a-z]+)+", name) for name in names(families))
    for one in families:
        assert one.help.endswith(".")
        assert not one.name.endswith(("_total", "_info", "_count", "_sum", "_bucket")), one.name


def test_a_state_of_another_version_has_fewer_metrics() -> None:
    found = {one.name for one in families_of({}, Facts(Distribution())) if one.samples}
    assert {"axonfs_answering", "axonfs_worker_starts"} <= found
