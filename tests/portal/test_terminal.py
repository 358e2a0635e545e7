"""No text of a model, a tool or a person moves the terminal that shows it: every listing of the
command in a real tmux window, which accepts titles, clipboards and screens from what runs in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from present import need
from typer.testing import CliRunner

from base import streams
from base.bus import Bus, Delivery
from base.messages import Kind, Message, Type
from base.store import Store
from base.terminal import UNSAFE
from portal import auth
from portal.cli import app
from portal.pages.marks import HIDDEN
from supervisor import monitor
from tests.conftest import wait_for
from tests.portal.conftest import REPO, Portal, Stage

#: Clipboard, titles, another screen, mouse, hidden cursor, C1 forms of them, bidi, a tag letter.
EVIL = (
    "\x1b]52;c;b3duZWQ=\x07\x1b]0;owned\x07\x1bkowned\x1b\\\x1b[?1049h\x1b[?1003h\x1b[?25l"
    "\x9b?1049h\x9d52;c;b3duZWQ=\x9c\x1b]8;;http://evil/\x1b\\\x08\r\x7f\u202eliame\u2066\u200b"
    "\U000e0041owned"
)
STATE = "#{pane_title}|#{alternate_on}|#{mouse_any_flag}|#{cursor_flag}|#{window_name}"

#: Runs the command once for each list of arguments: a process each would take a minute.
EACH = """
import contextlib, json, sys
from portal.cli import app
for line in json.loads(sys.argv[1]):
    with contextlib.suppress(SystemExit):
        app(line)
