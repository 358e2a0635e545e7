"""The broker killed with SIGKILL at each step of a change: the configuration is whole, old or
new, nginx starts from it, and the next broker takes back what was not proved.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from nginx_rig import Ground, ground

from provision import looks, sites
from provision.sites import Sites
from provision.spec import Spec

__all__ = ["ground"]

STEPS = ("mkdir", "rename", "replace", "symlink", "unlink", "kill")


def _act(ground: Ground, spec: Spec, *, dies_at: int, fails: bool, said: Path) -> int:
    """Make the change in a process of its own that kills itself before step `dies_at`.

    Writes the steps it came to into `said`; answers how the process ended.
    """
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    steps: list[str] = []
    owned = (str(ground.box.nginx), str(ground.box.state / "nginx"))

    def watched(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object, **more: object) -> object:
            where = str(args[-1])
            if (name == "kill" or where.startswith(owned)) and "/try-" not in where:
                steps.append(f"{name} {where}")
                said.write_text(json.dumps(steps))
                if len(steps) == dies_at:
                    real_kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return act

    real_kill = os.kill
    for name in STEPS:
        setattr(os, name, watched(name, getattr(os, name)))
    if fails:
        looks.faults = lambda *_: ["a planted fault"]
        sites.FORTH_S = 0.0
    try:
        asyncio.run(Sites(ground.box).apply(spec))
    except BaseException as error:
        print(error, file=sys.stderr)
        os._exit(1)
    os._exit(0)


def _chosen(steps: list[str], *, fails: bool) -> list[int]:
    """All, but of the many files of a new generation only some; of a change that fails only
    those from the first reload on.
    """
    if fails:
        first = next(n for n, step in enumerate(steps, 1) if step.startswith("kill"))
        return list(range(first + 1, len(steps) + 1))
    files = [n for n, step in enumerate(steps, 1) if "/.new-" in step and "rename" not in step]
    return [n for n in range(1, len(steps) + 1) if n not in files or n in files[:: len(files) // 2]]


def _all_steps(ground: Ground, *, fails: bool) -> None:
    old, new = (
        ground.static("one.example", "old"),
        Spec(domain="one.example", kind="redirect", target="new.example"),
    )
    said = ground.box.root / "steps"
    asyncio.run(Sites(ground.box).apply(old))
    ended = _act(ground, new, dies_at=0, fails=fails, said=said)
    assert os.waitstatus_to_exitcode(ended) == (1 if fails else 0)
    asyncio.run(Sites(ground.box).apply(old))
    steps = json.loads(said.read_text())
    assert sum("pending.json" in step for step in steps) == 2
    for dies_at in _chosen(steps, fails=fails):
        ended = _act(ground, new, dies_at=dies_at, fails=fails, said=said)
        assert os.waitstatus_to_exitcode(ended) == -signal.SIGKILL, steps[dies_at - 1]
        was = json.loads(said.read_text())[-1]
        link = ground.box.nginx / "ai-infra" / "current"
        one = json.loads((link / "specs.json").read_text())["specs"]
        assert [spec["kind"] for spec in one] in (["static"], ["redirect"]), was
        _answers(ground, was)
        conf = str(ground.box.nginx / "nginx.conf")
        subprocess.run(["nginx", "-t", "-q", "-c", conf], check=True, timeout=20)
        back = asyncio.run(Sites(ground.box).recover())
        state = ground.box.state / "nginx"
        assert not (state / "pending.json").exists(), was
        kind = Sites(ground.box).spec("one.example").kind
        expected = back is not None and back.state == "done"
        assert kind == ("redirect" if expected else "static"), was
        assert ground.get("one.example").status_code == (301 if expected else 200), was
        assert not list((link.parent / "generations").glob(".new-*")), was
        assert not list(link.parent.glob(".current.*")), was
        if expected:
            asyncio.run(Sites(ground.box).apply(old))


def _answers(ground: Ground, was: str) -> None:
    seen = ground.get("one.example")
    assert seen.text == "old" or seen.headers.get("location") == "https://new.example/", was
    assert ground.get("owner.example").text == "the owner's", was


def test_killed_at_each_step_of_a_change(ground: Ground) -> None:
    _all_steps(ground, fails=False)


def test_killed_at_each_step_of_the_way_back(ground: Ground) -> None:
    _all_steps(ground, fails=True)
