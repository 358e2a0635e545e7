"""The product as it is installed: /opt/ai-infra, its units, its database. What an update does.

`python -m provision.product VERSION` updates without the broker, `--recover` undoes an update
that was cut off. ai-provision's unit does `--recover --start` before each start, by the release
that is known to work: a broker that does not start after an update undoes it, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from base import log
from base.backup import create
from base.backup.command import Done, run
from base.errors import AIError, ConflictError
from base.settings import Settings, load
from provision import environment, programs, rules, source, update
from provision.box import Box

logger = log.get("broker")

OPT = Path("/opt/ai-infra")
UNITS = Path("/etc/systemd/system")
#: Whose role owns the record: see base/grants.py.
ACCOUNT = "ai-api"
CONFIGURED, OF_ROOT = ("PIP_", "npm_config_"), (".config", ".pip", ".npmrc")
SHORT_S = 60.0
#: What a release may take, from the switch to the moment when all of it is up.
HEALTHY_S = 60.0
#: What the release before may take, from the switch back to its portal's answer.
BACK_S = 60.0
ASK_S, PAUSE_S = 3.0, 0.5
MIGRATE = """import asyncio
from base.settings import load
from base.store import Store
async def main():
    store = await Store.open(load().postgres, "update")
    try:
        print(*await store.migrate())
    finally:
        await store.close()
