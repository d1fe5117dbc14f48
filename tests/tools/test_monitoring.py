"""packaging/monitoring: Prometheus' own promtool reads it, and it names metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml

from axonfs.csi.figures import Figures
from axonfs.observe.families import Facts, families_of, names
from axonfs.observe.family import Distribution, Family
from axonfs.serve.counts import Counts
from tests.support.prometheus import MONITORING, program

_NAME = re.compile(r"\b(?:axonfs|process)_[a-z_]+")
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
PROCESS |= {"process_open_fds", "process_max_fds"}


def promtool(*words: str | Path) -> str:
    done = subprocess.run(
        [program("promtool"), *words], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions() -> list[str]:
    """Those of the dashboard, without Grafana's variables."""
    board = json.loads((MONITORING / "dashboard.json").read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [text.replace("$__rate_interval", "1m").replace("$instance", ".*") for text in found]


def known() -> set[str]:
    served = Counts().families(0, 1, readable=True)
    return names([*families_of({}, Facts(Distribution())), *served, *plugin()]) | PROCESS


def plugin() -> list[Family]:
    return Figures().families(volumes=0, pins=0, guarded=True, ready=True)


def test_the_alerts() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    tests = yaml.safe_load((MONITORING / "alerts.test.yml").read_text())["tests"]
    shown = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert shown == set(alerts)


def test_the_dashboard_parses(tmp_path: Path) -> None:
    assert len(expressions()) > 30
    rules = [{"record": f"x{n}", "expr": text} for n, text in enumerate(expressions())]
    (tmp_path / "rules.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]})
    )
    promtool("check", "rules", tmp_path / "rules.yml")


def test_every_metric_exists() -> None:
    text = (MONITORING / "alerts.yml").read_text()
    used = {name for one in expressions() for name in _NAME.findall(one)}
    used |= {
        name for line in re.findall(r"expr: .*|^ +> .*", text, re.M) for name in _NAME.findall(line)
    }
    assert used <= known(), used - known()
    assert len(used) > 40


def test_the_page_lists_every_metric_and_alert() -> None:
    docs = MONITORING.parents[1] / "docs"
    page = (docs / "operations.md").read_text()
    pages = page + (docs / "kubernetes.md").read_text()
    rows = set(re.findall(r"^\| `(axonfs_[a-z_]+)(?:\{[a-z,]+\})?`", pages, re.MULTILINE))
    listed = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known() - PROCESS}
    assert rows == listed
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text())
    assert re.findall(r"^\| `(Axonfs\w+)`", page, re.MULTILINE) == alerts
