"""The command line as its user meets it: what is printed where, with which exit code, and what is never printed.

First what needs no daemon, then transcripts with a real one.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import pty
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from chatd import auth
from chatd.cli import COMMANDS, audit, common, doctor, main
from chatd.cli.common import Failure, explained
from chatd.cli.doctor import State
from chatd.cli.output import Column, fitting, lines, raw, size, span, table
from chatd.cli.start import page, typed_to_chat
from chatd.control import Answers
from chatd.respond import per_connection
from chatd.settings import Key, Settings, SettingsError
from chatd.store.audit import Act
from chatd.store.errors import StoreError, StoreFull, StoreMisconfigured, StoreUnavailable
from tests.conftest import Daemon, StartDaemon
from tests.servers import free_port

SECRET = "a-secret-that-is-never-printed-0123456789"
BIG = {"redis", "starlette", "uvicorn", "structlog", "jwt", "prometheus_client", "rich", "chatd.settings"}

# How a descriptor may be that takes nothing.
UNWRITABLE = ("full", "left", "behind")

Chatd = Callable[..., Result]


@pytest.fixture
def chatd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chatd:
    """Runs a command in this process, with nothing configured and an empty state directory."""
    for name in [name for name in os.environ if name.startswith("CHATD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments: str | Path, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)

    return run


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    """A configuration with one key of each kind: for tokens, for the back end, for signatures."""
    file = tmp_path / "chatd.toml"
    file.write_text(f"""\
[[auth.keys]]
kid = "main"
algorithm = "HS256"
secret = "{SECRET}"
[[api.keys]]
name = "shop"
scopes = ["publish"]
secret = "{SECRET}"
[[signatures.keys]]
kid = "2026-1"
secret = "{SECRET}"
""")
    file.chmod(0o600)
    return file


def one_sentence(result: Result) -> str:
    """What the command said of its failure: a line, and no traceback."""
    [line] = result.stderr.splitlines()
    assert line.startswith("chatd: ")
    return line


# --- names, help, imports ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_import_nothing_big(flag: str):
    program = f"""