asyncio.run(main())"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """As `update.Product` says."""

    settings: Settings
    origin: source.Origin
    state: Path
    root: Path = OPT
    units: Path = UNITS

    async def room(self) -> str:
        now = self.root / "current"
        most = await asyncio.to_thread(environment.size_bytes, now.resolve())
        free = shutil.disk_usage(self.root).free
        return f"of the disk {most / 1e6:.0f} MB at most; {free / 1e6:.0f} MB are free"

    async def build(self, release: Path, tell: update.Tell) -> None:
        now = (self.root / "current").resolve()
        # What pip and npm are configured with says where packages come from; where they put down
        # what they fetch is in the release, which goes when this comes to nothing: root's home and
        # the caches that it names may be read only, and /tmp may be memory.
        named = {key: value for key, value in os.environ.items() if key.startswith(CONFIGURED)}
        work = release / ".work"
        (work / "tmp").mkdir(mode=0o700, parents=True)
        for name in OF_ROOT:
            (work / name).symlink_to(f"/root/{name}")
        own = {
            "HOME": str(work),
            "TMPDIR": str(work / "tmp"),
            "npm_config_cache": str(work / "npm"),
        }
        own |= {"AI_INFRA_HOME": str(self.settings.home), "AI_INFRA_APPLIANCE": "true"}
        try:
            await environment.make(release, now, named | source.way_out() | own, tell)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    async def back_up(self) -> str:
        async def quiet(text: str) -> None:
            """The update tells its own steps."""

        return (await create.create(self.settings, quiet)).snapshot

    async def migrate(self, release: Path) -> None:
        own = {key: value for key, value in os.environ.items() if key.startswith("AI_INFRA_")}
        line = ["runuser", "-u", ACCOUNT, "--", str(release / ".venv/bin/python"), "-c", MIGRATE]
        await _well(line, SHORT_S * 10, own, release)

    async def restart(self, release: Path) -> None:
        for path in sorted((release / "systemd").glob("ai-*")):
            new = self.units / f".{path.name}.new"
            new.write_bytes(path.read_bytes())
            new.chmod(0o644)
            new.replace(self.units / path.name)
        await programs.restart(self._there())

    async def settle(self) -> None:
        # Not now: it may be this very process, which has yet to say how it went.
        later = ["systemd-run", "--quiet", "--collect", "--on-active=3"]
        later += ["--timer-property=AccuracySec=100ms"]
        await _well([*later, "systemctl", "restart", "ai-provision"], SHORT_S, check=False)

    async def healthy(self, version: str) -> str:
        begun_s, said, up = time.monotonic(), "", set[str]()
        names = [name for name in self._there() if name != programs.AT_TIMES]
        while (now_s := time.monotonic() - begun_s) < HEALTHY_S:
            units = await programs.look(names)
            if problem := programs.lost(units):
                return problem
            for name in sorted({unit.name for unit in units if unit.up} - up):
                logger.info("unit came up", unit=name, release=version, after_s=round(now_s, 1))
                up.add(name)
            waiting = [f"{unit.name} is {unit.state}" for unit in units if not unit.up]
            said = ", ".join(waiting) or await self._portal(version)
            if not said:
                return ""
            await asyncio.sleep(PAUSE_S)
        return f"after {HEALTHY_S:g} s {said}"

    async def answers(self, version: str) -> str:
        begun_s, said = time.monotonic(), ""
        while time.monotonic() - begun_s < BACK_S:
            if not (said := await self._portal(version)):
                return ""
            await asyncio.sleep(PAUSE_S)
        return said

    def _there(self) -> list[str]:
        return [name for name in programs.PROGRAMS if (self.units / _file(name)).is_file()]

    async def _portal(self, version: str) -> str:
        """ "" once it is ready and says that it is this version, else why not."""
        url = f"http://{self.settings.host}:{self.settings.port}"
        try:
            async with httpx.AsyncClient(timeout=ASK_S, trust_env=False) as client:
                ready = await client.get(f"{url}/api/health/ready")
                told = (await client.get(f"{url}/openapi.json")).json()["info"]["version"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            return f"the portal does not answer: {type(error).__name__}"
        if ready.status_code != 200:
            return f"the portal is not ready: {ready.text[:200]}"
        return "" if told == version else f"the portal is still {told}"


def installed(settings: Settings, box: Box) -> Installed:
    """Raises SettingsError when update.toml does not say where from."""
    return Installed(
        settings=settings, origin=source.load(box.config / "update.toml"), state=box.state
    )


async def recover(settings: Settings, state: Path, *, starting: bool = False) -> str | None:
    """As `update.recover` and `update.starting` say: the version that is undone."""
    if not (state / "update.json").exists():
        return None
    product = Installed(settings=settings, origin=source.Origin(source="/"), state=state)
    return await (update.starting if starting else update.recover)(product)


def started(settings: Settings, state: Path) -> None:
    """The broker runs: an update that waited for it has ended well."""
    update.started(Installed(settings=settings, origin=source.Origin(source="/"), state=state))


def _file(name: str) -> str:
    return f"{name.split('@', maxsplit=1)[0]}@.service" if "@" in name else f"{name}.service"


async def _well(
    line: list[str],
    deadline_s: float,
    environment: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
    *,
    check: bool = True,
) -> Done:
    done = await run(line, deadline_s=deadline_s, environment=environment, cwd=cwd)
    if done.code and check:
        raise ConflictError(f"{Path(line[0]).name} {line[1] if line[1:] else ''}: {done.words}")
    return done


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m provision.product", description=__doc__)
    parser.add_argument("version", nargs="?")
    parser.add_argument("--recover", action="store_true")
    parser.add_argument("--start", action="store_true", help="with --recover: the broker starts")
    given = parser.parse_args()
    log.start("update", None, "error")

    async def tell(text: str) -> None:
        print(text, flush=True)

    async def work() -> None:
        settings = load()
        box = rules.here(settings).box
        if given.recover:
            if (gone := await recover(settings, box.state, starting=given.start)) is not None:
                await tell(f"the update to {gone} did not come to its end and is undone")
            return
        done = await update.apply(installed(settings, box), given.version, tell)
        await tell(f"{done.version} runs; it was {done.before}; {done.switched_s:g} s")

    if not given.recover and not given.version:
        parser.error("which version?")
    try:
        asyncio.run(work())
    except AIError as error:
        print(f"update: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
