"""Signed messages: nobody signs for another, what was signed cannot be changed, and it counts once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from chatd.auth import Signatures, Signed, SigningKey
from chatd.cli import main
from chatd.errors import Reject
from tests.conftest import Daemon
from tests.people import Refused, cluster, person

NOW = 1_800_000_000.0
SECRET = "the back end's secret for signatures, of more than thirty-two bytes"
NEW, OLD = SigningKey("new", SECRET.encode()), SigningKey("old", SECRET[::-1].encode(), accept_until=NOW + 10)
CHECK = Signatures([NEW, OLD])

README = Path(__file__).parents[1] / "README.md"


def signature(
    key: SigningKey = NEW, *, user: str = "ana", what: str = "chatd-message-v1", room: str = "lobby", cid: str = "c-1",
    text: str = "hi", at: float = NOW, nonce: str = "nonce-01",
) -> str:  # fmt: skip
    """As the head of auth/signatures.py describes it, written anew."""
    ts = str(int(at))
    parts = [part.encode() for part in (what, room, cid, ts, nonce, text)]
    signed = b"".join(str(len(part)).encode() + b":" + part + b"," for part in parts)
    own = hmac.new(key.secret, b"chatd-sign-v1\0" + user.encode(), hashlib.sha256).digest()
    return f"{key.kid}:{ts}:{nonce}:{hmac.new(own, signed, hashlib.sha256).hexdigest()}"


def checked(sig: str, *, user: str = "ana", room: str = "lobby", cid: str = "c-1", text: str = "hi") -> str:
    return CHECK.check(sig, what=Signed.MESSAGE, user=user, room=room, cid=cid, text=text, now=NOW)


def test_what_was_signed_is_taken_and_its_nonce_told() -> None:
    assert checked(signature()) == "nonce-01"
    assert checked(signature(OLD)) == "nonce-01"


@pytest.mark.parametrize(
    ("sig", "says"),
    [
        (signature(text="ho"), "not of this text by this user"),
        (signature(room="den"), "not of this text by this user"),
        (signature(cid="c-2"), "not of this text by this user"),
        (signature(user="ben"), "not of this text by this user"),
        (signature(what="chatd-edit-v1"), "not of this text by this user"),
        (signature(SigningKey("new", OLD.secret)), "not of this text by this user"),
        (signature(room="lobb", cid="yc-1"), "not of this text by this user"),
        (signature().replace(":nonce-01:", ":nonce-02:"), "not of this text by this user"),
        (signature().replace(f":{int(NOW)}:", f":{int(NOW) + 1}:"), "not of this text by this user"),
        (signature(at=NOW - 301), "another time"),
        (signature(at=NOW + 301), "another time"),
        (signature(SigningKey("stranger", SECRET.encode())), '"stranger" is not, or no longer, known'),
        (signature().upper(), "expected a signature kid:ts:nonce:hex"),
        (signature()[:-1], "expected a signature kid:ts:nonce:hex"),
        (signature(nonce="short"), "expected a signature kid:ts:nonce:hex"),
        (signature(nonce="n" * 65), "expected a signature kid:ts:nonce:hex"),
        (signature().replace(f":{int(NOW)}:", ":-1:"), "expected a signature kid:ts:nonce:hex"),
        (signature().replace(f":{int(NOW)}:", ":٣:"), "expected a signature kid:ts:nonce:hex"),
        (signature() + "\n", "expected a signature kid:ts:nonce:hex"),
        ("", "expected a signature kid:ts:nonce:hex"),
    ],
)
def test_what_was_not_signed_so_is_refused(sig: str, says: str) -> None:
    with pytest.raises(Reject, match=says) as refusal:
        checked(sig)
    assert refusal.value.code == 407


@pytest.mark.parametrize("skew", [-300, 0, 300])
def test_clocks_may_differ_by_five_minutes(skew: int) -> None:
    assert checked(signature(at=NOW + skew))


def test_an_old_key_is_taken_until_its_date() -> None:
    def at(now: float) -> str:
        sig = signature(OLD, at=NOW + 10)
        return CHECK.check(sig, what=Signed.MESSAGE, user="ana", room="lobby", cid="c-1", text="hi", now=now)

    assert at(NOW + 9.9)
    with pytest.raises(Reject, match='"old" is not, or no longer, known'):
        at(NOW + 10)


@pytest.mark.parametrize("text", ["", "größe 日本 🦊", "7:a,b", "\0", 'a"b\\c', "e\u0301"])
def test_any_text_can_be_signed(text: str) -> None:
    assert checked(signature(text=text), text=text)


def test_a_secret_is_not_shown() -> None:
    assert SECRET not in repr(NEW)


# --- in rooms ---------------------------------------------------------------------------------------------------------

CONFIG = f"""
[[signatures.keys]]
kid = "new"
secret = "{SECRET}"
[[signatures.keys]]
kid = "past"
secret = "{SECRET[::-1]}"
accept_until = 2020-01-01
[rooms."signed-*"]
signatures = "required"
[rooms."maybe-*"]
signatures = "optional"
[rooms."masked-*"]
signatures = "optional"
words = ["darn"]
on_word = "mask"
[rooms."clean-*"]
words = ["darn"]
words_file = "words.txt"
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    directory = tmp_path_factory.mktemp("signatures")
    (directory / "words.txt").write_text("Heck\nvery bad\n")
    with cluster(directory, CONFIG) as both:
        yield both


