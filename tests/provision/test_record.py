"""What survives: a broker that is killed, a Redis or a PostgreSQL that is away."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest
from present import need, wait_for

from base.bus import Bus
from base.errors import NotRunningError
from base.verbs import By, DomainAdd, Nothing
from tests.provision.rig import Record, Rig
from tests.provision.test_broker import eventually


async def _slow(rig: Rig, by: By, domain: str) -> asyncio.Task[object]:
    """A verb that is under way and stays so."""
    (rig.state / "go").unlink(missing_ok=True)
    task: asyncio.Task[object] = asyncio.create_task(
        rig.ask("domain.add", DomainAdd(domain=domain), by)
    )
    while f"begun {domain}" not in rig.did:
        await asyncio.sleep(0.02)
    return task


async def test_killed_in_the_middle_the_next_start_reports_it(
    own: Rig, record: Record, bus: Bus
) -> None:
    admin = By(user_id=await record.user("admin"), role="admin")
    own.start()
    await own.ask("domain.add", DomainAdd(domain="whole.example.org"), admin)
    asked = await _slow(own, admin, "slow.killed.org")
    own.kill()
    with pytest.raises(NotRunningError, match="ended before it answered"):
        await asked
    for _ in range(2):  # told once, kept for whoever asks
        own.start()
        said = (await own.ask("broker.verbs", Nothing())).result["interrupted"]
        assert [(one["verb"], one["who"]) for one in said] == [("domain.add", admin.user_id)]
        assert "slow.killed.org" in said[0]["about"]
        assert own.end() == 0
    rows = await eventually(bus, "slow.killed.org", 2)
    assert [one["details"]["event"] for one in rows] == ["broker begin", "broker interrupted"]
    assert (rows[1]["outcome"], rows[1]["risk_level"]) == ("failure", "high")
    assert "look at the present state" in rows[1]["details"]["reason"]


async def test_asked_to_end_it_undoes_what_does_not_end(own: Rig, record: Record, bus: Bus) -> None:
    admin = By(user_id=await record.user("admin"), role="admin")
    own.start()
    asked = await _slow(own, admin, "slow.stopped.org")
    assert own.end() == 0
    with pytest.raises(Exception, match="stopped: the broker ends"):
        await asked
    assert own.did[-1] == "undone"
    own.start()
    assert (await own.ask("broker.verbs", Nothing())).result["interrupted"] == []
    rows = await eventually(bus, "slow.stopped.org", 2)
    assert [one["outcome"] for one in rows] == ["success", "failure"]


async def test_without_redis_nothing_is_done_and_nothing_is_lost(
    own: Rig, record: Record, short_tmp: Path
) -> None:
    folder = own.folder / "redis"
    folder.mkdir()
    path = folder / "redis.sock"
    line = [need("redis-server"), "--port", "0", "--unixsocket", str(path), "--save", ""]

    def redis() -> subprocess.Popen[bytes]:
        server = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL)
        wait_for("redis", path.exists)
        return server

    admin = By(user_id=await record.user("admin"), role="admin")
    server = redis()
    own.redis = f"unix://{path}"
    own.start()
    asked = await _slow(own, admin, "slow.redis.org")
    server.kill()
    server.wait()
    path.unlink()
    (own.state / "go").touch()
    await asked  # it was written down before Redis went, so it may end
    with pytest.raises(NotRunningError, match="could not be written down first"):
        await own.ask("domain.add", DomainAdd(domain="unheard.example.org"), admin)
    assert (await own.ask("domain.list", Nothing(), admin)).ok  # reading needs no leave
    assert not any("unheard" in line for line in own.did)
    assert len(list((own.state / "audit").glob("*.json"))) == 3
    own.kill()  # whatever happens to the broker meanwhile
    server = redis()
    try:
        own.start()
        bus = await Bus.open(own.redis, "test")
        try:
            (end,) = await eventually(bus, "slow.redis.org", 1)
            (refused,) = await eventually(bus, "unheard.example.org", 1)
        finally:
            await bus.close()
        assert (end["outcome"], refused["outcome"]) == ("success", "failure")
        wait_for("the spool is empty", lambda: not list((own.state / "audit").glob("*")))
    finally:
        own.end()
        server.kill()
        server.wait()


async def test_there_is_one(own: Rig) -> None:
    own.start()
    began_s = time.monotonic()
    second = Rig(folder=own.folder, redis=own.redis, dsn=own.dsn)
    second.start(wait=False)
    assert second.process is not None
    assert second.process.wait(30) == 75
    assert time.monotonic() - began_s < 30
    assert (await own.ask("broker.verbs", Nothing())).ok


def test_a_folder_that_others_can_write_is_refused(own: Rig) -> None:
    own.state.mkdir(mode=0o777)
    own.state.chmod(0o777)
    own.start(wait=False)
    assert own.process is not None
    assert own.process.wait(30) == 2
    assert own.process.stderr is not None
    assert "can be written by others" in own.process.stderr.read().decode()
