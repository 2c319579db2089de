"""The chat page as people meet it: a real browser before a real `chatd serve`."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.browser import Browser, Tab, chromium, missing_programs
from tests.people import connected

Daemon = Callable[..., AbstractContextManager[Any]]

# A browser and a server have to start for each of them, and some start the server twice.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if missing := missing_programs():
        sentence = f"this test needs a browser: apt-get install {' '.join(missing)}"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    with chromium(tmp_path / "profile") as started:
        yield started


def come_in(browser: Browser, url: str, user: str = "") -> Tab:
    tab = browser.open(f"{url}/?user={user}" if user else f"{url}/")
    tab.until(tab.state, shows="connected")
    return tab


def test_two_tabs_talk(browser: Browser, daemon: Daemon, tmp_path: Path) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        ana, bob = come_in(browser, chatd.url, "ana"), come_in(browser, chatd.url, "bob")
        ana.say("is anybody here?")
        bob.until(bob.texts, shows=["is anybody here?"])
        bob.say("I am")
        for tab in ana, bob:
            tab.until(tab.texts, shows=["is anybody here?", "I am"])
            tab.until(tab.waiting, shows=[])
        assert ana.mine() == ["is anybody here?"]
        assert bob.mine() == ["I am"]


def test_edits_are_shown_and_what_was_deleted_goes_now_and_after_a_reload(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        bob = come_in(browser, chatd.url, "bob")
        asyncio.run(change_ones_mind(chatd))
        for _ in range(2):
            bob.until(bob.texts, shows=["hello", "nothing of note"])
            assert bob.run("return document.querySelectorAll('.message.edited').length") == 1
            bob.reload()
            bob.until(bob.state, shows="connected")
        assert browser.complaints() == []


async def change_ones_mind(chatd: Any) -> None:
    """Somebody speaks, corrects himself, takes something back and reacts, as an SDK would have him do."""
    async with connected(chatd, data={"user": "ana"}) as ana:
        for text in ("helo", "a secret", "nothing of note"):
            await ana.says("lobby", text)
        await ana.call("message.edit", room="lobby", offset=1, text="hello")
        await ana.call("message.delete", room="lobby", offset=2)
        await ana.call("message.react", room="lobby", offset=3, kind="👍")


def test_everybody_in_the_room_is_listed_oneself_first(browser: Browser, daemon: Daemon, tmp_path: Path) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        bob, ana = come_in(browser, chatd.url, "bob"), come_in(browser, chatd.url, "ana")
        bob.until(bob.people, shows=["bob", "ana"])
        ana.until(ana.people, shows=["ana", "bob"])


def test_who_came_anew_before_his_leave_was_told_is_gone_when_he_goes(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        ana, bob = come_in(browser, chatd.url, "ana"), come_in(browser, chatd.url, "bob")
        ana.until(ana.people, shows=["ana", "bob"])
        bob.reload()
        bob.until(bob.state, shows="connected")
        chatd.cli("kick", "bob")
        ana.until(ana.whisper, shows="bob left.")
        assert ana.people() == ["ana"]


def test_what_operators_say_and_do_is_told_as_theirs(browser: Browser, daemon: Daemon, tmp_path: Path) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        ana = come_in(browser, chatd.url, "ana")
        chatd.cli("send", "lobby", "tea is ready")
        ana.until(ana.texts, shows=["tea is ready"])
        assert ana.run("return document.querySelector('.message .name').textContent") == "the server"
        chatd.cli("ban", "add", "ana", "--reason", "flood")
        ana.until(ana.farewell, shows="You are banned. The reason given: flood.")


def test_who_is_taken_out_of_the_room_sees_nobody_there_until_he_is_back(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        ana, bob = come_in(browser, chatd.url, "ana"), come_in(browser, chatd.url, "bob")
        bob.until(bob.people, shows=["bob", "ana"])
        chatd.cli("kick", "bob", "--room", "lobby", "--reason", "caps")
        bob.until(bob.farewell, shows="You were taken out of this room. The reason given: caps.")
        assert bob.people() == []
        bob.run("document.querySelector('#farewell button').click()")
        bob.until(bob.people, shows=["bob", "ana"])
        assert bob.farewell() == ""
        chatd.cli("ban", "add", "bob", "--room", "lobby", "--reason", "flood")
        bob.until(bob.people, shows=[])
        bob.run("document.querySelector('#farewell button').click()")
        banned = "You may not be in this room. The reason given: banned from this room: flood."
        bob.until(bob.farewell, shows=banned)
        ana.until(ana.people, shows=["ana"])


def test_who_may_not_speak_now_is_told_why_and_whether_it_will_come(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        bob = come_in(browser, chatd.url, "bob")
        chatd.cli("mute", "add", "bob", "--reason", "caps")
        bob.say("HELLO")
        told = ["You may not speak here. The reason given: muted: caps."]
        bob.until(bob.trouble, shows=told)
        chatd.cli("mute", "rm", "bob")
        chatd.cli("room", "lock", "lobby")
        bob.say("hello?")
        told.append("Only moderators speak here for now. The reason given: the room is locked.")
        bob.until(bob.trouble, shows=told)
        chatd.cli("room", "unlock", "lobby")
        chatd.cli("room", "slow", "lobby", "2s")
        bob.say("one")
        bob.say("two")
        bob.until(bob.whisper, shows="This room is slow: your message follows when it is your turn.")
        bob.until(bob.waiting, shows=[])


def test_who_is_refused_at_the_door_is_told_why_and_comes_in_once_it_is_open(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        chatd.cli("lockdown", "3")
        bob = browser.open(f"{chatd.url}/?user=bob")
        told = "The server does not let this page in; trying again. The reason given: {}."
        bob.until(bob.whisper, shows=told.format("lockdown: nobody new is let in for now"))
        assert bob.state() == "reconnecting…"
        chatd.cli("lockdown", "0")
        bob.until(bob.state, shows="connected")
        assert bob.whisper() == ""


def test_a_page_of_another_origin_is_told_that_it_may_not_connect(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        bob = browser.open(f"{chatd.url.replace('127.0.0.1', 'chat.localhost')}/?user=bob")
        reason = "pages of this origin may not connect; see server.origins"
        bob.until(bob.whisper, shows=f"The server does not let this page in; trying again. The reason given: {reason}.")


def test_who_waits_for_a_turn_in_a_slow_room_speaks_once_it_is_slow_no_more(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        bob = come_in(browser, chatd.url, "bob")
        chatd.cli("room", "slow", "lobby", "10m")
        bob.say("one")
        bob.say("two")
        bob.until(bob.whisper, shows="This room is slow: your message follows when it is your turn.")
        chatd.cli("room", "slow", "lobby", "0s")
        bob.until(bob.waiting, shows=[])


def test_two_tabs_opened_without_a_name_are_two_people_and_stay_who_they_are(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        one, other = come_in(browser, chatd.url), come_in(browser, chatd.url)
        name = one.name()
        assert name != other.name()
        one.reload()
        one.until(one.name, shows=name)


def test_the_command_for_a_terminal_goes_through_a_shell_as_one_word_whatever_the_room_is_called(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        tab = browser.open(f"{chatd.url}/?user=ana&room=it%27s")
        tab.until(tab.state, shows="connected")
        typed = tab.run("return document.querySelector('#terminal').textContent")
        assert shlex.split(typed) == ["websocat", f"{chatd.ws}/chat/terminal?room=it%27s"]


def test_markup_is_shown_as_the_text_it_is_and_the_browser_has_no_complaints(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    markup = """<img src=x onerror="document.title='owned'"><b>bold</b>&amp;"""
    with daemon(tmp_path, "--port", "0") as chatd:
        ana, bob = come_in(browser, chatd.url, "ana"), come_in(browser, chatd.url, "<i>bob</i>")
        bob.say(markup)
        ana.until(ana.texts, shows=[markup])
        ana.until(ana.people, shows=["ana", "<i>bob</i>"])
        assert not ana.has("#log img, #log b, #people i")
        assert "owned" not in ana.run("return document.title")
        assert browser.complaints() == []


def test_a_reload_shows_what_was_said_before(browser: Browser, daemon: Daemon, tmp_path: Path) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        ana = come_in(browser, chatd.url, "ana")
        for text in "one", "two":
            ana.say(text)
        ana.until(ana.waiting, shows=[])
        ana.reload()
        ana.until(ana.texts, shows=["one", "two"])
        assert ana.mine() == ["one", "two"]


def test_who_types_faster_than_the_server_allows_loses_nothing_and_keeps_the_order(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        ana, bob = come_in(browser, chatd.url, "ana"), come_in(browser, chatd.url, "bob")
        said = [f"number {number}" for number in range(30)]  # the default limit takes twenty at once
        for text in said:
            ana.say(text)
        for tab in ana, bob:
            tab.until(tab.texts, shows=said)
            tab.until(tab.waiting, shows=[])


def test_after_a_crash_of_the_server_what_was_missed_and_what_waited_are_shown_once(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        ana = come_in(browser, chatd.url, "ana")
        ana.say("before")
        ana.until(ana.waiting, shows=[])
        ana.go_offline()
        chatd.kill()
    ana.until(ana.state, shows="reconnecting…")
    ana.say("said into the dark")
    with daemon(tmp_path, "--port", chatd.url.rpartition(":")[2]) as chatd:
        bob = come_in(browser, chatd.url, "bob")
        bob.say("said while she was away")
        bob.until(bob.waiting, shows=[])
        assert ana.waiting() == ["said into the dark"]
        ana.go_online()
        for tab in ana, bob:
            tab.until(tab.texts, shows=["before", "said while she was away", "said into the dark"])
            tab.until(tab.waiting, shows=[])
        ana.until(ana.state, shows="connected")


def test_a_message_whose_acknowledgement_was_lost_is_shown_once(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0") as chatd:
        ana, bob = come_in(browser, chatd.url, "ana"), come_in(browser, chatd.url, "bob")
        ana.go_offline()
        ana.lose_the_next_answer()
        ana.say("did you get this?")
        bob.until(bob.texts, shows=["did you get this?"])
        assert ana.waiting() == ["did you get this?"]
        ana.go_online()
        ana.until(ana.waiting, shows=[])
        ana.say("once?")
        for tab in ana, bob:
            tab.until(tab.texts, shows=["did you get this?", "once?"])


SECRET = "0123456789abcdef0123456789abcdef"


def keyed(directory: Path) -> str:
    config = directory / "chatd.toml"
    config.write_text(f'[[auth.keys]]\nkid = "main"\nalgorithm = "HS256"\nsecret = "{SECRET}"\n')
    return str(config)


def signed(user: str, **claims: Any) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + 600, **claims}, SECRET, "HS256", {"kid": "main"})


def test_a_server_with_keys_asks_for_a_token_and_the_token_says_who_one_is(
    browser: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    with daemon(tmp_path, "--port", "0", "--config", keyed(tmp_path)) as chatd:
        tab = browser.open(f"{chatd.url}/?user=root")
        tab.until(tab.asks_for_token, shows=True)
        assert tab.farewell() == "This server wants to know who you are."
        tab.give_token("made up")
        tab.until(tab.farewell, shows="The server does not accept this token.")
        tab.give_token(signed("tina"))
        tab.until(tab.people, shows=["tina"])
        assert tab.name() == "tina"
        tab.reload()
        tab.until(tab.state, shows="connected")


def test_whose_token_was_revoked_is_asked_for_another(browser: Browser, daemon: Daemon, tmp_path: Path) -> None:
    with daemon(tmp_path, "--port", "0", "--config", keyed(tmp_path)) as chatd:
        tab = browser.open(f"{chatd.url}/")
        tab.until(tab.asks_for_token, shows=True)
        tab.give_token(signed("tina", jti="t-1"))
        tab.until(tab.people, shows=["tina"])
        chatd.cli("token", "revoke", "--jti", "t-1")
        tab.until(tab.asks_for_token, shows=True)
        assert tab.farewell() == "Your token was revoked."
        tab.give_token(signed("tina", jti="t-2"))
        tab.until(tab.people, shows=["tina"])
