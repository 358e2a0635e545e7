"""The whole story, with every process real: a person asks, the team works, the answer comes back.

The workspace is a real source tree (a copy of this product's ground floor). The model provider
alone is scripted.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from installation import ENDED, ROOT, Installation, installation, post, wait_task
from websockets.asyncio.client import connect

pytestmark = pytest.mark.xdist_group("path")  # one installation, one story

CODE = """\
'''Counts the lines of Python files.'''
import pathlib

def lines(folder: str) -> int:
    return sum(len(p.read_text().splitlines()) for p in pathlib.Path(folder).rglob('*.py'))

if __name__ == '__main__':
    print(lines('base'))
"""
SUMMARISE = (
    "python3 - <<'X'\n"
    "import pathlib, json\n"
    "files = sorted(str(p) for p in pathlib.Path('base').glob('*.py'))\n"
    "pathlib.Path('report.json').write_text(json.dumps({'files': len(files)}))\n"
    "print(len(files), 'files')\nX"
)
PLAN = {
    "summary": "code and data in parallel, qa checks both",
    "subtasks": [
        {
            "key": "s1",
            "agent": "code",
            "title": "line counter",
            "instruction": "Write count.py, which prints how many lines base/*.py have.",
            "effort": "standard",
            "depends_on": [],
            "budget_share": 0.3,
            "criteria": [
                {
                    "id": "ISC-1",
                    "text": "count.py prints a positive number of lines when it is run",
                    "probe": {
                        "kind": "command",
                        "command": "python3 count.py",
                        "pattern": "^[1-9]",
                    },
                },
                {
                    "id": "ISC-A-1",
                    "text": "No file of the source tree base was changed by it",
                    "probe": {"kind": "command", "command": "sha256sum --quiet -c .sums"},
                },
            ],
        },
        {
            "key": "s2",
            "agent": "data",
            "title": "report",
            "instruction": "Count the files and write report.json.",
            "effort": "standard",
            "depends_on": [],
            "budget_share": 0.3,
            "criteria": [
                {
                    "id": "ISC-1",
                    "text": "report.json names the number of Python files found there",
                    "probe": {"kind": "pattern", "path": "report.json", "pattern": '"files": \\d+'},
                }
            ],
        },
        {
            "key": "s3",
            "agent": "qa",
            "title": "check both",
            "instruction": "Run count.py, read report.json, write REVIEW.md.",
            "effort": "standard",
            "depends_on": ["s1", "s2"],
            "budget_share": 0.3,
            "criteria": [
                {
                    "id": "ISC-1",
                    "text": "REVIEW.md exists in the workspace and holds the review",
                    "probe": {"kind": "file", "path": "REVIEW.md"},
                }
            ],
        },
    ],
}
LINES: list[dict[str, Any]] = [
    {"for": "planner", "plan": PLAN},
    {
        "for": "code",
        "say": "Writing it.",
        "tool": "write",
        "input": {"path": "count.py", "content": CODE},
    },
    {"for": "code", "tool": "shell", "input": {"command": "python3 count.py"}},
    {"for": "code", "say": "count.py is there and runs."},
    {"for": "data", "say": "Counting.", "tool": "shell", "input": {"command": SUMMARISE}},
    {"for": "data", "say": "report.json is written."},
    {"for": "qa", "tool": "shell", "input": {"command": "python3 count.py && cat report.json"}},
    {"for": "qa", "tool": "write", "input": {"path": "REVIEW.md", "content": "Both work.\n"}},
    {"for": "qa", "say": "Both parts hold."},
    {"for": "join", "say": "The line counter and the report are done; the review found no fault."},
]


def request(
    lines: list[dict[str, Any]], text: str = "Count our lines and files, and check it."
) -> str:
    return text + "\n```rehearsal\n" + "\n".join(json.dumps(line) for line in lines) + "\n```"


@pytest.fixture(scope="module")
def made() -> Iterator[Installation]:
    with installation() as running:
        yield running


@pytest.fixture
def client(made: Installation) -> Iterator[httpx.Client]:
    with made.client() as signed_in:
        yield signed_in


def fill(made: Installation, client: httpx.Client, name: str) -> Path:
    """A workspace of that name holding a copy of this product's `base/` and its checksums."""
    user = client.get("/api/auth/me").raise_for_status().json()
    folder = made.workspace(user["id"], name)
    shutil.copytree(ROOT / "base", folder / "base", ignore=shutil.ignore_patterns("__pycache__"))
    made.run("sh", "-c", f"cd {folder} && sha256sum base/*.py > .sums")
    for path in [folder, *folder.rglob("*")] if os.geteuid() == 0 else []:
        shutil.chown(path, "ai-hands", "ai-hands")
    return folder


async def follow(
    made: Installation, sent: dict[str, Any], seconds_s: float
) -> list[dict[str, Any]]:
    """Every frame about this task, from the beginning until it ended."""
    frames: list[dict[str, Any]] = []
    headers = {"Authorization": f"Bearer {made.token()}"}
    url = f"ws://127.0.0.1:{made.port}/ws"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        payload = {
            "channel": "conversation",
            "conversation_id": sent["conversation_id"],
            "last_event_id": "0-0",
        }
        await socket.send(json.dumps({"type": "subscribe", "payload": payload}))
        async with asyncio.timeout(seconds_s):
            while True:
                frame = json.loads(await socket.recv())
                frames.append(frame)
                told = frame["payload"]
                if (
                    frame["type"] == "task_update"
                    and told.get("task_id") == sent["task_id"]
                    and told.get("status") in ENDED
                ):
                    return frames