def now_signed(**parts: str) -> str:
    return signature(at=time.time(), **parts)  # type: ignore[arg-type]


async def test_a_signed_message_counts_once_on_all_nodes(nodes: tuple[Daemon, ...]) -> None:
    room = "signed-once"
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ana") as elsewhere:
        sig = now_signed(room=room)
        first = await ana.call("message.send", room=room, text="hi", cid="c-1", sig=sig)
        assert await elsewhere.call("message.send", room=room, text="hi", cid="c-1", sig=sig) == first
        again = now_signed(room=room, cid="c-2", text="other")
        with pytest.raises(Refused, match="used before") as replayed:
            await elsewhere.call("message.send", room=room, text="other", cid="c-2", sig=again)
        assert replayed.value.code == 409
        assert (await ana.ask(history={"channel": room}))["offset"] == 1


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, 408),
        ({"sig": now_signed(room="signed-no")}, 407),  # no cid
        ({"cid": "c-1", "sig": now_signed(room="signed-no", text="tampered")}, 407),
        ({"cid": "c-1", "sig": now_signed(room="signed-no", user="ben")}, 407),
        ({"cid": "c-1", "sig": signature(SigningKey("past", SECRET[::-1].encode()), room="signed-no", at=time.time())},
         407),
        ({"cid": "c-1", "sig": signature(room="signed-no", at=time.time() - 400)}, 407),
    ],
)  # fmt: skip
async def test_nothing_is_stored_of_what_is_not_signed_as_the_room_wants(
    nodes: tuple[Daemon, ...], more: dict[str, str], code: int
) -> None:
    async with person(nodes[0], "ana") as ana:
        for command in (
            {"rpc": {"method": "message.send", "data": {"room": "signed-no", "text": "hi", **more}}},
            {"publish": {"channel": "signed-no", "data": {"text": "hi", **more}}},
        ):
            with pytest.raises(Refused) as refused:
                await ana.ask(**command)
            assert refused.value.code == code
        history = await ana.ask(history={"channel": "signed-no", "limit": 1})
        assert history["offset"] == 0
        assert not history.get("publications")


