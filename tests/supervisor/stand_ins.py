"""A home with stand-ins for the programs in the windows, so that only the keeping is tested.

`python -m agents|portal|workers` and the supervisor's loop come from a folder on PYTHONPATH:
each sends heartbeats (or listens on its port) and does what `act/<name>` says:
`exit N` at the start, `silent` (no heartbeats), `deaf` (ignores SIGTERM), `slow N` (a service
that answers after so many seconds).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from base.messages import Heartbeat, Message, Type, encode
from base.settings import Settings
from supervisor import status

ROOT = Path(__file__).parents[2]
STAND_IN = """
import asyncio, os, signal, sys
from pathlib import Path
from base import streams
from base.bus import Bus
from base.messages import Heartbeat, Message, Type
from base.settings import load

def began(name):
    settings = load()
    act = settings.home / "act" / name
    word = act.read_text().split() if act.exists() else []
    if word[:1] == ["exit"]:
        print("last words of", name, flush=True)
        sys.exit(int(word[1]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, (lambda: None) if "deaf" in word else stop.set)
    return settings, act, word, stop

async def serve(name, service):
    settings, act, word, stop = began(name)
    if word[:1] == ["slow"]:
        await asyncio.sleep(float(word[1]))
    bus = await Bus.open(settings.redis, name)
    async def answer(payload):
        return {"ready": True}
    serving = asyncio.create_task(bus.serve(service, answer))
    await stop.wait()
    serving.cancel()
    with (settings.home / "ended").open("a") as ended:
        print(name, file=ended)
    os._exit(0)  # as our own do: without taking all apart that was loaded

async def main(name):
    settings, act, word, stop = began(name)
    bus = await Bus.open(settings.redis, name)
    while not stop.is_set():
        now = act.read_text() if act.exists() else ""
        if "silent" not in now:
            beat = Heartbeat(agent=name, pid=os.getpid(), status="idle")
            payload = beat.model_dump(mode="json")
            await bus.publish(streams.HEARTBEATS, Message(
                source=name, target="*", type=Type.HEARTBEAT, payload=payload))
        try:
            await asyncio.wait_for(stop.wait(), settings.heartbeat_s)
        except TimeoutError:
            pass
"""
#: What only has to listen, or to be heard, starts without our imports: a home has a dozen, and
#: what they load would be most of what a test of them computes. `beat` is a heartbeat of ours.
LISTENING = """
import os, signal, socket, sys, time

HOME = os.environ["AI_INFRA_HOME"]

def read(name):
    try:
        with open(f"{HOME}/act/{name}") as act:
            return act.read()
    except FileNotFoundError:
        return ""

def began(name):
    word = read(name).split()
    if word[:1] == ["exit"]:
        print("last words of", name, flush=True)
        sys.exit(int(word[1]))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in word else lambda *_: os._exit(0))

def until_told(name, step):
    began(name)
    server = socket.create_server(("127.0.0.1", int(os.environ["AI_INFRA_PORT"]) + step))
    while True:
        signal.pause()

def beats(name):
    began(name)
    with open(f"{HOME}/beat", "rb") as beat:
        told = beat.read().replace(b"NAME", name.encode()).replace(b"999999", b"%d" % os.getpid())
    words = [b"XADD", b"heartbeats", b"*", b"data", told]
    asked = b"*5\\r\\n" + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(word), word) for word in words)
    line = None
    while True:
        if "silent" not in read(name):
            try:
                if line is None:
                    line = socket.socket(socket.AF_UNIX)
                    line.connect(f"{HOME}/run/redis.sock")
                line.sendall(asked)
                if not line.recv(200).startswith(b"$"):
                    raise OSError("not taken")
            except OSError:
                line = None
        time.sleep(float(os.environ["AI_INFRA_HEARTBEAT_S"]))
