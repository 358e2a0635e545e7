"""All programs started anew at once, and known to be up or lost: systemctl is played, by the clock.

What systemd itself does is in tests/appliance/test_rollback.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from base.errors import ConflictError
from base.settings import load
from provision import product, programs, source, update

#: What a unit goes through: from when on, ActiveState, SubState, NRestarts, Job.
Story = list[tuple[float, str, str, int, int]]
#: Up before, told to start anew, and up again after 0.6 s.
WELL: Story = [
    (0.0, "active", "running", 0, 7),
    (0.1, "deactivating", "stop-sigterm", 0, 7),
    (0.2, "activating", "start", 0, 7),
    (0.6, "active", "running", 0, 0),
]
SLOW: Story = [(0.0, "activating", "start", 0, 7)]
ONCE: Story = [
    (0.0, "activating", "start", 0, 7),
    (0.2, "activating", "auto-restart", 0, 0),
    (0.4, "activating", "start", 1, 8),
    (0.8, "active", "running", 1, 0),
]
TWICE: Story = [*ONCE[:-1], (0.6, "activating", "auto-restart-queued", 1, 9)]
GIVEN_UP: Story = [(0.0, "activating", "start", 0, 7), (0.3, "failed", "failed", 1, 0)]
ENDED: Story = [*WELL[:-1], (0.3, "inactive", "dead", 0, 0)]

SYSTEMCTL = """#!{python} -ES
import json, pathlib, sys, time
here = pathlib.Path({folder!r})
words = sys.argv[1:]
with (here / "asked").open("a") as file:
    file.write(" ".join(words) + "\\n")
if words[0] == "restart":
    if (here / "refuses").exists():
        sys.exit("Failed to restart ai-api.service: Unit ai-api.service is masked.")
    (here / "began").write_text(str(time.monotonic()))
if words[0] == "show":
    since = time.monotonic() - float((here / "began").read_text())
    stories = json.loads((here / "stories").read_text())
    for name in words[3:]:
        *_, (at, active, sub, restarts, job) = [one for one in stories[name] if one[0] <= since]
        print(f"Id={{name}}.service\\nActiveState={{active}}\\nSubState={{sub}}")
        print(f"NRestarts={{restarts}}" + (f"\\nJob={{job}}" if job else "") + "\\n")
"""


class Played(product.Installed):
    """Of which only what comes after the migrations is real."""

    async def build(self, release: Path, tell: update.Tell) -> None: ...
    async def back_up(self) -> str:
        return "1a2b3c4d"

    async def migrate(self, release: Path) -> None: ...


class Ground:
    """The product as it is installed, whose portal says that it is `version`; "": nothing."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.version = folder, "0.2.0"
        self.product = Played(
            settings=load().model_copy(update={"host": "127.0.0.1", "port": port}),
            origin=source.Origin(source=str(folder / "shop")),
            state=folder / "state",
            root=folder,
            units=folder / "units",
        )

    def play(self, **stories: Story) -> None:
        """These, and all others well."""
        told = {name: stories.get(name.partition("@")[0][3:], WELL) for name in programs.PROGRAMS}
        (self.folder / "stories").write_text(json.dumps(told))

    async def restarted(self) -> tuple[str, float]:
        """What `healthy` says of it, and after how long."""
        await self.product.restart(self.folder / "release")
        began_s = time.monotonic()
        said = await self.product.healthy("0.2.0")
        return said, time.monotonic() - began_s


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    class Said(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if made.version else 503)
            self.end_headers()
            self.wfile.write(json.dumps({"info": {"version": made.version}}).encode())

        def log_message(self, format: str, *_: object) -> None:
            """Nobody reads it."""

    for path in ("bin", "units", "release/systemd"):
        (tmp_path / path).mkdir(parents=True)
    for name in programs.PROGRAMS:
        file = f"{name.partition('@')[0]}{'@' if '@' in name else ''}.service"
        (tmp_path / "release" / "systemd" / file).write_text("[Unit]\n")
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(python=sys.executable, folder=str(tmp_path)))
    systemctl.chmod(0o755)
    (tmp_path / "bin" / "systemd-run").write_text(f"#!/bin/sh\necho settled >> {tmp_path}/asked\n")
    (tmp_path / "bin" / "systemd-run").chmod(0o755)
    monkeypatch.setattr("base.backup.command.PATH", f"{systemctl.parent}:/usr/bin:/bin")
    monkeypatch.setattr(product, "PAUSE_S", 0.05)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Said)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    made = Ground(tmp_path, server.server_port)
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


