"""What /metrics says of a real chatd: the numbers move when their thing happens, and no label is a client's choice."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from chatd.telemetry import resident_bytes
from tests.conftest import Daemon, running
from tests.people import token
from tests.servers import redis_server
from tests.test_cluster import FAST, until
from tests.test_doors import Raw, next_push

KEYED = '[[auth.keys]]\nkid = "main"\nalgorithm = "HS256"\nsecret_file = "secret"\n'


def numbers(chatd: Daemon) -> dict[str, float]:
    """Every sample, by its name and labels as they are written: `chatd_closed_total{code="1000",reason="normal"}`."""
    status, text = chatd.get("/metrics")
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith(".")
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def moved(chatd: Daemon, *expected: tuple[str, float]) -> None:
    await until(lambda: all(numbers(chatd).get(name, 0.0) >= least for name, least in expected))


async def come_to(chatd: Daemon, *expected: tuple[str, float]) -> None:
    """As `moved`, and no further: what is counted twice is as wrong as what is not."""
    await moved(chatd, *expected)
    found = numbers(chatd)
    assert {name: found[name] for name, _ in expected} == dict(expected)


async def test_what_is_said_and_heard_is_counted_and_timed(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as chatd:
        async with Raw(chatd, {"data": {"user": "ana"}}) as ana, Raw(chatd, {"data": {"user": "bob"}}) as bob:
            await ana.ask({"subscribe": {"channel": "tea", "join_leave": True}})
            await bob.ask({"subscribe": {"channel": "tea"}})
            await next_push(ana, "join", "bob")
            await bob.ask({"publish": {"channel": "tea", "data": {"text": "x" * 1000}}})
            assert (await bob.ask({"rpc": {"method": "no.such"}}))["error"]["code"] == 108
            await come_to(
                chatd,
                ("chatd_connections", 2),
                ('chatd_opened_total{door="sdk"}', 2),
                ('chatd_commands_total{command="subscribe"}', 2),
                ('chatd_commands_total{command="publish"}', 1),
                ('chatd_rejected_total{code="108"}', 1),
                ("chatd_messages_in_total", 1),
                ('chatd_messages_out_total{type="publication"}', 2),
                ('chatd_messages_out_total{type="presence"}', 2),
                ('chatd_messages_out_total{type="reply"}', 5),
                ('chatd_messages_out_total{type="error"}', 1),
                ('chatd_store_seconds_count{command="publish"}', 1),
            )
            await moved(
                chatd,
                ("chatd_received_bytes_total", 1000),
                ("chatd_sent_bytes_total", 2000),
                ("chatd_delivery_seconds_count", 1),
                ("chatd_delivery_seconds_sum", 1e-6),
                ("chatd_feed_lag_seconds_count", 1),
                ("chatd_cpu_seconds_total", 0.01),
            )
        await come_to(chatd, ('chatd_closed_total{code="1000",reason="normal"}', 2))
        assert numbers(chatd)["chatd_sent_bytes_total"] < 10_000


def test_memory_is_counted_in_the_machines_own_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    before, larger = resident_bytes(), 16 * resource.getpagesize()
    monkeypatch.setattr("resource.getpagesize", lambda: larger)
    assert resident_bytes() > 8 * before > 0


async def test_a_code_that_a_client_made_up_is_no_label(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as chatd:
        client = await connect(chatd.sdk)
        await client.close(4321, "made up")
        await come_to(chatd, ('chatd_closed_total{code="other",reason="other"}', 1))


async def test_who_is_not_believed_is_counted_by_reason(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret of the tests, at least thirty-two bytes long")
    (tmp_path / "chatd.toml").write_text(KEYED)
    with running(tmp_path, "--config", str(tmp_path / "chatd.toml"), "--port", "0") as chatd:
        revoked = token("eve", jti="gone")
        chatd.cli("token", "revoke", "--jti", "gone", "--until", "1h")
        for headers in (
            {"Authorization": "Bearer no.token.atall"},
            {"Authorization": f"Bearer {token('ana', lifetime=-5)}"},
            {"Authorization": f"Bearer {revoked}"},
            {"Origin": "https://evil.example"},
        ):
            with pytest.raises(InvalidStatus):
                await connect(chatd.sdk, additional_headers=headers)
        for connecting in ({}, {"token": "no.token.atall"}, {"token": revoked}):
            client = Raw(chatd)
            client.socket = await connect(chatd.sdk)
            await client.send({"id": 1, "connect": connecting})
            await client.goodbye()
        found = numbers(chatd)
        reasons = {name: value for name, value in found.items() if name.startswith("chatd_auth_failures_total")}
        assert reasons == {
            f'chatd_auth_failures_total{{reason="{reason}"}}': count
            for reason, count in {"expired": 1, "invalid": 2, "missing": 1, "origin": 1, "revoked": 2}.items()
        }


async def test_a_store_that_went_away_shows_in_failures_and_in_connections_made_anew(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as store:
        environ = {**FAST, "CHATD_REDIS__URL": store.url, "CHATD_REDIS__TIMEOUT": "0.3s"}
        with running(tmp_path, "--port", "0", **environ) as chatd:
            before = numbers(chatd)
            assert before["chatd_store_up"] == 1
            assert before['chatd_store_reconnects_total{link="commands"}'] == 0
            store.kill()
            await moved(chatd, ('chatd_store_failures_total{command="renew"}', 1))
            assert numbers(chatd)["chatd_store_up"] == 0
            await store.start()
            await moved(
                chatd,
                ("chatd_store_up", 1),
                ('chatd_store_reconnects_total{link="commands"}', 1),
                ('chatd_store_reconnects_total{link="feed"}', 1),
            )
            await asyncio.to_thread(chatd.stop)
