"""Backup and restore of the embedded store, by the very commands of config/README.md."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.conftest import Daemon, running
from tests.proxies import program
from tests.test_doors import Raw

MANUAL = Path(__file__).parents[1] / "config" / "README.md"


def commands() -> tuple[str, str]:
    """What to type for a backup, and for going back to it."""
    section = MANUAL.read_text().partition("\n## Backup and restore\n")[2].partition("\n## ")[0]
    backup, restore = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    return backup, restore


def typed(text: str, directory: Path) -> None:
    """Run the manual's commands, on our directories and without its systemctl."""
    here = text.replace("/var/lib/chatd", str(directory / "state" / "chatd")).replace("/var/backups", str(directory))
    here = re.sub(r"^systemctl .*\n", "", here, flags=re.M).replace("chatd-$(date +%F)", "chatd-2026-11-24")
    subprocess.run(["bash", "-euo", "pipefail", "-c", here], check=True, timeout=30, capture_output=True)


async def said(chatd: Daemon, *texts: str) -> dict[str, object]:
    """Publish each; what a client that heard them knows of its place."""
    async with Raw(chatd) as ana:
        for text in texts:
            assert "publish" in await ana.ask({"publish": {"channel": "lobby", "data": {"text": text}}})
        history = (await ana.ask({"history": {"channel": "lobby"}}))["history"]
        return {"offset": history["offset"], "epoch": history["epoch"]}


async def test_a_backup_of_a_running_store_brings_back_what_was_said_before_it(tmp_path: Path) -> None:
    program("redis-cli")
    backup, restore = commands()
    with running(tmp_path, "--port", "0") as chatd:
        await said(chatd, "one", "two")
        typed(backup, tmp_path)
        heard_later = await said(chatd, "three")
    typed(restore, tmp_path)
    with running(tmp_path, "--port", "0") as chatd:
        async with Raw(chatd) as ana:
            history = await ana.ask({"history": {"channel": "lobby", "limit": 10}})
            assert [each["data"]["text"] for each in history["history"]["publications"]] == ["one", "two"]
            back = await ana.ask({"subscribe": {"channel": "lobby", "recover": True, **heard_later}})
            assert not back["subscribe"].get("recovered"), "who heard more is told that it is gone"
        assert (await said(chatd, "four"))["offset"] == 3
