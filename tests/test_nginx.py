"""The NGINX site that `chatd nginx print` makes: in a real nginx, and as the repository ships it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chatd.cli import main
from tests.conftest import Daemon
from tests.proxies import BehindAProxy, Proxy, StartProxy, program, proxied
from tests.servers import free_port

SITE = Path(__file__).parents[1] / "nginx" / "chatd.conf"


class Nginx(Proxy):
    """nginx with the site printed for the nodes. Its ports and paths are changed, and TLS is not the only way in."""

    def __init__(self, directory: Path, *nodes: Daemon) -> None:
        super().__init__(directory)
        upstreams = [word for node in nodes for word in ("--upstream", node.address)]
        site = nodes[0].cli("nginx", "print", *upstreams, "--certificate", str(self.chain), "--key", str(self.key))
        config = nginx_conf(directory, self._here(site))
        self.start(program("nginx"), "-c", str(config), "-e", f"{directory}/error.log")

    def _here(self, site: str) -> str:
        site = re.sub(r" listen \[::\].*", "", site)
        site = site.replace("listen 80;", f"listen 127.0.0.1:{self.redirecting_port};")
        both = f"listen 127.0.0.1:{self.tls_port} ssl; listen 127.0.0.1:{self.port};"
        return site.replace("listen 443 ssl;", both).replace("/var/log/nginx/", f"{self.directory}/")

    def reload(self) -> None:
        self.signal(signal.SIGHUP)


def nginx_conf(directory: Path, site: str) -> Path:
    """A whole configuration around the site, for workers of ours in the foreground."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temps = "".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off; user root root; worker_processes 2; pid {directory}/nginx.pid; error_log {directory}/error.log;"
        f"worker_shutdown_timeout 5s; events {{}} http {{ {temps} {site} }}"
    )
    return config


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, Daemon, Daemon]]:
    with proxied(tmp_path_factory.mktemp("nginx"), Nginx) as (site, first, second):
        assert isinstance(site, Nginx)
        yield site, first, second


class TestNginx(BehindAProxy):
    @pytest.fixture
    def proxy(self, shared: tuple[Nginx, Daemon, Daemon]) -> tuple[Nginx, Daemon, Daemon]:
        return shared

    @pytest.fixture
    def start(self) -> StartProxy:
        return Nginx


# --- the text ---------------------------------------------------------------------------------------------------------


def printed(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, ["nginx", "print", *arguments], env={"CHATD_CONFIG": None, **environ})


def upstreams(site: str) -> list[list[str]]:
    """The nodes of each: of who comes, and of what those say who are in by plain HTTP."""
    blocks = re.findall(r"^upstream .*?^}", site, re.M | re.S)
    return [re.findall(r"^ +server (\S+)", block, re.M) for block in blocks]


def test_the_shipped_site_is_what_the_command_prints() -> None:
    assert SITE.read_text() == printed().stdout, "write it anew with `chatd nginx print > nginx/chatd.conf`"


def test_the_site_follows_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "chatd.jwt-secret").write_text("for listening everywhere chatd wants a key")
    site = printed(
        CREDENTIALS_DIRECTORY=str(tmp_path),
        CHATD_SERVER__HOST="0.0.0.0",
        CHATD_SERVER__PORT="9000",
        CHATD_HEARTBEAT__INTERVAL="10s",
        CHATD_LIMITS__CONNECTIONS="5000",
        CHATD_LIMITS__CONNECTIONS_PER_ADDRESS="7",
    ).stdout
    assert upstreams(site) == [["127.0.0.1:9000"]] * 2
    assert "proxy_read_timeout 30s;" in site
    assert "worker_rlimit_nofile 10000;" in site
    assert "limit_conn chatd_connections 7;" in site


def test_without_a_limit_by_address_the_site_has_none() -> None:
    assert "limit_conn" not in printed(CHATD_LIMITS__CONNECTIONS_PER_ADDRESS="0").stdout


@pytest.mark.parametrize(
    ("arguments", "servers"),
    [
        (("--instances", "8001, 8002,8003"), ["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"]),
        (("--upstream", "unix:/run/chatd-1/sock", "--upstream", "[2001:db8::1]:8000"),
         ["unix:/run/chatd-1/sock", "[2001:db8::1]:8000"]),
    ],
)  # fmt: skip
def test_the_nodes_are_those_that_were_named(arguments: tuple[str, ...], servers: list[str]) -> None:
    assert upstreams(printed(*arguments).stdout) == [servers] * 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--instances", "8001,http"), "expected ports with commas between, such as 8001,8002"),
        (("--instances", "8001", "--upstream", "127.0.0.1:1"), "expected --instances or --upstream, got both"),
        (("--upstream", "127.0.0.1:1; evil"), "expected host:port or unix:/path"),
        (("--server-name", "a.example; include /etc/shadow"), "expected NAME without spaces"),
        (("--certificate", "/etc/chain.pem"), "expected --certificate and --key together"),
    ],
)
def test_what_cannot_stand_in_a_site_is_refused(arguments: tuple[str, ...], complaint: str) -> None:
    refused = printed(*arguments)
    assert refused.exit_code == 2
    assert complaint in refused.stderr


def test_nodes_on_files_have_no_ports() -> None:
    assert "server unix:/run/chatd/door.sock " in printed(CHATD_SERVER__HOST="unix:/run/chatd/door.sock").stdout
    refused = printed("--instances", "8001,8002", CHATD_SERVER__HOST="unix:/run/chatd/door.sock")
    assert refused.exit_code == 2
    assert "name each by --upstream" in refused.stderr


def test_nobody_forgets_to_trust_the_proxy() -> None:
    assert "server.trusted_proxies is empty" in printed().stderr
    assert not printed(CHATD_SERVER__TRUSTED_PROXIES="127.0.0.1").stderr
    assert not printed("--upstream", "unix:/run/chatd/sock").stderr, "who reaches the socket is trusted"


def test_nginx_accepts_a_site_without_tls(tmp_path: Path) -> None:
    site = printed("--no-tls").stdout.replace("/var/log/nginx/", f"{tmp_path}/").replace(" listen [::]:80;", "")
    site = site.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
    judged = subprocess.run(
        [program("nginx"), "-t", "-c", nginx_conf(tmp_path, site), "-e", f"{tmp_path}/error.log"],
        capture_output=True,
        text=True,
    )
    assert judged.returncode == 0, judged.stderr