import sys
from chatd.cli import main
main([{flag!r}], standalone_mode=False)
print(sorted({BIG!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_that_looks_at_no_token_does_not_wait_for_what_verifies_them():
    program = """
import sys
from chatd.cli import audit, drain, measures
print(sorted({"jwt", "chatd.auth"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_shell_completes_commands_without_importing_them():
    environ = {**os.environ, "_CHATD_COMPLETE": "bash_complete", "COMP_WORDS": "chatd ro", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "chatd"], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["plain,rooms", "plain,room"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & BIG


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_takes_a_configuration(chatd: Chatd, name: str):
    result = chatd(name, "--help")
    assert result.exit_code == 0
    assert "--config FILE" in result.stdout
    assert COMMANDS[name][1] in chatd("--help").stdout


def test_an_unknown_command_is_a_mistake_in_usage(chatd: Chatd):
    result = chatd("statsu")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "statsu" in result.stderr


def test_the_configuration_may_be_named_before_or_after_the_command(chatd: Chatd, keyed: Path, tmp_path: Path):
    before = chatd("--config", keyed, "token", "mint", "--user", "ana")
    after = chatd("token", "mint", "--user", "ana", "--config", keyed)
    nearer = chatd("--config", tmp_path / "missing", "token", "mint", "--user", "ana", "--config", keyed)
    assert [before.exit_code, after.exit_code, nearer.exit_code] == [0, 0, 0]


def test_a_configuration_that_cannot_be_read_is_a_bad_one_however_it_is_named(
    chatd: Chatd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    named = chatd("config", "check", "--config", tmp_path)
    monkeypatch.setenv("CHATD_CONFIG", str(tmp_path))
    for result in (named, chatd("config", "check")):
        assert result.exit_code == common.BAD_CONFIGURATION
        assert one_sentence(result) == (
            f"chatd: expected to read the configuration from {tmp_path}, got: Is a directory; check the path and who "
            "may read it"
        )


def test_the_configuration_may_be_named_by_the_environment(chatd: Chatd, keyed: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHATD_CONFIG", str(keyed))
    assert chatd("token", "mint", "--user", "ana").exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_and_aside_the_command_that_installs_it(chatd: Chatd, shell: str, tmp_path: Path):
    result = chatd("completion", shell)
    assert "_CHATD_COMPLETE" in result.stdout
    words, _, command = result.stderr.partition(": ")
    assert words == "to install"
    typed = f'chatd() {{ "{sys.executable}" -m chatd "$@"; }}; {command}'
    subprocess.run(["sh", "-c", typed], env={**os.environ, "HOME": str(tmp_path)}, check=True, capture_output=True)
    [installed] = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert installed.read_text() == result.stdout


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("s"), 78),
        (StoreMisconfigured("s"), 78),
        (StoreUnavailable("s"), 75),
        (StoreFull("s"), 75),
        (StoreError("s"), 1),
        (ValueError("s"), 78),
        (Failure("s", 4), 4),
        (ExceptionGroup("tasks", [ExceptionGroup("tasks", [StoreUnavailable("s")])]), 75),
    ],
)
def test_each_error_has_its_exit_code_and_keeps_its_sentence(error: Exception, code: int):
    failure = explained(error)
    assert failure is not None
    assert (str(failure), failure.code) == ("s", code)


@pytest.mark.parametrize("bug", [KeyError("x"), UnicodeError("x"), ExceptionGroup("tasks", [TypeError("x")])])
def test_a_bug_is_not_explained_away(bug: Exception):
    assert explained(bug) is None


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["who", "--json"],
        ["rooms"],
        ["room", "show", "lobby"],
        ["kick", "ana"],
        ["ban", "add", "ana"],
        ["drain"],
        ["undrain", "8001"],
    ],
)
def test_without_a_daemon_commands_say_so_and_start_nothing(chatd: Chatd, tmp_path: Path, command: list[str]):
    result = chatd(*command)
    assert (result.exit_code, result.stdout) == (common.NO_DAEMON, "")
    assert "`chatd serve`" in one_sentence(result)
    assert not (tmp_path / "state").exists()


def test_a_store_that_does_not_answer_is_75_and_its_password_is_not_told(chatd: Chatd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHATD_REDIS__URL", f"redis://:{SECRET}@127.0.0.1:{free_port()}")
    result = chatd("status")
    assert (result.exit_code, result.stdout) == (common.STORE_UNAVAILABLE, "")
    assert SECRET not in one_sentence(result)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
def test_an_address_that_cannot_be_taken_apart_is_78_and_not_told(
    chatd: Chatd, monkeypatch: pytest.MonkeyPatch, scheme: str
):
    monkeypatch.setenv("CHATD_REDIS__URL", f"{scheme}://:secret/part@127.0.0.1:port")
    result = chatd("status")
    assert result.exit_code == common.BAD_CONFIGURATION
    assert "secret" not in one_sentence(result)


def test_a_wrong_setting_is_78_in_one_sentence(chatd: Chatd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHATD_SERVER__PROT", "1")
    for command in ("status", "serve", "doctor"):
        result = chatd(command)
        assert result.exit_code == (1 if command == "doctor" else 78)
        assert "server.port" in result.output


def test_config_check_warns_of_a_scope_that_no_method_has(chatd: Chatd, tmp_path: Path):
    file = tmp_path / "api.toml"
    file.write_text(f'[[api.keys]]\nname = "shop"\nsecret = "{"s" * 20}"\nscopes = ["room.*", "batch", "publsh"]\n')
    file.chmod(0o600)
    told = json.loads(chatd("config", "check", "--json", "--config", file).stdout)["warnings"]
    assert told == [
        'key shop of [[api.keys]] has the scope "publsh", which is no method\'s; see `chatd config reference`'
    ]


def test_config_check_refuses_a_store_that_serve_would_refuse(chatd: Chatd, monkeypatch: pytest.MonkeyPatch):
    for scheme in ("redis", "redis+cluster", "redis+sentinel"):
        monkeypatch.setenv("CHATD_REDIS__URL", f"{scheme}://:secret/part@127.0.0.1:port")
        result = chatd("config", "check")
        assert (result.exit_code, result.stdout) == (common.BAD_CONFIGURATION, "")
        assert "secret" not in one_sentence(result)
    for right in ("redis+cluster://127.0.0.1:7000", "redis+sentinel://[::1]:26379,127.0.0.1/main"):
        monkeypatch.setenv("CHATD_REDIS__URL", right)
        assert chatd("config", "check").stdout == "ok\n"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://127.0.0.1?pas5word=secret", "options behind the ? in redis.url"),
        ("redis+cluster://127.0.0.1?pas5word=secret", "options behind the ? in redis.url"),
        ("redis://127.0.0.1?ssl_ca_certs=/secret.pem", "options behind the ? in redis.url"),
        ("rediss://127.0.0.1?ssl_ca_cert=/secret.pem", "options behind the ? in redis.url"),
        ("redis://127.0.0.1?protocol=3", "options behind the ? in redis.url"),
        ("redis://127.0.0.1/secret", "to end with the number of a database"),
        ("redis://127.0.0.1/0/1", "to end with the number of a database"),
        ("redis+cluster://127.0.0.1/1", "to name no database"),
        ("redis+cluster://127.0.0.1?db=1", "to name no database"),
        ("unix://run/secret.sock", "to be like unix:///path/to.sock"),
        ("unix://", "to be like unix:///path/to.sock"),
        ("redis+sentinel://127.0.0.1/main?db=1", "redis+sentinel://host:port,host:port/service"),
    ],
)
def test_an_address_of_which_a_part_would_be_passed_over_is_refused(
    chatd: Chatd, monkeypatch: pytest.MonkeyPatch, url: str, says: str
):
    monkeypatch.setenv("CHATD_REDIS__URL", url)
    for command in (("config", "check"), ("status",)):
        result = chatd(*command)
        assert (result.exit_code, result.stdout) == (common.BAD_CONFIGURATION, "")
        assert says in one_sentence(result)
        assert "secret" not in one_sentence(result)


@pytest.mark.parametrize(("connections", "told"), [(0, None), (999, None), (1000, 5000)])
def test_what_a_connection_takes_is_told_of_enough_of_them(connections: int, told: int | None):
    assert per_connection(5_000_000, connections) == told


def test_a_key_that_cannot_be_used_is_78(chatd: Chatd, tmp_path: Path):
    (tmp_path / "public.pem").write_text("no key at all")
    file = tmp_path / "chatd.toml"
    file.write_text('[[auth.keys]]\nkid = "idp"\nalgorithm = "RS256"\npublic_key_file = "public.pem"\n')
    result = chatd("config", "check", "--config", file)
    assert result.exit_code == 78
    assert '"idp"' in one_sentence(result)


@pytest.mark.parametrize("arguments", [[], ["ana", "--ip", "10.0.0.1"], ["--ip", "10.0.0.300"]])
def test_kick_wants_a_user_or_an_address_that_is_one(chatd: Chatd, arguments: list[str]):
    assert chatd("kick", *arguments).exit_code == 2


def test_a_reader_who_has_seen_enough_ends_us_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run([sys.executable, "-m", "chatd", "config", "init"], stdout=closed, stderr=subprocess.PIPE)
    assert done.stderr == b""


def test_too_few_open_files_for_a_node_are_one_sentence(tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    command = f"ulimit -n 20; exec {shlex.quote(sys.executable)} -m chatd serve --port 0"
    done = subprocess.run(["/bin/sh", "-c", command], env=environ, capture_output=True, text=True)
    sentence = "chatd: expected 64 open files to be allowed, got 20; raise `ulimit -n`\n"
    assert (done.returncode, done.stderr) == (78, sentence)


@pytest.mark.parametrize("command", [["config", "init"], ["config", "show"], ["--help"]])
def test_an_answer_that_cannot_be_written_is_a_failure_in_one_sentence(command: list[str]):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "chatd", *command], stdout=full, stderr=subprocess.PIPE, text=True)
    [line] = done.stderr.splitlines()
    assert line.startswith("chatd: cannot write the answer: No space left on device; ")
    assert line.endswith("see what has been done before you say it again")
    assert done.returncode == common.FAILED


def test_a_file_that_cannot_be_written_is_not_taken_for_the_answer():
    error = OSError(errno.ENOSPC, "No space left on device")
    assert explained(error) is None


def closing(descriptors: str, *arguments: str) -> list[str]:
    """A chatd command, started by a shell that closes "<&-", ">&-" or "2>&-" before."""
    return ["sh", "-c", f'exec "$@" {descriptors}', "sh", sys.executable, "-m", "chatd", *arguments]


def test_who_has_closed_stdout_is_no_terminal_and_gets_nothing():
    done = subprocess.run(closing(">&-", "config", "show", "--json"), stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_has_closed_stderr_is_obeyed_and_hears_no_more_than_the_exit_code(daemon: StartDaemon, tmp_path: Path):
    with daemon(tmp_path, "--port", "0") as d:
        drained = subprocess.run(closing("2>&-", "drain"), env=d.environ, stdout=subprocess.PIPE, text=True)
        assert (drained.returncode, drained.stdout.split()[0]) == (common.OK, "drained")
        for command in (["forget", "nobody", "--yes"], ["export", "--user", "nobody"]):
            assert subprocess.run(closing("2>&-", *command), env=d.environ).returncode == common.NOT_FOUND


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_node_serves_though_nobody_reads_what_it_says(tmp_path: Path, workers: str):
    command = closing("<&- >&- 2>&-", "serve", "--port", "0", "--workers", workers)
    with told(tmp_path) as (manager, environ), subprocess.Popen(command, env=environ) as node:
        try:
            until_told(manager, b"READY=1")
        finally:
            node.terminate()
    assert node.returncode == common.OK


@contextmanager
def told(directory: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """Who hears the news of a chatd, as systemd does, and the environment of that chatd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path := str(directory / "notify"))
        manager.settimeout(30)
        environ = {**os.environ, "XDG_STATE_HOME": str(directory), "NOTIFY_SOCKET": path, "CHATD_SERVER__DRAIN": "0"}
        yield manager, environ


def until_told(manager: socket.socket, word: bytes) -> None:
    while word not in manager.recv(4096).split(b"\n"):
        pass


@contextmanager
def unwritable(how: str) -> Iterator[int]:
    """A descriptor that takes nothing: its disk is full, its reader has left, or does not read, as behind a Ctrl-S."""
    if how == "full":
        with open("/dev/full", "wb", buffering=0) as full:
            yield full.fileno()
        return
    reader, writer = os.pipe()
    if how == "left":
        os.close(reader)
    else:
        os.set_blocking(writer, False)
        os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))
        os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(writer)
        if how != "left":
            os.close(reader)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("how", UNWRITABLE)
