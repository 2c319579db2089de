"""Being in a room: joining it without missing anything, being present in it, leaving it, being put out of it."""

from __future__ import annotations

from chatd import errors
from chatd.errors import Disconnect, Reject
from chatd.model import (
    SERVER,
    Delivery,
    Invitation,
    Json,
    Position,
    Presence,
    PresenceResult,
    PresenceStats,
    PresenceStatsResult,
    Role,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from chatd.names import room_name
from chatd.room import JOINING
from chatd.session import Session, Subscription

from .context import Context


async def subscribe(chat: Context, session: Session, command: Subscribe) -> Subscribed:
    room = command.room
    if not room:
        raise errors.BAD_COMMAND.because("subscribe needs a channel")
    room_name(room, chat.limits.room_name)
    if room in session.rooms:
        raise errors.ALREADY_SUBSCRIBED.anew()
    if 0 < chat.limits.rooms_per_connection <= len(session.rooms):
        raise errors.LIMIT_EXCEEDED.because(f"at most {chat.limits.rooms_per_connection} rooms a connection")
    if command.delta not in ("", "fossil"):
        raise errors.BAD_COMMAND.because("unknown delta type")
    if command.kind != 0:
        raise errors.PERMISSION_DENIED.because("map subscriptions are not offered")
    if command.filtered:
        raise errors.BAD_REQUEST.because("tag filters are not offered")
    invitation = await _invitation(chat, session, command)
    subscription = Subscription(join_leave=command.join_leave, invitation=invitation)
    asked = chat.rights_lost.count
    await chat.may_read(session, room, invited=subscription.invited)
    return await enter(chat, session, command, subscription, asked)


async def from_now_on(chat: Context, room: str) -> Subscribe:
    """The wish to read all that is said in `room` from now on, whenever it is granted.

    In a room that keeps no history, what is said until then is missed.
    """
    if chat.rules(room).history == 0:
        return Subscribe(room)
    top = (await chat.store.messages.history(room, chat.keep(room).ms)).top
    return Subscribe(room, recover=True, epoch=top.epoch, offset=top.offset)


async def leave_unreadable(chat: Context, session: Session) -> None:
    """Its rights have changed: put it out of every room that it may not read any more."""
    for room, subscription in list(session.rooms.items()):
        role = await chat.role(chat.who(session), room, invited=subscription.invited)
        if role is Role.NOBODY and room in session.rooms:
            await put_out(chat, session, room, *errors.UNSUBSCRIBED_NO_ACCESS)


async def _invitation(chat: Context, session: Session, command: Subscribe) -> Invitation | None:
    """What the subscription token says; None: there is none."""
    if not command.token:
        return None
    said = await chat.verifier.subscription(command.token, user=session.user, client=session.id, room=command.room)
    chat.refuse_void(said)
    return said


async def enter(
    chat: Context, session: Session, wish: Subscribe, subscription: Subscription, asked: int | None = None
) -> Subscribed:
    """Become a reader of a room: first the feed, then what was missed, and nothing is lost in between.

    Args:
        asked: chat.rights_lost.count before it was seen that the session may read the room; None: it always may.
    """
    room = wish.room
    floor = await chat.reads_above(session, room) if wish.recover else 0
    top = await _watch(chat, session, room, subscription, asked)
    if not session.open:
        chat.store.feed.unwatch(room)
        raise errors.ABNORMAL.anew()
    if room in session.rooms:  # it was made a reader meanwhile, by its own word or the server's
        chat.store.feed.unwatch(room)
        raise errors.ALREADY_SUBSCRIBED.anew()
    ttl_s = chat.ttl(subscription.expires_at)
    if top is not None:
        subscription.since = top.offset
    if top is None or not wish.recover:
        chat.hub.join(session, room, subscription, top.offset if top else 0)
        return Subscribed(position=top, ttl_s=ttl_s)
    subscription.held = []
    chat.hub.join(session, room, subscription, JOINING)
    missed, top = await _missed_by(chat, session, wish, subscription, floor)
    late = tuple(event.body for event in chat.hub.caught_up(session, room, top.offset))
    if missed is None:
        # `late` stands in history too, above the position that the client is told to go on from.
        last = Position(top.epoch, top.offset + len(late))
        return Subscribed(position=last, was_recovering=True, ttl_s=ttl_s)
    return Subscribed(
        position=Position(top.epoch, wish.offset),
        publications=missed + late,
        was_recovering=True,
        recovered=True,
        ttl_s=ttl_s,
    )


async def _watch(
    chat: Context, session: Session, room: str, subscription: Subscription, asked: int | None
) -> Position | None:
    """As feed.watch, for a session that may still read `room` when this returns.

    Whoever loses the right to a room while he is entering it is not in it yet, and so is not put out of it. He is seen
    to before he is in it: a reader hears at once what is said, and must hear that he is one first.

    Raises:
        Reject 103, 403.
    """
    top = await chat.store.feed.watch(room, history=chat.rules(room).history > 0)
    try:
        while asked is not None and chat.rights_lost.since(asked, room):
            asked = chat.rights_lost.count
            if subscription.invitation is not None:
                chat.refuse_void(subscription.invitation)
            await chat.may_read(session, room, invited=subscription.invited)
            top = chat.store.feed.position(room)
    except BaseException:
        chat.store.feed.unwatch(room)
        raise
    return top


async def _missed_by(
    chat: Context, session: Session, wish: Subscribe, subscription: Subscription, floor: int
) -> tuple[tuple[Json, ...] | None, Position]:
    """As _missed, for a session that is still in the room by this subscription when it returns.

    Raises:
        Reject 112: the client wants all of it or nothing. Reject 100, 105: it is out of the room, or in again.
        Disconnect: it is gone.
    """
    room = wish.room
    try:
        missed, top = await _missed(chat, wish, floor)
        if missed is None and wish.reject_unrecovered:
            raise errors.UNRECOVERABLE.anew()
    except BaseException:
        if session.rooms.get(room) is subscription:
            _out(chat, session, room)
        raise
    if not session.open:
        raise errors.ABNORMAL.anew()
    if room not in session.rooms:
        raise errors.INTERNAL.because("put out of the room while its history was read; subscribe again")
    if session.rooms[room] is not subscription:  # and in again since, by the server's word
        raise errors.ALREADY_SUBSCRIBED.anew()
    return missed, top


async def _missed(chat: Context, wish: Subscribe, floor: int) -> tuple[tuple[Json, ...] | None, Position]:
    """What came after the client's position, and the room's top; None when not all of it can be given."""
    limit = chat.limits.recovery or chat.rules(wish.room).history
    page = await chat.store.messages.history(wish.room, chat.keep(wish.room).ms, after=wish.offset, limit=limit)
    whole = floor <= wish.offset and wish.offset + len(page.publications) == page.top.offset
    if wish.epoch not in ("", page.top.epoch) or not whole:
        return None, page.top
    return page.publications, page.top


async def bring_in(chat: Context, session: Session, wish: Subscribe) -> bool:
    """Make a client a reader of a room by the server's word; False when it may not be, or is gone.

    What it missed, where it is to be told, follows the news that it is one.
    """
    asked = chat.rights_lost.count
    try:
        chat.refuse_banned(session, wish.room)
        entered = await enter(chat, session, wish, Subscription(server_side=True, invited=True), asked)
    except (Reject, Disconnect):
        return False
    session.subscribed(wish.room, entered)
    await announce(chat, session, wish)
    return True


async def announce(chat: Context, session: Session, command: Subscribe) -> None:
    """Enter a fresh reader among those present. It follows the reply, for its own join comes back to it."""
    room = command.room
    if chat.presence_kept(room):
        await chat.debts.pay_or_owe((session.id, room), lambda: _be_present(chat, session, room))


async def _be_present(chat: Context, session: Session, room: str) -> None:
    if not session.open or room not in session.rooms:
        return
    lease = chat.lease()
    if room not in chat.entered:
        await chat.store.presence.enter_room(lease, room)
        chat.entered.add(room)
        if room not in session.rooms:  # put out meanwhile
            return
    await chat.store.presence.join(room, lease, session.user, session.id, chat.info(session), chat.announce_to(room))


async def unsubscribe(chat: Context, session: Session, command: Unsubscribe) -> Unsubscribed:
    if not command.room:
        raise errors.BAD_COMMAND.because("unsubscribe needs a channel")
    subscription = session.rooms.get(command.room)
    if subscription is not None and not subscription.server_side:
        await leave(chat, session, command.room)
    return Unsubscribed()


async def put_out(chat: Context, session: Session, room: str, code: int, reason: str) -> None:
    """End a subscription from the server's side. A plain client has no other room to be in, and is closed."""
    session.unsubscribed(room, code, reason)
    await leave(chat, session, room)
    if session.home == room:
        session.close(errors.KICKED.because(reason))


async def leave(chat: Context, session: Session, room: str) -> None:
    _out(chat, session, room)
    if chat.presence_kept(room):
        await chat.debts.pay_or_owe((session.id, room), lambda: _be_gone(chat, session, room))


async def _be_gone(chat: Context, session: Session, room: str) -> None:
    lease = chat.lease()
    await chat.store.presence.leave(
        room, lease, chat.announce_to(room), delay_ms=chat.leave_delay_ms, one=(session.user, session.id)
    )
    # While somebody else's leave is owed, or under a lease that has ended, whoever clears up must find the room noted.
    nobody_stays = room not in chat.hub.rooms and chat.debts.none_but(session.id, room)
    if nobody_stays and lease == chat.lease():
        # No await between these two lines: whoever joins next notes the room anew, and after this in the pipeline.
        chat.entered.discard(room)
        await chat.store.presence.leave_room(lease, room)


def _out(chat: Context, session: Session, room: str) -> None:
    """Stop reading, here and now."""
    if room in session.rooms:
        chat.hub.leave(session, room)
        chat.store.feed.unwatch(room)


def lost_history(chat: Context, delivery: Delivery) -> None:
    """A room's readers cannot be brought up to date: SDKs are told to subscribe again and so recover."""
    assert delivery.lost is not None, "called for such deliveries only"
    room = chat.hub.rooms.get(delivery.room)
    if room is None:
        return
    for session in list(room.sessions()):
        subscription = session.rooms[delivery.room]
        if subscription.server_side:
            session.close(errors.INSUFFICIENT_STATE)
        elif not session.home:
            # At once: a client that heard anything newer first would go on from there, and miss what was lost.
            session.unsubscribed(delivery.room, *errors.UNSUBSCRIBED_INSUFFICIENT_STATE)
            _out(chat, session, delivery.room)
            chat.spawn(leave(chat, session, delivery.room))


async def presence(chat: Context, session: Session, command: Presence) -> PresenceResult:
    await _presence_readable(chat, session, command.room)
    most = None if session.identity is SERVER else chat.rules(command.room).announce_up_to
    found = await chat.store.presence.of(command.room, most)
    if found is None:
        raise errors.NOT_AVAILABLE.because(f"more than {most} are in this room; ask presence_stats how many")
    return PresenceResult(found)


async def presence_stats(chat: Context, session: Session, command: PresenceStats) -> PresenceStatsResult:
    await _presence_readable(chat, session, command.room)
    return PresenceStatsResult(*await chat.store.presence.stats(command.room))


async def _presence_readable(chat: Context, session: Session, room: str) -> None:
    if not room:
        raise errors.BAD_COMMAND.because("presence needs a channel")
    if not (await chat.readable(session, room)).presence:
        raise errors.NOT_AVAILABLE.because("this room does not say who is present")
