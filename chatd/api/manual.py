"""The reference of what programs meet: methods, events, codes and hooks, as Markdown from the tables of the code.

config/API.md is this text; a test compares. `chatd config reference` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final

from chatd import errors
from chatd.errors import Disconnect, Reject
from chatd.events import EVENTS
from chatd.methods import METHODS as CHAT_METHODS
from chatd.settings import HOOK_EVENTS

from .desk import OPERATORS, PERSONAL, SHARED
from .openapi import ERRORS, description
from .shapes import NOT_OFFERED

HEAD: Final = """\
# What programs meet

Made from the code's own tables by `chatd config reference`; a test compares. Settings are in [chatd.toml](chatd.toml).

Who talks to chatd in the Centrifuge protocol, by an official SDK, asks by `rpc(method, data)` for what the protocol
has no command for. An application's back end posts the same data to `/api/<method>` on the admin listener
(`admin.listen`), with a key of `[[api.keys]]` in `X-API-Key`; it acts as the server, who may do everything, or with
`"as": "<user>"` as a user. It vouches for that user as a token of its making would: in every room a member, or what
the store knows the user to be beyond that; bans, mutes and locks hold. Where the server changes who may be in a room,
and nodes do not answer in time, the result names them in `silent`: somebody may still be there. The answer is
`{"result": ...}` or `{"error": {"code", "message", "retry_after_ms"?}}` with status 200; a request that cannot be taken
is another status with `{"error": "<sentence>"}`. `/api/openapi.json` describes all of it.
"""
TOKENS: Final = """\
Where `[[auth.keys]]` are set, your back end signs a JWT (RFC 7519) for each user with one of them; `chatd token mint`
prints one like it, and `chatd token inspect` says why one is refused. An SDK asks its `getToken` (in Python
`get_token`) for the next one before `exp`; who brings none is closed (3005).

| claim | what it is |
| --- | --- |
| `sub` | Needed: the user; a string, compared byte by byte. |
| `exp` | Needed: when the token ends, in Unix seconds. |
| `iat` | When it was made. Revoking a user's tokens ends those of that second and before, and all that do not say. |
| `jti` | An id, by which this token alone can be revoked or banned. |
| `info` | Any JSON; the others see it as `conn_info`. |
| `name` | What `chatd who --json` calls the user; other users do not see it. |
| `rooms` | List of room patterns, each text or `{"pattern", "role"}`: the user is a member there, or has this role. |
| `nbf`, `aud`, `iss` | As in JWT; see `auth.audience` and `auth.issuer`. |

