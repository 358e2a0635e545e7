"""The hands: one sandboxed process a task, in which the tools of a model run.

The sandbox itself is the boundary; what comes out of it is checked like anything foreign.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import box, egress, ration, sandbox
from agents.box import Box
from agents.indexes import Indexes
from agents.tools import TOOLS, fault
from agents.workspace import frozen, ownership, planted, prepare
from base import log
from base.deadline import Deadline
from base.errors import SandboxError
from base.levels import STANDARD, Level
from base.settings import Settings, load

TEXT_MAX_BYTES = 64_000
OUTPUT_BYTES = 10_000_000
#: How long past a call's deadline its answer may take before the sandbox counts as dead.
GRACE_S = 5.0
CLOSE_S = 5.0

logger = log.get("hands")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """`text` has at most 64 kB and says what was left out. `files` were written, by path.

    refused: "host:port" blocked meanwhile; untrusted: where foreign text came from, or "".
    """

    ok: bool
    text: str
    files: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    untrusted: str = ""


class Hands:
    """Open one a task, close it in the end. Calls run one after the other."""

    def __init__(self, opened: Box, workspace: Path, level: Level) -> None:
        self.workspace = workspace
        self.level = level
        self._box = opened
        self._process = opened.process
        self._seen = egress.Seen()
        self._added = asyncio.Event()
        self._numbers = itertools.count(1)
        self._lock = asyncio.Lock()
        self._waiting: tuple[int, asyncio.Future[dict[str, Any]]] | None = None
        self._broken: str | None = None
        self._closed = asyncio.Event()
        self._stderr = b""
        self._readers = [
            asyncio.create_task(self._read(), name="hands-answers"),
            asyncio.create_task(self._complaints(), name="hands-complaints"),
            asyncio.create_task(self._connections(), name="hands-connections"),
            asyncio.create_task(self._ration(), name="hands-ration"),
            asyncio.create_task(self._watch(), name="hands-watch"),
        ]

    @classmethod
    async def open(
        cls, *, workspace: Path, user: str | None, level: Level, grants: Iterable[str] = ()
    ) -> Hands:
        """Start the sandbox around `workspace`. SandboxError says why not, and what mends it.

        `grants`: "host:port" that a person allowed this task beside what the level does.
        """
        who = sandbox.account(user)
        settings = load()
        real = await asyncio.to_thread(prepare, workspace, settings, who)
        indexes = await Indexes.of(settings, level)
        opened = await box.start(wish(real, settings, who, level, tuple(grants), indexes))
        hands = cls(opened, real, level)
        limits = {**level.limits.model_dump(), "output_bytes": OUTPUT_BYTES}
        more = {"workspace": str(real), "limits": limits, "write": level.workspace == "write"}
        try:
            first = await hands._ask("begin", {}, Deadline.after(box.START_S), more)
        except BaseException:
            await hands.close()
            raise
        if not first["ok"]:
            await hands.close()
            raise SandboxError(ownership(str(real), who))
        return hands

    async def call(self, name: str, input: dict[str, Any], *, deadline: Deadline) -> ToolResult:
        """Run one tool. Its own failure is a result; SandboxError: the sandbox is dead.

        Cancelling kills what the call had started; the hands stay usable.
        """
        reason = fault(name, input)
        if reason is None and TOOLS[name].where != "sandbox":
            reason = f"{name} is not a tool of the sandbox"
        if reason is not None:
            return ToolResult(ok=False, text=reason)
        deadline = deadline.sooner(Deadline.after(self.level.limits.wall_s))
        self._seen.refused = {}  # of what ran between calls; what it reached stays
        reply = await self._ask(name, input, deadline)
        seen = self._seen.take()
        files = tuple(_whole(str(path)[:4096]) for path in reply.get("files", ())[:1000])
        text = _whole(reply["text"])
        policy = egress.told(seen.refused, self.level.name)
        return ToolResult(
            ok=reply["ok"],
            text=f"{text}\n{policy}" if policy else text,
            files=files,
            refused=tuple(seen.refused),
            untrusted=_whole(", ".join(_sources(seen.foreign, reply.get("untrusted")))[:1000]),
        )

    async def check(
        self, kind: str, input: dict[str, Any], *, deadline: Deadline
    ) -> dict[str, Any]:
        """A check of the system's own: `verdict` passed, failed or unmeasured, and `text`.

        `kind` is command, file, pattern or http. Takes nothing from the shell's state.
        """
        return await self._ask(f"check.{kind}", input, deadline)

    async def hooks(self, jobs: list[dict[str, Any]], *, deadline: Deadline) -> dict[str, Any]:
        """Run hooks: `ran` has how each ended, `untrusted` the foreign hosts that were reached."""
        self._seen.refused = {}
        reply = await self._ask("hooks", {"jobs": jobs}, deadline)
        return {"ran": reply.get("ran", ()), "untrusted": _whole(self.reached())}

    async def allow(self, host: str) -> None:
        """Let this task reach "host:port" from now on. SandboxError when the sandbox is gone."""
        if self._broken is not None:
            raise SandboxError(f"the sandbox is gone: {self._broken}")
        self._added.clear()
        self._box.say({"allow": host})
        try:
            async with asyncio.timeout(GRACE_S):
                await self._added.wait()
        except TimeoutError as error:
            raise SandboxError("the sandbox did not take the new address") from error

    def reached(self) -> str:
        """The foreign hosts that were reached and that no result has told; "" for none. Once."""
        return ", ".join(self._seen.take().foreign)[:1000]

    @property
    def broken(self) -> bool:
        """Whether every further call would raise."""
        return self._broken is not None

    async def close(self) -> None:
        """Kill all that is inside and wait until it is dead. Safe to call twice."""
        self._fail("it was closed")
        if self._closed.is_set():
            return
        self._closed.set()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._box.pidfd, signal.SIGKILL)
        try:
            if not await box.ended(self._box.pidfd, Deadline.after(CLOSE_S)):
                logger.error("sandbox outlived its kill", pid=self._process.pid)
            await asyncio.wait(self._readers[2:3], timeout=1.0)  # the last connections
        finally:
            for reader in self._readers:
                reader.cancel()
            await asyncio.gather(*self._readers, return_exceptions=True)
            await self._box.remove()

    async def _ask(
        self, verb: str, input: dict[str, Any], deadline: Deadline, more: Mapping[str, Any] = {}
    ) -> dict[str, Any]:
        async with self._lock:
            if self._broken is not None:
                raise SandboxError(f"the sandbox is gone: {self._broken}")
            if deadline.passed:
                text = f"{verb}: not started, its deadline had passed"
                return {"ok": False, "text": text, "verdict": "unmeasured"}
            number = next(self._numbers)
            answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            self._waiting = (number, answer)
            self._send({"id": number, "verb": verb, "input": input, "at_s": deadline.at_s, **more})
            try:
                done, _ = await asyncio.wait({answer}, timeout=deadline.left_s + GRACE_S)
            except asyncio.CancelledError:
                await self._stop(number, answer)
                raise
            finally:
                self._waiting = None
            if not done:
                await self._kill("it did not answer in time")
                raise SandboxError(f"the sandbox is gone: {self._broken}")
            return answer.result()

    async def _stop(self, number: int, answer: asyncio.Future[dict[str, Any]]) -> None:
        """End a cancelled call; when that fails, the sandbox."""
        self._send({"stop": number})
        try:
            await asyncio.wait({answer}, timeout=GRACE_S)
        finally:
            if not answer.done():
                await self._kill("it did not stop when told to")
            elif not answer.cancelled():
                answer.exception()

    def _send(self, request: dict[str, Any]) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(json.dumps(request).encode() + b"\n")

    async def _read(self) -> None:
        """Take the answers in; anything that is none ends the sandbox."""
        stdout = self._process.stdout
        assert stdout is not None
        reason = ""
        while not reason:
            try:
                line = await stdout.readline()
            except ValueError:
                reason = "its answer was too long"
                break
            if not line:
                break
            reason = self._take(line)
        if not reason:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await asyncio.shield(self._readers[1])
            reason = box.explain(self._stderr.decode("utf-8", "replace"))
        await self._kill(reason)

    def _take(self, line: bytes) -> str:
        """Give the answer to who waits for it; a reason when the line is no answer."""
        try:
            reply = json.loads(line)
            number, ok, text = reply["id"], reply["ok"], reply["text"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return "it answered with something that is no answer"
        waiting = self._waiting
        fits = isinstance(ok, bool) and isinstance(text, str) and isinstance(reply, dict)
        if waiting is None or number != waiting[0] or not fits or len(text) > TEXT_MAX_BYTES:
            return "it answered what nobody had asked"
        if not isinstance(reply.get("files", []), list):
            return "it answered with something that is no answer"
        if not waiting[1].done():
            waiting[1].set_result(reply)
        return ""

    async def _complaints(self) -> None:
        """Keep the last of what the driver, bubblewrap and the toolbox print on stderr."""
        stderr = self._process.stderr
        assert stderr is not None
        while piece := await stderr.read(4096):
            self._stderr = (self._stderr + piece)[-4096:]

    async def _connections(self) -> None:
        """Take in what the driver tells of every connection."""
        while line := await self._box.events.readline():
            event = json.loads(line)
            if "added" in event:
                self._added.set()
            else:
                self._seen.note(event)

    async def _ration(self) -> None:
        """End the sandbox once it takes more of the machine than its level may."""
        await self._kill(await ration.exceeded(self._box.pid, self.level.limits, self.workspace))

    async def _watch(self) -> None:
        """End the sandbox that makes a person's repository use another's configuration."""
        while not (found := planted(self._box.frozen)):
            await asyncio.sleep(ration.LOOK_S)
        await self._kill(f"{found[0]} would make git run its programs as who works there")

    def _fail(self, reason: str) -> None:
        """From now on every call raises; the one that waits does so at once."""
        self._broken = self._broken or reason
        if self._waiting is not None and not self._waiting[1].done():
            self._waiting[1].set_exception(SandboxError(f"the sandbox is gone: {self._broken}"))

    async def _kill(self, reason: str) -> None:
        self._fail(reason)
        if not self._closed.is_set():
            logger.warning("sandbox ended", error=reason)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._box.pidfd, signal.SIGKILL)


def _whole(text: str) -> str:
    """Text that can be stored and sent: half of a character is a question mark."""
    return text.encode("utf-8", "replace").decode()


def _sources(seen: Iterable[str], told: object) -> Iterable[str]:
    """Hosts that were reached, and the address that the tool itself names."""
    return dict.fromkeys([*([str(told)] if told else []), *seen])


def wish(
    workspace: Path,
    settings: Settings,
    who: sandbox.Account,
    level: Level,
    grants: tuple[str, ...],
    indexes: Indexes,
) -> box.Wish:
    """What a sandbox at `level` shows and lets do."""
    state = (settings.home, settings.run, settings.workspaces, Path("/etc/ai-infra"))
    return box.Wish(
        workspace=workspace,
        who=who,
        writable=level.workspace == "write",
        read=(*level.read, *indexes.paths),
        write=level.write,
        frozen=frozen(workspace, settings, who) if level.workspace == "write" else (),
        hidden=[str(path) for path in state],
        rules=egress.rules(level, grants, indexes.addresses),
        denied_ranges=egress.PRIVATE if egress.open_ports(level) else (),
        why=egress.REASON.format(level=level.name),
        scratch_bytes=level.limits.scratch_bytes,
        environment=indexes.environment,
        with_node=level.rank >= STANDARD,
    )