async def test_all_are_told_at_once_and_nobody_waits_for_one_of_them(ground: Ground) -> None:
    ground.play()
    said, took_s = await ground.restarted()
    asked = (ground.folder / "asked").read_text().splitlines()
    names = " ".join(programs.PROGRAMS)
    orders = ["daemon-reload", f"reset-failed {names}", f"restart --no-block {names}"]
    assert asked[:3] == orders
    assert (said, took_s > 0.5) == ("", True)  # not the one that ran before, which has yet to stop
    assert not any(programs.AT_TIMES in line for line in asked[3:])


@pytest.mark.parametrize(
    ("story", "said"),
    [
        (TWICE, "ai-api died 2 times"),
        (GIVEN_UP, "ai-api is failed"),
        (ENDED, "ai-api is inactive"),
    ],
)
async def test_one_that_will_not_come_up_is_known_before_the_others_are(
    ground: Ground, story: Story, said: str
) -> None:
    ground.play(api=story, workers=SLOW, memory=SLOW)
    told, took_s = await ground.restarted()
    assert told == said
    assert took_s < 3 < product.HEALTHY_S


async def test_one_that_died_once_may_come_up(ground: Ground) -> None:
    ground.play(api=ONCE)
    assert (await ground.restarted())[0] == ""


async def test_one_that_hangs_is_named_at_the_deadline(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "HEALTHY_S", 1.5)
    ground.play(workers=SLOW)
    said, took_s = await ground.restarted()
    assert said == "after 1.5 s ai-workers@embed is activating"
    assert took_s < 4


async def test_the_way_back_waits_for_the_portal_alone(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.play(workers=SLOW, memory=SLOW)
    await ground.product.restart(ground.folder / "release")
    ground.version = ""

    async def up() -> None:
        await asyncio.sleep(0.3)
        ground.version = "0.2.0"

    rising = asyncio.create_task(up(), name="up")
    assert await ground.product.answers("0.2.0") == ""
    await rising
    monkeypatch.setattr(product, "BACK_S", 0.5)
    assert await ground.product.answers("0.1.0") == "the portal is still 0.2.0"


async def test_an_order_that_systemd_refuses_is_an_error(ground: Ground) -> None:
    ground.play()
    (ground.folder / "refuses").touch()
    with pytest.raises(ConflictError, match=r"^systemctl restart: .*ai-api.service is masked"):
        await ground.restarted()


async def test_one_that_dies_costs_seconds_and_the_old_units_are_back(ground: Ground) -> None:
    for version in ("0.1.0", "0.2.0"):
        units = ground.folder / "shop" / version / "systemd"
        shutil.copytree(ground.folder / "release" / "systemd", units)
        (units / "ai-api.service").write_text(f"[Unit]\nDescription={version}\n")
        told = f'[project]\nname = "x"\nversion = "{version}"\n'
        (units.parent / "pyproject.toml").write_text(told)
    told: list[str] = []

    async def tell(text: str) -> None:
        told.append(text)

    ground.version = "0.1.0"
    ground.play()
    await update.apply(ground.product, "0.1.0", tell)
    ground.play(api=TWICE, workers=SLOW)
    said = (
        r"^rolled back to 0\.1\.0 in (\S+) s, (\S+) s after the switch: 0\.2\.0 does not work: (.*)"
    )
    with pytest.raises(ConflictError, match=said) as error:
        await update.apply(ground.product, "0.2.0", tell)
    found = re.search(said, str(error.value))
    assert found
    assert found[3] == "ai-api died 2 times"
    assert float(found[2]) < 20
    unit = ground.folder / "units" / "ai-api.service"
    assert "Description=0.1.0" in unit.read_text()
    assert (ground.folder / "current").resolve().name == "0.1.0"
    assert not (ground.folder / "state" / "update.json").exists()
    asked = (ground.folder / "asked").read_text().splitlines()
    assert [line.partition(" ")[0] for line in asked[-4:]] == [
        "daemon-reload", "reset-failed", "restart", "settled",
    ]  # fmt: skip
    assert told[-1] == "rolling back: 0.2.0 does not work: ai-api died 2 times"
