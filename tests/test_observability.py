"""The alerts and the dashboard, against what a real chatd says of itself, and as promtool judges them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.conftest import Daemon, running
from tests.proxies import program
from tests.test_cluster import until
from tests.test_doors import Raw

CONFIG = Path(__file__).parents[1] / "config"
RULES, ALERT_TESTS = CONFIG / "prometheus" / "chatd.rules.yml", CONFIG / "prometheus" / "chatd.test.yml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((CONFIG / "grafana" / "chatd.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
# What Prometheus itself adds to every sample.
OF_PROMETHEUS = {"job", "instance"}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("metrics"), "--port", "0") as chatd:
        yield chatd


def series(text: str) -> set[str]:
    """The names under which Prometheus keeps what it reads; those too of which there is no sample yet."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in kinds.items() for part in parts.get(kind, ("",))}


def named(query: str) -> set[str]:
    return set(re.findall(r"\bchatd_\w+", query))


@pytest.mark.parametrize("query", [*QUERIES, *(alert["expr"] for alert in ALERTS)])
def test_a_query_names_metrics_that_are_there(metrics: Daemon, query: str) -> None:
    assert named(query) <= series(metrics.get("/metrics")[1])


def test_every_metric_is_on_the_dashboard(metrics: Daemon) -> None:
    shown = set().union(*map(named, QUERIES))
    text = metrics.get("/metrics")[1]
    families = re.findall(r"^# TYPE (\S+) ", text, re.M)
    # How many frames the messages went out in is for whoever looks into the joining of frames.
    assert {name for name in families if not any(each.startswith(name) for each in shown)} == {"chatd_frames_out_total"}


async def test_a_query_names_labels_that_are_there(tmp_path: Path) -> None:
    # Nobody listens there, which is something to be told as well.
    hooks = {"URL": "http://127.0.0.1:1/", "SECRET": "a secret of twenty bytes or more", "ALLOW_PRIVATE": "true"}
    with running(tmp_path, "--port", "0", **{f"CHATD_HOOKS__{name}": value for name, value in hooks.items()}) as chatd:
        await everything_happens(chatd)
        for sample in ('chatd_closed_total{code="3500"', "chatd_hooks_total{"):
            await until(lambda sample=sample: sample in chatd.get("/metrics")[1])
        text = chatd.get("/metrics")[1]
    seen = set(re.findall(r"(\w+)=\"", text)) | OF_PROMETHEUS
    for query in (*QUERIES, *(alert["expr"] for alert in ALERTS)):
        used = re.findall(r"(\w+)[!=]=?~?\"", query)
        used += [label for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(", ")]
        assert set(used) <= seen, query


async def everything_happens(chatd: Daemon) -> None:
    """What there are labels for: a message, a refused command, handshake and log-in, a connection found silent."""
    async with Raw(chatd) as ana:
        await ana.ask({"subscribe": {"channel": "lobby"}})
        await ana.ask({"publish": {"channel": "lobby", "data": {"text": "hi"}}})
        await ana.ask({"history": {"channel": "elsewhere"}})
    async with connect(chatd.sdk) as liar:
        await liar.send(json.dumps({"id": 1, "connect": {"token": "forged"}}))
        await liar.wait_closed()
    with pytest.raises(InvalidStatus):
        await connect(chatd.sdk, additional_headers={"Origin": "https://evil.example"})


def test_an_alert_is_labelled_explained_and_seen_to_fire() -> None:
    manual = (CONFIG / "README.md").read_text()
    tests = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    judged = [each for test in tests for each in test["alert_rule_test"]]
    fired = {each["alertname"] for each in judged if each.get("exp_alerts")}
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"]["summary"]
        assert f"| `{alert['alert']}` |" in manual, "what it means stands in config/README.md"
    assert fired == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize(
    "judgement",
    [("check", "config", "prometheus.yml"), ("check", "rules", RULES.name), ("test", "rules", ALERT_TESTS.name)],
)
def test_promtool_agrees(judgement: tuple[str, ...]) -> None:
    judged = promtool(RULES.parent, *judgement)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_promtool_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "1m") for query in QUERIES]
    rules: list[dict[str, Any]] = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(queries)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    judged = promtool(tmp_path, "check", "rules", "panels.yml")
    assert judged.returncode == 0, judged.stdout + judged.stderr


def promtool(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("promtool"), *arguments], cwd=directory, capture_output=True, text=True)


def test_the_dashboard_fits_together() -> None:
    idents = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(idents) == len(set(idents))
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken)), "no panel covers another"
    assert max(x for x, _ in taken) == 23
