"""Telling users that somebody spoke of them: those who belong to the room or are in it, on their own channels. Whoever
has blocked the speaker is told nothing.

A notice says who spoke, and where, but not what: who may not read the room any more learns nothing from it. It comes
after the message and is not repeated, so it can be lost with its node, or while the store is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from chatd import rules
from chatd.model import Json
from chatd.names import dm_members
from chatd.session import Session
from chatd.store.errors import StoreError
from chatd.wire.publication import head

from .context import Context

log = structlog.get_logger("chatd")

NOTHING: Final[Json] = b"{}"


async def notify(chat: Context, session: Session, room: str, offset: int, mentioned: Iterable[str]) -> None:
    """Tell those of `mentioned` who may read `room` of the message at `offset`; its author is not told."""
    others = [user for user in mentioned if user and user != session.user and not chat.banned(user, room)]
    notice = head(NOTHING, chat.byline(session), {"type": "mention", "room": room, "of": str(offset)})
    try:
        inside = await among(chat, room, others)
        blocking = await asyncio.gather(*(chat.store.rooms.blocks(user, session.user) for user in inside))
        told = [user for user, blocks in zip(inside, blocking, strict=True) if not blocks]
        await asyncio.gather(*(_tell(chat, user, notice) for user in told))
    except StoreError as error:
        log.warning("mentioned users not told", error=str(error))


async def among(chat: Context, room: str, users: list[str]) -> list[str]:
    """Those of `users` who belong to `room` or are in it now."""
    if (pair := dm_members(room)) is not None:
        return [user for user in users if user in pair]
    belonging, present = await asyncio.gather(
        chat.store.rooms.members_among(room, users), chat.store.presence.among(room, users)
    )
    return [user for user in users if user in belonging or user in present]


async def _tell(chat: Context, user: str, notice: bytes) -> None:
    personal = rules.personal_room(user)
    await chat.store.messages.publish(personal, notice, chat.keep(personal))
