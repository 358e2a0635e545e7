"""Memory's whole story, with every process real: told once, known in the next conversation, and
neither a crash nor a wiped Redis takes it away. One installation, each test a step further.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
import redis
from installation import Installation, installation, post, wait_task
from present import wait_for

from base import streams
from base.bus import Bus
from base.deadline import Deadline

pytestmark = pytest.mark.xdist_group("memory_path")  # one installation, one story

BRISK = {"sweep_s": "1", "restart_backoff_s": "0.5,1,2"}
FACT = "My boat is called Calypso, it lies in the harbour of Kiel."
QUESTION = "Which name does my boat have?"
ADD_USER = """
import asyncio, sys, uuid
import argon2
from base import settings
from base.store import Store

async def main(email, password):
    store = await Store.open(settings.load().postgres, "test")
    await store.execute(
        "INSERT INTO users (id, email, password_hash, role) VALUES ($1, $2, $3, 'user')",
        str(uuid.uuid4()), email, argon2.PasswordHasher().hash(password))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Installation]:
    with installation(**BRISK, local_workers="true") as running:
        yield running


@pytest.fixture
def client(made: Installation) -> Iterator[httpx.Client]:
    with made.client() as signed_in:
        yield signed_in


def scripted(text: str, *lines: dict[str, Any]) -> str:
    return f"{text}\n```rehearsal\n" + "\n".join(map(json.dumps, lines)) + "\n```"


def answer(client: httpx.Client, text: str, **fields: Any) -> tuple[dict[str, Any], str]:
    """What was sent in a new conversation, and what came back."""
    sent = post(client, text, effort="minimal", **fields)
    whole = wait_task(client, sent["task_id"], 90)
    assert whole["task"]["status"] == "completed", json.dumps(whole, indent=1)[:4000]
    return {**sent, **whole}, whole["task"]["output"]["answer"]


def search(client: httpx.Client, query: str, **filters: Any) -> dict[str, Any]:
    body = {"query": query, "filters": filters}
    found: dict[str, Any] = client.post("/api/memory/search", json=body).raise_for_status().json()
    return found


def texts(client: httpx.Client, query: str, **filters: Any) -> str:
    """All that is found of it; empty also while nobody answers."""
    answer = client.post("/api/memory/search", json={"query": query, "filters": filters})
    if answer.status_code == 503:
        return ""
    items = answer.raise_for_status().json()["items"]
    return "\n".join(item["memory"]["text"] for item in items)


def known(client: httpx.Client, query: str, piece: str, seconds_s: float = 60) -> None:
    wait_for(f"{piece} in memory", lambda: piece in texts(client, query), seconds_s)


def pid(made: Installation, *arguments: str) -> int | None:
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("AI_INFRA_HOME") == str(made.home)
            if ours and tuple(process.cmdline()[-len(arguments) :]) == arguments:
                return int(process.pid)
        except psutil.Error:
            continue
    return None


def kill(made: Installation, *arguments: str) -> None:
    number = pid(made, *arguments)
    assert number is not None, arguments
    os.kill(number, signal.SIGKILL)


def ask(made: Installation, **payload: Any) -> dict[str, Any]:
    async def asked() -> dict[str, Any]:
        bus = await Bus.open(f"unix://{made.home}/run/redis.sock", "test")
        try:
            return await bus.ask(streams.SERVICE_MEMORY, payload, deadline=Deadline.after(20))
        finally:
            await bus.close()

    return asyncio.run(asked())


