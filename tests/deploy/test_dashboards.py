"""The Grafana dashboards as files: what Grafana needs to show them, and what a reader needs to understand them.

That their queries find something is seen in a real Prometheus (test_prometheus.py).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.metrics import BROKER_COUNTERS

GRAFANA = Path(__file__).resolve().parents[2] / "deploy" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
NODE = "instance"
"""The variable of the dashboard of one node."""
KINDS = {"row", "stat", "timeseries", "table"}
COLUMNS = 24
UNITS = {"none", "short", "s", "bytes", "Bps", "percentunit", "reqps", "cps", "ops", "eps", "bool_yes_no"}
"""Of Grafana's names; an unknown one would be shown as it is."""

Panel = dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dashboard


def panels(path: Path) -> list[Panel]:
    return list(read(path)["panels"])


def expressions(path: Path) -> Iterator[tuple[str, str]]:
    """(panel's title, query) of all panels."""
    for panel in panels(path):
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


every = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def test_there_are_two_and_they_lead_to_each_other() -> None:
    assert [path.name for path in DASHBOARDS] == ["fleet.json", "node.json"]
    uids = {read(path)["uid"] for path in DASHBOARDS}
    assert len(uids) == 2
    links = {link["url"].removeprefix("/d/") for path in DASHBOARDS for link in read(path)["links"]}
    assert links == uids


@every
def test_a_dashboard_has_what_grafana_needs(path: Path) -> None:
    board = read(path)
    assert board["schemaVersion"] >= 39 and board["title"] and re.fullmatch(r"[a-z0-9-]{1,40}", board["uid"])
    assert "id" not in board, "the number of one installation"
    assert board["time"] and board["refresh"] and board["editable"] is True
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names[0] == "datasource" and board["templating"]["list"][0]["type"] == "datasource"
    assert set(re.findall(r"\$([a-z]\w*)", json.dumps(board["panels"]).replace("$__", ""))) <= set(names)
    for annotation in board["annotations"]["list"]:
        assert annotation["datasource"]["uid"] == "${datasource}" and annotation["expr"]


@every
def test_panels_are_whole_and_say_what_they_show(path: Path) -> None:
    found = panels(path)
    ids = [panel["id"] for panel in found]
    assert len(set(ids)) == len(ids) and all(isinstance(each, int) and each > 0 for each in ids)
    assert found[0]["type"] == "row" and {panel["type"] for panel in found} <= KINDS
    titles = [(panel["type"], panel["title"]) for panel in found]
    assert len(found) > 20 and all(title for _, title in titles)
    for panel in found:
        if panel["type"] == "row":
            assert panel["panels"] == [] and panel["collapsed"] is False
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["type"] == "table" or defaults["unit"] in UNITS
        steps = defaults["thresholds"]["steps"]
        assert steps[0]["value"] is None and [s["value"] for s in steps[1:]] == sorted(s["value"] for s in steps[1:])
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}" and target["expr"] and target["legendFormat"]
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["showLegend"] is True
        for override in panel["fieldConfig"]["overrides"]:
            assert {each["value"] for each in override["properties"] if each["id"] == "unit"} <= UNITS


@every
def test_panels_lie_in_the_grid_and_on_no_other(path: Path) -> None:
    places = [panel["gridPos"] for panel in panels(path)]
    for place in places:
        assert place["w"] > 0 and place["h"] > 0 and place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS
    for one, other in itertools.combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    assert [(p["y"], p["x"]) for p in places] == sorted((p["y"], p["x"]) for p in places)


def test_the_dashboard_of_a_node_shows_that_node_alone() -> None:
    (path,) = [path for path in DASHBOARDS if path.stem == "node"]
    for title, expression in expressions(path):
        selected = re.findall(r"[a-z_:0-9]+(?:_[a-z]+|:[a-z0-9_]+)\{([^}]*)\}", expression)
        assert selected and all(f'{NODE}="${NODE}"' in labels for labels in selected), (title, expression)
    assert not [e for p in DASHBOARDS if p.stem != "node" for _, e in expressions(p) if f"${NODE}" in e]


def test_no_count_of_the_brokers_work_is_left_out() -> None:
    shown = " ".join(expression for path in DASHBOARDS for _, expression in expressions(path))
    assert [name for name, _ in BROKER_COUNTERS.values() if f"roomcast_broker_{name}_total" not in shown] == []


def test_grafana_is_told_where_prometheus_and_the_dashboards_are() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "roomcast.yml").read_text())["providers"]
    compose = yaml.safe_load((GRAFANA.parents[1] / "compose.yaml").read_text())["services"]["grafana"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in compose["volumes"]}
    assert mounted[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    assert mounted["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"
