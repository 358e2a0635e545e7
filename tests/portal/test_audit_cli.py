"""`ai-infra audit` as its owner runs it, and GET /api/audit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from audit_steps import event, events, heads_file, written

from base.audit_writer import Writer
from base.bus import Bus
from base.settings import Settings
from base.store import Store
from portal.checks import audit_head
from portal.checks.sight import Sight

COMMAND = [str(Path(sys.executable).with_name("ai-infra")), "audit"]
ROWS = 12


class Home:
    """An installation's home with an audit log, and the command run in it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.environment = {
            **os.environ,
            "AI_INFRA_HOME": str(settings.home),
            "AI_INFRA_POSTGRES_DSN": settings.postgres,
        }

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    async def verify(self, *arguments: str) -> tuple[int, Any]:
        done = await self.run("verify", "--json", *arguments)
        return done.returncode, json.loads(done.stdout)


@pytest_asyncio.fixture(loop_scope="session")
async def home(postgres_dsn: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Home]:
    settings = Settings(home=tmp_path / "home", postgres_dsn=postgres_dsn)
    settings.prepare()
    store = await Store.open(postgres_dsn)
    await store.migrate()
    bus = await Bus.open(redis_url, "supervisor")
    await written(settings, store, bus, ROWS - 1)
    yield Home(settings, store)
    await bus.close()
    await store.close()


async def test_verify_passes_then_names_what_was_changed(home: Home) -> None:
    code, report = await home.verify()
    assert (code, report["ok"], report["rows"], report["faults"]) == (0, True, ROWS, [])
    shown = await home.run("verify")
    assert "verified: nothing was changed" in shown.stdout
    row_id = await home.store.fetchval(
        "UPDATE audit_logs SET actor_id = 'x' WHERE seq = 5 RETURNING id"
    )
    code, report = await home.verify()
    assert (code, report["ok"]) == (1, False)
    (fault,) = report["faults"]
    assert (fault["kind"], fault["seq"], fault["id"]) == ("edited", 5, row_id)
    shown = await home.run("verify")
    assert shown.returncode == 1
    assert f"EDITED row 5 ({row_id})" in shown.stdout


async def test_verify_with_heads_kept_elsewhere(home: Home, tmp_path: Path) -> None:
    path, copy = heads_file(home.settings), tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    assert (await home.verify("--heads", str(copy)))[0] == 0
    lines = path.read_bytes().splitlines()
    path.write_bytes(lines[0] + b"\n")
    for table in ("audit_logs", "audit_chain"):
        await home.store.execute(f"DELETE FROM {table} WHERE seq > 1")
    assert (await home.verify())[0] == 0
    code, report = await home.verify("--heads", str(copy))
    assert code == 1
    assert {fault["kind"] for fault in report["faults"]} == {"heads", "cut"}