def test_a_log_that_cannot_be_written_keeps_nobody_from_anything(tmp_path: Path, workers: str, how: str):
    port = free_port()
    command = [sys.executable, "-m", "chatd", "serve", "--port", str(port), "--workers", workers]
    with (
        told(tmp_path) as (manager, environ),
        unwritable(how) as log,
        subprocess.Popen(command, env=environ, stdout=log, stderr=log) as node,
    ):
        try:
            until_told(manager, b"READY=1")
            node.send_signal(signal.SIGHUP)
            until_told(manager, b"RELOADING=1")
            until_told(manager, b"READY=1")
            address = f"ws://127.0.0.1:{port}/chat/"
            with connect(f"{address}ana?room=tea") as ana, connect(f"{address}bob?room=tea") as bob:
                ana.send("hello")
                assert bob.recv(timeout=5) == "ana: hello"
        finally:
            node.terminate()
    assert node.returncode == common.OK


@pytest.mark.parametrize("how", UNWRITABLE)
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["nginx", "print"], common.OK),
        (["completion", "bash"], common.OK),
        (["status"], common.NO_DAEMON),
        (["--config", "/nowhere", "config", "check"], common.BAD_CONFIGURATION),
        (["kick"], common.USAGE),
    ],
)
def test_a_command_whose_remarks_cannot_be_written_has_its_exit_code_all_the_same(
    tmp_path: Path, how: str, command: list[str], code: int
):
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    with unwritable(how) as remarks:
        done = subprocess.run(
            [sys.executable, "-m", "chatd", *command], env=environ, stdout=subprocess.DEVNULL, stderr=remarks
        )
    assert done.returncode == code


# --- output -----------------------------------------------------------------------------------------------------------


