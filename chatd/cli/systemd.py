"""`chatd systemd`: put the units in place, and take them away.

What is to be done is decided first, as a list of steps, and shown or done after that; so --dry-run shows the truth. The
units are the files of systemd/ in the repository, shipped as chatd/units, with the path of this chatd in them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import click

from chatd.settings import DEFAULT_FILE

from .arguments import ports
from .checks import WHERE_NOTHING_HIDES, hiding
from .common import fail, loaded, note

# The program in the units as they are shipped, for an installation by the Debian package.
SHIPPED = "/opt/chatd/bin/chatd"
# chatd.toml is the configuration to begin with, not a unit.
CONFIGURATION = "chatd.toml"
DIRECTORY = Path("etc/systemd/system")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        says: for --dry-run, as a command one could type or nearly so.
        do: does it.
    """

    says: str
    do: Callable[[], object]


@click.group(help="Put chatd's systemd units in place, and take them away.")
def systemd() -> None:
    pass


prefix_option = click.option(
    "--prefix",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="Root of the file system to work on; any other than / is changed without its systemd running.",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@systemd.command(help="Write the units, and have systemd start chatd at the next boot; nothing is started now.")
@click.option(
    "--instances",
    metavar="PORT,PORT",
    callback=ports,
    help="One chatd on each of these ports, and a store for all of them; without it a single chatd.service.",
)
@prefix_option
@dry_run_option
@click.pass_context
def install(context: click.Context, instances: tuple[int, ...], prefix: Path, dry_run: bool) -> None:
    program = program_for_services()
    own_store = not loaded(context).redis.url
    perform(installing(prefix, program, wanted(instances, own_store=own_store)), dry_run)
    if not dry_run:
        note("start it with `systemctl start chatd.target`; what it does is in `journalctl -u 'chatd*'`")


@systemd.command(help="Stop what runs, and take the units away; configuration and data stay.")
@prefix_option
@dry_run_option
def uninstall(prefix: Path, dry_run: bool) -> None:
    perform(uninstalling(prefix), dry_run)
    if not dry_run:
        note(f"what was kept is still in {prefix / 'var/lib/chatd'}, and the configuration in {prefix / 'etc/chatd'}")


# --- deciding ---------------------------------------------------------------------------------------------------------


def program_for_services() -> Path:
    """This chatd's program, where a sandboxed service can see it and the interpreter it runs on."""
    program = Path(sys.prefix, "bin", "chatd")
    for path in (program, Path(sys.base_prefix)):
        if hidden := hiding(str(path)):
            fail(
                f"expected a chatd that services can run, got {path}, which their sandbox hides ({hidden}); install it "
                f"where it does not, as {WHERE_NOTHING_HIDES} does"
            )
    if not program.exists():
        fail(f"expected this chatd's program at {program}, got none; install chatd into a virtual environment")
    return program


def wanted(instances: Sequence[int], *, own_store: bool) -> list[str]:
    """The units to start at boot."""
    if not instances:
        return ["chatd.target", "chatd.service"]
    store = ["chatd-store.service"] if own_store else []
    return ["chatd.target", *store, *(f"chatd@{port}.service" for port in instances)]


def installing(prefix: Path, program: Path, enabled: Sequence[str]) -> Iterator[Step]:
    for name, text in units().items():
        yield writing(prefix / DIRECTORY / name, text.replace(SHIPPED, str(program)))
    configuration = prefix / DEFAULT_FILE.relative_to("/")
    if not configuration.exists():
        yield writing(configuration, files("chatd.units").joinpath(CONFIGURATION).read_text())
    if prefix == Path("/"):
        yield systemctl("daemon-reload")
    yield systemctl(*at(prefix), "enable", *enabled)


def uninstalling(prefix: Path) -> Iterator[Step]:
    here = [prefix / DIRECTORY / name for name in units() if (prefix / DIRECTORY / name).exists()]
    live = prefix == Path("/")
    if live and here:
        yield systemctl(
            "stop", "chatd.socket", "chatd.target", "chatd.service", "chatd-store.service", "chatd@*.service"
        )
    if here:
        yield systemctl(*at(prefix), "disable", *enabled_units(prefix, [path.name for path in here]))
    for path in here:
        yield Step(f"rm {path}", path.unlink)
    if live and here:
        yield systemctl("daemon-reload")


def units() -> dict[str, str]:
    """The units as they are shipped, by name."""
    shipped = sorted(files("chatd.units").iterdir(), key=lambda each: each.name)
    kinds = (".service", ".socket", ".target", ".slice")
    return {each.name: each.read_text() for each in shipped if each.name.endswith(kinds)}


def enabled_units(prefix: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` that can be disabled, and for a template the instances that are enabled."""
    links = {link.name for link in (prefix / DIRECTORY).glob("*.wants/chatd@*.service")}
    plain = [name for name in names if "@" not in name and not name.endswith(".slice")]
    return [*plain, *sorted(links)]


def at(prefix: Path) -> list[str]:
    """systemctl's words for a system that does not run."""
    return [] if prefix == Path("/") else [f"--root={prefix}"]


# --- doing ------------------------------------------------------------------------------------------------------------


def writing(path: Path, text: str) -> Step:
    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)

    return Step(f"write {path}", write)


def systemctl(*words: str) -> Step:
    command = ("systemctl", "--quiet", *words)
    return Step(" ".join(command), lambda: subprocess.run(command, check=True))  # noqa: S603 -- no shell, our words


def perform(steps: Iterable[Step], dry_run: bool) -> None:
    """Do the steps in turn, or only name them."""
    for step in steps:
        click.echo(step.says)
        if not dry_run:
            done(step)


def done(step: Step) -> None:
    try:
        step.do()
    except OSError as error:
        remedy = "run this as root" if os.geteuid() else "look there"
        fail(f"expected to {step.says}, got: {error.strerror}; {remedy}")
    except subprocess.CalledProcessError as error:
        fail(f"expected `{step.says}` to succeed, got exit code {error.returncode}; what it said stands above")
