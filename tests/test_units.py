"""The units, and what chatd says to systemd and its journal; what it takes no boot to see. See test_systemd.py."""

from __future__ import annotations

import configparser
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from chatd import journal
from chatd.cli import checks, main, notify, systemd
from chatd.telemetry import configure_log

UNITS = Path(__file__).parents[1] / "systemd"
SERVICES = ("chatd.service", "chatd@.service", "chatd-store.service")
PATIENCE_S = 15.0


@pytest.fixture
def linted(tmp_path: Path) -> Path:
    """The units with a program that is there, whatever is installed here."""
    if shutil.which("systemd-analyze") is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing, and in CI nothing may skip"
        pytest.skip("systemd-analyze is missing; it judges the units")
    for name, text in systemd.units().items():
        (tmp_path / name).write_text(text.replace(systemd.SHIPPED, "/bin/true"))
    return tmp_path


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_to_little(linted: Path, name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=12", linted / name],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_systemd_has_nothing_to_say_about_the_units(linted: Path) -> None:
    names = [name.replace("@.", "@8001.") for name in systemd.units()]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], cwd=linted, capture_output=True, text=True, check=False
    )
    assert done.stdout + done.stderr == "", "it exits 0 with warnings"


def test_the_services_stand_in_one_sandbox() -> None:
    sandboxes = [sandbox(UNITS / name) for name in SERVICES]
    assert sandboxes[0] == sandboxes[1] == sandboxes[2]
    assert len(sandboxes[0]) > 30


def sandbox(unit: Path) -> list[str]:
    """What surrounds the program; the store alone needs no network."""
    text = unit.read_text()
    lines = text[text.index("DynamicUser=") : text.index("[Install]")].splitlines()
    return [line.replace("AF_INET AF_INET6 ", "") for line in lines]


def test_only_what_trying_again_may_mend_is_tried_again() -> None:
    for name in SERVICES:
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys as they are written
        unit.read(UNITS / name)
        assert unit["Service"]["Restart"] == "on-failure"
        assert unit["Service"]["RestartPreventExitStatus"] == "2 78"


def test_systemd_hears_that_we_turn_and_while_we_drain_that_we_need_longer() -> None:
    assert notify.words("ready", "ready", "[::1]:1", 0) == ("READY=1", "STATUS=ready on [::1]:1, 0 connections")
    assert notify.words("alive", "draining", "[::1]:1", 3) == (
        "WATCHDOG=1",
        "STATUS=draining on [::1]:1, 3 connections",
    )
    assert notify.words("stopping", "ready", "[::1]:1", 3) == ("STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000")
    [drained] = notify.words("drained", "drained", "[::1]:1", 0)
    assert "chatd undrain" in drained, "drained by an operator: the service runs on"


def test_a_journal_entry_has_every_field_apart_and_lines_cannot_forge_one() -> None:
    entry = journal.entry({"event": "left", "level": "warning", "user": "ana\nPRIORITY=0", "close-code": 3001})
    assert entry.startswith(b"MESSAGE\n")
    assert b"\nPRIORITY=4\nSYSLOG_IDENTIFIER=chatd\nCHATD_EVENT=left\n" in entry
    assert entry.endswith(b"CHATD_USER\n" + (14).to_bytes(8, "little") + b"ana\nPRIORITY=0\nCHATD_CLOSE_CODE=3001\n")


def test_the_log_goes_to_the_journal_where_stderr_does_and_else_stays_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stderr").open("w+") as stderr, contextlib.closing(Journald(tmp_path)) as journald:
        monkeypatch.setattr(journal, "ADDRESS", journald.path)
        found = os.fstat(stderr.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        configure_log("info", "auto", stderr)
        structlog.get_logger("chatd").info("ready", node="a1")
        assert b"CHATD_EVENT=ready\nCHATD_NODE=a1\n" in journald.entry()
        try:
            raise ValueError("a bug")
        except ValueError:
            structlog.get_logger("chatd").exception("failed")
        bug = journald.entry()
        assert b"failed\nTraceback (most recent call last):\n" in bug
        assert b"ValueError: a bug" in bug
        assert b"PRIORITY=3\n" in bug
        configure_log("info", "json", stderr)
        structlog.get_logger("chatd").info("as asked")
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        configure_log("info", "auto", stderr)
        structlog.get_logger("chatd").info("as ever")
        said = [json.loads(line)["event"] for line in (tmp_path / "stderr").read_text().splitlines()]
        assert said == ["as asked", "as ever"]


def test_a_traceback_steers_no_terminal() -> None:
    terminal = io.StringIO()
    configure_log("info", "human", terminal)
    try:
        raise ValueError("no such user: \x1b[2J\r\u202e")
    except ValueError:
        structlog.get_logger("chatd").exception("failed")
    head, *_, last = terminal.getvalue().splitlines()
    assert "failed" in head
    assert last == r"ValueError: no such user: \x1b[2J\r\u202e"


def test_what_the_journal_does_not_take_is_said_on_stderr(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stderr:
        journal.Journal(stderr, str(tmp_path / "nobody")).msg({"event": "ready", "level": "info"})
        with contextlib.closing(Journald(tmp_path)) as journald:
            journal.Journal(stderr, journald.path).msg({"event": "long", "level": "info", "text": "x" * 10_000_000})
        assert (tmp_path / "stderr").read_text() == "ready\nlong\n"


class Journald:
    """The journal's end of its socket."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "journal")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(PATIENCE_S)

    def entry(self) -> bytes:
        return self._socket.recv(1 << 16)

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("instances", ["http", "0", "8001,x", "70000"])
def test_instances_are_ports(instances: str) -> None:
    done = CliRunner().invoke(main, ["systemd", "install", "--dry-run", "--instances", instances])
    assert done.exit_code == 2
    assert "expected ports with commas between, such as 8001,8002" in done.stderr


def test_what_is_started_at_boot_follows_from_instances_and_store() -> None:
    assert systemd.wanted([], own_store=True) == ["chatd.target", "chatd.service"]
    several = ["chatd.target", "chatd-store.service", "chatd@8001.service", "chatd@8002.service"]
    assert systemd.wanted([8001, 8002], own_store=True) == several
    assert systemd.wanted([8001], own_store=False) == ["chatd.target", "chatd@8001.service"]


def test_a_program_that_the_sandbox_hides_is_not_installed() -> None:
    assert checks.hiding("/home/ana/.local/bin/chatd") == "/home"
    assert checks.hiding("/root/.pyenv") == "/root"
    assert checks.hiding("/opt/chatd/bin/chatd") == ""
    assert checks.hiding("/homestead/chatd") == ""


def test_the_store_alone_wants_no_redis_url() -> None:
    done = CliRunner().invoke(main, ["store"], env={"CHATD_REDIS__URL": "redis://127.0.0.1/0"})
    assert done.exit_code == 78
    assert "do without this command" in done.stderr