def test_what_users_chose_can_neither_steer_a_terminal_nor_break_a_line():
    columns = [Column("user", "USER"), Column("rooms", "ROOMS", " ".join)]
    row = {"user": "eve\x1b[2J\tbob\nroot", "rooms": ["a", "b"]}
    assert lines(columns, [row]) == "user\trooms\neve\\x1b[2J\\tbob\\nroot\ta,b\n"
    assert "\x1b" not in table(columns, [row], 80)


@pytest.mark.parametrize(
    ("details", "told"),
    [
        ({"ask": "lock", "version": 3, "level": 0}, "level=0"),
        ({"ask": "room.set", "room": "den", "locked": False}, "room=den locked=false"),
        ({"ask": "drain", "node": "n-1", "over": -1.0}, "node=n-1"),
        ({"ask": "drain", "node": "n-1", "over": 30.0}, "node=n-1 over=30.0"),
        ({"ask": "impose", "target": "eve", "until": 0.0, "reason": "", "rank": 0}, "target=eve"),
        ({"ask": "impose", "target": "eve", "until": 1795899810.632}, "target=eve until=2026-11-28 21:03:30Z"),
        ({"ask": "revoke", "id": "t", "until": 1e300, "issued_before": 0.0}, "id=t until=1e+300"),
        ({"ask": "revoke", "id": "ana", "issued_before": 60.0}, "id=ana issued_before=1970-01-01 00:01:00Z"),
    ],
)
def test_the_audit_tells_what_says_something(details: dict[str, Any], told: str):
    act = Act("1-0", {"at": 0.0, "by": "root", "request": "r", **details})
    assert audit.line(act) == f"1970-01-01 00:00:00Z\troot\t{details['ask']}\t{told}"


def test_what_the_locale_has_no_character_for_is_spelled_out(daemon: StartDaemon, tmp_path: Path):
    with daemon(tmp_path, "--port", "0") as d:
        d.cli("send", "tea", "voilà ✓")
        history = subprocess.run(
            [sys.executable, "-m", "chatd", "history", "tea"],
            env={**d.environ, "PYTHONIOENCODING": "latin-1"},
            stdout=subprocess.PIPE,
            check=True,
        )
    assert history.stdout.decode("latin-1").endswith("\tvoilà \\u2713\n")


def test_values_for_programs_stay_as_they_are():
    assert [raw(value) for value in (None, True, 0.25, [], {"4500": 2})] == ["", "true", "0.25", "", "4500=2"]


def test_columns_that_do_not_fit_go_into_another_table_under_the_same_name():
    columns = [Column(key, key.upper()) for key in ("node", "aaaa", "bbbb", "cccc")]
    groups = fitting(columns, [{"node": "n1"}], width=16)
    assert [[column.key for column in group] for group in groups] == [["node", "aaaa", "bbbb"], ["node", "cccc"]]


def test_sizes_and_spans_are_short():
    assert [size(count) for count in (0, 812, 6656, 89_128_960)] == ["0 B", "812 B", "6.5 KiB", "85 MiB"]
    assert [span(seconds) for seconds in (0.4, 185, 7800, 1_051_200)] == ["0s", "3m 5s", "2h 10m", "12d 4h"]


# --- token ------------------------------------------------------------------------------------------------------------


def mint(chatd: Chatd, file: Path, *arguments: str) -> str:
    result = chatd("token", "mint", "--config", file, "--user", "ana", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    [token] = result.stdout.splitlines()
    return token


def test_a_minted_token_stands_alone_and_says_what_was_asked(chatd: Chatd, keyed: Path):
    arguments = ("--room", "tea-*", "--room", "x", "--name", "Ana", "--info", '{"a":1}', "--for", "90s")
    parts = auth.inspect(mint(chatd, keyed, *arguments))
    claims = parts["claims"]
    assert parts["header"]["kid"] == "main"
    assert (claims["sub"], claims["name"], claims["rooms"]) == ("ana", "Ana", ["tea-*", "x"])
    assert (claims["info"], claims["exp"] - claims["iat"]) == ({"a": 1}, 90)


def test_every_minted_token_can_be_revoked_alone(chatd: Chatd, keyed: Path):
    ids = {auth.inspect(mint(chatd, keyed))["claims"]["jti"] for _ in range(2)}
    assert len(ids) == 2


def test_a_minted_token_is_for_the_audience_and_of_the_issuer_that_are_configured(chatd: Chatd, keyed: Path):
    keyed.write_text('[auth]\naudience = "chat"\nissuer = "us"\n' + keyed.read_text())
    assert chatd("token", "inspect", "--config", keyed, mint(chatd, keyed)).exit_code == 0


@pytest.mark.parametrize("arguments", [["--for", "0s"], ["--for", "soon"], ["--info", "{"]])
def test_mint_refuses_what_it_cannot_mean(chatd: Chatd, keyed: Path, arguments: list[str]):
    assert chatd("token", "mint", "--config", keyed, "--user", "ana", *arguments).exit_code == 2


@pytest.mark.parametrize(
    "command",
    [
        ("token", "revoke", "--user", ""),
        ("token", "revoke", "--jti", ""),
        ("token", "mint", "--user", ""),
        ("token", "signing-key", "--user", ""),
        ("forget", "", "--yes"),
    ],
)
def test_an_empty_name_is_nobodys(chatd: Chatd, keyed: Path, command: tuple[str, ...]):
    refused = chatd("--config", keyed, *command)
    assert refused.exit_code == common.USAGE
    assert "expected a name, got an empty one" in refused.stderr


def test_minting_without_a_key_that_signs_is_a_matter_of_configuration(chatd: Chatd, keyed: Path):
    assert chatd("token", "mint", "--user", "ana").exit_code == 78
    result = chatd("token", "mint", "--user", "ana", "--config", keyed, "--kid", "other")
    assert result.exit_code == 78
    assert "'other'" in one_sentence(result)
    assert SECRET not in result.output


def test_inspect_reads_a_token_from_stdin_and_verifies_it(chatd: Chatd, keyed: Path):
    result = chatd("token", "inspect", "-", "--json", "--config", keyed, stdin=mint(chatd, keyed) + "\n")
    reply = json.loads(result.stdout)
    assert (result.exit_code, reply["verified"], reply["refusal"]) == (0, True, None)
    assert reply["revoked"] is None, "no store could be asked"
    assert reply["claims"]["sub"] == "ana"


def test_inspect_shows_a_token_it_would_refuse_and_fails(chatd: Chatd, keyed: Path):
    forged = mint(chatd, keyed)[:-4] + "AAAA"
    result = chatd("token", "inspect", forged, "--config", keyed)
    assert result.exit_code == 1
    assert "claim sub\tana\n" in result.stdout
    assert "verified\tno: no key here" in result.stdout
    assert SECRET not in result.output


@pytest.mark.parametrize("claim", [2**64, "\ud800", float("nan"), "\x1b[2J"])
def test_inspect_bears_whatever_somebody_may_have_put_into_a_token(chatd: Chatd, keyed: Path, claim: object):
    parts = ({"alg": "HS256"}, {"sub": "eve", "x": claim})
    token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().strip("=") for part in parts) + ".AA"
    for flags in ([], ["--json"]):
        result = chatd("token", "inspect", token, "--config", keyed, *flags)
        assert result.exit_code == 1
        assert "\x1b" not in result.output
        one_sentence(result)


