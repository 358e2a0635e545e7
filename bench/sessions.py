"""Would a copy of the sessions in Redis make requests faster? Private PostgreSQL and Redis.

The lookup of a page's cookie as the portal does it (PostgreSQL, one indexed row), the same record
read from Redis as a copy would be, and a whole request to a portal process that does the first,
take turns. The median of each counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

from audit import private_postgres

from base.bus import Bus
from base.limit import Limiter, Rates
from base.settings import Settings
from base.store import Store
from portal.auth import ADMIN_ID, Auth, hashed
from portal.trail import Trail

PORT = 18_471
SESSIONS = 5_000


async def took_ms(asked: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await asked()
    return (time.perf_counter() - started) * 1000


async def measure(settings: Settings, rounds: int) -> None:
    store = await Store.open(settings.postgres, "bench")
    await store.migrate()
    bus = await Bus.open(settings.redis, "bench")
    auth = Auth(settings, store, Limiter(settings.redis, Rates.load()), Trail(store, bus))
    await auth.ensure_admin()
    for _ in range(SESSIONS // 500):
        await store.execute(
            "INSERT INTO sessions (user_id, token_hash, expires_at, last_seen_at)"
            " SELECT $1, encode(sha256(gen_random_uuid()::text::bytea), 'hex'),"
            " now() + interval '1 day', now() FROM generate_series(1, 500)",
            ADMIN_ID,
        )
    async with store.transaction() as tx:
        grant = await auth.open(tx, ADMIN_ID, "cookie", how="password", peer="", agent="bench")
    await store.execute("ANALYZE sessions")
    key = "session:" + hashed("cookie", grant.secret)
    copy = {"id": str(uuid.uuid4()), "user_id": ADMIN_ID, "email": "admin@local", "role": "admin"}
    await bus.call(("SET", key, json.dumps(copy)))

    async def copied() -> object:
        (raw,) = await bus.call(("GET", key))
        return json.loads(raw)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}") as client:
        client.cookies.set("ai-infra", grant.secret)

        async def request() -> object:
            return (await client.get("/api/auth/me")).raise_for_status()

        ways = {
            "postgres": lambda: auth.by_cookie(grant.secret),
            "redis": copied,
            "request": request,
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 50):
            for name, way in ways.items():
                one_ms = await took_ms(way)
                if number >= 50:
                    took[name].append(one_ms)
    for name, all_ms in took.items():
        worst_ms = statistics.quantiles(all_ms, n=20)[-1]
        print(f"{name:<10} median {statistics.median(all_ms):.3f} ms   p95 {worst_ms:.3f} ms")
    middle = {name: statistics.median(all_ms) for name, all_ms in took.items()}
    print(f"figure sessions.postgres_ms {middle['postgres']:.3f} ms")
    print(f"figure sessions.redis_ms {middle['redis']:.3f} ms")
    print(f"figure sessions.request_ms {middle['request']:.3f} ms")
    await bus.close()
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    rounds = parser.parse_args().rounds
    with private_postgres() as dsn, tempfile.TemporaryDirectory(prefix="ai-bench-") as folder:
        socket = f"{folder}/redis.sock"
        line = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", ""]
        redis = subprocess.Popen(line, stdout=subprocess.DEVNULL, cwd=folder)
        while not Path(socket).exists():
            time.sleep(0.05)
        os.environ["AI_INFRA_HOME"] = folder
        settings = Settings(redis_url=f"unix://{socket}", postgres_dsn=dsn, port=PORT)
        settings.prepare()
        free = '[api]\nanonymous="unlimited"\nauthenticated="unlimited"\npremium="unlimited"\n'
        (settings.config / "limits.toml").write_text(free)
        ours = {
            "AI_INFRA_PORT": str(PORT),
            "AI_INFRA_REDIS_URL": f"unix://{socket}",
            "AI_INFRA_POSTGRES_DSN": dsn,
        }
        portal = subprocess.Popen([sys.executable, "-m", "portal"], env={**os.environ, **ours})
        try:
            while True:
                try:
                    httpx.get(f"http://127.0.0.1:{PORT}/api/health/ready").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            asyncio.run(measure(settings, rounds))
        finally:
            for one in (portal, redis):
                one.terminate()
                one.wait(30)


if __name__ == "__main__":
    main()
