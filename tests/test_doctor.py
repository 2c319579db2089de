"""What `chatd doctor` and `chatd config check` find wrong around chatd: proxies, certificates, old stores, homes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from chatd.cli import checks, doctor, main
from chatd.cli.checks import State
from chatd.cli.common import STORE_UNAVAILABLE
from chatd.store import redis as store
from chatd.web import tls
from tests.conftest import running
from tests.servers import free_port, redis_sentinel, redis_server
from tests.test_listeners import ask
from tests.test_transport import certificate

ROOT = Path(__file__).parents[1]
NOW = datetime(2026, 11, 1, tzinfo=UTC)


def found(*arguments: str | Path, **environ: str) -> dict[str, dict[str, Any]]:
    """The checks of `chatd doctor --json`, by name."""
    result = CliRunner().invoke(main, ["doctor", "--json", *map(str, arguments)], env=environ)
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("CHATD_SERVER__PORT", "0")
    monkeypatch.setattr(doctor, "PROXY_FILES", ())


# --- proxies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("location / { proxy_pass http://chatd; proxy_read_timeout 75s; }", 75),
        ("location / { proxy_pass http://chatd; proxy_read_timeout 90; }", 90),
        ("proxy_read_timeout 1m15s; location / { proxy_pass http://chatd; proxy_read_timeout 2h; }", 75),
        ("location / { proxy_pass http://chatd; } # proxy_read_timeout 75s;", 60),
        ("defaults\n  timeout client 50s\n  timeout tunnel 1h\n", 3600),
        ("defaults\n  timeout client 50s\n  timeout server 30000\n", 30),
        ("hello", None),
    ],
)
def test_how_long_a_proxy_waits_is_read_from_its_configuration(text: str, seconds: float | None) -> None:
    assert checks.proxy_patience(text) == seconds


def test_a_proxy_must_wait_for_more_than_two_heartbeats() -> None:
    impatient = "location / { proxy_pass http://chatd; proxy_read_timeout 50s; }"
    judged = checks.proxy("site", impatient, 25.0)
    assert (judged.state, judged.finding) == (
        State.FAIL,
        "site cuts connections that are silent for 50 s; two heartbeats take 50 s",
    )
    assert judged.remedy.startswith("`proxy_read_timeout 75s;`")
    assert checks.proxy("site", impatient, 20.0).state is State.OK
    assert checks.proxy("site", "hello", 20.0).state is State.WARN


@pytest.mark.parametrize("shipped", ["nginx/chatd.conf", "config/haproxy.cfg"])
def test_the_shipped_proxies_have_the_patience(shipped: str) -> None:
    assert found("--proxy", ROOT / shipped)["proxy"]["state"] == "ok"


def test_a_proxy_that_was_named_and_cannot_be_read_is_told_and_one_that_may_be_there_is_not(tmp_path: Path) -> None:
    assert found("--proxy", tmp_path / "none")["proxy"]["state"] == "warn"
    assert "proxy" not in found()


# --- where chatd is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "supervised", "state"),
    [
        ("/opt/chatd", True, State.OK),
        ("/homestead/chatd", True, State.OK),
        ("/home/ana/venv", True, State.WARN),
        ("/root/venv", True, State.WARN),
        ("/home/ana/venv", False, State.OK),
    ],
)
def test_an_installation_in_a_home_is_hidden_from_a_service(prefix: str, supervised: bool, state: State) -> None:
    assert checks.installation(prefix, supervised).state is state


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "state"), [(-1, State.FAIL), (0, State.FAIL), (3, State.WARN), (30, State.OK)])
def test_a_certificate_is_judged_by_how_long_it_is_good(days: int, state: State) -> None:
    assert checks.certificate(NOW + timedelta(days=days), NOW).state is state


def test_a_certificate_that_has_ended_is_told_by_all_and_one_that_is_good_by_none(tmp_path: Path) -> None:
    (tmp_path / "chatd.toml").write_text('[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n')
    config = ("--config", str(tmp_path / "chatd.toml"))
    certificate(tmp_path, days_old=9)
    (tmp_path / "key.pem").chmod(0o600)
    judged = found(*config)["certificate"]
    assert (judged["state"], "has ended" in judged["finding"]) == ("fail", True)
    checked = CliRunner().invoke(main, ["config", "check", *config])
    assert (checked.exit_code, checked.stdout) == (0, "ok\n")
    assert "tls.certificate has ended" in checked.stderr
    certificate(tmp_path, lifetime=timedelta(days=90))
    (tmp_path / "key.pem").chmod(0o600)
    assert found(*config)["certificate"]["state"] == "ok"
    assert CliRunner().invoke(main, ["config", "check", *config]).stderr == ""


def test_a_certificate_that_cannot_be_used_is_a_failure_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "chatd.toml").write_text('[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n')
    judged = found("--config", tmp_path / "chatd.toml")["configuration"]
    assert (judged["state"], "expected to read tls.certificate" in judged["finding"]) == ("fail", True)


def test_a_node_that_speaks_tls_is_recognised_and_whether_it_shows_the_certificate_of_the_file(tmp_path: Path) -> None:
    certificate(tmp_path)
    port = free_port()
    config = tmp_path / "chatd.toml"
    config.write_text(f'[server]\nport = {port}\n[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n')
    with running(tmp_path, "--config", str(config), CHATD_ADMIN__LISTEN="127.0.0.1:0") as chatd:
        admin = chatd.until_log(r"health and metrics +http://(\S+)/")[1]
        checks = {check["name"]: check for check in chatd.ask("doctor")["checks"]}
        assert checks["port"]["finding"] == f"chatd answers at 127.0.0.1:{port} and is ready"
        assert checks["certificate"]["state"] == "warn", "it is of a day"
        assert checks["certificate shown"]["state"] == "ok"
        certificate(tmp_path, lifetime=timedelta(days=90))
        checks = {check["name"]: check for check in chatd.ask("doctor")["checks"]}
        assert (checks["certificate"]["state"], checks["certificate shown"]["state"]) == ("ok", "warn")
        chatd.signal(signal.SIGHUP)
        chatd.until_log("settings reloaded")
        checks = {check["name"]: check for check in chatd.ask("doctor")["checks"]}
        assert checks["certificate shown"]["state"] == "ok"
        [ends] = re.findall(r"^chatd_certificate_end_timestamp_seconds (\S+)$", ask(admin, "/metrics")[1], re.M)
        assert float(ends) == tls.expires_at(str(tmp_path / "cert.pem")).timestamp()


# --- the store and the machine ----------------------------------------------------------------------------------------


async def test_a_store_that_is_too_old_is_told_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "OLDEST", (99, 0, 0))
    async with redis_server(tmp_path) as server:
        judged = (await asyncio.to_thread(found, CHATD_REDIS__URL=server.url))["store"]
    assert judged["state"] == "fail"
    assert judged["finding"].startswith("chatd needs Redis 99.0.0 or newer, or Valkey; the server is ")
    assert judged["remedy"] == "put such a server there, or mend redis.url"


async def test_a_store_that_answers_and_takes_nothing_is_told_under_a_name_of_its_own(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, Redis(port=server.port) as operator:
        # As a full disk does, this lets us look, and no more.
        await operator.execute_command("ACL", "SETUSER", "default", "-spublish")
        judged = await asyncio.to_thread(found, CHATD_REDIS__URL=server.url)
    assert (judged["store"]["state"], judged["store commands"]["state"]) == ("ok", "fail")


async def test_a_store_that_may_take_no_writes_is_told_with_what_it_waits_for(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, Redis(port=server.port) as operator:
        assert (await asyncio.to_thread(found, CHATD_REDIS__URL=server.url))["writes"]["state"] == "ok"
        # As config/README.md has it, and the only replica is gone.
        await operator.config_set("min-replicas-to-write", 1)
        checks = await asyncio.to_thread(found, CHATD_REDIS__URL=server.url)
        lonely, none = checks["writes"], checks["nodes"]
        said = await asyncio.to_thread(
            CliRunner().invoke, main, ["send", "lobby", "hi"], env={"CHATD_REDIS__URL": server.url}
        )
        await operator.replicaof("127.0.0.1", 1)
        replica = (await asyncio.to_thread(found, CHATD_REDIS__URL=server.url))["writes"]
    assert (lonely["state"], "no replica copies the store" in lonely["finding"]) == ("fail", True)
    assert none["remedy"] == "mend the store first: without writes, a node that runs cannot say that it does"
    assert (said.exit_code, "not ready: NOREPLICAS" in said.stderr) == (STORE_UNAVAILABLE, True)
    assert (replica["state"], replica["finding"]) == ("fail", "the store is a replica, which takes no writes")


async def test_a_store_with_fewer_replicas_than_are_waited_for_is_told(tmp_path: Path) -> None:
    async with redis_sentinel(tmp_path) as group:
        environ = {"CHATD_REDIS__URL": group.master.url, "CHATD_REDIS__WAIT_REPLICAS": "1"}
        enough = (await asyncio.to_thread(found, **environ))["replicas"]
        few = (await asyncio.to_thread(found, **{**environ, "CHATD_REDIS__WAIT_REPLICAS": "2"}))["replicas"]
    assert (enough["state"], few["state"]) == ("ok", "fail")
    assert few["finding"].startswith("1 of the 2 replicas that redis.wait_replicas wants copy the store; until then")


@pytest.mark.parametrize("replica", ["state=online,offset=42,lag=9,type=replica", "state=wait_bgsave,offset=0,lag=0"])
def test_a_replica_that_hangs_or_is_not_there_yet_copies_nothing(replica: str) -> None:
    place, there = "ip=127.0.0.1,port=6380", "state=online,offset=42,lag=1"
    judged = checks.copies({"connected_slaves": "2", "slave0": f"{place},{there}", "slave1": f"{place},{replica}"}, 2)
    assert (judged.state, judged.finding.partition(" that")[0]) == ("fail", "1 of the 2 replicas")


def test_a_drained_node_is_told_with_what_takes_it_back(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as chatd:
        node = chatd.ask("drain")["node"]
        [judged] = [check for check in chatd.ask("doctor")["checks"] if check["name"] == f"node {node}"]
    assert (judged["finding"], judged["remedy"]) == ("answers, and says: drained", f"`chatd undrain {node}`")


def test_serve_takes_the_open_files_it_may_and_says_when_they_are_too_few(tmp_path: Path) -> None:
    few = (
        "import resource, sys, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512)); "
        "sys.argv = ['chatd', 'serve', '--port', '0']; runpy.run_module('chatd', run_name='__main__')"
    )
    process = subprocess.Popen([sys.executable, "-c", few], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if '"ready"' in line:
                break
        assert any(
            "512 open files allowed here, limits.connections wants 100064; LimitNOFILE=" in line for line in said
        )
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        [files] = [line.split() for line in limits.splitlines() if line.startswith("Max open files")]
        assert files[3] == "512"
    finally:
        process.terminate()
        process.wait(20)
        if process.stderr:
            process.stderr.close()


def test_a_node_of_another_store_at_our_port_is_told_as_such(tmp_path: Path) -> None:
    port = str(free_port())
    with running(tmp_path / "theirs", CHATD_SERVER__PORT=port) as theirs:
        judged = found(CHATD_SERVER__PORT=port)["port"]
        assert (judged["state"], "no node of this" in judged["finding"]) == ("warn", True)
        assert "--config" in judged["remedy"]
        with running(tmp_path, "--port", "0"):
            assert found(CHATD_SERVER__PORT=port)["port"] == judged
        assert {check["name"]: check["state"] for check in theirs.ask("doctor")["checks"]}["port"] == "ok"
