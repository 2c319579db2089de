"""`chatd chat` and `chatd top` as people have them: processes that are typed to and read from."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from chatd.cli.top import ANEW
from tests.conftest import Daemon, running
from tests.people import cluster, token
from tests.test_transport import certificate

CHATD = (sys.executable, "-m", "chatd")


class Talker:
    """A `chatd chat` of somebody's: `says`, `reads` until what is wanted has come, `ends`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._typed, self._shown = process.stdin, process.stdout

    def says(self, line: str) -> None:
        self._typed.write(f"{line}\n")
        self._typed.flush()

    def reads(self, wanted: str) -> None:
        seen = []
        for line in self._shown:
            seen.append(line)
            if wanted in line:
                return
        pytest.fail(f"{wanted!r} was never shown, but {seen}")

    def ends(self) -> int:
        self._typed.close()
        return self.ended()

    def ended(self) -> int:
        return self._process.wait(timeout=20)

    def interrupted(self) -> int:
        """Its exit code; the patience is less than the 10 s for which websockets waits for a goodbye."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout=8)


@contextmanager
def talker(daemon: Daemon, *arguments: str) -> Iterator[Talker]:
    command = [*CHATD, "chat", *config(daemon), *arguments]
    with subprocess.Popen(
        command,
        env={**daemon.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Talker(process)
        finally:
            process.kill()


def config(daemon: Daemon) -> list[str]:
    at = daemon.arguments.index("--config") if "--config" in daemon.arguments else None
    return [] if at is None else [*daemon.arguments[at : at + 2]]


def test_two_people_talk_and_leave(tmp_path: Path) -> None:
    with (
        running(tmp_path, "--port", "0") as d,
        talker(d, "a/na", "tea room") as ana,
        talker(d, "ben", "tea room") as ben,
    ):
        ana.reads("chatd: connected to tea room as a/na")
        ben.reads("chatd: connected to tea room as ben")
        ana.says("hi all")
        ben.reads("a/na: hi all")
        ben.says("hi")
        ana.reads("ben: hi")
        assert (ana.ends(), ben.ends()) == (0, 0)
        assert {each["user"] for each in d.ask("history", "tea room")["messages"]} == {"a/na", "ben"}


def test_what_is_piped_is_said_line_by_line(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as d:
        done = subprocess.run([*CHATD, "chat", "ana"], env=d.environ, input=b"hi\n\xff\nthere", capture_output=True)
        assert (done.returncode, done.stdout) == (0, b"")
        said = [each["data"]["text"] for each in d.ask("history", "lobby")["messages"]]
        assert said == ["hi", "\ufffd", "there"]


def test_whoever_pastes_more_than_a_node_takes_at_once_loses_no_line(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(75)]
    limits = {"CHATD_LIMITS__MESSAGES_PER_SECOND": "20", "CHATD_LIMITS__USER_MESSAGES_PER_SECOND": "0"}
    with running(tmp_path, "--port", "0", **limits) as d:
        done = subprocess.run(
            [*CHATD, "chat", "ana"], env=d.environ, input="\n".join(lines), capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, "")
        assert [each["data"]["text"] for each in d.ask("history", "lobby", "--limit", "100")["messages"]] == lines


def test_whose_last_line_is_refused_hears_it_before_he_leaves(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as d:
        d.ask("mute", "add", "ana")
        done = subprocess.run([*CHATD, "chat", "ana"], env=d.environ, input="hi", capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "! muted\n")


def test_whoever_ends_it_while_nobody_is_there_is_not_kept(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as d, talker(d, "ana") as ana:
        ana.reads("connected to lobby")
        d.stop()
        ana.reads("coming back")
        assert ana.ends() == 0


def test_whoever_leaves_does_not_wait_for_a_node_that_hangs(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as d, talker(d, "ana") as ana:
        ana.reads("connected to lobby")
        d.signal(signal.SIGSTOP)
        try:
            assert ana.interrupted() == 0
        finally:
            d.signal(signal.SIGCONT)


def test_who_is_thrown_out_hears_why_and_stays_out(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as d:
        with talker(d, "ana") as ana:
            ana.reads("connected to lobby")
            d.ask("kick", "ana", "--reason", "enough")
            ana.reads("chatd: enough (4500)")
            assert ana.ended() == 1
        d.ask("ban", "add", "ana")
        with talker(d, "ana") as ana:
            ana.reads("chatd: banned (4502)")
            assert ana.ended() == 1


def test_who_shows_anothers_token_is_not_let_in(tmp_path: Path) -> None:
    with (
        cluster(tmp_path, nodes=1) as [d],
        talker(d, "ana", "--token-file", str(written(tmp_path, token("ben")))) as ana,
    ):
        ana.reads("chatd: not let in: the token is not for the user named in the path (403)")
        assert ana.ended() == 1


@pytest.mark.parametrize("text", ["", "two secrets", "a secret\nin lines", "secret\0"])
def test_what_is_no_token_is_said_in_a_sentence_that_does_not_tell_it(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    arguments = ["--url", "ws://127.0.0.1:1", "--token-file", str(file)]
    done = subprocess.run([*CHATD, "chat", "ana", *arguments], input="", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"chatd: expected a token and no more in {file}, got ")
    assert "secret" not in done.stderr


def test_who_talks_by_token_comes_back_at_another_node_and_says_what_was_typed_meanwhile(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes, talker(nodes[0], "ana") as ana:
        ana.reads("connected to lobby as ana")
        left, other = nodes if address_of_the_only_one(nodes[0]) == nodes[0].address else nodes[::-1]
        left.process.terminate()
        ana.reads("coming back")
        ana.says("still here")
        ana.reads("connected again to lobby as ana")
        with talker(other, "ben", "--token-file", str(written(tmp_path, token("ben")))) as ben:
            ben.reads("connected to lobby")
            ana.says("and now")
            ben.reads("ana: and now")
        said = [each["data"]["text"] for each in other.ask("history", "lobby")["messages"]]
        assert said == ["still here", "and now"]


def address_of_the_only_one(daemon: Daemon) -> str:
    """Where the cluster's only connection is."""
    [here] = daemon.ask("who")["connections"]
    return next(str(node["address"]) for node in daemon.ask("status")["nodes"] if node["id"] == here["node"])


