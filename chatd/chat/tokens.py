"""Tokens that end while their holder is connected: renewing them, and what ends with them."""

from __future__ import annotations

from typing import Final

from chatd import __version__, errors
from chatd.errors import Reject
from chatd.model import Refresh, Refreshed, SubRefresh, SubRefreshed
from chatd.session import Session

from .context import Context
from .reading import leave_unreadable, put_out

# A token's holder has this long after its end to bring a new one (the grace that Centrifugo gives).
GRACE_S: Final = 25.0


async def refresh(chat: Context, session: Session, command: Refresh) -> Refreshed:
    identity = chat.who(session)
    if not command.token or identity.expires_at is None:
        raise errors.BAD_COMMAND.because("refresh needs a token, and a connection whose token ends")
    try:
        fresh = await chat.verifier.identity(command.token)
    except Reject:
        raise errors.CONNECTION_EXPIRED.anew() from None
    if fresh.user != identity.user:
        raise errors.INVALID_TOKEN.because("the new token is another user's")
    if chat.revocations.covers(fresh, chat.now()):
        raise errors.REVOKED.anew()
    chat.refuse_outcast(fresh, session.ip)
    session.identity = fresh
    chat.hub.note_end(session)
    if fresh.grants != identity.grants:
        await leave_unreadable(chat, session)
    return Refreshed(session.id, __version__, chat.ttl(fresh.expires_at))


async def sub_refresh(chat: Context, session: Session, command: SubRefresh) -> SubRefreshed:
    if not command.room:
        raise errors.BAD_COMMAND.because("sub_refresh needs a channel")
    subscription = session.rooms.get(command.room)
    if subscription is None:
        raise errors.PERMISSION_DENIED.because("not subscribed")
    if subscription.expires_at is None:
        raise errors.BAD_COMMAND.because("this subscription does not end")
    if not command.token:
        raise errors.BAD_REQUEST.because("sub_refresh needs a token")
    try:
        invitation = await chat.verifier.subscription(
            command.token, user=session.user, client=session.id, room=command.room
        )
    except Reject as refusal:
        if refusal == errors.TOKEN_EXPIRED:
            # Temporary: the SDK fetches another token and keeps its subscription meanwhile.
            raise Reject(refusal.code, refusal.text, temporary=True) from None
        raise errors.INVALID_TOKEN.anew() from None
    chat.refuse_void(invitation)
    subscription.invitation = invitation
    chat.hub.note_end(session)
    return SubRefreshed(chat.ttl(invitation.expires_at))


def expire(chat: Context, session: Session, now: float) -> None:
    """End what has ended by Unix second `now`: the connection, or single subscriptions."""
    identity = session.identity
    grace = GRACE_S if not session.home else 0.0
    if identity is not None and identity.expires_at is not None and identity.expires_at + grace <= now:
        session.close(errors.CONNECTION_EXPIRED)
        return
    for room, subscription in list(session.rooms.items()):
        if subscription.expires_at is not None and subscription.expires_at + GRACE_S <= now:
            chat.spawn(put_out(chat, session, room, *errors.UNSUBSCRIBED_EXPIRED))
