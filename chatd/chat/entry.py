"""Coming and going: who a connection is, whether it may be, and what the cluster is told of it.

Which rooms it reads is reading's business; the socket itself came in by web's doors and is the transport's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from typing import Final

from chatd import __version__, errors, rules
from chatd.batched import batched
from chatd.control import node_of
from chatd.errors import Disconnect
from chatd.model import Connect, Connected, Identity, Subscribe, Subscribed
from chatd.session import Session, State, Subscription
from chatd.wire import payload

from . import reading
from .context import Context

# Connections said anew to the store at the same time, when it had forgotten them.
AT_ONCE: Final = 256


async def connect(chat: Context, session: Session, command: Connect) -> Connected:
    if session.state is not State.UNKNOWN:
        raise errors.BAD_COMMAND.because("connect was said before")
    identity = await identify(chat, session, command)
    await admit(chat, session, identity)
    subs = {} if session.home else await _enter_personal(chat, session, command, identity)
    if session.open:
        chat.hub.welcome(session)
    return Connected(
        client=session.id,
        version=__version__,
        ping_s=int(chat.settings.heartbeat.interval) or 1,
        ttl_s=chat.ttl(identity.expires_at),
        subs=subs,
        session=session.secret,
        node=node_of(chat.lease()) if session.secret else "",
    )


async def _enter_personal(
    chat: Context, session: Session, command: Connect, identity: Identity
) -> dict[str, Subscribed]:
    """Subscribe a client to its user's own channel; a plain client reads its one room and nothing else."""
    personal = rules.personal_room(identity.user)
    wish = command.subs.get(personal) or Subscribe(personal)
    return {personal: await reading.enter(chat, session, wish, Subscription(server_side=True))}


async def identify(chat: Context, session: Session, command: Connect) -> Identity:
    """Who this is: by the token given now, by what the handshake brought, or in open mode by its own word.

    Raises:
        Reject 109: the token has ended. Disconnect 3500: it is not valid; 3501: there is none.
    """
    if command.token:
        return await chat.verifier.identity(command.token)
    if session.identity is not None:
        return session.identity
    if chat.settings.auth.effective_mode != "open":
        raise errors.NO_TOKEN.anew()
    return Identity(payload.claimed_user(command.data) or f"guest-{secrets.token_hex(4)}")


async def admit(chat: Context, session: Session, identity: Identity) -> None:
    """Let `identity` in on `session`, if it may come and its user has not too many connections already.

    Raises:
        Disconnect 4501, 4502, 4000, 3504. Reject 400.
    """
    if chat.revocations.covers(identity, chat.now()):
        raise errors.REVOKED.anew()
    chat.refuse_newcomer(identity, session.ip)
    chat.refuse_uninformed()
    session.identity = identity
    limit = chat.limits.connections_per_user
    if not await chat.store.register(chat.registration(session), limit) and not await _beside_the_dead(chat, session):
        raise errors.CONNECTION_LIMIT.because(f"more than {limit} connections")


async def _beside_the_dead(chat: Context, session: Session) -> bool:
    """Register it without counting those on nodes that died without notice, which stand there until a lease ends.

    Their clients come back within a second, as those do who are told to by a node that drains, and is still taking them
    out of the registry; and whom we refuse does not come again.
    """
    on = Counter(node_of(entry.lease) for entry in await chat.store.registered_of(session.user))
    others = on.keys() - {node_of(chat.lease())}
    if not others:
        return False
    gone = sum(on[node] for node in others - await chat.living.nodes(chat.settings.cluster.answer))
    return await chat.store.register(chat.registration(session), chat.limits.connections_per_user + gone)


def lost(chat: Context, session: Session, goodbye: Disconnect, network: str) -> None:
    """The socket is gone: nothing more is delivered, and what the cluster knows of it is taken back."""
    if session.open:
        session.state, session.goodbye = State.LEFT, goodbye
    chat.hub.remove(session, network)
    chat.on_end(session)
    if session.waiting is None:  # else the task that works for it sees to this when it is done
        chat.spawn(depart(chat, session))


async def depart(chat: Context, session: Session) -> None:
    # At once: who loads a page anew is back before a hundred rooms have been left, and must not be one too many.
    await asyncio.gather(_unregister(chat, session), _leave_rooms(chat, session))


async def _unregister(chat: Context, session: Session) -> None:
    if session.identity is not None:
        user, client = session.user, session.id
        await chat.debts.pay_or_owe((client, ""), lambda: chat.store.unregister(user, client))


async def _leave_rooms(chat: Context, session: Session) -> None:
    for room in list(session.rooms):
        await reading.leave(chat, session, room)


async def register_anew(chat: Context) -> None:
    """Our lease had ended, and others may have taken us for dead: say again who is here, and where."""
    chat.entered.clear()
    here = [session for session in chat.hub.sessions() if session.state is State.READY]
    for some in batched(here, AT_ONCE):
        await asyncio.gather(*(_register_anew(chat, session) for session in some))


async def _register_anew(chat: Context, session: Session) -> None:
    if session.state is not State.READY:  # it has gone meanwhile
        return
    # One after the other: a store that was started again does late what is asked for by a script it does not know.
    await chat.store.unregister(session.user, session.id)
    if not session.open:
        return
    await chat.store.register(chat.registration(session), 0)
    for room in list(session.rooms):
        await reading.announce(chat, session, Subscribe(room))
