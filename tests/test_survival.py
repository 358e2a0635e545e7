"""A whole installation is hurt in the middle of its work; nothing accepted is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
import redis
from installation import Installation, installation, post, wait_task
from present import wait_for

pytestmark = pytest.mark.xdist_group("survival")  # one installation

BRISK = {
    "heartbeat_s": "1",
    "lease_s": "6",
    "assign_lease_s": "3",
    "sweep_s": "1",
    "restart_backoff_s": "0.5,1,2",
}
CRITERION = {
    "id": "ISC-1",
    "text": "The file done.txt exists in the workspace after the work",
    "probe": {"kind": "file", "path": "done.txt"},
}


@pytest.fixture(scope="module")
def made() -> Iterator[Installation]:
    with installation(**BRISK) as running:
        yield running


@pytest.fixture
def client(made: Installation) -> Iterator[httpx.Client]:
    with made.client() as signed_in:
        yield signed_in


def slow_task(client: httpx.Client, name: str) -> dict[str, Any]:
    """A task that appends one line, then sits in a shell command for a while."""
    step = {
        "key": "s1",
        "agent": "code",
        "title": name,
        "instruction": "Work slowly.",
        "effort": "standard",
        "depends_on": [],
        "criteria": [CRITERION],
    }
    once = "echo once >> count.txt; touch done.txt"
    lines = [
        {"for": "planner", "plan": {"summary": "slowly", "subtasks": [step]}},
        {"for": "code", "tool": "shell", "input": {"command": once}},
        {"for": "code", "tool": "shell", "input": {"command": "sleep 4"}},
        {"for": "code", "say": "Done slowly."},
    ]
    text = "Work slowly.\n```rehearsal\n" + "\n".join(map(json.dumps, lines)) + "\n```"
    return post(client, text, workspace=name)


def at_work(client: httpx.Client, task_id: str) -> bool:
    """Whether the task's first tool call is over: its effect must not be doubled."""
    parts = client.get(f"/api/tasks/{task_id}").json()["subtasks"]
    return bool(parts) and parts[0]["status"] == "in_progress" and parts[0]["pai_phase"] != ""


def hurt_at_work(made: Installation, client: httpx.Client, name: str) -> dict[str, Any]:
    """Start the slow task and return once its first command has run."""
    sent = slow_task(client, name)
    user = client.get("/api/auth/me").json()
    done = made.workspace(user["id"], name) / "done.txt"
    wait_for("the first command", done.exists, 30)
    assert at_work(client, sent["task_id"])
    return {**sent, "folder": done.parent}


def completed_once(client: httpx.Client, sent: dict[str, Any]) -> None:
    """It completed, and its side effect happened once."""
    whole = wait_task(client, sent["task_id"], 90)
    assert whole["task"]["status"] == "completed", json.dumps(whole, indent=1)[:5000]
    assert (sent["folder"] / "count.txt").read_text() == "once\n"
    page = client.get(f"/api/conversations/{sent['conversation_id']}/messages").json()
    answers = [one for one in page["messages"] if one["role"] == "assistant"]
    assert [one["id"] for one in answers] == [sent["answer_message_id"]]


def pids(made: Installation, *arguments: str) -> list[int]:
    """Our processes whose command line ends in these arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("AI_INFRA_HOME") == str(made.home)
            if ours and tuple(process.cmdline()[-len(arguments) :]) == arguments:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_the_tmux_server_is_killed(made: Installation, client: httpx.Client) -> None:
    sent = hurt_at_work(made, client, "tmux")
    server = int(made.tmux("display-message", "-p", "#{pid}"))
    killed_at_s = time.monotonic()
    os.kill(server, signal.SIGKILL)

    def back() -> bool:
        script = ("list-windows", "-t", "ai-infrastructure", "-F", "#W")
        try:
            return "logs" in made.tmux(*script).split()
        except AssertionError:
            return False

    wait_for("the session", back, 30)
    assert time.monotonic() - killed_at_s < 30
    completed_once(client, sent)


def test_redis_is_wiped(made: Installation, client: httpx.Client) -> None:
    sent = hurt_at_work(made, client, "flush")
    waiting = [post(client, "Hi", effort="minimal") for _ in range(5)]
    wire = redis.Redis(unix_socket_path=str(made.home / "run" / "redis.sock"))
    wire.flushall()
    completed_once(client, sent)
    for one in waiting:
        assert wait_task(client, one["task_id"], 90)["task"]["status"] == "completed"


@pytest.mark.parametrize("victim", [("supervisor",), ("agents", "code"), ("portal",)])
def test_a_process_is_killed(made: Installation, client: httpx.Client, victim: Any) -> None:
    sent = hurt_at_work(made, client, "-".join(victim))
    for pid in pids(made, "-m", *victim):
        os.kill(pid, signal.SIGKILL)
    wait_for("the portal", lambda: _answers(made), 60)
    completed_once(client, sent)


def test_redis_and_postgres_are_killed(made: Installation, client: httpx.Client) -> None:
    sent = hurt_at_work(made, client, "services")
    lines = (made.home / "data" / "postgres" / "postmaster.pid").read_text().splitlines()
    os.kill(int(lines[0]), signal.SIGKILL)
    for process in psutil.process_iter(["name", "cmdline"]):
        if f"unixsocket:{made.home}" in " ".join(process.info["cmdline"] or ()):
            process.kill()
    wait_for("the portal", lambda: _answers(made), 60)
    completed_once(client, sent)


def test_down_and_up_in_the_middle(made: Installation, client: httpx.Client) -> None:
    sent = hurt_at_work(made, client, "downup")
    made.cli("down")
    made.up()
    with made.client() as again:
        completed_once(again, sent)


def _answers(made: Installation) -> bool:
    try:
        answer = httpx.get(f"{made.url}/api/health/ready", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200
