"""What is said in rooms: by everybody who may, once, with what the server says of it where nobody can forge it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Daemon
from tests.people import Refused, cluster, person


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, ...]]:
    with cluster(tmp_path_factory.mktemp("messages"), '[rooms."private-*"]\npublic = false\n') as both:
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
    ],
)
async def test_what_cannot_be_done_is_refused_in_a_sentence(
    nodes: tuple[Daemon, ...], method: str, data: dict[str, object], code: int, says: str
) -> None:
    async with person(nodes[0], "ana") as ana:
        with pytest.raises(Refused, match=says) as refused:
            await ana.call(method, **data)
        assert refused.value.code == code
