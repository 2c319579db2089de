"""The store in chatd's words: the registry of connections, leases, revocations; and, as parts of their own,
messages and their changes, rooms, presence, cursors and the feed.

Each method is one script or one command, sent through the shared pipeline; none is tried again below its caller. What
must hold at once is in the Lua file it names. Every method may raise StoreUnavailable (it may have been done) and
StoreError (it was refused).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import Any, Final

import orjson
import structlog

from chatd import control
from chatd.settings import Redis

from .audit import Audit
from .changes import Changes
from .connect import servers
from .cursors import Cursors
from .errors import StoreError, StoreMisconfigured, translated
from .feed import Feed
from .keys import REGISTRY_SHARDS, Keys, registry_shard
from .measures import Measures
from .messages import Messages
from .outbox import Outbox
from .presence import Presence
from .reports import Reports
from .retention import Retention
from .rooms import Rooms, pairs
from .scripts import SCRIPTS, Batch, Copies, Script
from .traces import Traces

log = structlog.get_logger("chatd.store")

# A claimant that needs longer than this for a dead node has died itself; another may go on.
CLAIM_MS: Final = 30_000
# An answer that nobody fetched by then is not waited for any more.
REPLY_MS: Final = 60_000
# Seconds after which a question is asked again: who was just subscribing anew, since the store had moved or been away,
# has not heard it. Whoever has does not mind; he knows the last so many.
AGAIN_S: Final = 0.25
ASKED: Final = 4096
# Acts looked at in one step.
ACTS: Final = 500
# Redis 7.0.15 is the floor: sharded pub/sub came with 7.0, and 15 closed holes in the scripting engine.
OLDEST: Final = (7, 0, 15)

REGISTER, UNREGISTER, PURGE, ENROLL, RENEW, CLAIM, BURY, NODES = map(
    Script,
    ["register", "unregister", "purge", "enroll", "renew", "claim", "bury", "nodes"],
)


@dataclass(frozen=True, slots=True)
class Registration:
    """One connection as the registry has it. `since` is Unix seconds; `door` a value of model.Door."""

    user: str
    client: str
    lease: str
    ip: str
    since: float
    door: str


class Store:
    """Redis or Valkey, and this process's feed from it.

    Args:
        url: see `connect.servers`.
        prefix: first part of every key.
        timeout: seconds to wait for a reply.
        replicas: how many must have what lasts before it counts as done; only one server's, or a Sentinel's master's.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        timeout: float,
        replicas: int = 0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.keys = Keys(prefix)
        self._asked: dict[bytes, None] = {}
        self._servers = servers(url, timeout, [each.source for each in SCRIPTS])
        # Half of it, so that the reply is not late: it says that too few have it, not that nobody answers.
        copies = Copies(replicas, int(timeout * 500), self.keys.copied) if replicas else None
        self.batch = Batch(self._servers, copies)
        loop_time = clock or asyncio.get_running_loop().time
        self.outbox = Outbox(self.batch, self.keys)
        self.messages = Messages(self.batch, self.keys, self.outbox)
        self.changes = Changes(self.batch, self.keys, self.outbox)
        self.retention = Retention(self.batch, self.keys, self._servers)
        self.traces = Traces(self.batch, self.keys, self.messages, self.retention, self.outbox)
        self.rooms = Rooms(self.batch, self.keys)
        self.presence = Presence(self.batch, self.keys, self.outbox)
        self.cursors = Cursors(self.batch, self.keys)
        self.measures = Measures(self.batch, self.keys)
        self.reports = Reports(self.batch, self.keys)
        self.audit = Audit(self.batch, self.keys)
        self.feed = Feed(self._servers, self.batch, self.keys, self.messages.page, timeout, loop_time)

    @classmethod
    def of(cls, settings: Redis, url: str) -> Store:
        """The store as `settings` have it, at `url`: theirs, or the embedded one's."""
        return cls(url, prefix=settings.prefix, timeout=settings.timeout, replicas=settings.wait_replicas)

    async def __aenter__(self) -> Store:
        """Connect, and see that the server is one we can stand on.

        Raises:
            StoreUnavailable: nobody answers.
            StoreMisconfigured: the server is too old.
        """
        try:
            await _ours(self._servers.open())
            found = version(await self.batch.command("INFO", "server"))
            if found < OLDEST:
                raise StoreMisconfigured(
                    f"chatd needs Redis {'.'.join(map(str, OLDEST))} or newer, or Valkey; "
                    f"the server is {'.'.join(map(str, found))}"
                )
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.batch.close()
        await self._servers.close()

    async def ping(self) -> None:
        await self.batch.command("EXISTS", self.keys.leases)

    # --- the registry of connections ----------------------------------------------------------------------------------

    async def register(self, entry: Registration, limit: int) -> bool:
        """Enter a connection; False when its user already has `limit` in the cluster (register.lua)."""
        user = orjson.dumps(entry.user) + b"\0"
        details = orjson.dumps({"ip": entry.ip, "since": entry.since, "door": entry.door})
        member = user + b"\0".join((entry.client.encode(), entry.lease.encode(), details))
        key = self.keys.registry(registry_shard(entry.user))
        return bool(await self.batch.script(REGISTER, [key], (member, user, limit)))

    async def unregister(self, user: str, client: str) -> None:
        """Take a connection out; if it was its user's last, they were seen until now (unregister.lua)."""
        first = orjson.dumps(user) + b"\0"
        args = (first + client.encode() + b"\0", first)
        last, ms = await self.batch.script(UNREGISTER, [self.keys.registry(registry_shard(user))], args)
        if last:
            await self.presence.saw([user], ms)

    async def registered_of(self, user: str) -> list[Registration]:
        """A user's connections in the cluster."""
        first = orjson.dumps(user) + b"\0"
        key = self.keys.registry(registry_shard(user))
        members = await self.batch.command("ZRANGEBYLEX", key, b"[" + first, b"(" + first + b"\xff")
        return [_registration(member) for member in members]

    async def registered(self) -> list[Registration]:
        """Every connection in the cluster; one command a shard."""
        shards = await asyncio.gather(
            *(self.batch.command("ZRANGE", self.keys.registry(n), 0, -1) for n in range(REGISTRY_SHARDS))
        )
        return [_registration(member) for members in shards for member in members]

    async def purge(self, lease: str) -> int:
        """Take all of a dead node's connections out of the registry, shard by shard (purge.lua); how many they were."""
        total = 0
        for n in range(REGISTRY_SHARDS):
            count, ms, *gone = await self.batch.script(PURGE, [self.keys.registry(n)], (lease,))
            await self.presence.saw([orjson.loads(user) for user in gone], ms)
            total += count
        return total

    # --- leases -------------------------------------------------------------------------------------------------------

    async def enroll(self, lease: str, ttl_ms: int, info: Mapping[str, object]) -> None:
        """Begin a lease (enroll.lua)."""
        keys = [self.keys.leases, self.keys.nodes]
        await self.batch.script(ENROLL, keys, (lease, ttl_ms, orjson.dumps(info)))

    async def renew(self, lease: str, ttl_ms: int, info: Mapping[str, object]) -> bool:
        """Renew a lease; False: it had ended, and others may have cleared up after us (renew.lua)."""
        keys = [self.keys.leases, self.keys.nodes]
        return bool(await self.batch.script(RENEW, keys, (lease, ttl_ms, orjson.dumps(info))))

    async def claim(self, by: str) -> str | None:
        """The lease of one dead node that the one behind `by` is to clear up after; None: there is none (claim.lua).

        Until it is buried the same comes again.
        """
        keys = [self.keys.leases, self.keys.claims]
        lease = await self.batch.script(CLAIM, keys, (CLAIM_MS, by, control.node_of(by)))
        return lease.decode() if lease else None

    async def bury(self, lease: str) -> None:
        """Forget a lease whose connections and rooms are cleared up (bury.lua)."""
        await self.batch.command("DEL", self.keys.rooms(lease))
        await self.batch.script(BURY, [self.keys.leases, self.keys.nodes, self.keys.claims], (lease,))

    async def nodes(self) -> dict[str, dict[str, Any]]:
        """Lease to what its node says of itself, of every node alive (nodes.lua)."""
        found = pairs(await self.batch.script(NODES, [self.keys.leases, self.keys.nodes]))
        return {lease.decode(): orjson.loads(info) for lease, info in found}

    async def _silent_nodes(self) -> set[str]:
        """The ids of nodes whose lease has ended, and which nobody has cleared up after yet; they may be cut off."""
        ended = f"({int(await self.clock() * 1000)}"
        leases = await self.batch.command("ZRANGEBYSCORE", self.keys.leases, "-inf", ended)
        return {control.node_of(lease.decode()) for lease in leases}

    # --- revocations --------------------------------------------------------------------------------------------------

    async def revoke(self, entry: Sequence[object], until: float) -> None:
        """Remember a revocation (see auth.Revocations) until `until`, Unix seconds."""
        await self.batch.command("ZADD", self.keys.revoked, until, orjson.dumps(entry), lasting=True)

    async def revocations(self, now: float) -> list[list[Any]]:
        """All revocations in force at `now`, Unix seconds; those that have ended are forgotten."""
        await self.batch.command("ZREMRANGEBYSCORE", self.keys.revoked, "-inf", f"({now}")
        return [orjson.loads(entry) for entry in await self.batch.command("ZRANGE", self.keys.revoked, 0, -1)]

    # --- control ------------------------------------------------------------------------------------------------------

    async def request(
        self, question: control.Question, *, patience: float, by: str, of: str | None = None
    ) -> control.Answers:
        """Ask every node that is alive, and collect the answers.

        Args:
            of: the id of the only node that it is for; if that is not alive, nobody is asked. None: all of them.
            patience: seconds to wait for the last of them; who has not answered by then is named as missing.
            by: who asks, for the audit stream, in which acts are written down before they are done.
        """
        request = secrets.token_urlsafe(9)
        if control.changes_something(question):
            await self.audit.write({"at": await self.clock(), "by": by, "request": request, **control.encode(question)})
        alive = {control.node_of(lease) for lease in await self.nodes()}
        waiting_for = alive if of is None else alive & {of}
        if of is not None and not waiting_for:
            return control.Answers({})
        # Where nobody is alive, nobody clears up either, and who died long ago would be named for ever.
        silent = await self._silent_nodes() if waiting_for and control.must_be_heard(question) else set()
        replies = await self._collect(request, orjson.dumps(control.encode(question)), waiting_for, patience)
        return control.Answers(replies, tuple(sorted((waiting_for | silent) - replies.keys())))

    async def _collect(
        self, request: str, question: bytes, waiting_for: set[str], patience: float
    ) -> dict[str, control.Object]:
        """Ask, and again, until all that are waited for have answered or patience ends; answers by node id."""
        now = asyncio.get_running_loop().time
        replies: dict[str, control.Object] = {}
        asking = "SPUBLISH", self.keys.control, request.encode() + b"\n" + question
        await self.batch.command(*asking)  # though nobody is waited for: one whose lease has ended may hear it
        again, deadline = now() + AGAIN_S, now() + patience
        while waiting_for - replies.keys() and now() < deadline:
            if now() >= again:
                await self.batch.command(*asking)
                again += AGAIN_S
            # Asked for rather than waited for: a blocking pop would hold the connection that all requests share.
            await asyncio.sleep(0.01)
            for entry in await self.batch.command("LPOP", self.keys.reply(request), 1000) or []:
                lease, _, reply = entry.partition(b"\n")
                replies[control.node_of(lease.decode())] = orjson.loads(reply)
        return replies

    def serve(
        self,
        lease: Callable[[], str],
        respond: Callable[[control.Question], Awaitable[control.Object | None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        missed: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer what operators ask: `respond` is begun for each question at once, in the order in which they came.

        Args:
            respond: its None is no answer: the question is another node's.
            missed: told that questions may have been asked that were not heard, and that from now on they are again.
        """
        asked, times = self._asked, count()

        def heard(payload: bytes) -> None:
            request = payload.partition(b"\n")[0]
            if request in asked:
                return
            asked[request] = None
            if len(asked) > ASKED:
                del asked[next(iter(asked))]
            spawn(self._answer(payload, lease, respond))

        def stands() -> None:
            if next(times) > 0:
                missed()

        self.feed.listen(self.keys.control, heard, stands)

    async def unheard(self, within_s: float) -> list[tuple[float, control.Question]]:
        """The acts of the last so many seconds that had to be heard and that we did not hear, from the audit stream.

        Each with when it was done, in Unix seconds by the store's clock; oldest first.
        """
        found, place = list[tuple[float, control.Question]](), str(int((await self.clock() - within_s) * 1000))
        while acts := await self.audit.read(place, ACTS):
            place = acts[-1].id
            found += [missed for act in acts if (missed := _unheard(act.entry, self._asked)) is not None]
        return found

    async def _answer(
        self,
        payload: bytes,
        lease: Callable[[], str],
        respond: Callable[[control.Question], Awaitable[control.Object | None]],
    ) -> None:
        request, _, question = payload.partition(b"\n")
        try:
            key = self.keys.reply(request.decode())
            asked = control.decode(orjson.loads(question))
            if (found := await respond(asked)) is None:
                return
            answer = orjson.dumps(found)
            # Whoever asks may rely on it from now on: what we sent before we knew better has been carried out first.
            if not control.only_looks(asked):
                await self.batch.carried_out()
            # Together: if the store went away in between, the answer would stay there for ever.
            told = self.batch.command("RPUSH", key, lease().encode() + b"\n" + answer)
            await asyncio.gather(told, self.batch.command("PEXPIRE", key, REPLY_MS))
        except ValueError as error:  # somebody else's words on our channel, or a newer chatd's
            log.warning("control request not understood", error=str(error))
        except StoreError as error:
            log.warning("control reply not sent", error=str(error))
        except Exception:  # a bug in one answer is nobody's end
            log.exception("control request failed")

    # --- what `doctor` looks at ---------------------------------------------------------------------------------------

    async def facts(self) -> Mapping[str, str]:
        """The server's INFO as text by key, with `maxmemory-policy`'s effect under its INFO name."""
        return MappingProxyType(info(await self.batch.command("INFO", "everything")))

    async def clock(self) -> float:
        """The store's clock, Unix seconds."""
        seconds, micros = await self.batch.command("TIME")
        return int(seconds) + int(micros) / 1e6


def _unheard(entry: Mapping[str, Any], heard: Mapping[bytes, None]) -> tuple[float, control.Question] | None:
    """One act as `request` wrote it down; None if it was heard, need not be, or is a newer chatd's."""
    about = {"at", "by", "request"}
    try:
        question = control.decode({part: value for part, value in entry.items() if part not in about})
    except ValueError:
        return None
    told = not control.must_be_heard(question) or str(entry.get("request")).encode() in heard
    return None if told else (float(entry["at"]), question)


def info(reply: Any) -> dict[str, str]:
    """The reply to INFO as a mapping: from a server itself it is text, a cluster's redis-py may have parsed already."""
    if isinstance(reply, Mapping):
        return {str(key): str(value) for key, value in reply.items()}
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def version(reply: Any) -> tuple[int, ...]:
    """The server's version as Redis counts: Valkey answers with the Redis version it is compatible with."""
    return tuple(int(part) for part in info(reply)["redis_version"].split(".")[:3])


def _registration(member: bytes) -> Registration:
    user, client, lease, details = member.split(b"\0", 3)
    return Registration(orjson.loads(user), client.decode(), lease.decode(), **orjson.loads(details))


async def _ours(opening: Awaitable[None]) -> None:
    try:
        await opening
    except Exception as error:
        raise translated(error) from error
