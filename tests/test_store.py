"""What every store promises, shown on real servers: one, a cluster of three, a Sentinel group (stores.py)."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from redis.asyncio import Redis

from chatd import control
from chatd.chat.living import Living
from chatd.control import Alive, Answers, Kick, Relay, Status
from chatd.errors import FULL, Reject
from chatd.measures import Lockdown, Measure, On, What
from chatd.model import Kind, Position
from chatd.store.connect import servers
from chatd.store.errors import StoreUnavailable
from chatd.store.messages import Keep
from chatd.store.redis import Registration, Store
from chatd.store.reports import Report
from tests.servers import redis_sentinel, redis_server
from tests.stores import FOR_EVER, PATIENCE_S, head, heard, in_milliseconds, listening, opened, texts

ANYBODY = 1000
Published: TypeAlias = Callable[[int], Awaitable[None]]
INFO = b'{"user":"ana","client":"c1"}'

# Rooms whose names could break out of a hash tag, a key or a channel.
ROOMS = [
    "lobby",
    "a room",
    "with {braces}",
    "}{",
    "{}",
    "%7B",
    "größe-日本-🦊",
    "dm#ana,ben",
    "#ana",
    ":meta",
    "x" * 255,
]


def registration(user: str = "ana", client: str = "c1", lease: str = "n.1") -> Registration:
    return Registration(user, client, lease, ip="192.0.2.1", since=1764000000.5, door="sdk")


class TestStore:
    """The contract. Every kind of server keeps all of it."""

    # --- messages -----------------------------------------------------------------------------------------------------

    async def test_messages_are_numbered_one_two_three_within_one_epoch(self, store: Store) -> None:
        published = [(await store.messages.publish("lobby", head("hi"), FOR_EVER))[0] for _ in range(3)]
        positions = [p.position for p in published if p.position is not None]
        assert [p.offset for p in positions] == [1, 2, 3]
        assert len({p.epoch for p in positions}) == 1
        assert published[0].time_ms <= published[1].time_ms <= published[2].time_ms

    async def test_a_message_is_kept_as_sent_with_offset_and_time_and_the_first_names_the_epoch(
        self, store: Store
    ) -> None:
        (first, _), (second, _) = [
            await store.messages.publish("lobby", head(text), FOR_EVER) for text in ("one", "two")
        ]
        page = await store.messages.history("lobby", 0, after=0, limit=10)
        assert first.position is not None
        assert [json.loads(body) for body in page.publications] == [
            {"data": "one", "offset": 1, "time": first.time_ms, "epoch": first.position.epoch},
            {"data": "two", "offset": 2, "time": second.time_ms},
        ]

    async def test_publishers_at_the_same_time_get_each_number_once(self, store: Store, url: str, prefix: str) -> None:
        async with opened(url, prefix) as other:
            each = [s.messages.publish("lobby", head("hi"), FOR_EVER) for s in (store, other) for _ in range(100)]
            published = await asyncio.gather(*each)
        assert sorted(p.position.offset for p, _ in published if p.position) == list(range(1, 201))

    async def test_a_repeated_cid_returns_the_first_answer_and_does_nothing(self, store: Store) -> None:
        first, fresh = await store.messages.publish("lobby", head("hi"), FOR_EVER, ("ana", "c-1"))
        assert fresh
        await store.messages.publish("lobby", head("between"), FOR_EVER)
        async with heard(store, "lobby") as events:
            again, fresh = await store.messages.publish("lobby", head("hi"), FOR_EVER, ("ana", "c-1"))
        assert (again, fresh) == (first, False)
        assert events == []
        assert texts((await store.messages.history("lobby", 0, after=0, limit=10)).publications) == [
            "hi",
            "between",
            "over",
        ]

    async def test_a_cid_is_its_authors_own(self, store: Store) -> None:
        for user, cid in [("a", "b:c"), ("a:b", "c"), ("ben", "b:c")]:
            _, fresh = await store.messages.publish("lobby", head("hi"), FOR_EVER, (user, cid))
            assert fresh
        _, fresh = await store.messages.publish("kitchen", head("hi"), FOR_EVER, ("a", "b:c"))
        assert fresh, "in another room it is another message"

    async def test_a_repeated_cid_is_known_without_history_too(self, store: Store) -> None:
        first = await store.messages.publish("lobby", head("hi"), Keep(0, 0), ("ana", "c-1"))
        assert await store.messages.publish("lobby", head("hi"), Keep(0, 0), ("ana", "c-1")) == (first[0], False)

    async def test_only_so_many_messages_are_kept(self, store: Store) -> None:
        for n in range(1, 8):
            await store.messages.publish("lobby", head(str(n)), Keep(3, 0))
        page = await store.messages.history("lobby", 0, after=0, limit=10)
        assert texts(page.publications) == ["5", "6", "7"]
        assert page.top.offset == 7

    async def test_messages_past_their_age_are_not_shown_and_then_gone(self, store: Store) -> None:
        for n in range(1, 4):
            await store.messages.publish("lobby", head(str(n)), Keep(1000, 60_000))
        await in_milliseconds(30)
        await store.messages.publish("lobby", head("4"), Keep(1000, 60_000))
        assert texts((await store.messages.history("lobby", 20, after=0, limit=10)).publications) == ["4"]
        await store.retention.sweep("lobby", Keep(1000, 20))
        left = texts((await store.messages.history("lobby", 0, after=0, limit=10)).publications)
        assert not {"1", "2", "3"} & set(left)

    async def test_a_message_lives_its_time_whenever_the_one_before_it_was_said(self, store: Store) -> None:
        for keep_ms in (60_000, 60_000, 90_000, 0, 60_000):
            await store.messages.publish("lobby", head("hi"), Keep(1000, keep_ms))
            left = await store.batch.command("PTTL", store.keys.log("lobby"))
            assert left == -1 if keep_ms == 0 else left >= keep_ms

    async def test_the_count_goes_on_when_all_messages_have_aged_away(self, store: Store) -> None:
        first, _ = await store.messages.publish("lobby", head("1"), Keep(1000, 1))
        await in_milliseconds(10)
        assert first.position is not None
        page = await store.messages.history("lobby", 1, after=0, limit=10)
        assert (page.publications, page.top) == ((), first.position)
        second, _ = await store.messages.publish("lobby", head("2"), Keep(1000, 60_000))
        assert second.position == Position(first.position.epoch, 2)

    async def test_a_room_without_history_has_no_positions_and_is_heard_all_the_same(self, store: Store) -> None:
        async with heard(store, "lobby", history=False) as events:
            published, fresh = await store.messages.publish("lobby", head("hi"), Keep(0, 0))
            assert (published.position, fresh) == (None, True)
        assert events == [(Kind.PUBLICATION, {"data": "hi", "time": published.time_ms})]

    async def test_listening_to_a_room_without_history_leaves_no_trace_in_the_store(self, store: Store) -> None:
        async with heard(store, "lobby", history=False):
            await store.messages.publish("lobby", head("hi"), Keep(0, 0))
            assert store.feed.position("lobby") is None
        assert await store.batch.command("EXISTS", store.keys.meta("lobby")) == 0

    # --- history ------------------------------------------------------------------------------------------------------

    async def test_history_is_paged_forwards_and_backwards(self, store: Store) -> None:
        for n in range(1, 8):
            await store.messages.publish("lobby", head(str(n)), FOR_EVER)

        async def page(after: int | None, reverse: bool = False) -> list[str]:
            return texts((await store.messages.history("lobby", 0, after=after, limit=3, reverse=reverse)).publications)

        assert [await page(n) for n in (None, 0, 3, 6, 7)] == [
            ["1", "2", "3"],
            ["1", "2", "3"],
            ["4", "5", "6"],
            ["7"],
            [],
        ]
        assert [await page(n, True) for n in (None, 5, 2, 1)] == [["7", "6", "5"], ["4", "3", "2"], ["1"], []]

    async def test_no_limit_means_the_top_alone(self, store: Store) -> None:
        published, _ = await store.messages.publish("lobby", head("hi"), FOR_EVER)
        page = await store.messages.history("lobby", 0)
        assert (page.publications, page.top) == ((), published.position)

    async def test_reading_an_empty_room_begins_the_epoch_that_its_first_message_has(self, store: Store) -> None:
        top = (await store.messages.history("lobby", 0)).top
        published, _ = await store.messages.publish("lobby", head("hi"), FOR_EVER)
        assert top.offset == 0
        assert published.position == Position(top.epoch, 1)

    async def test_a_room_that_was_only_looked_at_is_forgotten_and_one_that_is_kept_for_ever_is_not(
        self, store: Store
    ) -> None:
        await store.messages.history("lobby", 0)
        assert await store.batch.command("PTTL", store.keys.meta("lobby")) > 0
        await store.messages.publish("lobby", head("hi"), FOR_EVER)
        assert await store.batch.command("PTTL", store.keys.meta("lobby")) == -1

    @pytest.mark.parametrize("room", ROOMS)
    async def test_a_room_may_have_any_name(self, store: Store, room: str) -> None:
        async with heard(store, room) as events:
            await store.messages.publish(room, head("hi"), FOR_EVER, ("ana", "c"))
            await store.presence.join(room, "n.1", "ana", "c1", INFO, ANYBODY)
            assert await store.presence.of(room) == {"c1": INFO}
            assert await store.presence.leave(room, "n.1", ANYBODY) == 1
        assert [kind for kind, _ in events] == [Kind.PUBLICATION, Kind.JOIN, Kind.LEAVE]

    async def test_rooms_with_names_alike_do_not_mix(self, store: Store) -> None:
        for room in ROOMS:
            await store.messages.publish(room, head(room), FOR_EVER)
        for room in ROOMS:
            assert texts((await store.messages.history(room, 0, after=0, limit=10)).publications) == [room]

    # --- the registry of connections ----------------------------------------------------------------------------------

    async def test_what_was_registered_is_read_back_until_it_is_unregistered(self, store: Store) -> None:
        entries = [registration(), registration("ana", "c2"), registration('"ünï\x00\n', "c3", "m.1")]
        for entry in entries:
            assert await store.register(entry, 0)
        assert Counter(await store.registered()) == Counter(entries)
        await store.unregister("ana", "c1")
        await store.unregister("ana", "c1")
        assert Counter(await store.registered()) == Counter(entries[1:])

    async def test_no_more_than_the_limit_get_in_even_all_at_once(self, store: Store, url: str, prefix: str) -> None:
        async with opened(url, prefix) as other:
            each = [
                s.register(registration("ana", f"{i}-{n}"), 10) for i, s in enumerate((store, other)) for n in range(25)
            ]
            assert sum(await asyncio.gather(*each)) == 10
        assert len(await store.registered()) == 10

    async def test_the_limit_counts_one_user_alone(self, store: Store) -> None:
        assert await store.register(registration("ana", "c1"), 1)
        assert not await store.register(registration("ana", "c2"), 1)
        for user in ("an", "anab", "Ana", 'ana"'):
            assert await store.register(registration(user, user), 1)
        await store.unregister("ana", "c1")
        assert await store.register(registration("ana", "c2"), 1)

    async def test_a_dead_nodes_connections_are_purged_and_no_others(self, store: Store) -> None:
        for n in range(20):
            await store.register(registration(f"user {n}", f"c{n}", "n.1" if n % 2 else "n.11"), 0)
        assert [await store.purge("n.1") for _ in range(2)] == [10, 0]
        assert {entry.lease for entry in await store.registered()} == {"n.11"}

    # --- leases -------------------------------------------------------------------------------------------------------

    async def test_a_node_is_alive_while_its_lease_runs(self, store: Store) -> None:
        await store.enroll("n.1", 60_000, {"id": "n"})
        assert await store.renew("n.1", 60_000, {"id": "n", "state": "ready"})
        assert await store.nodes() == {"n.1": {"id": "n", "state": "ready"}}
        assert await store.claim("n.1") is None
        await store.bury("n.1")
        assert await store.nodes() == {}
        assert not await store.renew("n.1", 60_000, {})

    async def test_a_lease_that_ended_is_not_renewed(self, store: Store) -> None:
        await store.enroll("n.1", 1, {})
        await in_milliseconds(10)
        assert not await store.renew("n.1", 60_000, {})
        assert await store.nodes() == {}
        assert not await store.renew("never enrolled", 60_000, {})

    async def test_a_dead_node_is_claimed_by_exactly_one(self, store: Store, url: str, prefix: str) -> None:
        await store.enroll("dead.1", 1, {})
        alive = [f"alive{n}.1" for n in range(20)]
        for lease in alive:
            await store.enroll(lease, 60_000, {})
        await in_milliseconds(10)
        async with opened(url, prefix) as other:
            claims = await asyncio.gather(*((store, other)[n % 2].claim(lease) for n, lease in enumerate(alive)))
        assert Counter(claims) == {"dead.1": 1, None: 19}

    async def test_each_claimant_has_another_node(self, store: Store) -> None:
        alive = [f"alive{n}.1" for n in range(4)]
        for lease in alive:
            await store.enroll(lease, 60_000, {})
        for n in range(3):
            await store.enroll(f"dead{n}.1", 1, {})
        await in_milliseconds(10)
        assert {await store.claim(lease) for lease in alive} == {"dead0.1", "dead1.1", "dead2.1", None}

    async def test_whoever_was_not_told_what_he_claimed_claims_the_same_again_under_any_lease(
        self, store: Store
    ) -> None:
        for lease in ("alive.1", "other.1"):
            await store.enroll(lease, 60_000, {})
        await store.enroll("dead.1", 1, {})
        await in_milliseconds(10)
        assert await store.claim("alive.1") == "dead.1"
        assert await store.claim("other.1") is None
        assert await store.claim("alive.1") == "dead.1"
        await store.enroll("alive.2", 60_000, {})
        assert await store.claim("alive.2") == "dead.1"
        await store.bury("dead.1")
        assert await store.claim("alive.2") is None

    async def test_the_buried_are_gone_with_their_rooms(self, store: Store) -> None:
        await store.enroll("alive.1", 60_000, {})
        await store.enroll("dead.1", 1, {})
        await store.presence.enter_room("dead.1", "lobby")
        await in_milliseconds(10)
        assert await store.claim("alive.1") == "dead.1"
        await store.bury("dead.1")
        assert await store.presence.rooms_of("dead.1") == []
        assert await store.claim("alive.1") is None
        await store.bury("alive.1")
        leftovers = [
            await store.batch.command("EXISTS", k) for k in (store.keys.leases, store.keys.nodes, store.keys.claims)
        ]
        assert leftovers == [0, 0, 0]

    async def test_a_claim_whose_claimant_died_goes_to_the_next(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chatd.store.redis.CLAIM_MS", 1)
        for lease in ("first.1", "next.1"):
            await store.enroll(lease, 60_000, {})
        await store.enroll("dead.1", 1, {})
        await in_milliseconds(10)
        assert await store.claim("first.1") == "dead.1"
        await in_milliseconds(10)
        assert await store.claim("next.1") == "dead.1"

    async def test_whose_own_lease_has_ended_claims_nobody(self, store: Store) -> None:
        for lease in ("dead.1", "dead.2"):
            await store.enroll(lease, 1, {})
        await in_milliseconds(10)
        assert await store.claim("dead.1") is None
        assert await store.claim("never enrolled") is None

    # --- measures -----------------------------------------------------------------------------------------------------

    async def test_measures_are_kept_as_they_were_put_in_force_and_their_changes_numbered(self, store: Store) -> None:
        ban = Measure(What.BAN, On.ADDRESS, "10.0.0.0/8", "with {braces}", 9e9, "spam", "op@host", 1.5, 3)
        assert await store.measures.version() == 0
        assert await store.measures.impose(ban) == 1
        assert await store.measures.set_lockdown(Lockdown.NOBODY_NEW) == 2
        assert await store.measures.in_force() == ((ban,), (0,), Lockdown.NOBODY_NEW, 2)
        assert await store.measures.lift(ban.id) == (3, True)
        assert await store.measures.lift(ban.id) == (3, False)
        assert await store.measures.in_force() == ((), (), Lockdown.NOBODY_NEW, 3)
        assert await store.measures.version() == 3

    async def test_hits_are_counted_from_when_a_measure_came_into_force(self, store: Store) -> None:
        mute = Measure(What.MUTE, On.USER, "ana")
        await store.measures.impose(mute)
        await store.measures.count({mute.id: 2})
        await store.measures.count({mute.id: 3})
        assert (await store.measures.in_force()).hits == (5,)
        await store.measures.impose(mute._replace(reason="again"))
        assert (await store.measures.in_force()).hits == (0,)

    async def test_measures_that_have_ended_are_forgotten_with_their_hits(self, store: Store) -> None:
        ended, held = (Measure(What.BAN, On.USER, user, until=end) for user, end in [("ana", 1.0), ("ben", 0.0)])
        for each in (ended, held):
            await store.measures.impose(each)
        await store.measures.count({ended.id: 1})
        assert (await store.measures.in_force()).rows == (held,)
        assert await store.batch.command("HLEN", store.keys.hits) == 0

    # --- revocations and audit ----------------------------------------------------------------------------------------

    async def test_revocations_are_in_force_until_they_end(self, store: Store) -> None:
        await store.revoke(["token", "jti-1", 100.5, 0.0], until=100.5)
        await store.revoke(["user", "ana", 200.0, 50.25], until=200.0)
        assert await store.revocations(now=50.0) == [["token", "jti-1", 100.5, 0.0], ["user", "ana", 200.0, 50.25]]
        assert await store.revocations(now=100.5) == [["token", "jti-1", 100.5, 0.0], ["user", "ana", 200.0, 50.25]]
        assert await store.revocations(now=150.0) == [["user", "ana", 200.0, 50.25]]
        assert await store.revocations(now=50.0) == [["user", "ana", 200.0, 50.25]]

    async def test_acts_are_written_down_in_order(self, store: Store) -> None:
        for n in range(5):
            await store.audit.write({"by": "root", "n": n})
        first = await store.audit.read("", 2)
        rest = await store.audit.read(first[-1].id, 100)
        assert [act.entry for act in (*first, *rest)] == [{"by": "root", "n": n} for n in range(5)]
        assert await store.audit.read(rest[-1].id, 100) == []
        assert await store.audit.read("0", 100) == first + rest

    async def test_a_report_is_open_until_one_closes_it(self, store: Store) -> None:
        filed = [Report("with {braces}", n, "eve", "spam", "ana", 1.5) for n in (1, 2)]
        ids = [(await store.reports.file(report, "e"))[0] for report in filed]
        assert await store.reports.open() == dict(zip(ids, filed, strict=True))
        assert await store.reports.close(ids[0]) == filed[0]
        assert await store.reports.close(ids[0]) is None
        assert await store.reports.close("no-id") is None
        assert list(await store.reports.open()) == ids[1:]

    async def test_whoever_reports_a_message_again_has_still_one_report_open(self, store: Store) -> None:
        reports, one = store.reports, Report("lobby", 1, "eve", "spam", "ana", 1.0)
        id, fresh = await reports.file(one, "e")
        assert fresh
        assert await reports.file(replace(one, reason="and rude", at=2.0), "e") == (id, False)
        assert await reports.open() == {id: one}
        for other in (replace(one, by="ben"), replace(one, offset=2), replace(one, room="cave")):
            assert (await reports.file(other, "e"))[1], other
        assert (await reports.file(one, "of the room that began anew"))[1]
        await reports.close(id)
        again, fresh = await reports.file(one, "e")
        assert fresh
        assert (await reports.open())[again] == one

    async def test_the_oldest_report_gives_way_and_can_be_made_again(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chatd.store.reports.OPEN", 2)
        made = [Report("lobby", offset, "eve", "spam", "ana", 0.0) for offset in (1, 2, 3)]
        for report in made:
            await store.reports.file(report, "e")
        assert list((await store.reports.open()).values()) == made[1:]
        assert (await store.reports.file(made[0], "e"))[1]
        assert list((await store.reports.open()).values()) == [made[2], made[0]]

    async def test_who_reports_everything_is_refused_and_pushes_out_nobody_elses_report(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chatd.store.reports.OPEN_OF_ONE", 2)
        reports = store.reports
        made = [Report("lobby", offset, "ana", "spam", "eve", 0.0) for offset in (1, 2, 3)]
        first, _ = [(await reports.file(report, "e"))[0] for report in made[:2]]
        with pytest.raises(Reject, match="at most 2 reports") as refusal:
            await reports.file(made[2], "e")
        assert refusal.value == FULL
        assert await reports.file(made[0], "e") == (first, False)
        for name in ('e","', "ev", "eve2", "\xff"):
            assert (await reports.file(replace(made[2], by=name), "e"))[1]
        await reports.close(first)
        assert (await reports.file(made[2], "e"))[1]
        assert len(await reports.open()) == 6

    # --- control ------------------------------------------------------------------------------------------------------

    async def test_every_node_answers_and_who_does_not_is_named(self, store: Store, url: str, prefix: str) -> None:
        async with opened(url, prefix) as a, opened(url, prefix) as b, listening(a), listening(b):
            for node, name in ((a, "a.1"), (b, "b.1"), (store, "mute.1")):
                await node.enroll(name, 60_000, {})
            await serving(a, "a.1", lambda question: {"asked": control.encode(question)["ask"]})
            await serving(b, "b.1", lambda question: {"n": 2})
            answers = await store.request(Status(), patience=1.0, by="root")
            assert answers == Answers({"a": {"asked": "status"}, "b": {"n": 2}}, missing=("mute",))

    async def test_a_node_that_may_be_cut_off_is_named_where_it_had_to_hear(
        self, store: Store, url: str, prefix: str
    ) -> None:
        for lease in ("cut.1", "back.1"):
            await store.enroll(lease, 1, {})
        await in_milliseconds(10)
        kick = Kick("ana")
        assert await store.request(kick, patience=PATIENCE_S, by="root") == Answers({}), "nobody clears up after them"
        async with opened(url, prefix) as back, listening(back):
            await back.enroll("back.2", 60_000, {})
            await serving(back, "back.2", lambda question: {"closed": 0})
            answers = Answers({"back": {"closed": 0}})
            assert await store.request(Status(), patience=PATIENCE_S, by="root") == answers
            async with asyncio.timeout(PATIENCE_S / 2):
                named = await store.request(kick, patience=PATIENCE_S, by="root")
            assert named == replace(answers, missing=("cut",))
            await store.bury("cut.1")
            assert await store.request(kick, patience=PATIENCE_S, by="root") == answers

    async def test_nobody_waits_when_all_have_answered_or_there_is_nobody(
        self, store: Store, url: str, prefix: str
    ) -> None:
        assert await store.request(Status(), patience=PATIENCE_S, by="root") == Answers({})
        async with opened(url, prefix) as a, listening(a):
            await a.enroll("a.1", 60_000, {})
            await serving(a, "a.1", lambda question: {})
            async with asyncio.timeout(PATIENCE_S / 2):
                assert await store.request(Status(), patience=PATIENCE_S, by="root") == Answers({"a": {}})

    async def test_a_node_whose_line_is_down_as_it_is_asked_answers_once_it_stands(
        self, store: Store, url: str, prefix: str, published: Published
    ) -> None:
        async with opened(url, prefix) as late, listening(late):
            await late.enroll("late.1", 60_000, {})
            asking = asyncio.create_task(store.request(Status(), patience=PATIENCE_S, by="root"))
            await published(1)
            await serving(late, "late.1", lambda question: {})
            assert await asking == Answers({"late": {}})

    async def test_a_node_that_takes_its_time_does_once_what_it_is_asked_for_again(
        self, store: Store, url: str, prefix: str, published: Published
    ) -> None:
        acts = list[control.Question]()

        async def act(question: control.Question) -> control.Object:
            acts.append(question)
            await published(3)
            return {"closed": 1}

        async with opened(url, prefix) as slow, listening(slow):
            await slow.enroll("slow.1", 60_000, {})
            await serving(slow, "slow.1", act)
            answers = await store.request(Kick("ana"), patience=PATIENCE_S, by="root")
            assert (answers, acts) == (Answers({"slow": {"closed": 1}}), [Kick("ana")])

    async def test_a_node_that_goes_on_under_another_lease_while_it_is_asked_is_waited_for_no_longer(
        self, store: Store, url: str, prefix: str
    ) -> None:
        async with opened(url, prefix) as back, listening(back):
            await back.enroll("back.1", 60_000, {})
            await serving(back, "back.2", lambda question: {})
            async with asyncio.timeout(PATIENCE_S / 2):
                answers = await store.request(Status(), patience=PATIENCE_S, by="root")
            assert answers == Answers({"back": {}})

    async def test_nobody_is_asked_what_is_for_one_who_is_not_there_nor_answers_what_is_for_another(
        self, store: Store, url: str, prefix: str
    ) -> None:
        asked = list[control.Question]()

        def respond(question: control.Question) -> control.Object | None:
            asked.append(question)
            return None if isinstance(question, Relay) else {}

        async with opened(url, prefix) as a, listening(a):
            await a.enroll("a.1", 60_000, {})
            await serving(a, "a.1", respond)
            assert await store.request(Relay("gone", "s", ""), patience=PATIENCE_S, by="", of="gone") == Answers({})
            assert (await store.request(Status(), patience=PATIENCE_S, by="")).by_node == {"a": {}}
            assert asked == [Status()]
            assert await store.request(Relay("b", "s", ""), patience=0.2, by="", of="a") == Answers({}, ("a",))

    async def test_an_act_is_written_down_before_it_is_done_and_a_question_is_not(self, store: Store) -> None:
        await store.request(Status(), patience=0.1, by="root")
        await store.request(Kick("ana", reason="spam"), patience=0.1, by="root")
        [(_, written)] = await store.audit.read("", 10)
        assert (written["by"], written["ask"], written["target"], written["reason"]) == ("root", "kick", "ana", "spam")
        assert abs(written["at"] - await store.clock()) < PATIENCE_S

    @pytest.mark.parametrize(
        "nonsense",
        [
            b"",
            b"no newline",
            b"r\nno json",
            b"r\n[1]",
            b"r\n7",
            b'r\n{"ask":"self-destruct"}',
            b'r\n{"ask":"kick","newer":1}',
            b'r\n{"ask":"kick","target":{"a":1}}',
            b'r\n{"ask":"revoke"}',
            b'\xff\n{"ask":"status"}',
            b"\xff\xfe",
        ],
    )
    async def test_nonsense_among_the_questions_is_dropped_and_the_next_is_answered(
        self, store: Store, url: str, prefix: str, nonsense: bytes
    ) -> None:
        async with opened(url, prefix) as a, listening(a):
            await a.enroll("a.1", 60_000, {})
            await serving(a, "a.1", lambda question: {"ok": True})
            await store.batch.command("SPUBLISH", store.keys.control, nonsense)
            assert (await store.request(Status(), patience=PATIENCE_S, by="root")).by_node == {"a": {"ok": True}}

    async def test_a_bug_in_an_answer_leaves_the_feed_alive(self, store: Store, url: str, prefix: str) -> None:
        def respond(question: control.Question) -> control.Object:
            return {"closed": 0} if isinstance(question, Kick) else {"half": 1 / 0}

        async with opened(url, prefix) as a, listening(a):
            await a.enroll("a.1", 60_000, {})
            await serving(a, "a.1", respond)
            assert (await store.request(Status(), patience=0.2, by="root")).missing == ("a",)
            assert (await store.request(Kick("ana"), patience=PATIENCE_S, by="root")).by_node == {"a": {"closed": 0}}

    async def test_an_answer_that_nobody_fetches_ends_though_the_store_goes_away_after_it(
        self, store: Store, url: str, prefix: str
    ) -> None:
        answered = asyncio.Event()
        async with opened(url, prefix) as a, listening(a):
            command = a.batch.command

            def until_answered(*words: Any) -> asyncio.Future[Any]:
                if answered.is_set():
                    raise StoreUnavailable("away")
                reply = command(*words)
                if words[0] == "RPUSH":
                    reply.add_done_callback(lambda _: answered.set())
                return reply

            a.batch.command = until_answered  # type: ignore[method-assign, assignment]
            await serving(a, "a.1", lambda question: {})
            await store.batch.command("SPUBLISH", store.keys.control, b'r\n{"ask":"status"}')
            async with asyncio.timeout(PATIENCE_S):
                await answered.wait()
            assert await store.batch.command("PTTL", store.keys.reply("r")) > 0

    # --- the servers themselves ---------------------------------------------------------------------------------------

    async def test_the_store_says_what_it_stands_on(self, store: Store) -> None:
        await store.ping()
        facts = await store.facts()
        assert facts["redis_version"]
        assert await store.clock() > 1_700_000_000

    async def test_scripts_that_the_server_has_forgotten_are_brought_again(self, store: Store) -> None:
        await store.messages.publish("lobby", head("1"), FOR_EVER)
        await forget_scripts(store)
        each = [store.messages.publish("lobby", head(str(n)), FOR_EVER) for n in range(2, 50)]
        offsets = [p.position.offset for p, _ in await asyncio.gather(*each) if p.position]
        assert offsets == list(range(2, 50))

    async def test_a_cancelled_caller_leaves_no_reply_for_another(self, store: Store) -> None:
        rooms = [f"room {n}" for n in range(20)]
        for room in rooms:
            await store.messages.publish(room, head(room), FOR_EVER)

        async def read(room: str) -> bool:
            return texts((await store.messages.history(room, 0, after=0, limit=1)).publications) == [room]

        async def give_up(room: str, turns: int) -> None:
            task = asyncio.create_task(read(room))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        given_up = [give_up(rooms[n % 20], n % 7) for n in range(1000)]
        answered = [read(rooms[n % 20]) for n in range(200)]
        _, right = await asyncio.gather(asyncio.gather(*given_up), asyncio.gather(*answered))
        assert all(right)


async def test_a_password_behind_sentinel_is_escaped_as_any_other(tmp_path: Path) -> None:
    async with redis_sentinel(tmp_path) as group:
        async with Redis.from_url(group.master.url) as master:
            await master.execute_command("ACL", "SETUSER", "ana", "on", ">a/b@c", "+@all", "~*", "&*")
        behind = servers(group.url.replace("://", "://ana:a%2Fb%40c@"), PATIENCE_S)
        await behind.open()
        await behind.close()


async def test_those_who_want_to_know_at_the_same_time_which_nodes_live_share_a_question(
    store: Store, url: str, prefix: str
) -> None:
    asked = list[control.Question]()
    async with opened(url, prefix) as a, listening(a):
        await a.enroll("a.1", 60_000, {})
        await serving(a, "a.1", lambda question: asked.append(question) or {})  # type: ignore[func-returns-value]
        living = Living(store)
        assert await asyncio.gather(*(living.nodes(PATIENCE_S) for _ in range(20))) == [{"a"}] * 20
        assert asked == [Alive()] * 2, "the first's, and one for all who came while it was under way"
        await living.nodes(PATIENCE_S)
        assert len(asked) == 3, "whoever comes later may not rely on that"


async def test_what_no_replica_has_is_not_done_and_said_again_it_counts_once(tmp_path: Path) -> None:
    async def said(cid: str) -> int | None:
        """By a connection of its own, on which nothing has been written before."""
        async with Store(group.master.url, prefix="test", timeout=1.0, replicas=1) as store:
            published, _ = await store.messages.publish("lobby", head(cid), FOR_EVER, repeat=("ana", cid))
            return published.position and published.position.offset

    async with redis_sentinel(tmp_path) as group:
        assert await said("one") == 1
        group.replica.pause()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="0 of the store's replicas have it, where 1 must: it stands"):
                await said("two")
        group.replica.resume()
        assert [await said("two"), await said("three")] == [2, 3]
        group.master.kill()
        async with opened(group.replica.url) as store:
            page = await store.messages.history("lobby", 0, after=0, limit=10)
            assert [json.loads(body)["data"] for body in page.publications] == ["one", "two", "three"]


async def test_what_need_not_last_waits_for_no_replica(tmp_path: Path) -> None:
    async with (
        redis_sentinel(tmp_path) as group,
        Store(group.master.url, prefix="test", timeout=1.0, replicas=1) as store,
    ):
        group.replica.pause()
        await store.register(registration(), ANYBODY)
        assert [each.user for each in await store.registered()] == ["ana"]
        with pytest.raises(StoreUnavailable, match="0 of the store's replicas"):
            await store.revoke(("jti", "one"), until=9e9)


async def test_what_is_removed_or_forgotten_is_waited_for_as_well(tmp_path: Path) -> None:
    async with (
        redis_sentinel(tmp_path) as group,
        Store(group.master.url, prefix="test", timeout=0.5, replicas=1) as store,
    ):
        group.replica.pause()
        for taking in (store.messages.remove("lobby"), store.traces.forget_personal("ana", "#ana")):
            with pytest.raises(StoreUnavailable, match="0 of the store's replicas"):
                await taking


async def test_who_waits_for_replicas_holds_up_nobody_else(tmp_path: Path) -> None:
    async with (
        redis_sentinel(tmp_path) as group,
        Store(group.master.url, prefix="test", timeout=PATIENCE_S, replicas=1) as store,
    ):
        group.replica.pause()
        revoking = asyncio.create_task(store.revoke(("jti", "one"), until=9e9))
        assert await store.renew("node.1", 1000, {}) is False
        assert not revoking.done()
        group.replica.resume()
        await revoking


async def test_a_node_that_waits_for_replicas_says_meanwhile_how_it_is(tmp_path: Path) -> None:
    async with (
        redis_sentinel(tmp_path) as group,
        opened(group.master.url) as asking,
        Store(group.master.url, prefix="test", timeout=2 * PATIENCE_S, replicas=1) as store,
        listening(store),
    ):
        await store.enroll("n.1", 60_000, {})
        await serving(store, "n.1", lambda question: {})
        group.replica.pause()
        revoking = asyncio.create_task(store.revoke(("jti", "one"), until=9e9))
        await store.ping()
        assert (await asking.request(Status(), patience=PATIENCE_S / 2, by="")).by_node == {"n": {}}
        assert not revoking.done()
        group.replica.resume()
        await revoking


async def test_a_server_that_left_does_not_stand_for_those_of_which_none_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with redis_server(tmp_path) as server, opened(server.url) as store:
        for holder in ("one that leaves", "its successor"):
            monkeypatch.setattr(store._servers, "server_of", lambda key, holder=holder: holder)
            await store.ping()
        assert store.batch.round_trip_s is not None
        server.kill()
        with pytest.raises(StoreUnavailable):
            await store.ping()
        assert store.batch.round_trip_s is None


@pytest.fixture
def published(store: Store) -> Published:
    """Waits until `store` has asked its nodes so many times."""
    times, command = 0, store.batch.command
    more = asyncio.Condition()

    async def counting(*words: Any) -> Any:
        nonlocal times
        reply = await command(*words)
        if words[0] == "SPUBLISH":
            async with more:
                times += 1
                more.notify_all()
        return reply

    async def until(wanted: int) -> None:
        async with asyncio.timeout(PATIENCE_S), more:
            await more.wait_for(lambda: times >= wanted)

    store.batch.command = counting  # type: ignore[method-assign]
    return until


async def serving(
    store: Store, lease: str, respond: Callable[[control.Question], control.Object | Awaitable[control.Object] | None]
) -> None:
    """Have `store` answer questions, and return when its subscription stands."""

    async def answer(question: control.Question) -> control.Object | None:
        answer = respond(question)
        return await answer if isinstance(answer, Awaitable) else answer

    async def listening() -> int:
        return int((await store.batch.command("PUBSUB", "SHARDNUMSUB", store.keys.control))[1])

    others = await listening()
    store.serve(lambda: lease, answer, asyncio.ensure_future)
    async with asyncio.timeout(PATIENCE_S):
        while await listening() == others:
            await asyncio.sleep(0.01)


async def forget_scripts(store: Store) -> None:
    client: Any = store._servers
    await client.client.execute_command("SCRIPT", "FLUSH", "SYNC", **_everywhere(client))


def _everywhere(servers: Any) -> dict[str, Any]:
    return {"target_nodes": servers.client.get_primaries()} if hasattr(servers.client, "get_primaries") else {}
