"""Other people's servers: each the chat server that its own documentation leads to, in a folder of its own.

They keep nothing, know nobody and check nothing; each is only told to send a message to everybody connected. So what is
compared is their best case. They are installed from PyPI and npm into `.peers` beside this folder, once; which versions
they are is in the results.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
INSTALLED = HERE.parent / ".peers"
INSTALL_S = 180


class Missing(Exception):
    """A peer could not be had, for this reason."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One server.

    Attributes:
        packages: what it needs, by the registry's names; the first names it.
        program: our file with its server.
        dialect, path: how the load speaks to it, and where.
    """

    name: str
    packages: tuple[str, ...]
    program: str
    dialect: str = "raw"
    path: str = "/"

    @property
    def folder(self) -> Path:
        return INSTALLED / self.name.lower().replace(" ", "-").replace(".", "-")

    @property
    def is_node(self) -> bool:
        return self.program.endswith(".js")

    def command(self, port: int) -> list[str]:
        if self.is_node:
            return ["node", str(HERE / self.program), str(port)]
        python = str(self.folder / "bin" / "python")
        if self.program == "channels_app.py":
            return [python, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "--access-log", "/dev/null",
                    "channels_app:application"]  # fmt: skip
        return [python, "-m", "uvicorn", "--port", str(port), "--log-level", "warning", "--no-access-log",
                f"{self.program.removesuffix('.py')}:app"]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {"NODE_PATH": str(self.folder / "node_modules"), "PYTHONPATH": str(HERE)}

    def install(self) -> str:
        """See that it is there; returns its versions.

        Raises:
            Missing: with the installer's last words.
        """
        done = self.folder / "installed"
        if not done.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.is_node:
                _run("npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(self.folder),
                     *self.packages)  # fmt: skip
            else:
                _run(sys.executable, "-m", "venv", str(self.folder))
                _run(str(self.folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", *self.packages)
            done.write_text(self._versions())
        return done.read_text()

    def _versions(self) -> str:
        names = [package.partition("[")[0] for package in self.packages]
        if self.is_node:
            manifests = [json.loads((self.folder / "node_modules" / n / "package.json").read_text()) for n in names]
            return ", ".join([f"{m['name']} {m['version']}" for m in manifests] + [f"node {_run('node', '--version')}"])
        listed = json.loads(_run(str(self.folder / "bin" / "pip"), "list", "--format", "json"))
        found = {entry["name"].lower(): entry["version"] for entry in listed}
        return ", ".join(f"{name} {found.get(name.lower(), '?')}" for name in names)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[0]}: {error}") from None
    if done.returncode:
        raise Missing(f"{command[0]}: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout.strip()


PEERS = (
    Peer("FastAPI", ("fastapi", "uvicorn[standard]", "uvloop", "websockets"), "fastapi_app.py"),
    Peer("python-socketio", ("python-socketio", "uvicorn[standard]", "uvloop"), "socketio_app.py", "socketio",
         "/socket.io/?EIO=4&transport=websocket"),
    Peer("Django Channels", ("channels", "daphne", "Django"), "channels_app.py"),
    Peer("ws", ("ws",), "ws.js"),
    Peer("socket.io", ("socket.io",), "socketio.js", "socketio", "/socket.io/?EIO=4&transport=websocket"),
)  # fmt: skip