async def test_the_whole_story(made: Installation, client: httpx.Client) -> None:
    folder = await asyncio.to_thread(fill, made, client, "story")
    started = time.monotonic()
    sent = post(client, request(LINES), workspace="story")
    frames = await follow(made, sent, 60)
    took_s = time.monotonic() - started
    whole = client.get(f"/api/tasks/{sent['task_id']}").json()

    assert whole["task"]["status"] == "completed", json.dumps(whole, indent=1)[:6000]
    assert took_s < 60, f"took {took_s:.1f} s"
    parts = {part["key"]: part for part in whole["subtasks"]}
    assert {part["status"] for part in parts.values()} == {"completed"}
    assert parts["s3"]["started_at"] >= max(
        parts["s1"]["completed_at"], parts["s2"]["completed_at"]
    )
    assert parts["s1"]["started_at"] < parts["s2"]["completed_at"]
    assert parts["s2"]["started_at"] < parts["s1"]["completed_at"]

    checked = {key: part["output"]["criteria"] for key, part in parts.items()}
    assert all(one["verdict"] == "passed" for found in checked.values() for one in found)
    assert any(one["id"] == "ISC-A-1" for one in checked["s1"])
    assert (folder / "count.py").read_text() == CODE
    assert json.loads((folder / "report.json").read_text())["files"] > 5
    assert (folder / "REVIEW.md").is_file()

    streamed = "".join(
        frame["payload"]["content"] for frame in frames if frame["type"] == "message_chunk"
    )
    answer = client.get(f"/api/conversations/{sent['conversation_id']}/messages").json()
    said = answer["messages"][-1]
    assert said["id"] == sent["answer_message_id"]
    assert "the review found no fault" in said["content"]
    assert streamed.strip() in said["content"]
    kinds = {frame["payload"].get("kind") for frame in frames}
    assert {"plan", "task", "tool", "criterion"} <= kinds
    assert any(frame["type"] == "message_complete" for frame in frames)


def test_the_windows_are_there_and_show_the_work(made: Installation, client: httpx.Client) -> None:
    names = made.tmux("list-windows", "-t", "ai-infrastructure", "-F", "#I #W").splitlines()
    assert [name.split()[:2] for name in names[:8]] == [
        [str(index), name]
        for index, name in enumerate(
            ["supervisor", "code", "data", "infra", "research", "qa", "monitor", "logs"]
        )
    ]
    sent = post(client, "Hi\n```rehearsal\n{\"say\":\"Hello from the window.\"}\n```",
                effort="minimal", agent="research")  # fmt: skip
    wait_task(client, sent["task_id"])
    shown = made.tmux("capture-pane", "-p", "-S", "-", "-t", "ai-infrastructure:research")
    assert "Hello from the window." in shown
    assert "REHEARSAL" in shown.upper()


def test_prd_and_journal_are_in_the_task_folder(made: Installation, client: httpx.Client) -> None:
    plan = {**PLAN, "subtasks": PLAN["subtasks"][1:2]}
    sent = post(client, request([{"for": "planner", "plan": plan}, *LINES[4:6]]))
    whole = wait_task(client, sent["task_id"])
    assert len(whole["subtasks"]) == 1
    work = made.home / "MEMORY" / "Work" / "active"
    found = [
        path for path in work.glob("*/PRD.md") if whole["subtasks"][0]["id"][:8] in path.parent.name
    ]
    text = found[0].read_text()
    head = text.split("---")[1]
    assert [line.split(":")[0] for line in head.strip().splitlines()] == [
        "task", "slug", "effort", "phase", "progress", "mode", "started", "updated",
    ]  # fmt: skip
    assert "## Criteria" in text
    assert "- [" in text
    assert (found[0].parent / "journal.jsonl").is_file()


def test_ask_prints_the_answer_and_exits_0(made: Installation) -> None:
    done = made.cli("ask", "--effort", "minimal", 'Hi\n```rehearsal\n{"say":"Good day."}\n```')
    assert done.stdout.strip() == "Good day."


def test_ask_exits_1_when_the_task_fails(made: Installation) -> None:
    script = '```rehearsal\n{"fault":"400","times":9}\n```'
    done = made.cli("ask", "--effort", "minimal", f"Hi\n{script}", check=False)
    assert done.returncode == 1
    assert "failed" in done.stderr


def test_wrong_usage_exits_2(made: Installation) -> None:
    assert made.cli("ask", "--effort", "heroic", "Hi", check=False).returncode == 2
    assert made.cli("ask", "--agent", "nobody", "Hi", check=False).returncode == 2
    assert made.cli("ask", "x" * 60_000, check=False).returncode == 2
    assert made.cli("ask", "", check=False).returncode == 2
    assert made.cli("tasks", "show", "no-such-task", check=False).returncode == 2


def test_every_listing_speaks_json(made: Installation) -> None:
    said: dict[str, str] = {}
    for line in (["status"], ["doctor"], ["tasks", "list"], ["agents", "list"], ["dlq", "list"]):
        json.loads(made.cli(*line, "--json", check=line != ["doctor"]).stdout)
        said[line[0]] = made.cli(*line, check=line != ["doctor"]).stdout
    assert json.loads(made.cli("status", "--json").stdout)["state"] == "up"
    assert "sandbox" in said["doctor"]
    made.cli("ask", "--effort", "minimal", "Hi")
    assert "plan" in made.cli("events").stdout


def test_not_running_exits_3(tmp_path: Path) -> None:
    away = Installation(tmp_path / "nowhere", 9)
    assert away.cli("ask", "Hi", check=False).returncode == 3
    assert away.cli("status", check=False).returncode == 3
    assert away.cli("tasks", "list", check=False).returncode == 3
