"""A Debian with a real systemd as its first process, which tests start, enter and switch off; and the package for it.

It is this machine's own file system under an overlay in memory, so that nothing of it is changed, with a network of
its own. What runs in it is started by `host.run("systemctl", ...)`; `host.entered()` puts the sockets that this thread
opens into its network, so that a test's clients reach its services at 127.0.0.1. Needs root and the right to make
namespaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
START_S = 60.0
COMMAND_S = 60.0
NEEDED = ("systemd-nspawn", "unshare", "nsenter", "ip", "dpkg-deb")

CLONE_NEWNET = 0x40000000

# Units of the machine's own that would wait for a network which never comes.
MASKED = ("systemd-networkd", "systemd-networkd-wait-online", "networking", "ifupdown-wait-online", "systemd-resolved")

BOOT = """
set -e
for group in $4; do echo $$ > "$group/cgroup.procs"; done
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
for unit in $3; do ln -sf /dev/null "$1/root/etc/systemd/system/$unit.service"; done
rm -f "$1/root/etc/machine-id" && touch "$1/root/etc/machine-id"
rm -f "$1/root/var/lib/man-db/auto-update" "$1"/root/etc/dpkg/dpkg.cfg.d/*
cp "$2" "$1/root/opt/chatd.deb"
exec systemd-nspawn -q -D "$1/root" --private-network --register=no --keep-unit --notify-ready=yes --console=pipe \
  -b systemd.unit=basic.target
"""


def missing() -> str:
    """What this machine lacks to boot a systemd; "" when nothing."""
    if os.geteuid() != 0:
        return "root"
    if lacking := [name for name in NEEDED if shutil.which(name) is None]:
        return f"the programs {', '.join(lacking)}"
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
        return "the right to make namespaces and to mount"
    return ""


def package(directory: Path) -> Path:
    """The Debian package of this repository, built as for anybody, but for the time that packing it small takes."""
    done = subprocess.run(
        [REPOSITORY / "systemd" / "deb" / "build", directory, "-Zgzip", "-z1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


class Host:
    """A booted system. `leader`: the process id of its systemd, seen from here."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def run(self, *command: str | Path, check: int | None = 0) -> str:
        """What a command prints when run in it."""
        done = self.tried(*command)
        assert check is None or done.returncode == check, (
            f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr}{done.stdout}\n"
            + self.tried("journalctl", "--no-pager", "-q", "-n", "80").stdout
        )
        return done.stdout

    def tried(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--"]
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "HOME": "/root"}
        return subprocess.run(
            [*enter, *command], env=environ, capture_output=True, text=True, timeout=COMMAND_S, stdin=subprocess.DEVNULL
        )

    def show(self, unit: str, *names: str) -> list[str]:
        """Properties of a unit."""
        text = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names))
        found = dict(line.split("=", 1) for line in text.splitlines())
        return [found[name] for name in names]

    def write(self, path: str, text: str) -> None:
        """A file in it."""
        target = Path(f"/proc/{self.leader}/root{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def journal(self, *matches: str) -> list[str]:
        """The messages of its journal that match."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "-q", "-o", "cat", "--no-pager", *matches, check=None).splitlines()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile are in its network."""
        with _network("/proc/thread-self/ns/net") as home, _network(f"/proc/{self.leader}/ns/net") as theirs:
            _enter(theirs)
            try:
                yield
            finally:
                _enter(home)


@contextlib.contextmanager
def booted(deb: Path) -> Iterator[Host]:
    """The system, with `deb` at /opt/chatd.deb; switched off at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="chatd-boot-") as place,
        contextlib.closing(_Ready(place)) as ready,
        _groups(Path(place).name) as groups,
    ):
        mount = Path(place, "mount")
        mount.mkdir()
        with Path(place, "console").open("w+") as console:
            process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", BOOT, "sh", mount, deb, " ".join(MASKED), " ".join(map(str, groups))],
                env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": ready.path},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
            try:
                leader = ready.leader(process, Path(console.name))
                # It goes on telling us how the system is, and would wait for ever for us to listen.
                ready.close()
            except BaseException:
                process.terminate()
                process.wait(START_S)
                raise
            try:
                host = Host(leader)
                host.run("ip", "link", "set", "lo", "up")
                yield host
            finally:
                # All of it is in memory, so the plug is pulled: with its first process every other one ends.
                os.kill(leader, signal.SIGKILL)
                process.wait(START_S)


@contextlib.contextmanager
def _groups(name: str) -> Iterator[list[Path]]:
    """Control groups of this name, in each hierarchy that a systemd uses.

    systemd-nspawn boots into a group called "payload" below its own: two systems in one would end each other's
    services.
    """
    groups = [place / name for place in _hierarchies()]
    for group in groups:
        group.mkdir()
    try:
        yield groups
    finally:
        for group in groups:
            for below, _, _ in os.walk(group, topdown=False):
                os.rmdir(below)


def _hierarchies() -> Iterator[Path]:
    """Where this process is in the unified hierarchy, and in systemd's own where the machine still has that."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, (kind, _, options) = line.split()[4], line.partition(" - ")[2].split()
        name = "" if kind == "cgroup2" else "name=systemd"
        if kind == "cgroup2" or (kind == "cgroup" and name in options.split(",")):
            yield Path(place, own[name].lstrip("/"))


class _Ready:
    """Where systemd-nspawn says that the system has started, and as which process."""

    def __init__(self, place: str) -> None:
        self.path = f"{place}/notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(1.0)

    def leader(self, process: subprocess.Popen[bytes], console: Path) -> int:
        leader = 0
        for _ in range(int(START_S)):
            try:
                said = dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines() if "=" in line)
            except TimeoutError:
                assert process.poll() is None, f"the system did not boot:\n{console.read_text()}"
                continue
            leader = int(said.get("X_NSPAWN_LEADER_PID", leader))
            if said.get("READY") == "1":
                return leader
        raise AssertionError(f"the system was not up within {START_S} s:\n{console.read_text()}")

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def _network(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(network: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(network, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
