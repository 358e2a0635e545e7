"""How fast is the one path? A whole installation with the rehearsal model on this machine.

Model time is the rehearsal server's own: from the first byte of a request to the last of its reply.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from websockets.sync.client import ClientConnection, connect

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

from installation import ENDED, Installation, installation, post, wait_task

MINIMAL = {"effort": "minimal"}
SCRIPT = 'Say hello.\n```rehearsal\n{"say":"Hello."}\n```'


def calls(client: httpx.Client, port: int) -> list[dict[str, float]]:
    """The rehearsal model's record: for each call when it arrived and when it ended (Unix s)."""
    page = client.get(f"http://127.0.0.1:{port + 1}/rehearsal/calls").raise_for_status().json()
    recent: list[dict[str, float]] = page["recent"]
    return recent


def one_at_a_time(
    made: Installation, client: httpx.Client, count: int
) -> tuple[list[float], list[float]]:
    """(POST to model's first byte, POST to the answer on the WebSocket less model time), in ms."""
    first_ms, whole_ms = [], []
    conversation = client.post("/api/conversations", json={"title": "bench"}).json()["id"]
    headers = {"Authorization": f"Bearer {made.token()}"}
    with connect(f"ws://127.0.0.1:{made.port}/ws", additional_headers=headers, proxy=None) as ws:
        payload = {"channel": "conversation", "conversation_id": conversation}
        ws.send(json.dumps({"type": "subscribe", "payload": payload}))
        for _ in range(count):
            started = time.time()
            body = {"content": SCRIPT, **MINIMAL}
            sent = client.post(f"/api/conversations/{conversation}/messages", json=body).json()
            assert _ended(ws, sent["task_id"]) == "completed"
            ended = time.time()
            while (call := calls(client, made.port)[-1])["ended_at"] is None:
                time.sleep(0.002)
            first_ms.append((call["arrived_at"] - started) * 1000)
            model_s = call["ended_at"] - call["arrived_at"]
            whole_ms.append((ended - started - model_s) * 1000)
            time.sleep(0.05)
    return first_ms, whole_ms


def _ended(socket: ClientConnection, task_id: str) -> str:
    """How the task ended, as the WebSocket tells it."""
    while True:
        told = json.loads(socket.recv(30))["payload"]
        if told.get("task_id") == task_id and told.get("status") in ENDED:
            return str(told["status"])


def many_at_once(client: httpx.Client, count: int) -> float:
    """Minimal tasks a second, `count` of them queued at once."""
    with ThreadPoolExecutor(4) as pool:
        started = time.monotonic()
        sent = list(pool.map(lambda _: post(client, SCRIPT, **MINIMAL), range(count)))
    for task in sent:
        assert wait_task(client, task["task_id"], 300)["task"]["status"] == "completed"
    return count / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=40, help="one after another")
    parser.add_argument("--queued", type=int, default=200, help="all at once")
    options = parser.parse_args()
    with installation(local_workers="true") as made, made.client() as client:
        one_at_a_time(made, client, 10)
        first_ms, whole_ms = one_at_a_time(made, client, options.tasks)
        rate = many_at_once(client, options.queued)
    table = {
        "first_model_byte": (statistics.median(first_ms), max(first_ms)),
        "minimal_task": (statistics.median(whole_ms), max(whole_ms)),
    }
    print(f"{'':<20}{'p50 ms':>10}{'max ms':>10}")
    for name, (median, worst) in table.items():
        print(f"{name:<20}{median:>10.1f}{worst:>10.1f}")
    print(f"{options.queued} queued: {rate:.1f} tasks/s\n")
    print(f"figure path.first_model_byte_p50_ms {table['first_model_byte'][0]:.1f} ms")
    print(f"figure path.minimal_task_p50_ms {table['minimal_task'][0]:.1f} ms")
    print(f"figure path.tasks_per_s {rate:.1f} tasks/s")


if __name__ == "__main__":
    main()
