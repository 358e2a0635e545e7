"""A task's hands are replaced once they are broken, whoever holds them next."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from homes import proven
from present import need

from agents.grip import Grip
from base.deadline import Deadline
from base.levels import Levels
from base.settings import hands_account


async def test_broken_hands_are_replaced_by_the_next_hold(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("bwrap")
    account = hands_account() if os.geteuid() == 0 else None
    short_tmp.chmod(0o755)
    workspace = short_tmp / "grip"
    workspace.mkdir()
    if account is not None:
        os.chown(workspace, account.pw_uid, account.pw_gid)
    monkeypatch.setenv("AI_INFRA_HOME", str(short_tmp / "home"))
    parts: Any = SimpleNamespace(settings=proven())
    task: Any = SimpleNamespace(workspace=workspace, level=Levels.load().get(1), granted=())
    grip = Grip(parts, task)
    first = await grip.hold()
    assert await grip.hold() is first
    signal.pidfd_send_signal(first._box.pidfd, signal.SIGKILL)
    result = await grip.call("shell", {"command": "true"})
    assert not result.ok
    second = await grip.hold()
    assert second is not first
    assert (await second.call("shell", {"command": "true"}, deadline=Deadline.after(10))).ok
    signal.pidfd_send_signal(second._box.pidfd, signal.SIGKILL)
    wait = Deadline.after(5)
    while not second.broken and not wait.passed:
        await second._readers[0]
    assert await grip.hold() is not second
    await grip.release()
