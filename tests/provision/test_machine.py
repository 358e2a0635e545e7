"""Units and containers: only those of the rules, in systemd's and Docker's own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.errors import ConflictError, ForbiddenError, NotFoundError
from base.verbs import By, ContainerName, DockerLogs, Nothing, UnitName
from provision import units
from provision.box import Box
from provision.child import command
from tests.provision.engine import ID, playing
from tests.provision.rig import Rig

#: What `systemctl show` says of a unit that runs, of none, of one that fails, and how it restarts.
SYSTEMCTL = """#!/bin/sh
verb=$1; for unit; do :; done
echo "$*" >> {folder}/asked
env >> {folder}/env
state=active; [ -e {folder}/$unit.failed ] && state=failed
case "$verb $unit" in
  "show gone.service") echo LoadState=not-found; echo ActiveState=inactive ;;
  show*) echo LoadState=loaded; echo ActiveState=$state; echo SubState=running
         echo "Description=A=B, with an equals sign"; echo MainPID=42; echo Result=exit-code ;;
  "restart sick.service") touch {folder}/$unit.failed
         echo "Job for sick.service failed because the control process exited." >&2; exit 1 ;;
  restart*) exit 0 ;;
esac
"""


@pytest.fixture
def systemctl(rig: Rig) -> Path:
    """A program that plays systemctl for `rig`; the folder of what it was asked."""
    path = rig.folder / "bin" / "systemctl"
    path.write_text(SYSTEMCTL.format(folder=rig.folder).replace("/bin/sh", "/bin/sh", 1))
    path.chmod(0o755)
    for tool in ("env", "touch"):
        if not (link := rig.folder / "bin" / tool).exists():
            link.symlink_to(f"/usr/bin/{tool}")
    return rig.folder


async def test_a_unit_is_looked_at_and_restarted(rig: Rig, systemctl: Path) -> None:
    web = UnitName(unit="web.service")
    found = (await rig.ask("unit.status", web)).result
    assert (found["active"], found["pid"]) == ("active", "42")
    assert found["description"] == "A=B, with an equals sign"
    plan = (await rig.ask("unit.restart", web, dry_run=True)).plan
    assert plan[0] == "web.service is active (running)"
    assert "restart" not in (systemctl / "asked").read_text()
    steps: list[str] = []
    assert (await rig.ask("unit.restart", web, steps=steps)).result["active"] == "active"
    assert steps == ["restarting web.service"]
    assert "restart -- web.service" in (systemctl / "asked").read_text()
    names = {line.partition("=")[0] for line in (systemctl / "env").read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "LC_ALL", "HOME"}


async def test_a_unit_that_fails_says_why(rig: Rig, systemctl: Path) -> None:
    with pytest.raises(ConflictError, match=r"did not start again: Job for sick\.service failed"):
        await rig.ask("unit.restart", UnitName(unit="sick.service"))
    for dry_run in (True, False):
        with pytest.raises(NotFoundError, match=r"there is no unit gone\.service"):
            await rig.ask("unit.restart", UnitName(unit="gone.service"), dry_run=dry_run)
        with pytest.raises(ForbiddenError, match="not one of the units"):
            await rig.ask("unit.restart", UnitName(unit="ssh.service"), dry_run=dry_run)
    with pytest.raises(ForbiddenError, match="not one of the units"):
        await rig.ask("unit.status", UnitName(unit="ssh.service"))


async def test_containers(rig: Rig) -> None:
    with pytest.raises(ConflictError, match="Docker does not run on this machine"):
        await rig.ask("docker.ps", Nothing())
    with playing(rig.folder / "docker.sock") as engine:
        rows = (await rig.ask("docker.ps", Nothing())).result["containers"]
        assert [(one["name"], one["listed"]) for one in rows] == [("other", False), ("shop", True)]
        logs = (await rig.ask("docker.logs", DockerLogs(container="shop", lines=2))).result["logs"]
        assert logs.splitlines()[:2] == ["line 98", "line 99"]
        assert "hunter2" not in logs
        assert "\x1b" not in logs
        plan = (await rig.ask("docker.restart", ContainerName(container="shop"), dry_run=True)).plan
        assert plan[0] == "shop is running"
        assert engine.restarted == []
        said = await rig.ask("docker.restart", ContainerName(container="shop"))
        assert (said.result["status"], engine.restarted) == ("running", [ID])
        admin = By(role="admin")
        with pytest.raises(ForbiddenError, match="not one of the containers"):
            await rig.ask("docker.restart", ContainerName(container="other"), admin)
        with pytest.raises(NotFoundError, match="there is no container abc"):
            await rig.ask("docker.restart", ContainerName(container="abc"), admin)  # an id's start
        assert len(engine.restarted) == 1


async def test_a_program_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "hang"
    script.write_text("#!/bin/sh\nsleep 600 & echo $! > pid\nwait\n")
    script.chmod(0o755)
    ended = await command([str(script)], deadline_s=0.5, folder=tmp_path)
    assert (ended.code, ended.well) == (None, False)
    assert "hang did not end within" in ended.said
    child = int((tmp_path / "pid").read_text())
    status = Path(f"/proc/{child}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()
    box = Box(programs=(tmp_path,), units=("web.service",))
    with pytest.raises(NotFoundError, match="systemctl is not installed"):
        await units.status("web.service", box)