A *subscription token*, which an SDK's subscription gets from a `getToken` of its own, lets a user into one room as a
guest, who reads and speaks. It is signed with the same keys and has `channel`, the room, and `sub`, who must be the one
who shows it; if it has `exp`, the subscription ends with it unless it is renewed; if it has `client`, it is for that
connection only.
"""
HOOKS: Final = """\
With `hooks.url` set, events are posted there as `{"id", "event", "room", "time", "data"}`, `time` in Unix ms, until
they are answered with a 2xx: a room's in order, each at least once, `id` (also in `X-Chatd-Id`) the same each time.
A message that is deleted, or whose author is forgotten, while it still waits is not posted any more, nor are its edits.
`X-Chatd-Signature` is `t=<Unix seconds>,v1=<hex>`: the HMAC-SHA256, under the secret, of `<Unix seconds>.<body>`.
With `hooks.before_publish` set, `{"event": "before_publish", "room", "user", "time", "data"}` is posted there before a
client's message is said or edited; the answer is `{"allow": true}`, or `{"allow": false, "reason": "..."}`. It is asked
of what the room then refuses as well, again for the same `cid`, and of what the API says with `as`; of nothing that the
server says. An author whom it refuses hears 417, temporary where nobody answered and `hooks.failing` is "closed".
"""
HOOK_DATA: Final[Mapping[str, str]] = {
    "message": "the publication: {data, info?, tags, offset, time}; what users said, and (without `info`) "
    "what the server did, not edits and deletions",
    "edit": "the publication: {data: {text}, info?, tags: {type, of}, offset, time}; the message at offset `tags.of` "
    "now has this text",
    "delete": "the publication, as of edit, with {reason?} as data; the messages at the offsets in `tags.of`, which "
    "commas separate, were deleted, or their author was forgotten; not what ages away, or goes with its room",
    "join": "{user, client, conn_info?}, as announced in the room: not where it has too many people for that",
    "leave": "as join, once the user's last connection has been gone for `limits.leave_delay`",
    "undelivered": "{offset, epoch, user, users}: who of those who were members at the time, and are not banned, is "
    "offline and has not read `user`'s message",
    "report": "the report, as operators list it",
    "ban": "the measure: {on, target, room, until, reason, by, at}; the event's `room` is empty for one everywhere",
}
WORDS: Final = (
    (r"^Mapping\[.*", "object"),
    (r"tuple\[(\w+), \.\.\.\]", r"list of \1"),
    (r"\b(str|On)\b", "text"),
    (r"\bfloat\b", "number"),
    (r"\bint\b", "whole number"),
    (r"\bbool\b", "true or false"),
    (r"\bAny\b", "any JSON"),
    (r" \| None$", ""),
    (r" \| ", " or "),
)


def text() -> str:
    """The whole reference."""
    return "\n".join(
        [
            HEAD,
            section("Tokens", (), TOKENS.removesuffix("\n")),
            section("Methods", methods(CHAT_METHODS), ABOUT_ONESELF),
            section("Methods of the HTTP API only: Centrifugo's", methods(_args(SHARED)), SHARED_WITH),
            section("Methods of the HTTP API only: an operator's", methods(_args(OPERATORS))),
            section("Events", events()),
            section("Codes of refusals", rejects()),
            section("Codes of goodbyes", goodbyes()),
            section("Why a subscription ended", unsubscribes()),
            section("Statuses of the HTTP API", (f"| {status} | {says} |" for status, says in ERRORS.items()), STATUS),
            section("Hooks", (f"| `{event}` | {HOOK_DATA[event]} |" for event in HOOK_EVENTS), HOOKS + "\n" + HOOK),
        ]
    )


ABOUT_ONESELF: Final = (
    f"By the HTTP API, {', '.join(f'`{name}`' for name in sorted(PERSONAL))} need `as`: they are about whoever asks.\n"
)
SHARED_WITH: Final = (
    "And `batch`: {commands: [{<method>: {...}}], parallel?}, for any method here. A channel is a room.\n"
    "Of their members chatd refuses these, where a method here does not name them itself:\n"
    f"{', '.join(f'`{name}`' for name in sorted(NOT_OFFERED))}.\n"
    "Their other methods, `refresh` and `connections` among them, are not there.\n"
)
STATUS: Final = "| status | when |\n| --- | --- |"
HOOK: Final = "| event | data |\n| --- | --- |"


def section(title: str, lines: Iterable[str], head: str = "") -> str:
    return "\n".join([f"## {title}\n", *([head] if head else []), *lines, ""])


# --- methods ----------------------------------------------------------------------------------------------------------


def methods(kinds: Mapping[str, type]) -> Iterator[str]:
    for name, kind in kinds.items():
        says, of_fields = _parted(description(kind))
        yield f"- **`{name}`** {says}"
        for each in fields(kind):
            word = _word(str(each.type))
            about = of_fields.get(each.name, "")
            yield f"  - `{each.name.removesuffix('_')}`{_optional(each)}: {word}" + (f"; {about}" if about else "")


def _args(table: Mapping[str, Any]) -> dict[str, type]:
    return {name: row.args for name, row in table.items()}


def _parted(doc: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the whole, on one line, and of each attribute."""
    whole, _, attributes = doc.partition("\n\nAttributes:\n")
    about: dict[str, str] = {}
    for part in re.split(r"(?m)^ {4}(?=\w)", attributes):
        for each in re.split(r"(?<=;) (?=`\w+`:)", " ".join(part.split())):
            names, _, says = each.partition(": ")
            about.update(dict.fromkeys(re.findall(r"\w+", names), says.rstrip(".;")) if says else {})
    return " ".join(whole.split()), about


def _optional(field: Field[Any]) -> str:
    return "" if field.default is MISSING and field.default_factory is MISSING else "?"


def _word(annotation: str) -> str:
    for pattern, word in WORDS:
        annotation = re.sub(pattern, word, annotation)
    return annotation


# --- events and codes -------------------------------------------------------------------------------------------------


def events() -> Iterator[str]:
    yield "`tags.type` of a publication; joins and leaves are the protocol's own pushes.\n"
    yield "| type | data | heard by | kept | means |"
    yield "| --- | --- | --- | --- | --- |"
    heard = {"room": "the room", "user": "`#<user>`"}
    for name, each in EVENTS.items():
        kept = "yes" if each.kept else "no"
        yield f"| `{name}` | {each.data} | {heard[each.audience]} | {kept} | {each.says} |"


def rejects() -> Iterator[str]:
    yield "In `error` of a reply. With a temporary one the same may succeed later.\n"
    yield "| code | text | temporary |"
    yield "| --- | --- | --- |"
    for code, each in sorted(_rows(Reject).items()):
        yield f"| {code} | {each.text} | {'yes' if each.temporary else ''} |"


def goodbyes() -> Iterator[str]:
    yield "Close codes of the WebSocket. Those below 3000 are its own (RFC 6455, 7.4.1).\n"
    yield "| code | reason | the client |"
    yield "| --- | --- | --- |"
    for code, each in sorted(_rows(Disconnect).items()):
        yield f"| {code} | {each.reason or 'none given'} | {'comes back' if each.comes_back else 'stays away'} |"


def unsubscribes() -> Iterator[str]:
    yield "Below 2500 for good; from there on the SDK subscribes again by itself. With 2000 it says why.\n"
    yield "| code | reason |"
    yield "| --- | --- |"
    for code, reason in sorted(each for name, each in vars(errors).items() if name.startswith("UNSUBSCRIBED_")):
        yield f"| {code} | {reason} |"


def _rows(kind: type) -> dict[int, Any]:
    """The rows of a table of errors.py by code; of two with one code the last, which is the general one."""
    rows: list[Any] = [each for each in vars(errors).values() if isinstance(each, kind)]
    return {each.code: each for each in rows}