"""


class Window:
    """A tmux server of its own with one window, as trusting as tmux can be made."""

    def __init__(self, folder: Path) -> None:
        self._line = [need("tmux"), "-u", "-f", "/dev/null", "-S", str(folder / "s")]
        self._folder = folder
        self._count = 0
        self("new-session", "-d", "-s", "t", "-x", "160", "-y", "50", "-n", "plain", "sh")
        self("set", "-g", "allow-rename", "on")
        self("set", "-g", "allow-passthrough", "on")
        self("set", "-s", "set-clipboard", "on")
        self("select-pane", "-T", "plain")
        self.run("true")
        self.before = self.state()

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run([*self._line, *arguments], check=check, capture_output=True)
        return done.stdout.decode(errors="replace")

    def state(self) -> tuple[str, str]:
        return self("display", "-p", "-t", "t", STATE), self("list-buffers")

    def run(self, *line: str, limit_s: float = 60.0) -> None:
        """Run a command in the window, and wait for its end."""
        self.start(*line)
        self.wait(limit_s)

    def start(self, *line: str) -> None:
        self._count += 1
        text = f"{shlex.join(line)}; touch {self._folder / f'done{self._count}'}"
        script = self._folder / "script"
        script.write_text(text)
        self("send-keys", "-t", "t", "-l", f". {script}")
        self("send-keys", "-t", "t", "Enter")

    def wait(self, limit_s: float = 60.0) -> None:
        mark = self._folder / f"done{self._count}"
        wait_for("the command's end", mark.exists, limit_s)

    def seen(self) -> str:
        return self("capture-pane", "-p", "-t", "t", "-S", "-500")

    def close(self) -> None:
        self("kill-server", check=False)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch, portal: Portal) -> Iterator[Window]:
    monkeypatch.setenv("AI_INFRA_HOME", str(portal.settings.home))
    monkeypatch.setenv("AI_INFRA_PORT", str(portal.settings.port))
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    made = Window(Path(tempfile.mkdtemp(prefix="ai-w-", dir="/tmp")))
    yield made
    made.close()


async def planted(stage: Stage, bus: Bus, store: Store, portal: Portal) -> str:
    """A task, its parts, events, a dead letter and log lines, all with the payload; the task."""
    headers = {"Authorization": f"Bearer {auth.local_token(portal.settings)}"}
    async with httpx.AsyncClient(base_url=portal.url, verify=False, headers=headers) as client:
        made = (await client.post("/api/conversations", json={"title": EVIL})).json()
        body = {"content": EVIL}
        path = f"/api/conversations/{made['id']}/messages"
        task: str = (await client.post(path, json=body)).json()["task_id"]
    checked = {"id": "ISC-1", "text": EVIL, "verdict": "passed", "evidence": EVIL}
    output = {"answer": f"answer {EVIL}", "criteria": [checked]}
    await store.execute(
        "INSERT INTO tasks (id, root_id, parent_task_id, conversation_id, user_id, key, type,"
        " assigned_agent, title, status, input, output, error, workspace) SELECT $1, id, id,"
        " conversation_id, user_id, 's1', 'subtask', 'code', $3, 'failed', $4, $5, $3, 'main'"
        " FROM tasks WHERE id = $2",
        *(str(uuid.uuid4()), task, f"part {EVIL}", {"instruction": EVIL}, output),
    )
    await store.execute(
        "UPDATE tasks SET title = $2, error = $2, output = $3, status = 'failed' WHERE id = $1",
        *(task, f"title {EVIL}", output),
    )
    for kind in (Kind.TEXT, Kind.TOOL, Kind.CRITERION):
        await stage.tell(task, kind, content=EVIL, name=EVIL, summary=EVIL, text=EVIL)
    letter = Message(source="test", target="x", type=Type.TASK, payload={"text": EVIL})
    await bus.bury(
        streams.RESULTS, streams.GROUP_SUPERVISOR, Delivery(id="1-1", message=letter, count=3), EVIL
    )
    (portal.settings.logs / "postgres.log").write_text(f"ERROR: {EVIL}\n")
    return task


async def test_every_listing(
    window: Window, stage: Stage, bus: Bus, store: Store, portal: Portal
) -> None:
    task = await planted(stage, bus, store, portal)
    lines = [
        ["tasks", "list"],
        ["tasks", "show", task],
        ["agents", "list"],
        ["agents", "logs", "postgres"],
        ["events"],
        ["dlq", "list"],
        ["status"],
        ["tasks", "show", EVIL],
        ["agents", "logs", EVIL],
        ["tasks", "cancel", "--json", task],
        *(["tasks", "list", "--json"], ["tasks", "show", task, "--json"], ["events", "--json"]),
        *(["agents", "list", "--json"], ["dlq", "list", "--json"]),
    ]
    await asyncio.to_thread(window.run, sys.executable, "-c", EACH, json.dumps(lines), limit_s=90)
    assert "owned" in window.seen()
    assert window.state() == window.before
    for line in lines:
        done = await asyncio.to_thread(CliRunner().invoke, app, line)
        assert not UNSAFE.search(done.output.replace("\n", "")), line
        if "--json" in line and done.exit_code == 0:
            assert json.loads(done.stdout) is not None
    shown = await asyncio.to_thread(CliRunner().invoke, app, ["tasks", "show", task, "--json"])
    assert json.loads(shown.stdout)["task"]["title"] == f"title {EVIL}"
    await bus.purge(streams.RESULTS, older_than_days=0)


async def test_an_answer_as_it_streams(window: Window, stage: Stage, portal: Portal) -> None:
    before = await stage.store.fetchval("SELECT count(*) FROM tasks WHERE type = 'request'")
    window.start(sys.executable, "-m", "portal.cli", "ask", f"say {EVIL}")
    root = ""
    for _ in range(300):
        now = await stage.store.fetchval("SELECT count(*) FROM tasks WHERE type = 'request'")
        if now > before:
            root = await stage.store.fetchval(
                "SELECT id FROM tasks WHERE type = 'request' ORDER BY created_at DESC LIMIT 1"
            )
            break
        await asyncio.sleep(0.1)
    assert root
    part = {"id": str(uuid.uuid4()), "key": "s1", "agent": "code", "title": EVIL}
    plan = {**part, "instruction": EVIL, "depends_on": [EVIL], "effort": "standard"}
    await stage.tell(root, Kind.PLAN, subtasks=[{**plan, "criteria": []}])
    await stage.tell(
        root, Kind.TOOL, part["id"], by="code", name=EVIL, state="started", summary=EVIL
    )
    await stage.tell(
        root, Kind.CRITERION, part["id"], by="code", id="ISC-1", text=EVIL, verdict="passed"
    )
    for at in range(len(EVIL)):  # one character a piece: no sequence is whole in any of them
        await stage.chunk(root, at, EVIL[at])
    await stage.end(root, EVIL, status="failed")
    await asyncio.to_thread(window.wait, 60.0)
    assert "owned" in window.seen()
    assert window.state() == window.before


def test_the_same_text_unguarded_does_move_it(window: Window, tmp_path: Path) -> None:
    """The control: this window would have told."""
    (tmp_path / "evil").write_text(EVIL)
    window.run("cat", str(tmp_path / "evil"))
    title, buffers = window.state()
    assert title != window.before[0]
    assert "owned" in title
    assert "buffer" in buffers


def test_logs_and_the_monitor_are_plain_text(tmp_path: Path) -> None:
    script = (
        "import sys, logging; from base import log; from pathlib import Path\n"
        "evil = sys.argv[1]; log.start('x', Path(sys.argv[2]), 'debug')\n"
        "log.get('x').info(evil, task_id=evil, error=evil)\n"
        "logging.getLogger('library').warning('said %s', evil)\n"
        "try: raise ValueError(evil)\n"
        "except ValueError: log.get('x').exception('failed')\n"
    )
    line = [sys.executable, "-c", script, EVIL, str(tmp_path)]
    subprocess.run(line, check=True, env={**os.environ, "PYTHONPATH": str(REPO)})
    text = (tmp_path / "x.log").read_text()
    assert text.count("owned") >= 4
    assert not UNSAFE.search(text)
    picture = {
        "wire": True,
        "model": EVIL,
        "windows": {EVIL: {"state": EVIL, "pid": 1}},
        "agents": {EVIL: {"pid": 1, "status": EVIL, "phase": EVIL, "task_id": EVIL}},
        "queues": {EVIL: 1},
    }
    screen = monitor.render(picture, 0.0, 400)
    assert not UNSAFE.search(re.sub(r"\x1b\[[0-9]{1,2}m|\n", "", screen))


def test_what_hides_in_a_page_is_unsafe_in_a_terminal() -> None:
    for code in range(0x110000):
        char = chr(code)
        if HIDDEN.fullmatch(char):
            assert UNSAFE.fullmatch(char), f"U+{code:04X}"