def written(directory: Path, text: str) -> Path:
    file = directory / "token"
    file.write_text(f"{text}\n")
    return file


def test_where_nobody_is_one_sentence_says_so(tmp_path: Path) -> None:
    for url, code, sentence in (
        ("ws://127.0.0.1:1", 3, "expected a chatd at ws://127.0.0.1:1, got: Connection refused"),
        ("ws://nobody.invalid", 3, "expected a chatd at ws://nobody.invalid, got: Name or service not known"),
        ("http://127.0.0.1", 2, "expected a URL like wss://chat.example, got 'http://127.0.0.1'"),
        ("ws://127.0.0.1:99999", 2, "expected a URL like wss://chat.example, got 'ws://127.0.0.1:99999'"),
        ("ws://chat..example", 2, "expected a URL like wss://chat.example, got 'ws://chat..example'"),
    ):
        done = subprocess.run([*CHATD, "chat", "ana", "--url", url], input="", capture_output=True, text=True)
        assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr


def test_whose_certificate_is_not_trusted_and_who_sends_elsewhere_is_named(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with (
        running(tmp_path, "--port", "0", CHATD_TLS__CERTIFICATE=cert, CHATD_TLS__KEY=key) as d,
        answering(b"HTTP/1.1 301 Moved\r\nLocation: https://chat.example/\r\nContent-Length: 0\r\n\r\n") as elsewhere,
        answering(b"HTTP/1.1 404 No\r\nContent-Length: 900\r\n\r\n" + b"<p>" * 300) as page,
    ):
        for url, code, sentence in (
            (f"wss://{d.address}", 3, "got: a certificate that is not to be trusted, self-signed certificate"),
            (f"ws://{elsewhere}", 3, "got: a redirection to https://chat.example/, which is no WebSocket's"),
            (f"ws://{page}", 1, f"chatd: not let in: {'<p>' * 66}<p (404)"),
        ):
            done = subprocess.run([*CHATD, "chat", "ana", "--url", url], input="", capture_output=True, text=True)
            assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr


@contextmanager
def answering(response: bytes) -> Iterator[str]:
    """The address of a server that has this to say to the first who asks it anything."""

    def answer() -> None:
        with listener.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(response)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        answerer = Thread(target=answer)
        answerer.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        answerer.join()


def test_top_draws_the_status_again_and_again_until_interrupted(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as d:
        terminal, end = pty.openpty()
        with os.fdopen(terminal, "rb", buffering=0) as screen, os.fdopen(end, "wb") as stdout:
            top = subprocess.Popen([*CHATD, "top", "--every", "100ms"], env={**d.environ, "LINES": "4"}, stdout=stdout)
            shown = b""
            while shown.count(b"1 node, 0 connections") < 2:
                shown += screen.read(4096)
            d.process.terminate()
            while b"start one with `chatd serve`" not in shown:
                shown += screen.read(4096)
            top.send_signal(signal.SIGINT)
            assert top.wait(timeout=20) == 0
    assert max(drawn.count(b"\n") for drawn in shown.split(ANEW.encode())) == 3  # and the cursor is in the fourth
    done = subprocess.run([*CHATD, "top"], env=d.environ, capture_output=True, text=True)
    assert (done.returncode, "expected a terminal to draw on" in done.stderr) == (1, True)
