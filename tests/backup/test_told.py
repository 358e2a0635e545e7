"""What is told of backups: what is in each, the last check, a restore's plan and its end."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from base.backup import create as making
from base.backup import plan as planning
from base.backup import record, restore, rules, running, schedule, staging
from base.backup.command import run
from base.backup.restic import Restic
from base.errors import BackupError, ConflictError, NotFoundError
from base.settings import Settings
from base.verbs import BackupRestore, BackupVerify, By, Nothing
from portal.cli import app
from provision.box import Box
from provision.verbs import backup_list, backup_restore, backup_run, backup_verify
from tests.backup.conftest import Home, say

BOX, BY = Box(), By(role="admin")


def test_the_list_says_what_each_holds_and_how_large_it_is(home: Home) -> None:
    home.add_user("later")
    (home.path / "workspaces" / "u1" / "main" / "big").write_bytes(b"x" * 3_000_000)
    made = asyncio.run(making.create(home.settings, say))
    before, now = asyncio.run(making.snapshots(home.settings))
    assert (before.id, now.id) == (home.made.snapshot, made.snapshot)
    assert (before.counts["users"], now.counts["users"]) == (1, 2)
    assert before.size_bytes is not None
    assert now.size_bytes is not None
    assert now.size_bytes > before.size_bytes + 2_900_000
    told = CliRunner().invoke(app, ["backup", "list"], env={"AI_INFRA_HOME": str(home.path)})
    assert "0 tasks, 0 messages, 0 memories, 2 users" in told.output, told.output


def test_how_far_it_is_is_told_while_it_writes(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By what restic says line by line; played, for a real one is too quick here."""
    played = tmp_path / "restic"
    rows: list[dict[str, Any]] = [
        {"message_type": "status", "percent_done": part} for part in (0, 0.04, 0.31, 0.33, 0.9)
    ]
    rows.append({"message_type": "summary", "snapshot_id": "1a2b3c4d" * 8})
    lines = "".join(f"echo '{json.dumps(row)}'\n" for row in rows)
    played.write_text(f'#!/bin/sh\n[ "$RESTIC_PROGRESS_FPS" = 0.5 ] || exit 1\n{lines}')
    played.chmod(0o755)
    restic = Restic.of(home.settings, rules.load(home.settings))
    told: list[int] = []

    async def tell(percent: int) -> None:
        told.append(percent)

    from dataclasses import replace

    done = asyncio.run(
        replace(restic, program=str(played)).backup(
            home.path, ["config"], version="1", counts={}, without=(), tell=tell
        )
    )
    assert (done.id, told) == ("1a2b3c4d", [31, 90])


def test_lines_are_heard_before_the_program_ends() -> None:
    async def work() -> None:
        heard: list[str] = []

        async def hear(line: str) -> None:
            heard.append(line)
            if line == "first":
                release.set()

        release = asyncio.Event()
        line = ["sh", "-c", "echo first; echo second >&2; exec sleep 30"]
        task = asyncio.create_task(run(line, deadline_s=60, heard=hear), name="run")
        async with asyncio.timeout(20):
            await release.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())


def test_a_check_is_kept_whether_it_was_well_or_not(home: Home) -> None:
    assert record.proofs(home.settings) == record.Proofs()
    asyncio.run(making.verify(home.settings, whole=False))
    found = record.proofs(home.settings).verified
    assert found is not None
    assert (found.snapshot, found.whole, found.problem) == (home.made.snapshot, False, None)
    packs = [path for path in (home.path / "backups" / "data").rglob("*") if path.is_file()]
    for pack in packs:
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:-20])
    with pytest.raises(BackupError, match="damaged"):
        asyncio.run(making.verify(home.settings, whole=True))
    found = record.proofs(home.settings).verified
    assert found is not None
    assert found.whole
    assert "damaged" in (found.problem or "")


