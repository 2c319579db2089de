"""What becomes of messages in the store after they were said, on every kind of server (stores.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatd.errors import LOCKDOWN, Reject
from chatd.model import Json, Kind, Position, Role, Speaker
from chatd.store.changes import Change, Notes, What
from chatd.store.messages import BEYOND, KINDS, Keep
from chatd.store.redis import Store
from chatd.store.tail import Tail
from tests.stores import FOR_EVER, heard, in_milliseconds

HOUR_MS = 3_600_000
ANA, BEN, MODERATOR = Speaker("ana"), Speaker("ben"), Speaker("mia", Role.MODERATOR)


def head(text: str, user: str = "ana", **tags: str) -> bytes:
    info = {"user": user, "client": "c1", "conn_info": {"name": "N"}}
    return json.dumps({"data": {"text": text}, "info": info, "tags": tags}).removesuffix("}").encode()


async def say(store: Store, text: str, by: Speaker = ANA, keep: Keep = FOR_EVER, **more: Any) -> int:
    published, _ = await store.messages.publish("lobby", head(text, by.user, type="message"), keep, by=by, **more)
    assert published.position is not None
    return published.position.offset


async def change(
    store: Store, what: What, of: int, by: Speaker | None = ANA, text: str = "", keep: Keep = FOR_EVER, **how: Any
) -> int:
    event = head(text, by.user if by else "", type=what, of=str(of))
    published, _ = await store.changes.make(
        "lobby", Change(what, of, **{"window_ms": HOUR_MS, **how}), event, keep, by=by
    )
    assert published.position is not None
    return published.position.offset


async def read(store: Store, **how: Any) -> list[dict[str, Any]]:
    page = await store.messages.history("lobby", 0, **{"after": 0, "limit": 100, **how})
    return [json.loads(body) for body in page.publications]


async def offsets(store: Store, **how: Any) -> list[int]:
    return [publication["offset"] for publication in await read(store, **how)]


async def stored(store: Store) -> str:
    """All that the log's bytes in the store say, erased or not; the test's server does not compress."""
    dump: Json | None = await store.batch.command("DUMP", store.keys.log("lobby"))
    return (dump or b"").decode(errors="replace")


async def test_beyond_every_offset_there_is_nothing_and_before_it_is_all(store: Store) -> None:
    await say(store, "hi")
    for far in (10**14, BEYOND - 1, 1 << 60):
        after = await store.messages.history("lobby", HOUR_MS, after=far, limit=10)
        before = await store.messages.history("lobby", HOUR_MS, after=far, limit=10, reverse=True)
        assert (len(after.publications), len(before.publications)) == (0, 1)


async def test_where_the_count_was_lost_it_begins_anew_without_what_was_there(store: Store) -> None:
    for _ in range(3):
        await say(store, "hi")
    await store.batch.command("DEL", store.keys.meta("lobby"))
    assert await say(store, "anew") == 1
    assert await offsets(store) == [1]


async def test_the_count_outlives_the_messages(store: Store) -> None:
    await say(store, "hi", keep=Keep(1000, 1000))
    count, messages = [await store.batch.command("PTTL", key) for key in store.keys.history("lobby")[:2]]
    assert 0 < messages <= 1250 < count


async def test_what_is_said_again_where_nothing_is_kept_is_heard_once(store: Store) -> None:
    async with heard(store, "lobby", history=False) as events:
        answers = [
            await store.messages.publish("lobby", head(text), Keep(0, 0), ("ana", "c-1")) for text in ("hi", "again")
        ]
    assert [body["data"]["text"] for _, body in events] == ["hi"]
    assert [fresh for _, fresh in answers] == [True, False]
    assert answers[0][0] == answers[1][0]


async def test_where_it_is_slow_what_comes_too_soon_is_refused(store: Store) -> None:
    await store.batch.command("HSET", store.keys.room("lobby"), "slow", 60_000)
    await say(store, "hi")
    with pytest.raises(Reject, match="slow") as refused:
        await say(store, "again")
    assert refused.value.retry_after_ms
    await say(store, "I, too", BEN)


async def test_a_cursor_goes_back_only_where_the_count_has_begun_anew(store: Store) -> None:
    moves = [("a", 2), ("a", 1), ("a", 3), ("b", 1)]
    moved = [await store.cursors.move("ana", "lobby", Position(*to)) for to in moves]
    assert moved == [(2, True), (2, False), (3, True), (1, True)]
    assert await store.cursors.of("ana", ["lobby"]) == [Position("b", 1)]


class TestChanges:
    # --- edits --------------------------------------------------------------------------------------------------------

    async def test_an_edit_is_an_event_of_its_own_and_the_last_one_holds(self, store: Store) -> None:
        said = await say(store, "helo")
        async with heard(store, "lobby") as events:
            assert [await change(store, What.EDIT, said, text=text) for text in ("hello", "hello!")] == [2, 3]
        assert [(kind, body["tags"], body["offset"]) for kind, body in events] == [
            (Kind.PUBLICATION, {"type": "edit", "of": "1"}, offset) for offset in (2, 3)
        ]
        (notes,) = await store.changes.notes("lobby", [said])
        assert notes.edit is not None
        assert json.loads(notes.edit)["data"] == {"text": "hello!"}

    async def test_only_the_author_edits_and_only_in_time(self, store: Store) -> None:
        said = await say(store, "hi")
        for somebody in (BEN, MODERATOR):
            with pytest.raises(Reject, match="somebody else's"):
                await change(store, What.EDIT, said, somebody, "no")
        await in_milliseconds(5)
        with pytest.raises(Reject, match="too late"):
            await change(store, What.EDIT, said, text="no", window_ms=1)
        assert await store.changes.notes("lobby", [said]) == [Notes(None, {})]
        assert await offsets(store) == [1]

    @pytest.mark.parametrize("reverse", [False, True])
    async def test_whoever_folds_the_history_is_not_given_all_the_texts_that_hold_no_more(
        self, store: Store, reverse: bool
    ) -> None:
        said = await say(store, "helo")
        for text in ("hell", "hello"):
            await change(store, What.EDIT, said, text=text)
        await change(store, What.REACT, said, BEN, kind="👍")
        await say(store, "bye")
        entries, top = await store.messages.to_fold(
            "lobby", 0, after=None if reverse else 0, limit=10, reverse=reverse, floor=0
        )
        texts = [(offset, body and json.loads(body)["data"]["text"]) for offset, body in entries]
        whole = [(1, "helo"), (2, b""), (3, b""), (4, b""), (5, "bye")]
        assert (texts, top.offset) == (whole[::-1] if reverse else whole, 5)

    # --- deletions ----------------------------------------------------------------------------------------------------

    async def test_a_deleted_message_leaves_a_tombstone_at_its_offset(self, store: Store) -> None:
        await say(store, "before")
        said = await say(store, "secret")
        event = await change(store, What.DELETE, said)
        tombstone = (await read(store))[1]
        time = tombstone.pop("time")
        assert tombstone == {
            "data": {}, "info": {"user": "ana", "client": "c1"}, "tags": {"type": "deleted"}, "offset": said
        }  # fmt: skip
        assert time > 1_700_000_000_000
        assert await offsets(store) == [1, said, event]
        assert await offsets(store, after=None, limit=2, reverse=True) == [event, said]

    async def test_the_bodies_of_all_its_edits_go_with_a_message(self, store: Store) -> None:
        said = await say(store, "secret 1")
        await change(store, What.EDIT, said, text="secret 2")
        await say(store, "between")
        await change(store, What.EDIT, said, text="secret 3")
        await change(store, What.REACT, said, BEN, kind="👍")
        await change(store, What.DELETE, said)
        everything = await read(store)
        assert "secret" not in json.dumps(everything)
        assert [publication["offset"] for publication in everything] == [1, 2, 3, 4, 5, 6]
        assert [everything[n]["tags"] for n in (0, 1, 3)] == [
            {"type": "deleted"}, {"type": "deleted", "of": "1"}, {"type": "deleted", "of": "1"}
        ]  # fmt: skip
        assert await store.changes.notes("lobby", [said]) == [Notes(None, {})]

    async def test_a_sweep_takes_erased_bodies_out_of_the_stores_memory(self, store: Store) -> None:
        said = await say(store, "secret")
        await say(store, "other")
        assert "secret" in await stored(store)
        await change(store, What.DELETE, said)
        before = await read(store)
        assert (await store.retention.sweep("lobby", FOR_EVER)).rewritten
        assert "secret" not in await stored(store)
        assert await read(store) == before
        assert not (await store.retention.sweep("lobby", FOR_EVER)).rewritten
        assert await say(store, "goes on") == 4

    async def test_the_oldest_message_and_the_only_one_can_be_deleted(self, store: Store) -> None:
        said = await say(store, "first")
        (first,) = await read(store)
        await change(store, What.DELETE, said)
        assert await offsets(store) == [1, 2]
        assert (await read(store))[0]["epoch"] == first["epoch"], "who came before any message learns it here"
        await change(store, What.DELETE, await say(store, "third"))
        assert await offsets(store) == [1, 2, 3, 4]

    async def test_a_repeated_deletion_does_nothing_and_is_answered(self, store: Store) -> None:
        said = await say(store, "hi")
        assert [await change(store, What.DELETE, said) for _ in range(2)] == [2, 2]
        for what in (What.EDIT, What.REACT):
            with pytest.raises(Reject, match="deleted"):
                await change(store, what, said, kind="x")

    async def test_a_moderator_deletes_anything_at_any_time_and_others_their_own_in_time(self, store: Store) -> None:
        first, second, third = [await say(store, text) for text in ("1", "2", "3")]
        with pytest.raises(Reject, match="somebody else's"):
            await change(store, What.DELETE, first, BEN)
        await in_milliseconds(5)
        with pytest.raises(Reject, match="too late"):
            await change(store, What.DELETE, first, window_ms=1)
        await change(store, What.DELETE, first, MODERATOR, window_ms=0)
        await change(store, What.DELETE, second, None, window_ms=0)
        await store.batch.command("HSET", store.keys.room("lobby"), "public", 1)
        await store.batch.command("HSET", store.keys.members("lobby"), "ben", "3 0 0")
        await change(store, What.DELETE, third, BEN)
        assert [publication["tags"]["type"] for publication in await read(store)] == ["deleted"] * 3 + ["delete"] * 3

    # --- reactions ----------------------------------------------------------------------------------------------------

    async def test_reactions_are_counted_by_kind_once_for_each_user(self, store: Store) -> None:
        said = await say(store, "hi")
        for by, kind in [(ANA, "👍"), (BEN, "👍"), (BEN, "👍🏽"), (BEN, "ok"), (ANA, "o")]:
            await change(store, What.REACT, said, by, kind=kind)
        top = await change(store, What.REACT, said, BEN, kind="ok")
        assert (await store.changes.notes("lobby", [said]))[0].reactions == {"o": 1, "ok": 1, "👍": 2, "👍🏽": 1}
        assert (await offsets(store))[-1] == top == 6, "what is there already is not put there again"

    async def test_a_reaction_can_be_taken_back_by_who_gave_it(self, store: Store) -> None:
        said = await say(store, "hi")
        await change(store, What.REACT, said, ANA, kind="x")
        assert await change(store, What.REACT, said, BEN, kind="x", on=False) == 2, "there was none of ben's"
        assert await change(store, What.REACT, said, ANA, kind="x", on=False) == 3
        assert (await store.changes.notes("lobby", [said]))[0].reactions == {}

    async def test_a_message_has_only_so_many_kinds_and_any_number_of_each(self, store: Store) -> None:
        said = await say(store, "hi")
        for n in range(KINDS):
            await change(store, What.REACT, said, kind=f"k{n}")
        with pytest.raises(Reject, match="at most 20 kinds"):
            await change(store, What.REACT, said, kind="one more")
        await change(store, What.REACT, said, BEN, kind="k7")
        await change(store, What.REACT, said, kind="k1", on=False)
        await change(store, What.REACT, said, kind="one more")

    # --- what there is to change --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("what", What)
    async def test_only_messages_that_are_there_can_be_changed(self, store: Store, what: What) -> None:
        said = await say(store, "hi")
        event = await change(store, What.REACT, said, kind="x")
        for of in (event, 99):
            with pytest.raises(Reject, match="no such message"):
                await change(store, what, of, kind="x")

    async def test_a_message_past_its_age_can_not_be_changed(self, store: Store) -> None:
        said = await say(store, "hi")
        await in_milliseconds(5)
        with pytest.raises(Reject, match="no such message"):
            await change(store, What.EDIT, said, text="no", keep=Keep(1000, 1))

    async def test_a_reply_names_a_message_that_is_there(self, store: Store) -> None:
        said = await say(store, "hi")
        assert await say(store, "yes?", reply_to=said) == 2
        with pytest.raises(Reject, match="no such message"):
            await say(store, "no", reply_to=99)
        await change(store, What.DELETE, said)
        with pytest.raises(Reject, match="deleted"):
            await say(store, "no", reply_to=said)

    async def test_what_the_server_did_is_no_message(self, store: Store) -> None:
        told, _ = await store.messages.publish("lobby", head("topic", type="room"), FOR_EVER)
        assert told.position is not None
        with pytest.raises(Reject, match="no such message"):
            await say(store, "no", reply_to=told.position.offset)
        with pytest.raises(Reject, match="no such message"):
            await change(store, What.DELETE, told.position.offset)

    async def test_who_may_not_speak_may_not_change_anything_either(self, store: Store) -> None:
        said = await say(store, "hi")
        await store.batch.command("HSET", store.keys.room("lobby"), "public", 0, "locked", 1, "slow", 60_000)
        with pytest.raises(Reject, match="invitation"):
            await change(store, What.REACT, said, kind="x")
        member = Speaker("ana", Role.MEMBER)
        with pytest.raises(Reject, match="locked"):
            await change(store, What.EDIT, said, member, "no")
        await store.batch.command("HSET", store.keys.room("lobby"), "locked", 0)
        with pytest.raises(Reject, match="no such message"):
            await change(store, What.EDIT, 99, member, "no")
        await change(store, What.REACT, said, member, kind="x")
        with pytest.raises(Reject, match="slow") as refused:
            await change(store, What.EDIT, said, member, "no")
        assert refused.value.retry_after_ms
        await change(store, What.DELETE, said, member)

    async def test_moderators_speak_where_it_is_slow_or_locked_as_fast_as_they_like(self, store: Store) -> None:
        await store.batch.command("HSET", store.keys.room("lobby"), "locked", 1, "slow", 60_000)
        for text in ("hi", "all"):
            await say(store, text, MODERATOR)

    async def test_a_lockdown_silences_whoever_is_less_than_it_wants(self, store: Store) -> None:
        await say(store, "hi", Speaker("mia", Role.MODERATOR, least=Role.MODERATOR))
        with pytest.raises(Reject) as refused:
            await say(store, "hi", Speaker("ana", Role.MEMBER, least=Role.MODERATOR))
        assert refused.value == LOCKDOWN

    @pytest.mark.parametrize("user", ["o'neil", 'a"b', "größe 🦊", "a\\b", "a/b", '","time":1,"of":"', "ana,ben"])
    async def test_any_user_can_change_what_is_theirs(self, store: Store, user: str) -> None:
        by = Speaker(user)
        said = await say(store, "hi", by)
        await change(store, What.EDIT, said, by, "hi!")
        await change(store, What.REACT, said, by, kind="x")
        await change(store, What.DELETE, said, by)
        tombstone = (await read(store))[0]
        assert tombstone["info"]["user"] == user
        assert await offsets(store) == [1, 2, 3, 4]
        page = await store.messages.history("lobby", HOUR_MS, after=0, limit=10)
        assert len(page.publications) == 4, "its age is read from it rightly"

    # --- what is kept -------------------------------------------------------------------------------------------------

    async def test_only_so_many_offsets_are_kept_deleted_ones_included(self, store: Store) -> None:
        keep = Keep(4, 0)
        for n in range(1, 4):
            await say(store, str(n), keep=keep)
        await change(store, What.REACT, 1, kind="x", keep=keep)
        await change(store, What.DELETE, 2, keep=keep)
        assert await offsets(store) == [2, 3, 4, 5]
        assert await store.batch.command("ZCARD", store.keys.notes("lobby")) == 0, "what was noted of 1 went with it"
        await say(store, "6", keep=keep)
        assert await offsets(store) == [3, 4, 5, 6]
        assert await store.batch.command("ZCARD", store.keys.gone("lobby")) == 0, "and so did the tombstone of 2"

    async def test_tombstones_are_as_old_as_what_they_stand_for(self, store: Store) -> None:
        await change(store, What.DELETE, await say(store, "1"))
        await say(store, "3")
        await in_milliseconds(30)
        await say(store, "4")
        page = await store.messages.history("lobby", 20, after=0, limit=10)
        assert [json.loads(body)["offset"] for body in page.publications] == [4]

    async def test_what_is_noted_ages_away_with_the_messages(self, store: Store) -> None:
        said = await say(store, "hi", keep=Keep(1000, 60_000))
        await change(store, What.REACT, said, kind="x", keep=Keep(1000, 60_000))
        await change(store, What.DELETE, await say(store, "3", keep=Keep(1000, 60_000)), keep=Keep(1000, 60_000))
        assert [await store.batch.command("PTTL", key) > 0 for key in store.keys.history("lobby")] == [True] * 4
        await say(store, "hi")
        assert [await store.batch.command("PTTL", key) for key in store.keys.history("lobby")] == [-1] * 4

    async def test_before_a_hole_of_somebody_elses_making_there_is_no_history(self, store: Store) -> None:
        for n in range(1, 7):
            await say(store, str(n))
        await store.batch.command("XDEL", store.keys.log("lobby"), "3-0")
        assert await offsets(store) == [4, 5, 6]
        assert await offsets(store, after=None, reverse=True) == [6, 5, 4]

    async def test_history_is_paged_over_tombstones_without_a_seam(self, store: Store) -> None:
        for n in range(1, 11):
            await say(store, str(n))
        for n in (1, 2, 5, 10):
            await change(store, What.DELETE, n)
        forwards, backwards = [], []
        while page := await offsets(store, after=forwards[-1] if forwards else 0, limit=3):
            forwards += page
        while page := await offsets(store, after=backwards[-1] if backwards else None, limit=3, reverse=True):
            backwards += page
        assert forwards == backwards[::-1] == list(range(1, 15))

    # --- sweeping -----------------------------------------------------------------------------------------------------

    async def test_a_sweep_trims_by_count_and_by_age_what_nobody_writes_into_any_more(self, store: Store) -> None:
        for n in range(1, 6):
            await say(store, str(n))
        await change(store, What.REACT, 1, kind="x")
        assert (await store.retention.sweep("lobby", Keep(3, 0))).trimmed == 3
        assert await offsets(store) == [4, 5, 6]
        assert await store.batch.command("EXISTS", store.keys.notes("lobby")) == 0
        await in_milliseconds(20)
        await say(store, "7")
        assert (await store.retention.sweep("lobby", Keep(1000, 15))).trimmed == 3
        assert await offsets(store) == [7]
        assert (await store.retention.sweep("lobby", Keep(0, 0))).trimmed == 1
        assert await say(store, "8") == 8

    async def test_every_room_of_which_something_is_kept_is_found(self, store: Store) -> None:
        rooms = {"lobby", "with {braces}", "%7B", "größe 🦊", "#ana", "dm#a,b", ":log", "x}:log"}
        for room in rooms:
            await store.messages.publish(room, b'{"data":1', FOR_EVER)
        assert {room async for found in store.retention.rooms("log") for room in found} == rooms

    # --- those who were away ------------------------------------------------------------------------------------------

    async def test_a_node_fills_a_gap_with_tombstones(self, store: Store) -> None:
        for n in (1, 3):
            await change(store, What.DELETE, await say(store, str(n)))
        tail = Tail()
        _, top = await store.messages.page("lobby", None, 0)
        tail.place(Position(top.epoch, 0))
        page, top = await store.messages.page("lobby", 0, 10)
        events, lost = tail.fill(Position(top.epoch, 0), page, top)
        assert lost is None
        assert [event.position for event in events] == [Position(top.epoch, n) for n in (1, 2, 3, 4)]
