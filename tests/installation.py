"""A whole local installation in a folder of its own: the product as its user starts it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import warm
from present import unlimited

from base.settings import Settings
from portal import auth

ROOT = Path(__file__).parent.parent
ENDED = {"completed", "failed", "cancelled"}


def free_ports(count: int = 2) -> int:
    """The first of `count` neighbouring free ports."""
    for _ in range(50):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        if first + count < 65536 and all(_free(first + step) for step in range(count)):
            return first
    raise RuntimeError("no free ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Installation:
    """`home` and `port` are its own; `up()` and `down()` are the user's commands."""

    def __init__(self, home: Path, port: int, **settings: str) -> None:
        self.home = home
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AI_INFRA_", "ANTHROPIC_")) and key != "TMUX"
        }
        self.env = {
            **inherited,
            "AI_INFRA_HOME": str(home),
            "AI_INFRA_PORT": str(port),
            **{f"AI_INFRA_{key.upper()}": value for key, value in settings.items()},
        }

    def run(
        self, *command: str, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with this installation's environment."""
        done = subprocess.run(
            command, env=self.env, cwd=ROOT, capture_output=True, text=True, check=False, **options
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{command} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done

    def cli(
        self, *arguments: str, check: bool = True, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """`ai-infra …`; given: its standard input."""
        done = warm.run("portal.cli", *arguments, env=self.env, given=given)
        if check and done.returncode != 0:
            raise AssertionError(
                f"{arguments} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done

    def up(self) -> None:
        self.run(sys.executable, "-m", "supervisor", "up")

    def down(self) -> None:
        self.run(sys.executable, "-m", "supervisor", "down", check=False)

    def token(self) -> str:
        return auth.local_token(Settings(home=self.home))

    def client(self) -> httpx.Client:
        """A signed-in API client of the local owner."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=False
        )

    def workspace(self, user_id: str, name: str = "main") -> Path:
        return Settings(home=self.home).workspace(user_id, name)

    def tmux(self, *arguments: str) -> str:
        """Output of tmux on the agents' socket."""
        path = Settings(home=self.home).tmux_socket
        return self.run("tmux", "-S", str(path), *arguments).stdout


def post(client: httpx.Client, content: str, **fields: Any) -> dict[str, Any]:
    """Send a message into a new conversation; the 202's body."""
    conversation = (
        client.post("/api/conversations", json={"title": "test"}).raise_for_status().json()
    )
    answer = client.post(
        f"/api/conversations/{conversation['id']}/messages", json={"content": content, **fields}
    )
    return {**answer.raise_for_status().json(), "conversation_id": conversation["id"]}


def wait_task(client: httpx.Client, task_id: str, seconds_s: float = 60.0) -> dict[str, Any]:
    """The whole task (task, subtasks, logs) once it has ended."""
    end, pause_s = time.monotonic() + seconds_s, 0.04
    task: dict[str, Any] = {}
    while time.monotonic() < end:
        task = client.get(f"/api/tasks/{task_id}").raise_for_status().json()
        if task["task"]["status"] in ENDED:
            return task
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, 0.3)
    raise AssertionError(
        f"task did not end within {seconds_s} s: {json.dumps(task, indent=1)[:4000]}"
    )


@contextmanager
def installation(
    *, config: Mapping[str, str] | None = None, **settings: str
) -> Iterator[Installation]:
    """Started, and gone afterwards with all its files. `config`: the owner's files by name.

    Without workers unless `local_workers="true"`: PyTorch takes seconds of both cores to load.
    """
    home = Path(tempfile.mkdtemp(prefix="ai-i-", dir="/tmp"))
    home.chmod(0o755)
    made = Installation(home, free_ports(), **{"local_workers": "false", **settings})
    unlimited(home)
    (home / "config").mkdir(mode=0o700, exist_ok=True)
    for name, text in (config or {}).items():
        (home / "config" / name).write_text(text, encoding="utf-8")
    try:
        made.up()
        yield made
    finally:
        made.down()
        shutil.rmtree(home, ignore_errors=True)
