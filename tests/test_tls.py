"""TLS in chatd itself: a real daemon with certificates that are changed while people talk."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import Daemon, running
from tests.streams import streaming
from tests.test_cluster import until
from tests.test_doors import PATIENCE_S, Raw
from tests.test_transport import certificate

CONFIG = '[server]\nport = 0\n[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n'


@pytest.fixture
def chatd(tmp_path: Path) -> Iterator[Daemon]:
    certificate(tmp_path)
    (tmp_path / "key.pem").chmod(0o600)
    (tmp_path / "chatd.toml").write_text(CONFIG)
    with running(tmp_path, "--config", str(tmp_path / "chatd.toml")) as daemon:
        yield daemon


def trusting(directory: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(directory / "cert.pem"))


async def entered(chatd: Daemon, path: str, **options: object) -> ClientConnection:
    url = f"wss://localhost:{chatd.port}{path}"
    return await connect(url, ssl=trusting(chatd.directory), **options)  # type: ignore[arg-type]


def shown(chatd: Daemon, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that a newcomer is shown, and believes."""
    with (
        socket.create_connection(("127.0.0.1", chatd.port), PATIENCE_S) as tcp,
        context.wrap_socket(tcp, server_hostname="localhost") as secure,
    ):
        der = secure.getpeercert(binary_form=True)
        assert der is not None
        assert secure.version() in ("TLSv1.2", "TLSv1.3")
        return x509.load_der_x509_certificate(der).serial_number


def serial(directory: Path) -> int:
    return x509.load_pem_x509_certificate((directory / "cert.pem").read_bytes()).serial_number


async def test_a_new_certificate_is_shown_after_a_reload_and_who_is_in_talks_on(chatd: Daemon, tmp_path: Path) -> None:
    first = serial(tmp_path)
    client = Raw(chatd)
    client.socket = await entered(chatd, "/connection/websocket")
    await client.ask({"connect": {}})
    assert await asyncio.to_thread(shown, chatd, trusting(tmp_path)) == first

    certificate(tmp_path)
    second = serial(tmp_path)
    chatd.signal(signal.SIGHUP)
    await asyncio.to_thread(chatd.until_log, "settings reloaded")
    assert await asyncio.to_thread(shown, chatd, trusting(tmp_path)) == second != first
    assert "publish" in await client.ask({"publish": {"channel": "tea", "data": {"text": "still here"}}})

    believing = trusting(tmp_path)
    (tmp_path / "other").mkdir()
    certificate(tmp_path / "other")
    (tmp_path / "other" / "key.pem").rename(tmp_path / "key.pem")
    chatd.signal(signal.SIGHUP)
    await asyncio.to_thread(chatd.until_log, "not reloaded; the old ones.*|tls.key to be the key of.*not reloaded")
    assert await asyncio.to_thread(shown, chatd, believing) == second
    assert "presence" in await client.ask({"presence": {"channel": "tea"}})
    await client.socket.close()


async def test_an_address_that_a_client_made_up_is_not_believed_over_tls_either(chatd: Daemon) -> None:
    assert any(f"https://127.0.0.1:{chatd.port}/" in line for line in chatd.log)
    forged = {"X-Forwarded-For": "203.0.113.7"}
    client = await entered(chatd, "/chat/ana?room=tea", additional_headers=forged)
    await until(lambda: chatd.ask("who")["connections"])
    assert [entry["ip"] for entry in chatd.ask("who")["connections"]] == ["127.0.0.1"]
    await client.close()


def test_what_is_no_tls_or_too_old_gets_no_answer_and_makes_no_noise(chatd: Daemon, tmp_path: Path) -> None:
    before = len(chatd.log)
    with socket.create_connection(("127.0.0.1", chatd.port), PATIENCE_S) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: chatd\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP")
    old = trusting(tmp_path)
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shown(chatd, old)
    weak = trusting(tmp_path)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-SHA:AES128-GCM-SHA256")  # without forward secrecy
    with pytest.raises(ssl.SSLError):
        shown(chatd, weak)
    assert shown(chatd, trusting(tmp_path)) == serial(tmp_path)
    assert chatd.log[before:] == []


def test_who_is_silent_in_the_tls_handshake_is_cut_when_its_time_is_up(tmp_path: Path) -> None:
    certificate(tmp_path)
    (tmp_path / "chatd.toml").write_text(CONFIG + '[limits]\nhandshake_timeout = "0.3s"\n')
    with (
        running(tmp_path, "--config", str(tmp_path / "chatd.toml")) as chatd,
        socket.create_connection(("127.0.0.1", chatd.port), PATIENCE_S) as mute,
    ):
        assert mute.recv(1) == b""


def encrypted(key: Path) -> bytes:
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"a password"),
    )


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda at: (at / "cert.pem").unlink(), "expected to read tls.certificate from"),
        (lambda at: (at / "cert.pem").write_text("hello"), "expected PEM in tls.certificate and tls.key"),
        (lambda at: (at / "key.pem").write_bytes(encrypted(at / "key.pem")), "without a password"),
        (lambda at: (at / "cert.pem").write_text((at / "other.pem").read_text()), "the key of tls.certificate"),
        (lambda at: (at / "chatd.toml").write_text('[tls]\nkey = "key.pem"\n'), "got no tls.certificate"),
    ],
    ids=["missing", "no PEM", "with a password", "another's key", "only one of the two"],
)
@pytest.mark.parametrize("command", [["serve"], ["config", "check"]], ids=["serve", "check"])
def test_a_certificate_that_cannot_be_used_is_78_in_one_sentence(
    tmp_path: Path, spoil: object, says: str, command: list[str]
) -> None:
    certificate(tmp_path)
    (tmp_path / "cert.pem").rename(tmp_path / "other.pem")
    certificate(tmp_path)
    (tmp_path / "chatd.toml").write_text(CONFIG)
    spoil(tmp_path)  # type: ignore[operator]
    done = subprocess.run(
        [sys.executable, "-m", "chatd", *command, "--config", str(tmp_path / "chatd.toml")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 78
    sentence = done.stderr.splitlines()[-1]  # before it the log may warn of the mode of a file
    assert sentence.startswith("chatd: ")
    assert says in sentence
    assert "Traceback" not in done.stderr


async def test_who_gets_no_websocket_through_hears_by_https(chatd: Daemon, tmp_path: Path) -> None:
    url = f"https://localhost:{chatd.port}"
    async with streaming(url, {"id": 2, "subscribe": {"channel": "tea"}}, verify=trusting(tmp_path)) as client:
        await client.hear("subscribe")
        await client.say(url, {"id": 3, "publish": {"channel": "tea", "data": {"text": "hi"}}})
        assert (await client.hear("pub"))["data"] == {"text": "hi"}