async def test_where_signatures_are_optional_one_that_comes_must_be_right(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana:
        await ana.says("maybe-1", "hi")
        with pytest.raises(Refused) as refused:
            await ana.says("maybe-1", "hi", cid="c-1", sig=now_signed(room="maybe-2"))
        assert refused.value.code == 407
        await ana.says("lobby", "hi", sig="not looked at")


async def test_an_edit_is_signed_for_the_message_that_it_changes(nodes: tuple[Daemon, ...]) -> None:
    room = "signed-edit"
    async with person(nodes[0], "ana") as ana:
        offsets = [
            await ana.says(room, "hi", cid=cid, sig=now_signed(room=room, cid=cid, nonce=f"nonce-{cid}"))
            for cid in ("c-1", "c-2")
        ]
        sig = now_signed(what="chatd-edit-v1", room=room, cid=str(offsets[0]), text="ho", nonce="for-edit")
        for offset, more, code in [(offsets[0], {}, 408), (offsets[1], {"sig": sig}, 407)]:
            with pytest.raises(Refused) as refused:
                await ana.call("message.edit", room=room, offset=offset, text="ho", **more)
            assert refused.value.code == code
        await ana.call("message.edit", room=room, offset=offsets[0], text="ho", sig=sig)
        with pytest.raises(Refused) as replayed:
            await ana.call("message.edit", room=room, offset=offsets[0], text="ho", sig=sig)
        assert replayed.value.code == 409


# --- words ------------------------------------------------------------------------------------------------------------


async def test_a_room_refuses_its_words_in_messages_and_edits(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana:
        said = await ana.says("clean-1", "darning")
        for text in ("oh DARN", "what the heck", "Very  bad"):
            with pytest.raises(Refused) as refused:
                await ana.says("clean-1", text)
            assert refused.value.code == 414
            with pytest.raises(Refused) as refused:
                await ana.call("message.edit", room="clean-1", offset=said, text=text)
            assert refused.value.code == 414
        with pytest.raises(Refused):
            await ana.ask(publish={"channel": "clean-1", "data": {"text": "hi", "subject": ["oh darn"]}})


@pytest.mark.parametrize("room", ["clean-2", "masked-2"])
async def test_a_rooms_words_come_by_no_other_way(nodes: tuple[Daemon, ...], room: str) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ben.joins(room)
        said = await ana.says(room, "hi")
        with pytest.raises(Refused) as refused:
            await ana.call("message.react", room=room, offset=said, kind="oh DARN")
        assert refused.value.code == 414
        await ana.call("message.react", room=room, offset=said, kind="👍")
        await ana.call("message.delete", room=room, offset=said, reason="a darn typo")
        assert (await ben.hears("delete"))["data"] == {"reason": "a **** typo"}


async def test_a_room_masks_its_words_where_no_signature_breaks_by_it(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ben.joins("masked-1")
        said = await ana.says("masked-1", "oh darn!", data={"mood": "bad"})
        assert (await ben.hears("message"))["data"] == {"text": "oh ****!", "mood": "bad"}
        await ana.call("message.edit", room="masked-1", offset=said, text="DARN")
        assert (await ben.hears("edit"))["data"] == {"text": "****"}
        sig = now_signed(room="masked-1", text="darn")
        for data in ({"text": "darn", "cid": "c-1", "sig": sig}, {"text": "hi", "darn": 1}, "darn"):
            with pytest.raises(Refused) as refused:
                await ana.ask(publish={"channel": "masked-1", "data": data})
            assert refused.value.code == 414


# --- the README's helpers ---------------------------------------------------------------------------------------------


def snippet(language: str) -> str:
    """The block of code in the README that signs."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    [found] = [block for block in blocks if "chatd-message-v1" in block]
    return found


def in_python(*arguments: str) -> str:
    names: dict[str, Callable[..., str]] = {}
    exec(snippet("python"), names)
    return names["sign"](*arguments)


def in_javascript(*arguments: str) -> str:
    program = snippet("js") + f"\nconsole.log(await sign(...{json.dumps(arguments)}));"
    done = subprocess.run(
        ["node", "--input-type=module", "-"], input=program, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("helper", [in_python, in_javascript])
async def test_the_readmes_helpers_sign_what_chatd_takes(nodes: tuple[Daemon, ...], helper: Callable[..., str]) -> None:
    room, cid, text = f"signed-{helper.__name__}", "c-1", "größe 🦊, 7:a"
    key = CliRunner().invoke(main, [*nodes[0].arguments[:2], "token", "signing-key", "--user", "ana"])
    assert key.exit_code == 0, key.output
    sig = await asyncio.to_thread(helper, key.stdout.strip(), "new", room, cid, text)
    async with person(nodes[0], "ana") as ana:
        assert await ana.says(room, text, cid=cid, sig=sig) == 1


def test_no_key_is_printed_where_none_is_accepted(nodes: tuple[Daemon, ...]) -> None:
    arguments = [*nodes[0].arguments[:2], "token", "signing-key", "--user", "ana", "--kid", "past"]
    assert CliRunner().invoke(main, arguments).exit_code == 78