"""
BEAT = encode(
    Message(
        source="NAME",
        target="*",
        type=Type.HEARTBEAT,
        payload=Heartbeat(agent="NAME", pid=999999, status="idle").model_dump(mode="json"),
    )
)
FILES = {
    "stand_in.py": STAND_IN,
    "agents/__main__.py": "import sys, listening\nlistening.beats(sys.argv[1])",
    "listening.py": LISTENING,
    "portal/__main__.py": "import listening\nlistening.until_told('portal', 0)",
    "workers/__main__.py": """import sys
if sys.argv[1:] == ["rehearsal"]:
    import listening
    listening.until_told("rehearsal", 1)
else:
    import asyncio, stand_in
    asyncio.run(stand_in.serve("workers", sys.argv[1]))""",
    "pai/__main__.py": "import asyncio, stand_in\nasyncio.run(stand_in.serve('memory', 'memory'))",
    "sitecustomize.py": """import sys, types
async def main(settings, stop):
    import stand_in
    await stand_in.main("supervisor")
sys.modules["supervisor.loop"] = types.ModuleType("supervisor.loop")
sys.modules["supervisor.loop"].main = main""",
}
FAST = {
    "HEARTBEAT_S": "0.5",
    "RESTART_BACKOFF_S": "[0.2, 0.2, 0.2]",
    "STABLE_S": "60",
    "DRAIN_S": "3",
}


def need_tmux() -> None:
    """Skip at home, fail in CI when there is no tmux."""
    if shutil.which("tmux") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("tmux is not installed")


class Home:
    """`env` is what the user's shell would hold; `run` is the user's command."""

    def __init__(self, folder: Path, port: int, **more: str) -> None:
        self.folder = folder
        self.port = port
        for name, text in FILES.items():
            path = folder / "stand-ins" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (folder / "act").mkdir()
        (folder / "beat").write_bytes(BEAT)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AI_INFRA_", "ANTHROPIC"))}
        self.env = {
            **kept,
            "PYTHONPATH": str(folder / "stand-ins"),
            "AI_INFRA_HOME": str(folder),
            "AI_INFRA_PORT": str(port),
            **{f"AI_INFRA_{key}": value for key, value in FAST.items()},
            **more,
        }

    def act(self, name: str, word: str) -> None:
        (self.folder / "act" / name).write_text(word)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "supervisor", *words],
            env=self.env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done

    def status(self) -> dict[str, Any]:
        return asyncio.run(status.report(Settings(home=self.folder, port=self.port)))

    def window(self, name: str) -> dict[str, Any]:
        found = self.status()
        return dict({**found["services"], **found["windows"]}[name])

    def pids(self) -> dict[str, int]:
        found = self.status()
        return {n: row["pid"] for n, row in {**found["services"], **found["windows"]}.items()}

    def tmux(self, socket: str, *words: str) -> str:
        line = ["tmux", "-S", str(self.folder / "run" / socket), *words]
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout

    def server_pid(self, socket: str) -> int:
        return int(self.tmux(socket, "display-message", "-p", "#{pid}").strip())

    def processes(self) -> list[str]:
        """Command lines of everything that belongs to this home."""
        mark, found = str(self.folder), []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                env = process.environ().get("AI_INFRA_HOME")
            except (psutil.Error, OSError):
                continue
            if process.pid != os.getpid() and (env == mark or mark in line):
                found.append(line)
        return found

    def log(self, name: str = "watch") -> str:
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""


@contextmanager
def home(port: int, **more: str) -> Iterator[Home]:
    """A home that is not started; whatever runs of it afterwards is stopped, its files removed."""
    folder = Path(tempfile.mkdtemp(prefix="ai-h-", dir="/tmp"))
    folder.chmod(0o755)
    made = Home(folder, port, **more)
    try:
        yield made
    finally:
        done = made.run("down", check=False)
        for process in psutil.process_iter(["cmdline"]):
            if str(folder) in " ".join(process.info["cmdline"] or ()):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)
        assert done.returncode == 0, done.stderr


def within(what: str, seconds_s: float, true: Callable[[], object]) -> None:
    """Poll gently until `true()` holds; fails by name."""
    end_s = time.monotonic() + seconds_s
    while time.monotonic() < end_s:
        if true():
            return
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {seconds_s} s")
