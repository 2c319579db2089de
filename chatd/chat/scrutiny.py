"""What is looked at in everything that is said before it is stored: the room's words, its author's signature, and what
the application says to it."""

from __future__ import annotations

from chatd import errors
from chatd.auth import Signed
from chatd.model import SERVER, Json
from chatd.session import Session, State
from chatd.wire import payload
from chatd.wire.payload import Payload
from chatd.words import word_list

from .context import Context


def proven(chat: Context, session: Session, room: str, said: Payload, what: Signed, cid: str | None) -> str | None:
    """The nonce of what is said, if the room looks at signatures and it has one.

    Args:
        cid: what stands for the client id in what is signed.
    Raises:
        Reject 407: it is not right. Reject 408: the room wants one.
    """
    if session.identity is SERVER:  # the back end, whose secret it is
        return None
    wanted = chat.rules(room).signatures
    if wanted == "off" or (said.sig is None and wanted == "optional"):
        return None
    if said.sig is None:
        raise errors.SIGNATURE_NEEDED.anew()
    if cid is None or said.text is None:
        raise errors.BAD_SIGNATURE.because('what is signed has a "text" and a "cid", and this lacks one of them')
    return chat.signatures.check(
        said.sig, what=what, user=session.user, room=room, cid=cid, text=said.text, now=chat.now()
    )


def worded(chat: Context, room: str, said: Payload) -> Json:
    """The data as the room takes it: where its words are masked, with stars in the text.

    Raises:
        Reject 414: it has one of the room's words, and the room refuses those; or it stands where it cannot be masked:
            beside the text, or in a text that is signed.
    """
    kept = chat.rules(room)
    if not kept.words:
        return said.data
    words = word_list(kept.words)
    if not words.in_(payload.strings(said.data)):
        return said.data
    if kept.on_word == "refuse" or said.sig is not None or said.text is None:
        raise errors.WORD_REFUSED.anew()
    masked = payload.with_text(said.data, words.masked(said.text))
    if words.in_(payload.strings(masked)):
        raise errors.WORD_REFUSED.anew()
    return masked


def masked(chat: Context, room: str, text: str) -> str:
    """What readers see beside messages, such as the reason of a deletion, with stars for the room's words."""
    words = chat.rules(room).words
    return word_list(words).masked(text) if words else text


async def approved(chat: Context, session: Session, room: str, data: Json) -> None:
    """Return if the application lets this client say `data`, and the client was not thrown out meanwhile.

    Raises:
        Reject 417: it does not. Disconnect: he was.
    """
    await chat.callout.approve(room, session.user, data)
    if session.state is State.CLOSED:  # a kick or a revocation may have returned
        raise session.goodbye or errors.ABNORMAL.anew()