async def test_export_is_verified_offline(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    done = await home.run("export", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert out.stat().st_mode & 0o777 == 0o600
    home.environment["AI_INFRA_POSTGRES_DSN"] = "postgresql://nobody@/none?host=/nowhere"
    key = home.settings.home / "audit" / "audit-key.pub"
    code, report = await home.verify("--file", str(out), "--key", str(key))
    assert (code, report["rows"], report["notes"]) == (0, ROWS, [])
    text = out.read_text()
    out.write_text(text.replace('"number":7', '"number":8'))
    code, report = await home.verify("--file", str(out))
    assert code == 1
    assert report["faults"][0]["kind"] == "edited"
    out.write_text("nonsense\n")
    assert (await home.run("verify", "--file", str(out))).returncode == 2


async def test_export_to_standard_output_by_time(home: Home) -> None:
    done = await home.run("export", "--from", "2001-01-01", "--to", "2002-01-01T12:00:00")
    assert done.returncode == 0, done.stderr
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds == ["export"]
    everything = await home.run("export")
    assert everything.stdout.count('"kind":"row"') == ROWS


async def test_tail_shows_the_newest_and_is_safe_in_a_terminal(home: Home, redis_url: str) -> None:
    bus = await Bus.open(redis_url, "supervisor")
    writer = Writer(home.settings, home.store, bus)
    await writer.write([event(99, resource_path="/x\x1b[31m\u202e", risk_level="high")])
    await bus.close()
    shown = await home.run("tail", "-n", "2")
    assert len(shown.stdout.splitlines()) == 2
    assert "high" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "\u202e" not in shown.stdout
    rows = [json.loads(line) for line in (await home.run("tail", "--json")).stdout.splitlines()]
    assert [row["seq"] for row in rows] == list(range(1, ROWS + 2))
    assert rows[-1]["resource_path"] == "/x\x1b[31m\u202e"


@pytest.mark.parametrize("moment_s", [0.0, 0.3])  # in a query, and between two
async def test_tail_follows_until_ctrl_c(home: Home, redis_url: str, moment_s: float) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "tail", "-n", "0", "--follow", "--json",
        env=home.environment, stdout=asyncio.subprocess.PIPE,
        # A suite that a shell runs in the background has SIGINT ignored, and hands that on.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    bus = await Bus.open(redis_url, "supervisor")
    writer = Writer(home.settings, home.store, bus)
    try:
        found = None
        async with asyncio.timeout(30):
            while found is None:  # what was written before it looked does not count
                await writer.write(events(1))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        found = json.loads(await process.stdout.readline())
        assert found["seq"] > ROWS
        await asyncio.sleep(moment_s)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            assert await process.wait() == 130
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await bus.close()


async def test_without_postgresql_it_says_so(home: Home) -> None:
    home.environment["AI_INFRA_POSTGRES_DSN"] = "postgresql://nobody@/none?host=/nowhere"
    done = await home.run("verify")
    assert done.returncode == 3
    assert done.stderr.startswith("ai-infra: the audit log cannot be read")
    assert "Traceback" not in done.stderr


async def looked(settings: Settings) -> tuple[bool, str]:
    """What doctor says of the log of that home."""
    sight = Sight(settings)
    try:
        return await audit_head.look(sight)
    finally:
        await sight.close()


async def test_doctor_tells_the_age_of_the_last_head(home: Home, tmp_path: Path) -> None:
    ok, said = await looked(home.settings)
    assert ok
    assert f"row {ROWS} signed 0 min ago, 0 rows since" in said
    bare = home.settings.model_copy(update={"home": tmp_path / "other"})
    assert await looked(bare) == (False, "no signed head yet")
    path = heads_file(home.settings)
    text = path.read_text()
    path.write_text(text.splitlines()[0].replace('"signed_at":"20', '"signed_at":"19') + "\n")
    ok, said = await looked(home.settings)
    assert not ok
    assert f"{ROWS - 1} rows since" in said


# The API -----------------------------------------------------------------------------------


async def test_admins_read_the_log_by_page_and_filter(
    portal: Any, store: Store, bus: Bus, tmp_path: Path
) -> None:
    writer = Writer(Settings(home=tmp_path), store, bus)
    mine = {"actor_id": "audit-api", "details": {"task_id": "task-7"}}
    found = [event(n, **mine) for n in range(5)]
    await writer.write(found)
    await writer.write(
        [event(5, actor_id="audit-api", event_type="auth", action="login", risk_level="critical")]
    )
    with portal.admin() as admin:

        def page(**params: Any) -> Any:
            answer = admin.get("/api/audit", params={"actor": "audit-api", **params})
            assert answer.status_code == 200, answer.text
            return answer.json()

        first = page(limit=4)
        rest = page(limit=4, cursor=first["next_cursor"])
        rows = [*first["rows"], *rest["rows"]]
        assert rest["next_cursor"] is None
        assert [row["seq"] for row in rows] == sorted((r["seq"] for r in rows), reverse=True)
        assert [row["id"] for row in rows[1:]] == [str(one.id) for one in reversed(found)]
        assert len(page(task="task-7")["rows"]) == 5
        assert [row["risk_level"] for row in page(risk="critical")["rows"]] == ["critical"]
        assert [row["event_type"] for row in page(type="auth")["rows"]] == ["auth"]
        assert page(task="none")["rows"] == []
        for bad in ({"type": "x"}, {"risk": "x"}, {"cursor": "x"}, {"limit": 0}):
            assert admin.get("/api/audit", params=bad).status_code == 422


async def test_nobody_else_reads_it(portal: Any) -> None:
    with portal.client() as nobody:
        answer: httpx.Response = nobody.get("/api/audit")
    assert answer.status_code == 401
