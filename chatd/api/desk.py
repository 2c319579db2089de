"""Requests of the application's back end come in: who asks, whether they may, and what does it.

METHODS is the table of all there are; openapi describes it. What is wrong with a request as such is an ApiError, which
HTTP has a status for; what chat or the office refuse is answered in band, {"error": {code, message}}, as to clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from functools import partial
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final

import structlog

from chatd import errors, methods
from chatd.chat import Chat
from chatd.chat.rows import METHOD_ROWS
from chatd.errors import Disconnect, Reject
from chatd.model import SERVER, Grant, Identity, Json, Role, Rpc, RpcResult
from chatd.office import Office
from chatd.session import Session, State
from chatd.settings import ApiKey, matches
from chatd.store.errors import StoreError
from chatd.wire import rpc
from chatd.wire.centrifuge_json import SDK_JSON

from . import duties, operators, shapes, shared
from .shared import Caller, refused

log = structlog.get_logger("chatd")

# The member that names the user as whom the back end acts.
AS: Final = "as"
# Commands of one batch that are under way at once.
AT_ONCE: Final = 64


class ApiError(Exception):
    """The request cannot be taken: an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class As(Enum):
    CANNOT = "cannot"
    MAY = "may"
    MUST = "must"


@dataclass(frozen=True, slots=True)
class Method:
    """What one method is made of.

    Attributes:
        args: a dataclass of its data; its first words are the method's description.
        do: carries it out, and returns what is answered.
        result: a dataclass of the answer; None: an object that the description tells of.
        as_user: whether the back end acts as a user in it: it cannot, may, or must, since nobody else could.
    """

    args: type
    do: Callable[[Caller, Any], Awaitable[Any]]
    result: type | None = None
    as_user: As = As.CANNOT


async def by_client(name: str, caller: Caller, args: Mapping[str, Any]) -> object:
    """A method of chat's, as a client would ask for it."""
    answer = await METHOD_ROWS[name].do(caller.chat, caller.session, Rpc(name, rpc.encode(args)))
    assert isinstance(answer, RpcResult), "methods answer with data"
    return rpc.raw(answer.data)


SHARED: Final[Mapping[str, Method]] = {
    "publish": Method(shapes.Publish, shared.publish, shapes.Published),
    "broadcast": Method(shapes.Broadcast, shared.broadcast, shapes.Broadcasted),
    "presence": Method(shapes.Presence, shared.presence, shapes.Present),
    "presence_stats": Method(shapes.PresenceStats, shared.presence_stats, shapes.Counted),
    "history": Method(shapes.History, shared.history, shapes.Page),
    "history_remove": Method(shapes.HistoryRemove, shared.history_remove, shapes.Nothing),
    "subscribe": Method(shapes.Subscribe, shared.subscribe, shapes.Done),
    "unsubscribe": Method(shapes.Unsubscribe, shared.unsubscribe, shapes.Done),
    "disconnect": Method(shapes.Disconnect, shared.disconnect, shapes.Done),
    "info": Method(shapes.Info, shared.info, shapes.Nodes),
    "channels": Method(shapes.Channels, shared.channels, shapes.ChannelList),
}
OPERATORS: Final[Mapping[str, Method]] = {
    "kick": Method(operators.Kick, operators.kick),
    "ban": Method(operators.Ban, operators.ban),
    "unban": Method(operators.Unban, operators.unban),
    "mute": Method(operators.Mute, operators.mute),
    "unmute": Method(operators.Unmute, operators.unmute),
    "measures": Method(operators.Measures, operators.measures),
    "lockdown": Method(operators.LockDown, operators.lockdown),
    "revoke": Method(duties.Revoke, duties.revoke),
    "reports": Method(duties.Reports, duties.reports),
    "close_report": Method(duties.CloseReport, duties.close_report),
    "audit": Method(duties.Audit, duties.audit),
    "forget": Method(duties.Forget, duties.forget),
}
# What is about whoever asks, and the server is nobody.
PERSONAL: Final = frozenset(
    {"typing", "read", "unread", "message.react", "room.join", "room.leave", "user.block", "user.blocked", "report"}
)
CHAT: Final[Mapping[str, Method]] = {
    name: Method(args, partial(by_client, name), as_user=As.MUST if name in PERSONAL else As.MAY)
    for name, args in methods.METHODS.items()
}
METHODS: Final[Mapping[str, Method]] = {**SHARED, **OPERATORS, **CHAT}
BATCH: Final = "batch"


