"""`chatd completion`: the script by which a shell completes chatd's commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

# What is typed for each, where nobody has put a completion yet.
INSTALL = {
    "bash": "d=~/.local/share/bash-completion/completions; mkdir -p $d && chatd completion bash > $d/chatd",
    "zsh": "mkdir -p ~/.zfunc && chatd completion zsh > ~/.zfunc/_chatd  # fpath+=~/.zfunc before compinit in ~/.zshrc",
    "fish": "mkdir -p ~/.config/fish/completions && chatd completion fish > ~/.config/fish/completions/chatd.fish",
}


@click.command(help="Print the script by which a shell completes chatd's commands.")
@click.argument("shell", type=click.Choice(list(INSTALL)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    script = get_completion_class(shell)
    assert script is not None, "click knows each shell we offer"
    click.echo(script(context.find_root().command, {}, "chatd", "_CHATD_COMPLETE").source())
    click.echo(f"to install: {INSTALL[shell]}", err=True)