def test_what_was_told_is_known_in_the_next_conversation(
    made: Installation, client: httpx.Client
) -> None:
    told, _ = answer(client, scripted(FACT, {"say": "I will remember that."}))
    known(client, QUESTION, "Calypso")
    lines = [{"match": "Calypso", "say": "Its name is known."}, {"say": "I do not know."}]
    asked, said = answer(client, scripted(QUESTION, *lines))
    assert asked["conversation_id"] != told["conversation_id"]
    assert said == "Its name is known."

    folder = made.home / "MEMORY" / "Work" / "active"
    (journal,) = folder.glob(f"*{asked['subtasks'][0]['id'][:8]}*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert any("recalled" in json.dumps(one)[:200] and "Calypso" in str(one) for one in records)
    window = asked["subtasks"][0]["assigned_agent"]
    shown = made.tmux("capture-pane", "-p", "-S", "-", "-t", f"ai-infrastructure:{window}")
    assert "Calypso" in shown


def test_the_command_and_the_api_find_it_with_where_it_is_from(
    made: Installation, client: httpx.Client
) -> None:
    found = json.loads(made.cli("memory", "search", QUESTION, "--json").stdout)
    item = next(one for one in found["items"] if "Calypso" in one["memory"]["text"])
    assert item["memory"]["collection"] == "conversations"
    assert (item["memory"]["speaker"], item["memory"]["seq"]) == ("Admin", 0)
    assert item["memory"]["task_id"]
    assert "Calypso" in made.cli("memory", "search", QUESTION, "-n", "3").stdout
    assert "Calypso" in texts(client, QUESTION, kind="message")
    assert "Calypso" not in texts(client, QUESTION, kind="answer", until="2020-01-01T00:00:00Z")
    metrics = client.get("/metrics").text
    assert 'memory_items{collection="conversations",tier="warm"}' in metrics
    assert 'memory_recall_duration_seconds{quantile="0.5"}' in metrics
    assert "embedding_tokens_per_second" in metrics


def test_nobody_else_finds_it(made: Installation, client: httpx.Client) -> None:
    email, password = "other@test", uuid.uuid4().hex
    made.run(sys.executable, "-c", ADD_USER, email, password)
    login = client.post("/api/auth/login", json={"email": email, "password": password})
    headers = {"Authorization": f"Bearer {login.raise_for_status().json()['token']}"}
    mine = search(client, QUESTION)["items"][0]["memory"]["id"]
    with httpx.Client(base_url=made.url, headers=headers, timeout=30, trust_env=False) as other:
        assert "Calypso" not in texts(other, QUESTION)
        assert other.delete(f"/api/memory/{mine}").status_code == 404
        shared = other.post("/api/memory", json={"text": "x", "shared": True})
        assert shared.status_code == 403
        lines = [{"match": "Calypso", "say": "Leaked."}, {"say": "I do not know."}]
        assert answer(other, scripted(QUESTION, *lines))[1] == "I do not know."
        made.cli("memory", "remember", "The kitchen closes at ten.", "--shared")
        known(other, "When does the kitchen close?", "at ten")
    assert "Calypso" in texts(client, QUESTION)


def test_a_file_is_kept_in_pieces_and_forgetting_is_proved(
    made: Installation, client: httpx.Client
) -> None:
    page = made.home / "guide.md"
    page.write_text("# Ports\n\nThe lathe listens on 4711.\n\n# Oil\n\nThe lathe takes SAE 30.\n")
    line = ("memory", "remember", "--file", str(page), "--knowledge", "--domain", "workshop")
    ids = json.loads(made.cli(*line, "--json").stdout)["ids"]
    assert len(ids) == 2
    assert json.loads(made.cli(*line, "--json").stdout)["ids"] == ids
    known(client, "Which oil does the lathe take?", "SAE 30")
    asked = made.cli("memory", "forget", ids[1], check=False, given="n\n")
    assert asked.returncode == 1
    proof = json.loads(made.cli("memory", "forget", ids[1], "--yes", "--json").stdout)
    assert proof["proved"] is True
    assert "SAE 30" not in texts(client, "Which oil does the lathe take?")
    assert "4711" in texts(client, "Where does the lathe listen?")
    assert made.cli("memory", "forget", ids[1], "--yes", check=False).returncode == 2
    assert made.cli("memory", "search", "x", "--since", "soon", check=False).returncode == 2
    assert made.cli("memory", "remember", check=False).returncode == 2


def warm(made: Installation) -> dict[str, int]:
    tiers = json.loads(made.cli("memory", "stats", "--json").stdout)["tiers"]
    return {name: found["count"] for name, found in tiers["warm"].items()}


def test_a_folder_comes_in_and_goes_out_as_it_was(made: Installation, client: httpx.Client) -> None:
    old, new = made.home / "pai", made.home / "out"
    learned = old / "MEMORY" / "LEARNING" / "ALGORITHM" / "2026-01"
    learned.mkdir(parents=True)
    (learned / "ropes.md").write_text("# Ropes\n\nA bowline holds the dinghy best.\n")
    rating = {"timestamp": "2026-01-02T10:00:00+00:00", "rating": 8, "session_id": "s"}
    ratings = old / "MEMORY" / "LEARNING" / "SIGNALS" / "ratings.jsonl"
    ratings.parent.mkdir()
    ratings.write_text(json.dumps(rating) + "\n")
    assert "would take in" in made.cli("memory", "import", str(old), "--dry-run").stdout
    assert "bowline" not in texts(client, "Which knot for the dinghy?", collection=["learnings"])
    for _ in range(2):
        assert "1 rating\n" in made.cli("memory", "import", str(old)).stdout
    assert "bowline" in texts(client, "Which knot for the dinghy?", collection=["learnings"])
    said = json.loads(made.cli("memory", "export", str(new), "--json").stdout)
    assert said["memories"] > 3
    for path in (learned / "ropes.md", ratings):
        assert (new / path.relative_to(old)).read_bytes() == path.read_bytes()
    assert "Calypso" in "".join(path.read_text() for path in new.rglob("*.jsonl"))
    again = json.loads(made.cli("memory", "export", str(new), "--json").stdout)
    assert (again["written"], again["appended"], again["backed_up"]) == (0, 0, {})
    before = warm(made)
    assert "remembered here already" in made.cli("memory", "import", str(new)).stdout
    assert warm(made)["conversations"] == before["conversations"]
    assert warm(made)["knowledge"] == before["knowledge"]
    found = search(client, "Which knot for the dinghy?", collection=["learnings"])["items"]
    made.cli("memory", "forget", found[0]["memory"]["id"], "--yes")
    made.cli("memory", "export", str(made.home / "after"))
    assert "bowline" not in "".join(path.read_text() for path in (made.home / "after").rglob("*.*"))
    assert made.cli("memory", "import", str(made.home / "run"), check=False).returncode == 2


def test_the_keeper_is_killed_and_nothing_is_lost(made: Installation, client: httpx.Client) -> None:
    body = {"text": "The spare key is under the blue flower pot."}
    client.post("/api/memory", json=body).raise_for_status()
    kill(made, "-m", "pai")
    sent, _ = answer(client, scripted("The anchor weighs twelve kilos.", {"say": "Noted."}))
    rated = made.cli("rate", sent["task_id"], "5", "--comment", "as it should be")
    assert "rated 5 of 5" in rated.stdout
    known(client, "How heavy is the anchor?", "twelve kilos")
    known(client, "Where is the spare key?", "flower pot")
    ratings = made.home / "MEMORY" / "Signals" / "ratings" / "ratings.jsonl"
    wait_for("the rating", lambda: ratings.is_file() and sent["task_id"] in ratings.read_text(), 30)
    assert json.loads(made.cli("dlq", "list", "--json").stdout)["letters"] == []


def test_without_the_workers_words_alone_find_it(made: Installation, client: httpx.Client) -> None:
    kill(made, "-m", "workers", "embed", "score")
    found = search(client, "the boat in the harbour of Kiel, Calypso")
    assert not found["dense"]
    assert any("Calypso" in item["memory"]["text"] for item in found["items"])
    wait_for("the workers", lambda: search(client, uuid.uuid4().hex)["dense"], 90)


def test_redis_is_wiped_and_hot_memories_are_still_there(
    made: Installation, client: httpx.Client
) -> None:
    mine = client.get("/api/auth/me").json()["id"]
    note = {"text": "The winch sticks at full load.", "kind": "note", "tags": []}
    written = ask(made, verb="write", user_id=mine, agent="code", task_id=str(uuid.uuid4()), **note)
    assert "winch" in texts(client, "What sticks?", tier="hot")
    redis.Redis(unix_socket_path=str(made.home / "run" / "redis.sock")).flushall()
    wait_for("the hot one", lambda: "winch" in texts(client, "What sticks?", tier="hot"), 60)
    assert written["id"]
    known(client, QUESTION, "Calypso")


def test_down_and_up_keep_all_of_it(made: Installation) -> None:
    made.cli("down")
    made.up()
    with made.client() as client:
        for query, piece in (
            (QUESTION, "Calypso"),
            ("Where is the spare key?", "flower pot"),
            ("Where does the lathe listen?", "4711"),
            ("How heavy is the anchor?", "twelve kilos"),
        ):
            assert piece in texts(client, query), query
        assert "winch" in texts(client, "What sticks?", tier="hot")
        assert "SAE 30" not in texts(client, "Which oil does the lathe take?")
