"""The hands: one sandboxed process a task, in which the tools of a model run.

The sandbox itself is the boundary; what comes out of it is checked like anything foreign.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents import bubble, sandbox
from agents.sandbox import Limits
from agents.tools import TOOLS, fault
from agents.workspace import ownership, prepare
from base import log
from base.deadline import Deadline
from base.errors import SandboxError
from base.settings import load

TEXT_MAX_BYTES = 64_000
#: How long past a call's deadline its answer may take before the sandbox counts as dead.
GRACE_S = 5.0
CLOSE_S = 5.0

logger = log.get("hands")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """`text` has at most 64 kB and says what was left out. `files` were written, by path."""

    ok: bool
    text: str
    files: tuple[str, ...] = ()


class Hands:
    """Open one a task, close it in the end. Calls run one after the other."""

    def __init__(self, process: asyncio.subprocess.Process, pidfd: int, workspace: Path) -> None:
        self.workspace = workspace
        self._process = process
        self._pidfd = pidfd
        self._numbers = itertools.count(1)
        self._lock = asyncio.Lock()
        self._waiting: tuple[int, asyncio.Future[dict[str, Any]]] | None = None
        self._broken: str | None = None
        self._closed = asyncio.Event()
        self._stderr = b""
        self._readers = [
            asyncio.create_task(self._read(), name="hands-answers"),
            asyncio.create_task(self._complaints(), name="hands-complaints"),
        ]

    @classmethod
    async def open(cls, *, workspace: Path, user: str | None, limits: Limits = Limits()) -> Hands:
        """Start the sandbox around `workspace`. SandboxError says why not, and what mends it."""
        who = sandbox.account(user)
        real = prepare(workspace, load(), who)
        process, pidfd = await bubble.start(real, who, limits.scratch_bytes)
        hands = cls(process, pidfd, real)
        try:
            first = await hands._ask(
                "begin",
                {},
                Deadline.after(bubble.START_S),
                {"workspace": str(real), "limits": asdict(limits)},
            )
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
        reply = await self._ask(name, input, deadline)
        files = tuple(str(path)[:4096] for path in reply.get("files", ())[:1000])
        return ToolResult(ok=reply["ok"], text=reply["text"], files=files)

    async def check(
        self, kind: str, input: dict[str, Any], *, deadline: Deadline
    ) -> dict[str, Any]:
        """A check of the system's own: `verdict` passed, failed or unmeasured, and `text`.

        `kind` is command, file, pattern or http. Takes nothing from the shell's state.
        """
        return await self._ask(f"check.{kind}", input, deadline)

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
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        try:
            if not await bubble.ended(self._pidfd, Deadline.after(CLOSE_S)):
                logger.error("sandbox outlived its kill", pid=self._process.pid)
        finally:
            os.close(self._pidfd)
            for reader in self._readers:
                reader.cancel()
            await asyncio.gather(*self._readers, return_exceptions=True)
            await bubble.reap(self._process)

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
                await asyncio.wait_for(asyncio.shield(self._readers[1]), 1.0)
            reason = bubble.explain(self._stderr.decode("utf-8", "replace"))
        await self._kill(reason)

    def _take(self, line: bytes) -> str:
        """Give the answer to who waits for it; a reason when the line is no answer."""
        try:
            reply = json.loads(line)
            number, ok, text = reply["id"], reply["ok"], reply["text"]
        except (ValueError, TypeError, KeyError):
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
        """Keep the last of what bubblewrap and the toolbox print on stderr."""
        stderr = self._process.stderr
        assert stderr is not None
        while piece := await stderr.read(4096):
            self._stderr = (self._stderr + piece)[-4096:]

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
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


async def canary(user: str | None) -> None:
    """Prove the sandbox: SandboxError unless a read and a connection are denied, a write works."""
    who = sandbox.account(user)
    folder = Path(tempfile.mkdtemp(prefix="ai-canary-", dir="/tmp"))
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    word = secrets.token_hex(8)
    try:
        folder.chmod(0o755)
        (folder / "outside").write_text(f"{word}\n", encoding="utf-8")
        workspace = folder / "workspace"
        workspace.mkdir()
        if who.switch:
            os.chown(workspace, who.uid, who.gid)
        script = (
            f"cat {folder}/outside && echo READ\ncat /etc/shadow && echo READ\n"
            f"(exec 3<>/dev/tcp/127.0.0.1/{port}) && echo CONNECTED\n"
            f"touch /usr/canary /etc/canary && echo WROTE\necho {word} > inside; echo done"
        )
        hands = await Hands.open(workspace=workspace, user=user)
        try:
            result = await hands.call("shell", {"command": script}, deadline=Deadline.after(10))
        finally:
            await hands.close()
        _judge(result.text, workspace / "inside", word)
    finally:
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)


def _judge(text: str, inside: Path, word: str) -> None:
    lines = text.splitlines()
    for mark, fault_text in (
        ("READ", "a file outside the workspace could be read"),
        ("CONNECTED", "a network connection could be made"),
        ("WROTE", "the system could be written"),
    ):
        if mark in lines:
            raise SandboxError(f"the sandbox does not hold: {fault_text}")
    if "done" not in lines or word in text:
        raise SandboxError(f"the sandbox does not work: {text[-300:]}")
    if not inside.is_file() or inside.read_text(encoding="utf-8").strip() != word:
        raise SandboxError("the sandbox does not work: the workspace could not be written")
