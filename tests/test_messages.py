"""What is said in rooms: by everybody who may, once, with what the server says of it where nobody can forge it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Daemon
from tests.people import Refused, cluster, may, person, plain, token
from tests.sdk import sdk_client, subscribed

CONFIG = """
[rooms."private-*"]
public = false
[rooms."hasty-*"]
edit_window = 0
[rooms."fleeting-*"]
history = 0
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("messages"), CONFIG) as both:
        yield both


async def test_what_is_sent_by_method_is_heard_on_the_other_node(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ben.joins("sent")
        answer = await ana.call("message.send", room="sent", text="hi", cid="c-1", data={"mood": "good", "text": "no"})
        heard = await ben.hears("message")
        assert heard["data"] == {"mood": "good", "text": "hi", "cid": "c-1"}
        assert (heard["offset"], heard["time"], heard["info"]["user"]) == (answer["offset"], answer["time"], "ana")


async def test_a_repeated_send_returns_the_first_answer(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ana") as elsewhere:
        first = await ana.call("message.send", room="repeated", text="hi", cid="c-1")
        assert await elsewhere.call("message.send", room="repeated", text="hi", cid="c-1") == first
        assert await ana.says("repeated", "other", cid="c-2") == first["offset"] + 1


async def test_what_the_server_says_of_a_message_cannot_be_brought_along(nodes: tuple[Daemon, ...]) -> None:
    forged = {"user": "eve", "offset": 99, "time": 1, "tags": {"type": "join"}, "id": 7, "info": {"user": "eve"}}
    async with person(nodes[0], "ana") as ana:
        await ana.joins("forged")
        await ana.call("message.send", room="forged", text="hi", **forged)
        heard = await ana.hears("message")
        assert heard["data"] == {"text": "hi"}
        assert (heard["info"]["user"], heard["offset"], heard["tags"]) == ("ana", 1, {"type": "message"})


@pytest.mark.parametrize(
    ("method", "data", "code", "says"),
    [
        ("message.sned", {}, 108, "there is no method 'message.sned'"),
        ("message.send", {"room": "x"}, 107, "text"),
        ("message.send", {"room": "x", "text": 7}, 107, "Expected `str`, got `int`"),
        ("message.send", {"room": "", "text": "hi"}, 107, "name of a room"),
        ("message.send", {"room": "private-1", "text": "hi"}, 103, "invitation"),
        ("message.send", {"room": "#ana", "text": "hi"}, 103, "only the server"),
        ("message.send", {"room": "x", "text": "hi", "reply_to": 2}, 404, "no such message"),
        ("message.send", {"room": "x", "text": "hi", "reply_to": 1 << 64}, 404, "no such message"),
    ],
)
async def test_what_cannot_be_done_is_refused_in_a_sentence(
    nodes: tuple[Daemon, ...], method: str, data: dict[str, object], code: int, says: str
) -> None:
    async with person(nodes[0], "ana") as ana:
        with pytest.raises(Refused, match=says) as refused:
            await ana.call(method, **data)
        assert refused.value.code == code


# --- what becomes of messages -----------------------------------------------------------------------------------------


async def test_an_edit_is_heard_on_the_other_node_and_by_the_plain_door(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ben.joins("edited", join_leave=True)
        async with plain(nodes[1], "cem", "edited") as cem:
            while (await ben.sees("join"))["info"]["user"] != "cem":
                pass
            said = await ana.says("edited", "helo")
            event = await ana.call("message.edit", room="edited", offset=said, text="hello")
            heard = await ben.hears("edit")
            assert (heard["offset"], heard["data"], heard["tags"]) == (
                event["offset"], {"text": "hello"}, {"type": "edit", "of": str(said)}
            )  # fmt: skip
            assert [await cem.recv(), await cem.recv()] == ["ana: helo", "ana: hello (edited)"]


async def test_readers_who_recover_see_the_same_end_state_as_readers_who_were_there(nodes: tuple[Daemon, ...]) -> None:
    room = "recovered"
    async with person(nodes[0], "ana") as ana, person(nodes[1], "mia", rooms=may("moderator", room)) as mia:
        there = await ana.joins(room, recover=True)
        first = [await ana.says(room, text) for text in ("1", "2", "3", "4")]
        await ana.call("message.edit", room=room, offset=2, text="2, edited")
        await ana.call("message.edit", room=room, offset=3, text="3, edited")
        await mia.call("message.react", room=room, offset=2, kind="👍")
        await ana.call("message.delete", room=room, offset=3)
        await mia.call("message.delete", room=room, offset=1, reason="spam")
        last = await ana.says(room, "5")
        heard = [await ana.publication(room) for _ in range(last)]
        assert [each["offset"] for each in heard] == list(range(1, last + 1))
        # ben was away from the beginning, cem since the fourth message, dan since the deletion of the third.
        for user, since in (("ben", 0), ("cem", len(first)), ("dan", last - 2)):
            async with person(nodes[1], user) as late:
                joined = await late.joins(room, recover=True, offset=since, epoch=there["epoch"])
                assert joined["recovered"]
                missed = joined["publications"]
                assert [each["offset"] for each in missed] == list(range(since + 1, last + 1))
                assert state(heard[:since] + missed) == state(heard)
        assert state(heard) == {
            1: ("ana", None, ()), 2: ("ana", "2, edited", (("mia", "👍"),)), 3: ("ana", None, ()),
            4: ("ana", "4", ()), last: ("ana", "5", ()),
        }  # fmt: skip


async def test_the_official_sdk_recovers_what_became_of_messages_while_it_was_away(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, sdk_client(nodes[1].sdk, token=token("ben")) as (ben, _):
        _, heard = await subscribed(ben, "sdk", recoverable=True)
        for text in ("helo", "a secret"):
            await ana.says("sdk", text)
            assert (await heard.next("publication")).pub.data == {"text": text}
        await ben.disconnect()
        await ana.says("sdk", "another secret")
        await ana.call("message.edit", room="sdk", offset=1, text="hello")
        for offset in (2, 3):
            await ana.call("message.delete", room="sdk", offset=offset)
        await ben.connect()
        missed = [(await heard.next("publication")).pub for _ in range(4)]
        assert [(each.offset, each.tags, each.data) for each in missed] == [
            (3, {"type": "deleted"}, {}), (4, {"type": "edit", "of": "1"}, {"text": "hello"}),
            (5, {"type": "delete", "of": "2"}, {}), (6, {"type": "delete", "of": "3"}, {}),
        ]  # fmt: skip
        folded = (await ben.rpc("message.history", {"room": "sdk"})).data["messages"]
        assert [(each["text"], each["deleted"]) for each in folded] == [("hello", False), (None, True), (None, True)]


async def test_a_deleted_message_is_nowhere_to_be_read_any_more(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ben.joins("erased")
        said = await ana.says("erased", "a secret")
        await ana.call("message.edit", room="erased", offset=said, text="another secret")
        await ana.call("message.delete", room="erased", offset=said)
        heard = await ben.hears("delete")
        assert (heard["data"], heard["tags"]["of"]) == ({}, "1")
        history = await ben.ask(history={"channel": "erased", "limit": 100})
        folded = await ben.call("message.history", room="erased")
        assert "secret" not in f"{history}{folded}"
        assert [each["tags"]["type"] for each in history["publications"]] == ["deleted", "deleted", "delete"]


async def test_messages_are_read_as_they_stand_now(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ana.says("folded", "helo", data={"mood": "good"})
        await ben.says("folded", "gone")
        await ben.says("folded", "hi ana", reply_to=1)
        await ana.call("message.edit", room="folded", offset=1, text="hello")
        await ben.call("message.delete", room="folded", offset=2)
        for somebody, kind in ((ana, "👍"), (ben, "👍"), (ben, "🎉"), (ana, "🎉")):
            await somebody.call("message.react", room="folded", offset=3, kind=kind)
        await ana.call("message.react", room="folded", offset=3, kind="🎉", on=False)
        answer = await ben.call("message.history", room="folded")
        times = [message.pop("time") for message in answer["messages"]]
        assert times == sorted(times)
        assert answer["next"] is None
        assert answer["messages"] == [
            {"offset": 1, "user": "ana", "text": "hello", "data": {"mood": "good", "text": "hello"}, "edited": True,
             "deleted": False, "reply_to": None, "reactions": {}},
            {"offset": 2, "user": "ben", "text": None, "data": None, "edited": False, "deleted": True,
             "reply_to": None, "reactions": {}},
            {"offset": 3, "user": "ben", "text": "hi ana", "data": {"text": "hi ana", "reply_to": 1}, "edited": False,
             "deleted": False, "reply_to": 1, "reactions": {"👍": 2, "🎉": 1}},
        ]  # fmt: skip


async def test_numbers_of_any_size_stand_in_messages_as_they_were_sent(nodes: tuple[Daemon, ...]) -> None:
    sizes = {"wei": 10**24, "least": -(10**24)}
    async with person(nodes[0], "ana") as ana:
        await ana.says("numbers", "one", data=sizes)
        await ana.says("numbers", "two", data=sizes)
        await ana.call("message.edit", room="numbers", offset=2, text="three")
        one, three = (await ana.call("message.history", room="numbers"))["messages"]
        assert (one["data"], three["data"]) == ({**sizes, "text": "one"}, {**sizes, "text": "three"})


async def test_messages_as_they_stand_are_paged_both_ways(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana:
        said = []
        for n in range(7):
            said.append(await ana.says("paged", str(n)))
            await ana.call("message.react", room="paged", offset=said[-1], kind="x")

        async def read(**how: int | None) -> tuple[list[int], int | None]:
            answer = await ana.call("message.history", room="paged", **how)
            return [message["offset"] for message in answer["messages"]], answer["next"]

        forward, after = await read(after=0, limit=3)
        while after is not None:
            more, after = await read(after=after, limit=3)
            forward += more
        backward, before = await read(limit=3)
        while before is not None:
            more, before = await read(before=before, limit=3)
            backward = more + backward
        assert forward == backward == said
        assert await read(after=said[0], before=said[3]) == (said[1:3], None)


async def test_who_is_mentioned_and_belongs_to_the_room_or_is_there_hears_of_it_and_nobody_else(
    nodes: tuple[Daemon, ...],
) -> None:
    async with (
        person(nodes[0], "ana") as ana,
        person(nodes[1], "present") as present,
        person(nodes[1], "outsider") as outsider,
    ):
        await present.joins("mentioned", join_leave=True)
        await present.sees("join")
        said = await ana.says("mentioned", "look!", mentions=["outsider", "present", "ana", "nobody"], cid="c-1")
        notice = await present.hears("mention", "#present")
        assert (notice["tags"], notice["data"], notice["info"]["user"]) == (
            {"type": "mention", "room": "mentioned", "of": str(said)}, {}, "ana"
        )  # fmt: skip
        await ana.says("mentioned", "look!", mentions=["present"], cid="c-1")
        await ana.says("mentioned", "done")
        await present.hears("message", "mentioned")
        top = [await each.ask(history={"channel": f"#{user}", "limit": 9}) for each, user in
               ((present, "present"), (outsider, "outsider"), (ana, "ana"))]  # fmt: skip
        assert [len(history["publications"]) for history in top] == [1, 0, 0]


async def test_the_other_one_of_a_direct_room_is_mentioned_without_being_there(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana, person(nodes[1], "ben") as ben:
        await ana.says("dm#ana,ben", "ben?", mentions=["ben", "cem"])
        assert (await ben.hears("mention"))["tags"]["room"] == "dm#ana,ben"


@pytest.mark.parametrize(
    ("who", "method", "data", "code", "says"),
    [
        ("ben", "message.edit", {"offset": 1, "text": "no"}, 103, "somebody else's"),
        ("mia", "message.edit", {"offset": 1, "text": "no"}, 103, "somebody else's"),
        ("ben", "message.delete", {"offset": 1}, 103, "somebody else's"),
        ("ana", "message.edit", {"offset": 1}, 107, "text"),
        ("ana", "message.edit", {"offset": 1, "text": "x" * 9000}, 413, "at most 8192 bytes"),
        ("ana", "message.edit", {"offset": 99, "text": "no"}, 404, "no such message"),
        ("ana", "message.edit", {"offset": -1, "text": "no"}, 404, "no such message"),
        ("ana", "message.delete", {"offset": 1 << 60}, 404, "no such message"),
        ("ana", "message.edit", {"offset": 2, "text": "no"}, 410, "deleted"),
        ("ana", "message.react", {"offset": 2, "kind": "x"}, 410, "deleted"),
        ("ana", "message.react", {"offset": 1, "kind": ""}, 107, "1 to 32 bytes"),
        ("ana", "message.react", {"offset": 1, "kind": "👍" * 9}, 107, "1 to 32 bytes"),
        ("ana", "message.react", {"offset": 1, "kind": "x\0y"}, 107, "1 to 32 bytes"),
        ("ana", "message.send", {"text": "no", "reply_to": 99}, 404, "no such message"),
        ("ana", "message.send", {"text": "no", "reply_to": 2}, 410, "deleted"),
        ("ana", "message.history", {"before": -1}, 107, "offsets"),
        ("ana", "message.history", {"before": 0}, 107, "before and after are offsets"),
    ],
)
async def test_what_may_not_be_changed_is_refused_in_a_sentence(
    nodes: tuple[Daemon, ...], who: str, method: str, data: dict[str, Any], code: int, says: str
) -> None:
    async with (
        person(nodes[0], "ana") as ana,
        person(nodes[1], who, rooms=may("moderator", *["x"] * (who == "mia"))) as one,
    ):
        if not (await ana.ask(history={"channel": "x", "limit": 1}))["publications"]:
            await ana.says("x", "hi")
            await ana.says("x", "gone")
            await ana.call("message.delete", room="x", offset=2)
        with pytest.raises(Refused, match=says) as refused:
            await one.call(method, room="x", **data)
        assert refused.value.code == code


async def test_the_time_for_changing_ones_words_ends_and_a_moderators_does_not(nodes: tuple[Daemon, ...]) -> None:
    room = "hasty-1"
    async with person(nodes[0], "ana") as ana, person(nodes[1], "mia", rooms=may("moderator", room)) as mia:
        said = await ana.says(room, "hi")
        for method in ("message.edit", "message.delete"):
            with pytest.raises(Refused, match="too late") as refused:
                await ana.call(method, room=room, offset=said, text="no")
            assert refused.value.code == 411
        await mia.call("message.delete", room=room, offset=said)


async def test_in_a_room_without_history_nothing_can_be_changed(nodes: tuple[Daemon, ...]) -> None:
    async with person(nodes[0], "ana") as ana:
        for method, data in (("message.react", {"offset": 1, "kind": "x"}), ("message.history", {})):
            with pytest.raises(Refused, match="keeps no history"):
                await ana.call(method, room="fleeting-1", **data)


Text = tuple[str | None, str | None, tuple[tuple[str, str], ...]]


def state(publications: list[dict[str, Any]]) -> dict[int, Text]:
    """What a client knows after these: of each message its author, its text (None: deleted) and who reacted how."""
    texts: dict[int, tuple[str | None, str | None]] = {}
    reactions: dict[int, tuple[int, str, str]] = {}  # by the event's offset
    for publication in publications:
        offset, kind, data = publication["offset"], publication["tags"]["type"], publication["data"]
        user = publication.get("info", {}).get("user")
        about = [int(of) for of in publication["tags"].get("of", "").split(",") if of]
        if kind in ("message", "deleted") and not about:
            texts[offset] = (user, data.get("text"))
        for of in about:
            if kind == "edit":
                texts[of] = (texts[of][0], data["text"])
            elif kind == "delete":
                if of in texts:
                    texts[of] = (texts[of][0], None)
                reactions = {event: each for event, each in reactions.items() if of not in (event, each[0])}
            elif kind == "react":
                reactions = {event: each for event, each in reactions.items() if each != (of, user, data["kind"])}
                if data["on"]:
                    reactions[offset] = (of, user, data["kind"])
    return {
        message: (*text, tuple(sorted(each[1:] for each in reactions.values() if each[0] == message)))
        for message, text in texts.items()
    }
