"""`python -m agents NAME [--plain]`: one agent in this window.

`--canary` tries the sandbox; `--install-sandbox` and `--remove-sandbox` see to what it needs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from functools import partial

from pydantic import ValidationError

from agents import keyboard, peer, runtime_install, sandbox, trial
from agents.canary import canary
from agents.desk import Desk
from agents.feed import Feed
from agents.hook_calls import Hooked
from agents.mcp_tools import Mcp
from agents.notes import Notes
from agents.parts import Parts
from agents.reins import Reins
from agents.transcript import Transcript
from base import log, mcp, program, roster, streams
from base.bus import Bus
from base.errors import AIError, DecodeError
from base.levels import Levels
from base.limit import Limiter
from base.llm import LLM
from base.messages import Control, ModelCall, Outcome, decode
from base.prices import Models
from base.secrets import Secrets
from base.settings import Settings, load
from base.verbs import TOOL
from pai.telos import Telos

logger = log.get("agents")


async def main(name: str, plain: bool, settings: Settings, stop: asyncio.Event) -> None:
    """Wire the parts and run them until `stop`. Raises UnknownAgentError, BusError."""
    agents, models = roster.load(settings), Models.load(settings)
    spec = agents.get(name)
    if settings.broker is None:  # no tool that could do nothing
        own = tuple(tool for tool in spec.tools if tool != TOOL)
        spec = spec.model_copy(update={"tools": own})
    servers, levels = mcp.load(settings, agents.agents), Levels.load(settings)
    transcript = Transcript(sys.stdout, plain=plain)
    bus = await Bus.open(settings.redis, name)

    async def spent(call: ModelCall) -> None:
        await desk.spent(call)

    async def publish(outcome: Outcome) -> None:
        await desk.publish(outcome)

    parts = Parts(
        settings=settings,
        bus=bus,
        llm=LLM(settings, models, on_call=spent),
        models=models,
        roster=agents,
        spec=spec,
        transcript=transcript,
        feed=Feed(bus=bus),
        reins=Reins(stop, publish),
        notes=Notes(name),
        levels=levels,
        limiter=await Limiter.open(settings),
        hooked=Hooked(settings, transcript),
        telos=Telos(settings, lambda fault: transcript.line(fault, "33")),
        mcp=Mcp(
            servers.of(name),
            levels=levels,
            user=settings.hands_user,
            secret=partial(_secret, Secrets(settings)),
            tell=lambda fault: transcript.line(fault, "33"),
        ),
    )
    desk = Desk(parts, stop)
    parts.transcript.banner(
        name, spec.title, parts.model("standard", "execute"), rehearsal=settings.rehearsal
    )
    for fault in agents.faults:
        parts.transcript.line(f"roster: {fault}", "33")
    for fault in servers.faults:
        parts.transcript.line(f"mcp: {fault}", "33")
    drained = asyncio.Event()
    try:
        await program.watch(
            drained,
            drain=desk.drain(),
            work=desk.work(),
            beat=desk.beat(),
            feed=parts.feed.run(),
            controls=_controls(parts, desk),
            notes=_notes(parts),
            peers=bus.serve(streams.peer(name), partial(peer.answer, parts), concurrency=2),
            keyboard=keyboard.listen(parts),
            warm=_warm(parts),
        )
    finally:
        await parts.feed.flush()
        await desk.farewell()
        await parts.llm.close()
        await parts.limiter.close()
        await bus.close()


def _secret(secrets: Secrets, name: str) -> str | None:
    value = secrets.get(name)
    return None if value is None else value.get_secret_value()


async def _warm(parts: Parts) -> None:
    """Load the model's library and try the sandbox while nothing waits for them."""
    await parts.llm.warm()
    await trial.ahead(parts.settings, lambda reason: parts.transcript.line(reason, "31"))
    await asyncio.Event().wait()


async def _controls(parts: Parts, desk: Desk) -> None:
    """Obey the control stream from its start: what was said before a restart still holds."""
    began_ms = time.time_ns() // 1_000_000
    async for entries in parts.bus.tail(streams.control(parts.spec.name), after="0"):
        for entry_id, raw in entries:
            try:
                told = Control.model_validate(decode(raw).payload)
            except (DecodeError, ValidationError) as error:
                logger.warning("control dropped", error=str(error).splitlines()[0])
                continue
            fresh = int(entry_id.partition("-")[0]) >= began_ms
            complaint = parts.reins.take(entry_id, told, fresh=fresh)
            if complaint or fresh:
                parts.transcript.line(complaint or f"[{told.verb}] {told.text}".rstrip(), "33")
            if told.verb in {"pause", "resume"}:
                desk.changed()


async def _notes(parts: Parts) -> None:
    """Gather what other agents broadcast, the last of them included."""
    async for entries in parts.bus.tail(streams.BROADCAST, after="0"):
        for _, raw in entries:
            try:
                parts.notes.take(decode(raw))
            except DecodeError as error:
                logger.warning("broadcast dropped", error=str(error))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m agents", description=__doc__)
    parser.add_argument("name", nargs="?", help="an agent of the roster, such as code")
    parser.add_argument("--canary", action="store_true", help="prove the sandbox, then end")
    parser.add_argument("--install-sandbox", action="store_true", help="install what it needs")
    parser.add_argument("--sandbox-runtime", action="store_true", help="where that is")
    parser.add_argument("--remove-sandbox", action="store_true", help="take that away again")
    parser.add_argument("--hook", action="store_true", help="run hooks in a sandbox: JSON in, out")
    parser.add_argument("--plain", action="store_true", help="no colours")
    given = parser.parse_args()
    flags = (given.canary, given.install_sandbox, given.sandbox_runtime, given.remove_sandbox)
    if [given.name is not None, given.hook, *flags].count(True) != 1:
        parser.error("give the name of an agent, or one of the options about the sandbox")
    return given


def _about_sandbox(given: argparse.Namespace) -> int:
    """Exit code of a trial, an installation or a removal; the reason goes to stderr."""
    try:
        if given.canary:
            asyncio.run(canary(load().hands_user))
            print("holds: reads, connections, sockets were denied, a write worked")
        elif given.install_sandbox:
            who = sandbox.account(load().hands_user)
            print(runtime_install.install(who).tree)
        elif given.sandbox_runtime:
            print(runtime_install.find(sandbox.account(load().hands_user)).tree)
        else:
            runtime_install.remove()
    except AIError as error:
        print(error, file=sys.stderr)
        return program.EXIT_DIED
    return 0


if __name__ == "__main__":
    given = _arguments()
    if given.hook:
        from agents import hook_run

        program.leave(hook_run.main())
    if given.name is None:
        program.leave(_about_sandbox(given))
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    bare = given.plain or not sys.stdout.isatty()
    program.run(given.name, partial(main, given.name, bare))
