"""Asking the application whether a message may be said, before it is.

It has a fifth of a second, since somebody has just pressed Enter. What holds when it does not answer is the operator's
choice: the message is said all the same, or it is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, Any, Final

import orjson
import structlog

from chatd.errors import HOOK_REFUSED, Reject
from chatd.model import Json
from chatd.settings import Hooks

from .signing import HookFailed, signature

if TYPE_CHECKING:
    from .client import Client

log = structlog.get_logger("chatd.hooks")

# Questions under way at once; beyond, the application is not keeping up, and counts as not answering.
AT_ONCE: Final = 256
REASON_CHARS: Final = 200


class Callout:
    """Asks for one node.

    Args:
        hooks: the settings as they are now; client: how the application is reached under them.
        results: counts "allowed", "refused" and "failed".
    """

    def __init__(self, hooks: Callable[[], Hooks], client: Callable[[], Client], results: Counter[str]) -> None:
        self._hooks = hooks
        self._client = client
        self._results = results
        self._under_way = 0

    @property
    def asks(self) -> bool:
        return bool(self._hooks().before_publish)

    async def approve(self, room: str, user: str, data: Json) -> None:
        """Ask about `data` that `user` wants to say in `room`, if the application wants to be asked.

        Raises:
            Reject 417: it is not to be said.
        """
        hooks = self._hooks()
        if not hooks.before_publish or not hooks.covers(room):
            return
        try:
            verdict = await self._verdict(hooks, room, user, data)
        except HookFailed as error:
            self._results["failed"] += 1
            log.warning("not answered before a message was said", problem=str(error), failing=hooks.failing)
            if hooks.failing == "closed":
                sentence = "the application did not answer; try again later"
                raise Reject(HOOK_REFUSED.code, sentence, temporary=True) from None
            return
        self._results["allowed" if verdict["allow"] else "refused"] += 1
        if not verdict["allow"]:
            reason = verdict.get("reason")
            raise HOOK_REFUSED.because(
                reason[:REASON_CHARS] if isinstance(reason, str) and reason else HOOK_REFUSED.text
            )

    async def _verdict(self, hooks: Hooks, room: str, user: str, data: Json) -> dict[str, Any]:
        if self._under_way >= AT_ONCE:
            raise HookFailed(f"{AT_ONCE} questions wait for an answer already")
        now = int(time())
        known = orjson.dumps({"event": "before_publish", "room": room, "user": user, "time": now * 1000})
        body = b'%b,"data":%b}' % (known[:-1], data)
        headers = {"X-Chatd-Event": "before_publish", "X-Chatd-Signature": signature(hooks.secret_bytes, now, body)}
        self._under_way += 1
        try:
            answer = await self._client().post(hooks.before_publish, body, headers, within=hooks.within)
        finally:
            self._under_way -= 1
        return _verdict(answer.status, answer.body)


def _verdict(status: int, body: bytes) -> dict[str, Any]:
    """{"allow": true or false, "reason"?}; anything else is no answer."""
    if status != 200:
        raise HookFailed(f"expected status 200, got {status}")
    try:
        verdict = orjson.loads(body)
    except orjson.JSONDecodeError:
        verdict = None
    if not isinstance(verdict, dict) or not isinstance(verdict.get("allow"), bool):
        raise HookFailed('expected {"allow": true} or {"allow": false, "reason": "..."}, got something else')
    return verdict
