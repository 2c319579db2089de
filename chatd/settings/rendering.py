"""The settings as TOML, which with its explanations is the manual; and what has come from where, or has changed."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import Field, replace
from typing import Any

from .declaring import kind_of, option_of, options
from .judging import dotted, setting_names
from .kinds import read_tables
from .rooms import RoomRules
from .secrets import TABLES
from .tree import SECTIONS, Settings

HEAD = """\
# The settings of chatd. Every one is here, at its default, with its explanation: delete what you do not change.
#
# chatd reads /etc/chatd/chatd.toml, or else the one file named by --config or by CHATD_CONFIG. On top of it come
#   1. systemd credentials: "chatd.jwt-secret" (a key for HS256), "chatd.redis-url", "chatd.tls-certificate" and
#      "chatd.tls-key", which systemd copies at the start and not again;
#   2. the environment: CHATD_LIMITS__FRAME=128KiB is limits.frame; lists are separated by commas; tables such as
#      [[auth.keys]] and [rooms] stand in the file only;
#   3. flags such as --port.
# `chatd config check` tells what is wrong, `chatd config show --origin` what holds and where it came from.
#
# Durations: "150ms", "25s", "10m", "12h", "30d", or a bare number of seconds. Sizes: "64KiB", "1MiB", or a bare number
# of bytes. Settings marked (reload) also change on SIGHUP (`systemctl reload chatd`); the others want a restart.

"""


def changed_needing_restart(old: Settings, new: Settings) -> list[str]:
    """The keys, as "section.key", that differ and that SIGHUP may not change; rooms may always change.

    auth.mode counts as changed when what it comes to does: also when keys came or went, and with them what an empty
    mode means. So does tls.certificate when there was none, or is none any more.
    """
    changed = [
        f"{title}.{key}"
        for title, section in SECTIONS.items()
        for key in _lasting(section)
        if getattr(getattr(old, title), key) != getattr(getattr(new, title), key) and (title, key) != ("auth", "mode")
    ]
    mode_flipped = old.auth.effective_mode != new.auth.effective_mode
    tls_flipped = bool(old.tls.certificate) is not bool(new.tls.certificate)
    return [*["auth.mode"] * mode_flipped, *["tls.certificate"] * tls_flipped, *changed]


def reloaded(old: Settings, new: Settings) -> Settings:
    """`new` where SIGHUP may change something, and `old` where it may not: nobody who reads a setting sees it change.

    Above all auth.mode: when the last key is removed, nobody comes in, rather than anybody as anybody.
    """
    sections = {
        title: replace(getattr(new, title), **{key: getattr(getattr(old, title), key) for key in _lasting(section)})
        for title, section in SECTIONS.items()
        if title != "auth"
    }
    return in_mode(replace(new, **sections), old.auth.effective_mode)


def in_mode(settings: Settings, mode: str) -> Settings:
    """`settings`, with auth.mode set where it does not come to `mode` ("open" or "jwt") by itself."""
    if settings.auth.effective_mode == mode:
        return settings
    return replace(settings, auth=replace(settings.auth, mode=mode))


def _lasting(section: type) -> Iterator[str]:
    """The keys of a section that stay as they are until a restart."""
    return (key for key, setting in options(section).items() if not option_of(setting).reload)


def origin(settings: Settings) -> dict[str, str]:
    """Where each value came from, by "section.key" and `rooms."pattern".key`.

    "default", a file and line ("/etc/chatd/chatd.toml:12"), the file of a credential, a variable ("CHATD_…"), or a flag
    ("--port"); for auth.keys one place per key, joined with commas.
    """
    names = [*setting_names(), *(f'rooms."*".{key}' for key in options(RoomRules))]
    return {**dict.fromkeys(names, "default"), **settings.sources}


def to_toml(settings: Settings) -> str:
    """Render every setting at its value, under its explanation; secrets as "***". With HEAD before it: the manual."""
    blocks = [_section_toml(title, getattr(settings, title)) for title in SECTIONS]
    for section, key in reversed(list(TABLES)):
        blocks.insert(list(SECTIONS).index(section) + 1, _tables_toml(settings, section, key))
    overrides = settings.rooms.overrides
    blocks.append(_section_toml('rooms."*"', RoomRules(**overrides.get("*", {}))))
    blocks += [_pattern_toml(pattern, values) for pattern, values in overrides.items() if pattern != "*"]
    return "\n".join(blocks)


def _section_toml(title: str, section: Any) -> str:
    return f"[{title}]\n{_comment(type(section).__doc__)}\n{_settings_toml(section)}"


def _tables_toml(settings: Settings, section: str, key: str) -> str:
    """The tables of one list; when there are none, an example in comments."""
    doc, rows = _comment(_doc(options(SECTIONS[section])[key])), getattr(getattr(settings, section), key)
    if rows:
        return doc + "\n".join(f"[[{section}.{key}]]\n{_settings_toml(row)}" for row in rows)
    return f"{doc}#[[{section}.{key}]]\n{_settings_toml(TABLES[section, key].example, mark='#')}"


def _pattern_toml(pattern: str, values: Mapping[str, Any]) -> str:
    lines = [f"{key} = {kind_of(options(RoomRules)[key]).show(value)}\n" for key, value in values.items()]
    return f"[{dotted('rooms', pattern)}]\n{''.join(lines)}"


def _settings_toml(section: Any, mark: str = "") -> str:
    """The settings of one table, each under its explanation; `mark` stands before each line that is not a comment."""
    return "\n".join(
        f"{_comment(_doc(setting))}{mark}{key} = {kind_of(setting).show(getattr(section, key))}\n"
        for key, setting in options(type(section)).items()
        if kind_of(setting).read is not read_tables
    )


def _doc(setting: Field[Any]) -> str:
    declared = option_of(setting)
    return f"{declared.doc} (reload)" if declared.reload else declared.doc


def _comment(text: str | None) -> str:
    """`text` as comment lines; its paragraphs stay apart."""
    paragraphs = re.split(r"\n\s*\n", text or "")
    wrapped = ("".join(f"# {line}\n" for line in textwrap.wrap(" ".join(each.split()), 116)) for each in paragraphs)
    return "#\n".join(wrapped)