def test_arguments_that_are_no_text_are_a_mistake_in_usage():
    done = subprocess.run([sys.executable, "-m", "chatd", "kick", b"\xff"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected arguments in UTF-8" in done.stderr


def test_what_is_no_token_is_said_to_be_none(chatd: Chatd, keyed: Path):
    assert "expected a JWT" in one_sentence(chatd("token", "inspect", "junk", "--config", keyed))


def test_revoke_wants_to_know_exactly_one_thing(chatd: Chatd, keyed: Path):
    several = (["--jti", "x", "--user", "ana"], ["--kid", "x", "--user", "ana"])
    for arguments in ([], *several, ["--user", "ana", "--until", "1h"], ["--kid", "x", "--until", "1h"]):
        assert chatd("token", "revoke", "--config", keyed, *arguments).exit_code == 2


# --- ports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("nginx", "print"), ("systemd", "install", "--dry-run")])
@pytest.mark.parametrize("ports", ["", "8001,,8002", "8001,", "8001;8002", "0", "65536", "٨٠٠١"])
def test_what_is_no_list_of_ports_is_refused_alike_wherever_one_is_expected(
    chatd: Chatd, command: tuple[str, ...], ports: str
):
    refused = chatd(*command, "--instances", ports)
    assert refused.exit_code == 2
    assert "expected ports with commas between, such as 8001,8002" in refused.stderr


# --- config -----------------------------------------------------------------------------------------------------------


def test_a_right_configuration_is_ok_and_what_is_unwise_is_told_aside(chatd: Chatd, keyed: Path):
    keyed.chmod(0o644)
    result = chatd("config", "check", "--config", keyed)
    assert (result.exit_code, result.stdout) == (0, "ok\n")
    assert "everybody may read it" in result.stderr
    assert json.loads(chatd("config", "check", "--json", "--config", keyed).stdout)["ok"] is True


def test_a_key_set_that_its_file_does_not_hold_is_told_by_the_name_of_the_file(chatd: Chatd, tmp_path: Path):
    file, keys = tmp_path / "chatd.toml", tmp_path / "keys.json"
    file.write_text(
        '[[auth.keys]]\njwks_file = "keys.json"\n[[auth.keys]]\njwks_url = "http://me:pass@127.0.0.1:1/k"\n'
    )
    for text in (None, "", '{"keys": []}'):
        if text is not None:
            keys.write_text(text)
        checked = chatd("config", "check", "--config", file)
        assert (checked.exit_code, checked.stdout) == (0, "ok\n")
        assert f'key set "{keys}" could not be read, so nobody comes in by it: ' in checked.stderr
        assert 'jwks_url of key "http://***@127.0.0.1:1/k" is not https' in checked.stderr
    assert 'key set "http://***@127.0.0.1:1/k" could not be read' in chatd("doctor", "--config", file).stdout


def test_config_show_tells_origins_and_no_secret(chatd: Chatd, keyed: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHATD_SERVER__PORT", "8123")
    monkeypatch.setenv("CHATD_REDIS__URL", f"redis://:{SECRET}@localhost")
    shown = chatd("config", "show", "--origin", "--config", keyed)
    assert "port = 8123  # CHATD_SERVER__PORT\n" in shown.stdout
    assert [line for line in shown.stdout.splitlines() if line.startswith("secret = ") and "***" in line] == [
        f'secret = "***"  # {keyed}:{line}' for line in (1, 5, 9)
    ]
    assert 'host = "127.0.0.1"  # default\n' in shown.stdout
    as_json = chatd("config", "show", "--json", "--origin", "--config", keyed)
    assert json.loads(as_json.stdout)["origin"]["server.port"] == "CHATD_SERVER__PORT"
    assert SECRET not in shown.output + as_json.output


def test_what_config_show_prints_is_toml_with_the_values_in_force(chatd: Chatd, keyed: Path):
    for flags in ([], ["--config", str(keyed)]):
        shown = tomllib.loads(chatd("config", "show", "--origin", *flags).stdout)
        assert shown == json.loads(chatd("config", "show", "--json", *flags).stdout)["settings"]


def test_config_show_names_the_settings_of_each_list_of_tables_from_nought(chatd: Chatd, keyed: Path):
    keyed.write_text(keyed.read_text() + f'[[api.keys]]\nname = "desk"\nscopes = ["*"]\nsecret = "{SECRET}-2"\n')
    origins = json.loads(chatd("config", "show", "--json", "--origin", "--config", keyed).stdout)["origin"]
    named = {name: place for name, place in origins.items() if re.fullmatch(r"\w+\.keys\.\d\.secret", name)}
    lines = {"auth.keys.0": 1, "api.keys.0": 5, "api.keys.1": 12, "signatures.keys.0": 9}
    assert named == {f"{name}.secret": f"{keyed}:{line}" for name, line in lines.items()}
    assert f'name = "desk"  # {keyed}:12\n' in chatd("config", "show", "--origin", "--config", keyed).stdout


def test_config_init_wants_its_path_without_config(chatd: Chatd, tmp_path: Path):
    result = chatd("--config", tmp_path / "chatd.toml", "config", "init")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "say where to write as PATH" in result.stderr


def test_config_init_begins_a_file_that_is_right_private_and_never_overwritten(chatd: Chatd, tmp_path: Path):
    file = tmp_path / "new.toml"
    assert chatd("config", "init", file).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert chatd("config", "check", "--config", file).stdout == "ok\n"
    assert chatd("config", "init").stdout == file.read_text()
    file.write_text("# mine")
    again = chatd("config", "init", file)
    assert again.exit_code == 1
    assert str(file) in one_sentence(again)
    assert file.read_text() == "# mine"


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_open_files_are_enough_when_each_connection_has_one():
    assert doctor.open_files(1024, 100_000).state is State.WARN
    assert doctor.open_files(100_064, 100_000).state is State.OK
    assert doctor.open_files(1024, 0).state is State.OK


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"aof_enabled": "1", "aof_last_write_status": "ok"}, State.OK),
        ({"aof_enabled": "1", "aof_last_write_status": "err"}, State.FAIL),
        ({"aof_enabled": "0", "rdb_last_bgsave_status": "ok"}, State.WARN),
        ({"aof_enabled": "0", "rdb_last_bgsave_status": "err"}, State.FAIL),
    ],
)
def test_a_store_that_forgets_is_found_out(facts: dict[str, str], state: State):
    assert doctor.persistence(facts).state is state


