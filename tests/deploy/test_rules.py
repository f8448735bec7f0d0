"""The recording and alert rules: promtool's own checks and tests, and a runbook for each alert."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.support.prometheus import CONFIGURATION

ROOT = CONFIGURATION.parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
TESTS = (CONFIGURATION / "tests" / "alerts.test.yml").read_text(encoding="utf-8")


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((CONFIGURATION / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = rules("alerts.rules.yml")
RECORDS = rules("recording.rules.yml")


def promtool(*arguments: str) -> None:
    result = subprocess.run(["promtool", *arguments], cwd=CONFIGURATION, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.system
def test_promtool_accepts_them() -> None:
    promtool("check", "rules", "recording.rules.yml", "alerts.rules.yml")


@pytest.mark.system
def test_every_alert_fires_when_it_should_and_not_otherwise() -> None:
    promtool("test", "rules", "tests/alerts.test.yml")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    name, annotations = alert["alert"], alert["annotations"]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert annotations["summary"] and annotations["description"].endswith(".")
    assert annotations["runbook_url"] == f"docs/operations.md#{name.lower()}"
    chapter = re.search(rf"^### {name}\n(.+?)^##", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert chapter and len(chapter[1].split()) > 25, f"docs/operations.md says too little about {name}"
    test = re.search(rf"^  - name: {name}\n(.+?)(?=^  - name:|\Z)", TESTS, re.MULTILINE | re.DOTALL)
    assert test and "exp_samples: []" in test[1] and "value: 1" in test[1], (
        f"{name} needs cases that fire and that do not"
    )


def test_every_alert_of_the_handbook_exists() -> None:
    assert {alert["alert"] for alert in ALERTS} == set(re.findall(r"^### (Roomcast\w+)$", OPERATIONS, re.MULTILINE))


def test_recorded_names_are_used_and_those_used_are_recorded() -> None:
    recorded = {rule["record"] for rule in RECORDS}
    assert len(recorded) == len(RECORDS)
    named = re.compile(r"(?:instance|job|server):[a-z0-9_]+:[a-z0-9_]+")
    used = {name for rule in (*ALERTS, *RECORDS) for name in named.findall(rule["expr"])}
    dashboards = "".join(path.read_text() for path in (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
    assert used <= recorded
    assert recorded <= used | set(named.findall(dashboards))
