"""What the API says of itself is what it does: schemathesis asks a real chatd by its own description."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from chatd.api.desk import METHODS
from chatd.api.openapi import document
from tests.conftest import Daemon
from tests.people import cluster
from tests.test_api import CONFIG, SECRET, admin_of

schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    environ = {"CHATD_ADMIN__LISTEN": "127.0.0.1:0", "CHATD_CLUSTER__ANSWER": "0.5s"}
    with cluster(tmp_path_factory.mktemp("openapi"), CONFIG, nodes=1, **environ) as (one,):
        yield one


def test_the_description_is_served_and_has_every_method(node: Daemon) -> None:
    with urllib.request.urlopen(f"{admin_of(node)}/api/openapi.json", timeout=10) as response:
        served = json.load(response)
    assert served == json.loads(json.dumps(document()))
    assert served["openapi"] == "3.1.0"
    assert served["paths"].keys() == {f"/api/{name}" for name in (*METHODS, "batch")}
    assert all(path["post"]["summary"] for path in served["paths"].values())


@schema.parametrize()
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_method_keeps_to_its_description(node: Daemon, case: schemathesis.Case) -> None:
    response = case.call(base_url=admin_of(node), headers={"X-API-Key": SECRET})
    case.validate_response(response)