class NoConnection:
    """What stands behind a session of the back end's: nobody hears what is said to it alone."""

    congested = False
    outlet = None

    def write(self, frame: bytes) -> None: ...

    def write_rest(self, frame: bytes, sent: int) -> None: ...

    def buffered(self) -> int:
        return 0

    def close(self, goodbye: Disconnect) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Desk:
    """Serves the back end on one node. Args: chat, and how to act as an operator of a given name."""

    def __init__(self, chat: Chat, office: Callable[[str], Office]) -> None:
        self._chat = chat
        self._office = office

    def known(self, secret: str) -> ApiKey:
        """The key whose secret this is.

        Raises:
            ApiError 401: there is none.
        """
        found = key_of(self._chat.settings.api.keys, secret)
        if found is None:
            raise ApiError(401, "expected a key of [[api.keys]] in the header X-API-Key")
        return found

    async def call(self, key: ApiKey, method: str, data: Json) -> Json:
        """Do what is asked, and return the whole answer.

        Raises:
            ApiError 400, 403, 404.
        """
        members = self._members(method, data)
        if method == BATCH:
            return rpc.encode({"replies": await self._batch(key, members)})
        return rpc.encode(await self._answer(key, method, members))

    async def _answer(self, key: ApiKey, method: str, members: dict[str, Any]) -> dict[str, Any]:
        row, caller, args = self._admitted(key, method, members)
        self._chat.commands[f"api {method}"] += 1
        try:
            return {"result": await row.do(caller, args)}
        except Reject as refusal:
            return {"error": refused(refusal)}
        except Disconnect as goodbye:  # what a client's connection would end with
            return {"error": refused(errors.BAD_REQUEST.because(goodbye.reason))}
        except StoreError as error:
            log.warning("api request not done", method=method, error=str(error))
            return {"error": refused(errors.STORE_UNAVAILABLE)}
        except Exception:  # a bug in one method is not the end of a batch
            log.exception("api request failed", method=method)
            return {"error": refused(errors.INTERNAL)}

    async def _batch(self, key: ApiKey, members: dict[str, Any]) -> list[dict[str, Any]]:
        """Each command's reply under its method's name, or {error}; in order, and in parallel if asked for."""
        commands, parallel = members.get("commands"), members.get("parallel")
        if not isinstance(commands, list) or not all(isinstance(each, dict) and len(each) == 1 for each in commands):
            raise ApiError(400, 'expected "commands", a list of objects such as {"publish": {...}}')
        if not isinstance(parallel, bool | None):
            raise ApiError(400, 'expected "parallel" to be true or false')
        turn = asyncio.Semaphore(AT_ONCE if parallel else 1)

        async def one(command: dict[str, Any]) -> dict[str, Any]:
            [(method, data)] = command.items()
            async with turn:
                return await self._in_batch(key, method, data)

        return list(await asyncio.gather(*map(one, commands)))

    async def _in_batch(self, key: ApiKey, method: str, data: object) -> dict[str, Any]:
        try:
            answer = await self._answer(key, method, data if isinstance(data, dict) else {})
        except ApiError as error:
            code = {404: errors.METHOD_NOT_FOUND, 403: errors.PERMISSION_DENIED}.get(error.status, errors.BAD_REQUEST)
            return {"error": refused(code.because(error.sentence))}
        return {method: answer["result"]} if "result" in answer else answer

    def _members(self, method: str, data: Json) -> dict[str, Any]:
        try:
            return rpc.members(method, data)
        except Reject as refusal:
            raise ApiError(400, refusal.text) from None

    def _admitted(self, key: ApiKey, method: str, members: dict[str, Any]) -> tuple[Method, Caller, Any]:
        """What to do, for whom, with what.

        Raises:
            ApiError 404, 403, 400.
        """
        row = METHODS.get(method)
        if row is None:
            raise ApiError(404, f"there is no method {method[:64]!r}; /api/openapi.json has all there are")
        if not any(matches(scope, method) for scope in key.scopes):
            raise ApiError(403, f"the key {key.name} may not call {method}; see its scopes in [[api.keys]]")
        if method in SHARED and (strange := _not_offered(row, members)):
            raise ApiError(400, f"{method}: chatd does not offer {', '.join(sorted(strange))}; leave it out")
        members = _given(row, members)
        caller = Caller(self._chat, self._session(key, row, members.get(AS)), self._office(f"api:{key.name}"))
        try:
            args: Any = rpc.converted(method, members, row.args)
        except Reject as refusal:
            raise ApiError(400, refusal.text) from None
        return row, caller, args if row.as_user is As.CANNOT else members

    def _session(self, key: ApiKey, row: Method, user: object) -> Session:
        """One that stands for the server, or for the user as whom the back end acts."""
        identity = self._identity(key, row, user)
        # Readers see what a user's connection is called, and how a key is called is not for them; the audit has it.
        id = f"api:{key.name}" if identity is SERVER else "api"
        session = Session(id, SDK_JSON, "", now=self._chat.clock(), since=self._chat.now())
        session.attach(NoConnection())
        session.state = State.READY
        session.identity = identity
        return session

    def _identity(self, key: ApiKey, row: Method, user: object) -> Identity:
        """The server; or a user, for whom the back end vouches as a token of its would: a member, and no more."""
        if user is None and row.as_user is not As.MUST:
            return SERVER
        if row.as_user is As.CANNOT or not isinstance(user, str) or not user:
            raise ApiError(400, f'expected "{AS}" to name a user, in a method that users can call')
        if not any(matches(pattern, user) for pattern in key.users):
            raise ApiError(403, f"the key {key.name} may not act as this user; see its users in [[api.keys]]")
        return Identity(user, grants=(Grant("*", Role.MEMBER),))


def _given(row: Method, members: dict[str, Any]) -> dict[str, Any]:
    """The members without those that are null and may be left out, which many a library writes for absent ones."""
    needed = {each.name for each in fields(row.args) if each.default is each.default_factory is MISSING}
    return {name: value for name, value in members.items() if value is not None or name in needed}


def _not_offered(row: Method, members: Mapping[str, Any]) -> set[str]:
    """The members that ask for something of Centrifugo's which the method does not do here."""
    asked = {name for name, value in members.items() if value}
    return (asked & shapes.NOT_OFFERED) - {each.name for each in fields(row.args)}


def key_of(keys: Iterable[ApiKey], secret: str) -> ApiKey | None:
    """The key whose secret this is; each is compared, in a time that tells nothing of it."""
    given = sha256(secret.encode()).digest()
    found = None
    for key in keys:
        if compare_digest(sha256(key.secret_bytes).digest(), given):
            found = key
    return found
