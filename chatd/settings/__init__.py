"""Every setting of chatd, declared once: its default, its unit, its explanation; and the only reader of them.

A setting's TOML key is its attribute's name, its variable `CHATD_SECTION__KEY`; `config/chatd.toml`, which is also the
manual, is rendered from the declarations. What is here is judged as far as it can be without a network; what a key or
an address is good for is auth's, web's and store's to know. Nothing is logged: errors are sentences for the caller.

kinds       how a duration, a size, a secret is written and read
declaring   how a setting is declared
tree        the sections, and Settings, which holds them all; keys and rooms are the larger of them
reading     from file, credentials, environment and flags; judging looks at each value, complaints between them
secrets     what files beside the configuration hold
advice      what works, but is unwise
rendering   the manual, and the settings as they hold
"""

from __future__ import annotations

from .advice import warnings
from .complaints import REDIS_SCHEMES
from .declaring import SettingsError, options
from .keys import HMAC_KEY_BYTES, ApiKey, Key, SigningKey
from .kinds import KINDS, Bytes, host_and_port, is_loopback, is_url, moment, numbered, seconds_in, unix_path
from .reading import DEFAULT_FILE, NO_FLAGS, load
from .rendering import HEAD, changed_needing_restart, in_mode, origin, reloaded, to_toml
from .rooms import RoomRules, matches
from .secrets import TABLES
from .tree import HOOK_EVENTS, SECTIONS, Admin, Hooks, Limits, Redis, Server, Settings, Tls

__all__ = [
    "DEFAULT_FILE",
    "HEAD",
    "HMAC_KEY_BYTES",
    "HOOK_EVENTS",
    "KINDS",
    "NO_FLAGS",
    "REDIS_SCHEMES",
    "SECTIONS",
    "TABLES",
    "Admin",
    "ApiKey",
    "Bytes",
    "Hooks",
    "Key",
    "Limits",
    "Redis",
    "RoomRules",
    "Server",
    "Settings",
    "SettingsError",
    "SigningKey",
    "Tls",
    "changed_needing_restart",
    "host_and_port",
    "in_mode",
    "is_loopback",
    "is_url",
    "load",
    "matches",
    "moment",
    "numbered",
    "options",
    "origin",
    "reloaded",
    "seconds_in",
    "to_toml",
    "unix_path",
    "warnings",
]
