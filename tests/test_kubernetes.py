"""The Kubernetes manifests: valid by two versions' own schemas, true to each other, and what they start is a chatd."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chatd import __version__
from chatd.node import LAST_FAREWELL_S
from chatd.settings import Settings, host_and_port, load
from tests.conftest import running
from tests.servers import redis_server
from tests.test_cluster import SECRET
from tests.test_doors import Raw
from tests.test_listeners import ask

ROOT = Path(__file__).parents[1]
BASE = ROOT / "config" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())
# The oldest that knows all we use (a preStop that sleeps), and the newest whose schemas there are.
VERSIONS = ("1.30.0", kubernetes_validate.latest_version())


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((BASE / name).read_text()))


(DEPLOYMENT,) = documents("deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What chatd makes of the ConfigMap and the Secret."""
    (tmp_path / "chatd.jwt-secret").write_text(SECRET)
    (tmp_path / "chatd.redis-url").write_text("redis://:password@valkey:6379/0")
    return load(BASE / "chatd.toml", {"CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", KUSTOMIZATION["resources"])
def test_a_manifest_is_valid(name: str, version: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_manifest_with_a_wrong_key_would_not_be() -> None:
    spoilt = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoilt, VERSIONS[0], strict=True)


def test_every_manifest_is_part_of_the_base() -> None:
    there = {file.name for file in BASE.iterdir()}
    (config,) = KUSTOMIZATION["configMapGenerator"]
    assert there == {"kustomization.yaml", *KUSTOMIZATION["resources"], *config["files"]}


def test_what_is_mounted_is_what_is_made() -> None:
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    paths = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert volumes["config"]["configMap"]["name"] == KUSTOMIZATION["configMapGenerator"][0]["name"]
    assert paths == {"config": "/etc/chatd/chatd.toml", "credentials": "/etc/chatd/credentials"}
    assert {"name": "CREDENTIALS_DIRECTORY", "value": paths["credentials"]} in CONTAINER["env"]


def test_the_image_is_of_this_version() -> None:
    (image,) = KUSTOMIZATION["images"]
    assert image["name"] == CONTAINER["image"]
    assert image["newTag"] == __version__, "name the new version in config/kubernetes/kustomization.yaml"


def test_everything_finds_the_pods() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    (service,), (scaler,), (budget,), (policy,) = map(
        documents, ("service.yaml", "autoscaler.yaml", "disruption.yaml", "network.yaml")
    )
    assert service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    ports = {port["name"] for port in CONTAINER["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == ports


def test_the_ports_are_those_that_chatd_listens_on(settings: Settings) -> None:
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"http": settings.server.port, "admin": host_and_port(settings.admin.listen)[1]}


def test_a_pod_has_time_to_drain(settings: Settings) -> None:
    wait = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] > wait + settings.server.drain + LAST_FAREWELL_S


def test_one_pod_fewer_still_holds_everybody_and_fits_into_its_memory(settings: Settings) -> None:
    (scaler,) = documents("autoscaler.yaml")
    (metric,) = scaler["spec"]["metrics"]
    assert int(metric["pods"]["target"]["averageValue"]) < settings.limits.connections
    assert CONTAINER["resources"]["limits"] == {"memory": "1Gi"}, "and nothing about processor time"
    assert settings.limits.connections * 7000 < 512 << 20


def test_a_pod_may_do_nothing_but_serve() -> None:
    assert POD["securityContext"]["runAsNonRoot"]
    assert not POD["automountServiceAccountToken"]
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


async def test_what_the_pod_starts_is_a_chatd_that_its_probes_find_well(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as store:
        (tmp_path / "chatd.jwt-secret").write_text(SECRET)
        (tmp_path / "chatd.redis-url").write_text(store.url)
        # Only addresses are changed, for a test has loopback alone.
        here = {"CHATD_SERVER__HOST": "127.0.0.1", "CHATD_ADMIN__LISTEN": "127.0.0.1:0"}
        config = ("--config", str(BASE / "chatd.toml"), "--port", "0")
        assert CONTAINER["args"] == ["serve"]
        with running(tmp_path, *config, CREDENTIALS_DIRECTORY=str(tmp_path), **here) as pod:
            admin = pod.until_log(r"health and metrics +http://(\S+)/")[1]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert ask(admin, CONTAINER[probe]["httpGet"]["path"])[0] == 200
            (scaler,) = documents("autoscaler.yaml")
            assert f"\n{scaler['spec']['metrics'][0]['pods']['metric']['name']} 0.0\n" in ask(admin, "/metrics")[1]
            minted = pod.cli("token", "mint", "--user", "ana").strip()
            async with Raw(pod, {"token": minted}) as ana:
                assert ana.welcome["connect"]


def test_the_containerfile_pleases_its_linter() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    judged = subprocess.run([hadolint, "Containerfile"], cwd=ROOT, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout


def test_what_the_image_runs_is_nobody_on_a_root_that_it_does_not_write() -> None:
    build, _, result = (ROOT / "Containerfile").read_text().partition("\nFROM ${PYTHON}\n")
    assert "AS build" in build
    assert "\nUSER 10001:10001\n" in result
    assert POD["securityContext"]["runAsUser"] == 10001
    assert "pip uninstall" in result
    assert "pip install" not in result
