"""`chatd`: the names of the commands, and a line about each.

A command's module is imported when the command runs and not before, so that `chatd --help`, `chatd --version` and the
shell's completion answer at once. What the commands share is in common (failures, exit codes, settings), cluster (the
store and the nodes behind it) and output (JSON, tables, lines).
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from importlib import import_module
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any

import click

from chatd import __version__

# Command to where it is and its line in `chatd --help`, in the order in which one meets them.
COMMANDS = {
    "serve": ("chatd.cli.serve:serve", "Run a node until it is told to stop."),
    "status": ("chatd.cli.status:status", "How the cluster and each of its nodes are."),
    "top": ("chatd.cli.top:top", "The same, again and again."),
    "who": ("chatd.cli.people:who", "Who is connected, in a room or at all."),
    "rooms": ("chatd.cli.rooms:rooms", "Which rooms have people in them, or were created."),
    "room": ("chatd.cli.room:room", "One room: show, create, lock, delete it; its members and roles."),
    "kick": ("chatd.cli.people:kick", "Throw somebody out, of one room or of all."),
    "chat": ("chatd.cli.chat:chat", "Talk in a room, from a terminal."),
    "send": ("chatd.cli.words:send", "Say something in a room."),
    "announce": ("chatd.cli.words:announce", "Say something in every room that has people in it."),
    "history": ("chatd.cli.words:history", "What was said in a room."),
    "tail": ("chatd.cli.tail:tail", "Events as they happen."),
    "drain": ("chatd.cli.drain:drain", "Empty a node: nobody new, and its clients move to the others."),
    "undrain": ("chatd.cli.drain:undrain", "Let people into a drained node again."),
    "ban": ("chatd.cli.measures:ban", "Keep somebody out, of a room or of all; list and end bans."),
    "mute": ("chatd.cli.measures:mute", "Keep somebody silent; list and end mutes."),
    "lockdown": ("chatd.cli.lockdown:lockdown", "Close the cluster step by step while it is being flooded."),
    "export": ("chatd.cli.export:export", "Print all that is kept of a room, or of what a user wrote."),
    "forget": ("chatd.cli.forget:forget", "Take a user out of every room: messages, reactions, memberships."),
    "reports": ("chatd.cli.reports:reports", "What users have reported; close what was seen to."),
    "audit": ("chatd.cli.audit:audit", "What operators, moderators and the back end have done."),
    "token": ("chatd.cli.token:token", "Mint, inspect and revoke tokens."),
    "config": ("chatd.cli.config:config", "Check, show and begin the configuration."),
    "doctor": ("chatd.cli.doctor:doctor", "Look for what is wrong, and say how to mend it."),
    "nginx": ("chatd.cli.nginx:nginx", "Print the NGINX site for this configuration."),
    "store": ("chatd.cli.store:store", "Run the embedded store by itself, for several instances."),
    "systemd": ("chatd.cli.systemd:systemd", "Put chatd's units in place, and take them away."),
    "completion": ("chatd.cli.completion:completion", "Print the script by which a shell completes chatd's commands."),
}

# A reader of stderr who is behind, and no more than that, has made room by then.
PATIENCE_MS = 100

# Where --config is remembered for whoever asks common.settings_file.
CONFIG_FILE = "chatd.config"


def remember_file(context: click.Context, _: click.Parameter, file: Path | None) -> None:
    """--config may stand before or after the command's name; the one nearer to the command holds."""
    if file is not None:
        context.meta[CONFIG_FILE] = file


def config_option() -> click.Option:
    return click.Option(
        ["--config"],
        type=click.Path(path_type=Path, readable=False),  # whether it can be read whoever reads it says
        metavar="FILE",
        expose_value=False,
        callback=remember_file,
        help="The configuration; else $CHATD_CONFIG, else /etc/chatd/chatd.toml.",
    )


def take_config(command: click.Command) -> None:
    """Have a command, and all below it, understand --config."""
    command.params.append(config_option())
    for inner in getattr(command, "commands", {}).values():
        take_config(inner)


def keep_standard_files() -> None:
    """Put /dev/null where whoever started us has closed stdin, stdout or stderr.

    Else what is opened next, a connection maybe, would have the number to which libraries and children write.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest number that is free is this one's
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 -- for as long as we run


class Remarks(FileIO):
    """stderr, whose disk may be full, and whose reader may have left or read no more: that neither ends nor holds up a
    command or a node. What finds no place is lost.
    """

    _reader_is_behind = False

    def write(self, text: Any) -> int:
        with suppress(OSError):
            if self._has_room():
                return super().write(text[: select.PIPE_BUF]) or len(text)  # the rest is for the next call
        return len(text)

    def _has_room(self) -> bool:
        """Whether so much can be written without waiting for the reader; once he is waited for a little."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        self._reader_is_behind = not poll.poll(0 if self._reader_is_behind else PATIENCE_MS)
        return not self._reader_is_behind


def heed_no_listener() -> None:
    """Have what cannot be written to stderr be lost. A stderr that somebody else has put there is left alone."""
    stderr = sys.stderr
    if isinstance(stderr, TextIOWrapper) and stderr is sys.__stderr__:
        remarks = BufferedWriter(Remarks(stderr.fileno(), "w", closefd=False))
        sys.stderr = TextIOWrapper(remarks, stderr.encoding, stderr.errors, line_buffering=True)


def is_unicode(text: str) -> bool:
    """Whether `text` is whole characters only."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class Lazy(click.Command):
    """A command known by its name and a line, which becomes the real one, from `module:attribute`, when it is run."""

    def __init__(self, name: str, place: str, line: str) -> None:
        super().__init__(name, help=line)
        self._place = place
        self._real: click.Command | None = None

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        return self.real().make_context(info_name, args, parent, **extra)

    def real(self) -> click.Command:
        if self._real is None:
            module, _, attribute = self._place.partition(":")
            command: click.Command = getattr(import_module(module), attribute)
            take_config(command)
            self._real = command
        return self._real


class Commands(click.Group):
    """The top of the command line; here, and only here, what went wrong becomes a sentence and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Names travel as JSON, which is Unicode; the shell hands us other bytes as halves of characters.
        if not all(map(is_unicode, args)):
            raise click.UsageError("expected arguments in UTF-8, got other bytes", ctx)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(self, *args: Any, **extra: Any) -> Any:
        keep_standard_files()
        heed_no_listener()
        if isinstance(sys.stdout, TextIOWrapper):  # as stderr does, for a locale that is not Unicode's
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().main(*args, **{"prog_name": "chatd", **extra})
        except Exception as error:
            from .common import explained, tell  # they know the settings: only those who fail pay for it

            failure = explained(error)
            if failure is None:
                raise
            tell(failure)
            sys.exit(failure.code)


main = Commands(
    "chatd",
    help="The chat server you pip install: run it, look at it, act on it.",
    epilog="Every command says more with --help. Settings are explained by `chatd config init`.",
    commands={name: Lazy(name, place, line) for name, (place, line) in COMMANDS.items()},
    params=[config_option()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
click.version_option(__version__, prog_name="chatd", message="%(prog)s %(version)s")(main)