def test_only_a_bounded_store_can_throw_things_away():
    assert doctor.eviction({"maxmemory": "0", "maxmemory_policy": "allkeys-lru"}).state is State.OK
    assert doctor.eviction({"maxmemory": "1", "maxmemory_policy": "allkeys-lru"}).state is State.FAIL
    assert doctor.eviction({"maxmemory": "1", "maxmemory_policy": "noeviction"}).state is State.OK


def test_clocks_may_differ_a_little():
    assert [doctor.clocks(skew).state for skew in (0.2, -5, 60)] == [State.OK, State.WARN, State.FAIL]


def test_nodes_are_well_when_they_answer_and_hear_the_store():
    def node(feed: str) -> dict[str, Any]:
        return {"node": {"store": {"feed": feed}}}

    answers = Answers({"a": node("live"), "b": node("the feed is silent")}, ("c",))
    checks = list(doctor.nodes(answers, writable=True))
    assert {check.name: check.state for check in checks} == {
        "node c": State.FAIL,
        "node a": State.OK,
        "node b": State.WARN,
    }
    assert [check.state for check in doctor.nodes(Answers({}), writable=True)] == [State.WARN]


def test_a_port_held_by_another_program_is_a_failure(chatd: Chatd, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        monkeypatch.setattr(doctor, "PATIENCE_S", 0.1)
        monkeypatch.setenv("CHATD_SERVER__PORT", str(stranger.getsockname()[1]))
        result = chatd("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 1
    assert checks["port"]["state"] == "fail"
    assert checks["port"]["remedy"]


def test_the_doctor_finds_a_fresh_machine_healthy(chatd: Chatd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHATD_SERVER__PORT", "0")
    result = chatd("doctor", "--json")
    assert result.exit_code == 0
    assert {check["state"] for check in json.loads(result.stdout)["checks"]} == {"ok", "warn"}


# --- with a daemon ----------------------------------------------------------------------------------------------------


def enter(daemon: Daemon, user: str, room: str = "lobby", **headers: str) -> ClientConnection:
    """A plain client that is in the room, as the cluster sees it."""
    client = connect(f"{daemon.ws}/chat/{user}?room={room}", additional_headers=headers)
    deadline = time.monotonic() + 10
    while user not in {entry["user"] for entry in daemon.ask("who", room)["connections"]}:
        assert time.monotonic() < deadline, f"{user} is not in {room}"
    return client


def goodbye(client: ClientConnection) -> tuple[int, str]:
    """The code and the reason with which the server ended it."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            client.recv(timeout=10)
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


def test_an_operator_sees_who_is_there_and_throws_somebody_out(daemon: StartDaemon, tmp_path: Path):
    with daemon(tmp_path, "--port", "0") as d, enter(d, "ana") as ana, enter(d, "bob", "tea"):
        status = d.ask("status")
        assert status["cluster"] == {"nodes": 1, "connections": 2, "users": 2, "rooms": 2, "lockdown": 0}
        [node] = status["nodes"]
        assert (node["state"], node["rooms"], node["store"]["feed"]) == ("ready", 2, "live")
        assert d.cli("status").splitlines()[1].split("\t")[0] == node["id"]
        assert [entry["user"] for entry in d.ask("who", "--sort", "user")["connections"]] == ["ana", "bob"]
        assert [entry["user"] for entry in d.ask("who", "tea", "--ip", "127.0.0.0/8")["connections"]] == ["bob"]
        assert d.ask("who", "--ip", "10.0.0.0/8")["connections"] == []
        assert d.cli("rooms") == "room\tconnections\tusers\nlobby\t1\t1\ntea\t1\t1\n"
        assert d.ask("kick", "ana", "--reason", "enough") == {
            "schema_version": 1,
            "closed": 1,
            "nodes": {node["id"]: 1},
        }
        assert goodbye(ana) == (4500, "enough")
        assert d.cli("kick", "ana", check=common.NOT_FOUND) == ""
        assert d.cli("kick", "bob") == f"closed 1 connection: 1 on {node['id']}\n"


def on_a_terminal(daemon: Daemon, *command: str) -> str:
    """What a person is shown; up to the few thousand bytes that a terminal holds for who reads late."""
    terminal, end = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen, os.fdopen(end, "wb") as stdout:
        arguments = [sys.executable, "-m", "chatd", *command]
        subprocess.run(arguments, env={**daemon.environ, "COLUMNS": "80"}, stdout=stdout, check=True)
        return screen.read(1 << 16).decode()


def test_a_room_is_shown_while_somebody_is_in_it_or_something_is_kept(daemon: StartDaemon, tmp_path: Path):
    with daemon(tmp_path, "--port", "0") as d:
        with enter(d, "ana") as ana, enter(d, "bob") as bob:
            ana.send("hi")
            assert bob.recv(timeout=10) == "ana: hi"
            shown = d.ask("room", "show", "lobby")
        [node] = [each["id"] for each in d.ask("status")["nodes"]]
        assert shown["members"][0] == {"user": "ana", "connections": 1, "nodes": [node]}
        assert (shown["history"]["first"], shown["history"]["last"], shown["history"]["messages"]) == (1, 1, 1)
        assert shown["rules"]["history"] == Settings().room("lobby").history
        told = d.cli("room", "show", "lobby")
        assert "history messages\t1\n" in told
        assert {"rule retention\t2592000.0", "rule edit_window\t900.0", "rule idle\t0.0"} < set(told.splitlines())
        seen = [line.split(maxsplit=2)[1:] for line in on_a_terminal(d, "room", "show", "lobby").splitlines()]
        assert [each for each in seen if each[:1] in (["retention"], ["edit_window"], ["idle"])] == [
            ["retention", "30d 0h"],
            ["edit_window", "15m 0s"],
            ["idle", "0s"],
        ]
        assert d.cli("room", "show", "nowhere", check=common.NOT_FOUND) == ""
        assert d.cli("room", "show", "nowhere", check=common.NOT_FOUND) == "", "looking begins no room"


def test_what_serve_prints_to_be_typed_next_works_where_keys_and_a_configuration_are(
    daemon: StartDaemon, tmp_path: Path, keyed: Path
):
    keyed = keyed.rename(tmp_path / "the keys.toml")
    with daemon(tmp_path, "--port", "0", "--config", str(keyed)) as d:
        [line] = d.until_log(r"chat in a terminal +(chatd .*)").groups()
        script = f'chatd() {{ "{sys.executable}" -m chatd "$@"; }}; {line}'
        done = subprocess.run(["sh", "-c", script], env=d.environ, input="hi\n", capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (common.OK, "chatd: connected to lobby as ana\n")
        assert d.until_log(r"who is here +(.*)")[1] == f"chatd who --config '{keyed}'"


def test_what_is_typed_to_chat_asks_for_a_token_that_only_others_can_make():
    keys = (Key("idp", "RS256"),)
    issued = replace(Settings(), auth=replace(Settings().auth, keys=keys))
    assert typed_to_chat(Settings(), " --config a") == "chatd chat ana --config a"
    assert typed_to_chat(issued, "") == "chatd chat USER --token-file FILE"


@pytest.mark.parametrize(
    ("origins", "said"),
    [
        ((), "http://h:1/"),
        (("*",), "http://h:1/"),
        (("https://app.example", "http://h:1"), "http://h:1/"),
        (("https://app.example",), "not here: server.origins lacks http://h:1"),
    ],
)
def test_serve_sends_nobody_to_a_page_that_its_origins_keep_out(origins: tuple[str, ...], said: str):
    assert page(replace(Settings(), server=replace(Settings().server, origins=origins)), "http://h:1") == said


def test_revoked_tokens_close_who_came_with_them_and_are_refused_from_then_on(
    daemon: StartDaemon, tmp_path: Path, keyed: Path
):
    with daemon(tmp_path, "--port", "0", "--config", str(keyed)) as d:
        ana, bob, eve = (d.cli("token", "mint", "--user", user).strip() for user in ("ana", "bob", "eve"))
        with (
            enter(d, "ana", Authorization=f"Bearer {ana}") as a,
            enter(d, "bob", Authorization=f"Bearer {bob}") as b,
            enter(d, "eve", Authorization=f"Bearer {eve}") as e,
        ):
            assert d.ask("kick", "eve", "--revoke")["closed"] == 1
            assert d.ask("token", "revoke", "--user", "bob")["closed"] == 1
            assert d.cli("token", "revoke", "-", stdin=ana).endswith("closed 1 connection\n")
            assert [goodbye(each)[0] for each in (a, b, e)] == [4501, 4501, 4500]
        for token in (ana, bob, eve):
            assert json.loads(d.cli("token", "inspect", token, "--json", check=1))["revoked"] is True
        assert d.ask("token", "revoke", "--jti", "unheard-of", "--until", "1h")["closed"] == 0


def test_a_key_that_leaked_takes_all_that_it_signed_with_it(daemon: StartDaemon, tmp_path: Path, keyed: Path):
    other = f'[[auth.keys]]\nkid = "other"\nalgorithm = "HS256"\nsecret = "{SECRET * 2}"\n'
    keyed.write_text(keyed.read_text() + other)
    with daemon(tmp_path, "--port", "0", "--config", str(keyed)) as d:
        ana, bob = (
            d.cli("token", "mint", "--user", user, "--kid", kid).strip()
            for user, kid in (("ana", "main"), ("bob", "other"))
        )
        with enter(d, "ana", Authorization=f"Bearer {ana}") as gone, enter(d, "bob", Authorization=f"Bearer {bob}"):
            command = [sys.executable, "-m", "chatd", "token", "revoke", *d.arguments[-2:], "--kid", "mian"]
            done = subprocess.run(command, env=d.environ, capture_output=True, text=True)
            assert "no key of this configuration has the kid mian" in done.stderr
            assert d.cli("token", "revoke", "--kid", "main") == "revoked key main; closed 1 connection\n"
            assert goodbye(gone)[0] == 4501
            assert [each["user"] for each in d.ask("who")["connections"]] == ["bob"]
        assert json.loads(d.cli("token", "inspect", ana, "--json", check=1))["revoked"] is True


def test_whoever_had_no_token_comes_back_when_those_of_the_name_are_revoked(
    daemon: StartDaemon, tmp_path: Path, keyed: Path
):
    with daemon(tmp_path, "--port", "0", "--config", str(keyed), CHATD_AUTH__MODE="open") as d:
        minted = d.cli("token", "mint", "--user", "ana").strip()
        with enter(d, "ana") as ana:
            assert d.ask("kick", "ana", "--revoke")["closed"] == 1
            assert goodbye(ana)[0] == 4500
        assert json.loads(d.cli("token", "inspect", minted, "--json"))["revoked"] is False
        with enter(d, "ana"):
            assert d.ask("token", "revoke", "--user", "ana")["closed"] == 0
        assert json.loads(d.cli("token", "inspect", minted, "--json", check=1))["revoked"] is True


def test_what_holds_in_a_room_is_printed_and_a_name_that_nobody_ever_used_is_noted(daemon: StartDaemon, tmp_path: Path):
    with daemon(tmp_path, "--port", "0") as d, enter(d, "ana", "tea"):

        def run(*arguments: str) -> tuple[str, str]:
            done = CliRunner(env=d.environ).invoke(main, ["room", *arguments])
            assert done.exit_code == common.OK
            return done.stdout, done.stderr

        assert run("lock", "tea") == ("tea: locked\n", "")
        held, noted = run("slow", "typo", "10s")
        assert held == "typo: not locked, slow 10s\n"
        assert noted == "chatd: nobody is in typo and nothing was ever said there; is the name right?\n"
        assert run("set", "typo", "--topic", "t", "--key", "a=1")[0] == "typo: not locked, slow 10s, topic t, a=1\n"
        assert run("create", "den", "--public") == ("", "")
        assert run("set", "den", "--private") == ("den: not locked, private\n", "")


@pytest.mark.parametrize("command", [("kick", "ana", "--revoke"), ("token", "revoke", "--user", "ana")])
def test_where_nobody_has_a_token_none_is_revoked_and_a_ban_is_named(chatd: Chatd, command: tuple[str, ...]):
    refused = chatd(*command)
    assert refused.exit_code == common.FAILED
    assert "there are none in open mode; use `chatd ban add`" in one_sentence(refused)


def test_a_node_that_does_not_answer_is_named_and_the_rest_is_shown_and_done(
    daemon: StartDaemon, tmp_path: Path, keyed: Path
):
    patient = {"CHATD_CLUSTER__ANSWER": "0.5s", "CHATD_CLUSTER__LEASE": "60s"}
    options = ("--port", "0", "--config", str(keyed))
    with daemon(tmp_path, *options, **patient) as well, daemon(tmp_path, *options, **patient) as stuck:
        [stuck_id] = [node["id"] for node in well.ask("status")["nodes"] if node["address"] == stuck.address]
        ana = well.cli("token", "mint", "--user", "ana").strip()
        with enter(well, "ana", Authorization=f"Bearer {ana}"):
            stuck.signal(signal.SIGSTOP)
            status = json.loads(well.cli("status", "--json", check=common.FAILED))
            kicked = json.loads(well.cli("kick", "ana", "--revoke", "--json", check=common.FAILED))
        revoked = well.cli("token", "revoke", "--user", "ana", check=common.FAILED)
        stuck.signal(signal.SIGCONT)
    assert {node["id"]: node["state"] for node in status["nodes"]}[stuck_id] == "silent"
    assert len(status["nodes"]) == 2
    assert (kicked["closed"], kicked["silent"]) == (1, [stuck_id])
    assert revoked.startswith("revoked user ana")


def test_the_doctor_finds_a_running_daemon_well(daemon: StartDaemon, tmp_path: Path):
    port = free_port()
    with daemon(tmp_path, CHATD_SERVER__PORT=str(port)) as d:
        reply = d.ask("doctor")
    found = {check["name"]: check for check in reply["checks"]}
    assert reply["ok"] is True
    assert found["port"]["finding"] == f"chatd answers at 127.0.0.1:{port} and is ready"
    assert found["persistence"]["state"] == "ok"
