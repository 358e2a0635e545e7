"""The drill: the last snapshot restored into an installation of its own, and a task done there.

It has its own folder, ports, Redis and PostgreSQL, the rehearsal model, and no secrets of others:
nothing in it calls out, and what was at work when the backup was made does not go on in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomlkit

from base import secrets
from base.backup import record, rules, sites
from base.backup.command import PATH, run
from base.backup.create import CERTIFICATES, ETC
from base.backup.database import answering
from base.backup.restic import Restic, Snapshot
from base.errors import AIError, BackupError
from base.messages import Wire
from base.settings import Settings, load

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 900.0
#: Of the settings, what the drill keeps: how texts are embedded, or vectors would not fit.
KEPT = ("embed_model", "embed_dtype", "embed_device", "local_workers")
OFF = """
UPDATE tasks SET status = 'cancelled' WHERE status NOT IN ('completed', 'failed', 'cancelled');
DELETE FROM outbox WHERE sent_at IS NULL;
UPDATE webhook_deliveries SET status = 'failed' WHERE status = 'pending';
UPDATE webhooks SET disabled_at = NOW(), disabled_why = 'drill' WHERE disabled_at IS NULL;
"""
NEWEST = """SELECT COALESCE(json_agg(json_build_object('id', id, 'text', text)), '[]') FROM (
 SELECT m.id, left(m.text, 300) AS text FROM memory m JOIN users u ON u.id::text = m.user_id::text
 WHERE u.email = 'admin@local' AND m.tier = 'warm' AND NOT m.leaving
 ORDER BY m.created_at DESC LIMIT 5) AS newest"""
Say = Callable[[str], Awaitable[None]]


class Drilled(Wire):
    """ok: the task was answered and memory found what it should. ready_s: from nothing to an
    installation that works, which is how long a recovery takes; lost: rows that are missing; sites:
    how many nginx would serve of it (on the appliance).
    """

    ok: bool
    snapshot: str
    restore_s: float
    ready_s: float
    took_s: float
    task: str
    memories: int
    recalled: int
    asked: int
    lost: dict[str, int]
    sites: int = 0
    problem: str | None = None


async def drill(settings: Settings, say: Say, snapshot: str = "latest") -> Drilled:
    """What became of it, which `record` keeps. Raises BackupError when it cannot be restored or
    does not start.
    """
    restic = Restic.of(settings, rules.load(settings))
    chosen = await restic.find(snapshot)
    begun_s = time.monotonic()

    def proved(problem: str | None, ready_s: float | None = None) -> None:
        proof = record.Proof(
            at=datetime.now(UTC),
            snapshot=chosen.id,
            took_s=round(time.monotonic() - begun_s, 1),
            problem=problem,
            ready_s=ready_s,
        )
        record.proved(settings, "drilled", proof)

    try:
        done = await _drill(settings, say, restic, chosen)
    except AIError as error:
        proved(str(error))
        raise
    proved(done.problem, done.ready_s)
    return done


async def _drill(settings: Settings, say: Say, restic: Restic, chosen: Snapshot) -> Drilled:
    found = rules.load(settings)
    home = Path(tempfile.mkdtemp(prefix="ai-drill-"))
    home.chmod(0o711)
    port = _ports()
    own = {
        "PATH": f"{Path(sys.executable).parent}:{PATH}",
        "HOME": os.environ.get("HOME", "/root"),
        "TERM": "xterm",
        "AI_INFRA_HOME": str(home),
        "AI_INFRA_PORT": str(port),
        "AI_INFRA_REHEARSAL_PORT": str(port + 1),
        **{f"AI_INFRA_{name.upper()}": str(getattr(settings, name)) for name in KEPT},
    }
    begun_s = time.monotonic()
    try:
        _point(home, restic, found.s3(settings))
        await say(f"restoring {chosen.id} into {home}")
        argv = ("portal.cli", "backup", "restore", chosen.id, "--yes", "--no-start", "--json")
        told = json.loads(await _run(own, *argv))
        restore_s = time.monotonic() - begun_s
        asked, lost = await _disarm(home, told["counts"])
        served, missing = await _sites(settings, restic, chosen.id)
        await say("starting it")
        await _run(own, "supervisor", "up")
        ready_s = time.monotonic() - begun_s
        await say("giving it a task")
        asking = ("portal.cli", "ask", "--effort", "minimal", "--json", "Say that you work.")
        answer = json.loads(await _run(own, *asking, check=False) or "{}")
        await say("asking its memory")
        recalled = [await _recalled(own, one["text"], one["id"]) for one in asked]
        note = f"The drill at {time.time():.0f} was here."
        await _run(own, "portal.cli", "memory", "remember", note)
        fresh = await _recalled(own, note, None)
    finally:
        with contextlib.suppress(BackupError):
            await _run(own, "supervisor", "down")
        await asyncio.to_thread(_remove, home)
    task = str(_status(answer))
    problems = []
    if task != "completed":
        problems.append(f"the task ended {task}")
    if lost:
        problems.append(f"rows are missing: {lost}")
    problems += missing
    if asked and not any(recalled):
        problems.append("memory found none of what it held")
    if not fresh:
        problems.append("memory did not keep something new")
    return Drilled(
        ok=not problems,
        snapshot=chosen.id,
        restore_s=round(restore_s, 1),
        ready_s=round(ready_s, 1),
        took_s=round(time.monotonic() - begun_s, 1),
        task=task,
        memories=int(told["counts"].get("memories", 0)),
        recalled=sum(recalled),
        asked=len(asked),
        lost=lost,
        sites=served,
        problem="; ".join(problems) or None,
    )


async def _sites(settings: Settings, restic: Restic, snapshot: str) -> tuple[int, list[str]]:
    """How many sites nginx would serve, and what the snapshot lacks of them. Nothing is put in
    place: they are this machine's.
    """
    if not settings.broker:
        return 0, []
    place = Path(tempfile.mkdtemp(prefix="ai-drill-sites-"))
    try:
        wanted = (ETC / "tls", CERTIFICATES, sites.NGINX, sites.WWW, sites.RECORD)
        await restic.restore(snapshot, place, [str(path) for path in wanted])
        return await asyncio.to_thread(sites.faults, place, (ETC, CERTIFICATES))
    finally:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


def _status(answer: Any) -> Any:
    found = answer.get("task", answer) if isinstance(answer, dict) else {}
    return found.get("status", "unknown")


def _point(home: Path, restic: Restic, s3: Path) -> None:
    """Have the new home look at the same repository, which it only reads."""
    (home / "config").mkdir(mode=0o700)
    told = {"repository": restic.place, "key_file": str(restic.key), "s3_file": str(s3)}
    path = home / "config" / "backup.toml"
    path.write_text(tomlkit.dumps(told), encoding="utf-8")
    path.chmod(0o600)


async def _disarm(
    home: Path, counts: dict[str, int]
) -> tuple[list[dict[str, str]], dict[str, int]]:
    """Nothing of the restored installation may call out or go on; memories to ask for, and how
    many rows fewer there are than were dumped.
    """
    names = {*secrets.NAMES, secrets.AWS_CREDENTIALS} - {"jwt-secret"}
    for name in names:
        (home / "secrets" / name).unlink(missing_ok=True)
    for name in ("mcp.toml", "settings.json", "search.toml", "settings.toml"):
        (home / "config" / name).unlink(missing_ok=True)
    scratch = load(home=home, redis_url=None, postgres_dsn=None, qdrant_url=None, broker=None)
    async with answering(scratch) as database:
        tables = {"tasks": "tasks", "messages": "messages", "memories": "memory", "users": "users"}
        lost = {}
        for name, table in tables.items():
            there = int(await database.sql(f"SELECT count(*) FROM {table}"))
            if there < counts.get(name, 0):
                lost[name] = counts[name] - there
        newest: list[dict[str, str]] = json.loads(await database.sql(NEWEST))
        await database.sql(OFF)
    return newest, lost


async def _recalled(own: dict[str, str], text: str, id: str | None) -> bool:
    """Whether a search for the text finds that memory, or the text itself."""
    out = await _run(own, "portal.cli", "memory", "search", "--json", "-n", "20", "--", text)
    found = [item["memory"] for item in json.loads(out)["items"]]
    return any(one["id"] == id if id else text in one["text"] for one in found)


async def _run(own: dict[str, str], module: str, *words: str, check: bool = True) -> str:
    argv = [sys.executable, "-m", module, *words]
    done = await run(argv, deadline_s=LIMIT_S, environment=own, cwd=ROOT)
    if done.code and check:
        raise BackupError(f"in the drill {words[0]} failed: {done.words}")
    return done.out


def _ports() -> int:
    """The first of two neighbouring free ports. Raises BackupError."""
    for _ in range(50):
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            two.bind(("127.0.0.1", port + 1))
            return port
    raise BackupError("no free ports for the drill")


def _remove(home: Path) -> None:
    """Signed heads may only be added to, until that flag is taken away."""
    with contextlib.suppress(FileNotFoundError):  # a server need not have e2fsprogs
        line = ["chattr", "-R", "-a", str(home / "audit")]
        subprocess.run(line, check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)
