"""What operators do to the cluster, whoever they are: at the command line, by HTTP, or as a room's moderator.

An act is first written down, for nodes yet to come, and then told to those alive; when it is answered it is in force on
all that answered, and those that did not are named. Every act stands in the audit stream. Whether the asker may do it
was decided before: by the shell's owner, an API key, or the rules of a room.
"""

from __future__ import annotations

from asyncio import gather
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Final

from . import rules
from .batched import batched
from .control import Answers, Impose, Kick, Lift, Lock, Object, Question, Recheck, Revoke
from .measures import Lockdown, Measure, What
from .store.messages import Keep
from .store.redis import Store
from .store.traces import Forgotten

# Rooms that are gone through at the same time; their requests share pipelines.
AT_ONCE: Final = 20


class Office:
    """Acts of one operator.

    Args:
        patience: seconds to wait for the nodes' answers.
        by: who acts, for the audit stream.
    """

    def __init__(self, store: Store, *, patience: float, by: str) -> None:
        self.store = store
        self._patience = patience
        self.by = by

    async def ask(self, question: Question) -> Answers:
        """Put a question to every node alive, however few."""
        return await self.store.request(question, patience=self._patience, by=self.by)

    async def write_down(self, act: str, **details: object) -> None:
        """An act that no node need be told of, for the audit stream."""
        await self.store.audit.write({"at": await self.store.clock(), "by": self.by, "ask": act, **details})

    # --- people -------------------------------------------------------------------------------------------------------

    async def kick(self, kick: Kick) -> Answers:
        """Throw out whoever matches; with `revoke` the tokens they came with end as well."""
        answers = await self.ask(kick)
        tokens = [Revoke(*row) for answer in answers.by_node.values() for row in answer["tokens"]]
        _, unsure = await self.revoke(tokens)
        return Answers(answers.by_node, tuple(sorted({*answers.missing, *unsure})))

    async def revoke(self, revocations: Iterable[Revoke]) -> tuple[int, set[str]]:
        """Have tokens count no more.

        Returns:
            How many connections were closed for it, and the nodes that did not confirm it: those read what was
            written down when they next renew their lease.
        """
        closed, unsure = 0, set[str]()
        for each in revocations:
            await self.store.revoke((each.kind, each.id, each.until, each.issued_before), each.until)
            answers = await self.ask(each)
            closed += answers.closed
            unsure.update(answers.missing)
        return closed, unsure

    # --- measures -----------------------------------------------------------------------------------------------------

    async def impose(self, measure: Measure, lasts: float = 0.0) -> tuple[Measure, Answers]:
        """Ban or mute, for `lasts` seconds (0: for ever); each answer counts those who had to go.

        Returns:
            The measure as it is in force: who, when and until when are written here.
        """
        at = round(await self.store.clock(), 3)
        measure = measure._replace(by=self.by, at=at, until=at + lasts if lasts else 0.0)
        version = await self.store.measures.impose(measure)
        if measure.what is What.BAN:
            await self.store.outbox.add("ban", measure.room, as_measure(measure))
        return measure, await self.ask(Impose(version, *measure))

    async def lift(self, measure: Measure) -> tuple[bool, Answers]:
        """End a ban or mute; False: there was none, and nobody is told."""
        version, lifted = await self.store.measures.lift(measure.id)
        if not lifted:
            return False, Answers({})
        return True, await self.ask(Lift(version, measure.what, measure.on, measure.target, measure.room))

    async def lock_down(self, level: Lockdown) -> Answers:
        version = await self.store.measures.set_lockdown(level)
        return await self.ask(Lock(version, level))

    # --- reports ------------------------------------------------------------------------------------------------------

    async def close_report(self, id: str) -> bool:
        """A report needs nobody's eye any more; False: it was not open. What it was stands in the audit stream."""
        report = await self.store.reports.close(id)
        if report is not None:
            await self.write_down("report.close", id=id, report=asdict(report))
        return report is not None

    # --- rooms --------------------------------------------------------------------------------------------------------

    async def recheck(self, room: str, user: str = "") -> Answers:
        """Rights in `room` have changed, `user`'s or all: have every node put out whoever may not be there any more."""
        return await self.ask(Recheck(room, user))

    # --- what is kept of people ---------------------------------------------------------------------------------------

    async def forget(
        self, user: str, keep: Callable[[str], Keep], progress: Callable[[int, int], None] = lambda done, all: None
    ) -> tuple[Forgotten, int]:
        """Take `user` out of every room: what they wrote, their reactions, memberships and cursors; and reports.

        Who is connected stays so, and can write again; measures on a user, and what operators did, are not forgotten.

        Args:
            keep: how a room is kept.
            progress: told how many of how many rooms have been gone through.
        Returns:
            How much it was, and in how many rooms.
        Raises:
            StoreError: it is not finished; to begin again does no harm.
        """
        await self.write_down("forget", target=user)
        traces, touched = self.store.traces, 0
        total = await traces.forget_personal(user, rules.personal_room(user))
        total = total._replace(reports=await self.store.reports.forget(user))
        rooms = await traces.rooms()
        seen = 0
        for part in batched(rooms, AT_ONCE):
            gone = await gather(*(traces.forget(room, user, keep(room)) for room in part))
            for room, done in zip(part, gone, strict=True):
                total, touched = total.and_also(done), touched + any(done)
                if done.memberships:
                    await self.recheck(room, user)
            seen += len(part)
            progress(seen, len(rooms))
        await self.write_down("forgotten", target=user, rooms=touched, **total._asdict())
        return total, touched


def as_measure(measure: Measure, hits: int = 0) -> Object:
    """A measure as commands and the API show it; `until` is null where it never ends."""
    return {**measure._asdict(), "until": measure.until or None, "hits": hits}