def test_a_restore_is_written_down_as_it_goes_and_how_it_ended(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[record.Restore | None] = []

    async def look(text: str) -> None:
        seen.append(record.restored(home.settings))

    done = asyncio.run(restore.restore(home.settings, look, parts=("memory",)))
    first = seen[0]
    assert first is not None
    assert first.step.startswith(f"fetching {done.snapshot}")
    assert first.ended_at is None
    last = record.restored(home.settings)
    assert last is not None
    assert (last.snapshot, last.parts, last.problem) == (done.snapshot, ("memory",), None)
    assert (last.ended_at is not None, last.step, last.aside) == (True, "", str(done.aside))

    async def start(settings: Settings, environment: Any = None) -> None:
        raise BackupError("the installation did not start: planted")

    monkeypatch.setattr(running, "start", start)
    with pytest.raises(BackupError):
        asyncio.run(restore.restore(home.settings, say, parts=("memory",), start=True))
    last = record.restored(home.settings)
    assert last is not None
    assert "planted" in (last.problem or "")
    with making.alone(home.settings), pytest.raises(ConflictError):
        asyncio.run(restore.restore(home.settings, say))
    assert record.restored(home.settings) == last, "another one that was refused is no restore"


def test_one_that_was_cut_off_has_no_end_until_it_is_undone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        """As if the process had been killed here."""

    def cut(planned: Any) -> None:
        raise Died

    monkeypatch.setattr(restore.moves, "ahead", cut)
    with pytest.raises(Died):
        asyncio.run(restore.restore(home.settings, say, parts=("memory",)))
    monkeypatch.undo()
    found = record.restored(home.settings)
    assert found is not None
    assert found.ended_at is None
    with pytest.raises(ConflictError, match="--undo"):
        asyncio.run(planning.plan(home.settings, "latest", restore.PARTS))
    assert asyncio.run(restore.undo(home.settings, say))
    found = record.restored(home.settings)
    assert found is not None
    assert "undone" in (found.problem or "")


def test_the_plan_says_what_the_snapshot_holds(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asyncio.run(planning.plan(home.settings, home.made.snapshot, ("memory", "vectors")))
    assert found.manifest.counts["users"] == 1
    assert "1 user" in found.steps[0]
    assert "put memory, vectors in place" in found.steps[2]
    with pytest.raises(NotFoundError):
        asyncio.run(planning.plan(home.settings, "ffffffff", restore.PARTS))
    line = ["backup", "restore", "--dry-run", "--part", "memory"]
    told = CliRunner().invoke(app, line, env={"AI_INFRA_HOME": str(home.path)})
    assert told.exit_code == 0, told.output
    assert "put memory in place" in told.output
    assert record.restored(home.settings) is None
    monkeypatch.setattr(staging.migrations, "read", lambda: ())
    with pytest.raises(BackupError, match="update first"):
        asyncio.run(planning.plan(home.settings, "latest", restore.PARTS))


def test_who_looks_whether_one_is_at_work_stops_none(home: Home) -> None:
    assert not making.busy(home.settings)
    with making.alone(home.settings):
        assert making.busy(home.settings)
    assert not making.busy(home.settings)


def test_the_verbs_say_the_same(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's verbs themselves, of this home."""
    for verb in (backup_list, backup_restore, backup_run, backup_verify):
        monkeypatch.setattr(verb, "load", lambda: home.settings)
    steps: list[str] = []

    async def tell(step: str) -> None:
        steps.append(step)

    async def work() -> None:
        made = await backup_run.run(Nothing(), BOX, BY, tell)
        assert "dumping the database" in steps
        told = await backup_list.run(Nothing(), BOX, BY, tell)
        assert [one["id"] for one in told["snapshots"]] == [home.made.snapshot, made["snapshot"]]
        assert told["snapshots"][1]["counts"]["users"] == 1
        assert told["place"] == str(home.path / "backups")
        assert (told["keep"]["daily"], told["busy"]) == (7, False)
        assert json.loads(json.dumps(told)) == told
        assert "every byte" in (await backup_verify.plan(BackupVerify(), BOX))[0]
        checked = await backup_verify.run(BackupVerify(whole=False), BOX, BY, tell)
        assert checked == {"newest": made["snapshot"], "whole": False}
        asked = BackupRestore(snapshot=home.made.snapshot, parts=("memory",))
        assert any("put memory" in step for step in await backup_restore.plan(asked, BOX))
        done = await backup_restore.run(asked, BOX, BY, tell)
        assert done["snapshot"] == home.made.snapshot
        assert Path(done["aside"]).is_dir()

    asyncio.run(work())


SHOWN = """Id=ai-backup.timer
LoadState=loaded
ActiveState=active
NextElapseUSecRealtime=Mon 2026-11-30 03:17:00 UTC

Id=ai-backup-verify.timer
LoadState=loaded
ActiveState=inactive
NextElapseUSecRealtime=
"""


def test_the_timers_as_systemd_says() -> None:
    nightly, weekly = schedule.parsed(SHOWN)
    assert (nightly.does, nightly.active) == ("backup", True)
    assert nightly.next_at == datetime(2026, 11, 30, 3, 17, tzinfo=UTC)
    assert (weekly.active, weekly.next_at) == (False, None)
    assert schedule.parsed("Id=ai-backup.timer\nLoadState=not-found\n") == []
