"""What a call asks leave for, and how a person in the window sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from agents import broker, remote, tool_audit
from agents.parts import Parts
from agents.task import Task
from agents.tool_shape import MAX_S, Need
from base.approvals import Approval
from base.errors import InputError
from base.levels import PRIVILEGED, STANDARD, Level
from base.redact import redact
from base.terminal import clipped, exact, visible
from base.verbs import TOOL, words

PORT = 443
COMMAND_CHARS = 8_000
REASON_CHARS = 500
ASKS = "request_permission"
_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
)
_SIX = re.compile(r"\[[0-9a-f:.]{2,45}\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What would run with leave, and what it needs.

    tool, given: the call as it would be made; alone: in hands of its own at `level`; rank: the
    level that a person is asked for. files: what names the files that it works on, None: none.
    """

    kind: Literal["tool", "domain", "command"]
    tool: str
    given: dict[str, Any]
    argv: tuple[str, ...]
    rank: int
    level: Level
    alone: bool
    host: str | None = None
    reason: str = ""
    destructive: bool = False
    person: bool = False
    files: dict[str, Any] | None = None


def needed(task: Task, name: str, need: Need) -> bool:
    """Whether a valid call may not just run."""
    above = need.rank > task.level.rank
    return name == ASKS or need.destructive or need.person or need.leave or above


def wish(name: str, given: dict[str, Any], need: Need, task: Task, parts: Parts) -> Wish:
    """The wish behind a call. Raises InputError for one that says too little or nothing new."""
    own = task.level
    if name == ASKS and given["kind"] == "domain":
        asked = address(given.get("host"))
        if asked in own.network or asked in task.granted:
            raise InputError(f"{asked} may be reached already")
        rank = max(STANDARD, own.rank)
        reason = given["reason"][:REASON_CHARS]
        return Wish(
            kind="domain", tool=name, given=given, argv=(), rank=rank, level=own, alone=False,
            host=asked, reason=reason, person=need.person,
        )  # fmt: skip
    if name in {ASKS, "shell"}:
        command = given.get("command")
        if not isinstance(command, str) or not command.strip():
            raise InputError("say in `command` exactly what shall run")
        if given.get("background"):
            raise InputError("a command that needs leave cannot run in the background")
        rank = need.rank if name == "shell" else given.get("level", min(own.rank + 1, PRIVILEGED))
        if name == ASKS and rank <= own.rank:
            raise InputError(f"your level is {own.rank} already: call the tool itself")
        level = parts.levels.get(rank) if rank > own.rank else own
        run = {"command": command, "limit_s": min(MAX_S, level.limits.wall_s)}
        return Wish(
            kind="command", tool="shell", given=run, argv=("shell", command), rank=rank,
            level=level, alone=True, reason=str(given.get("reason", need.why))[:REASON_CHARS],
            destructive=need.destructive, person=need.person, files=run,
        )  # fmt: skip
    if name == TOOL:
        asked, request = broker.request_of(given)
        folder = broker.folder_of(given)
        return Wish(
            kind="command", tool=name, given=given, argv=words(asked, request), rank=need.rank,
            level=own, alone=False, reason=need.why[:REASON_CHARS], destructive=need.destructive,
            person=need.person, files=None if folder is None else {"folder": folder},
        )  # fmt: skip
    tool, verb, host = task.known[name], given.get("verb"), need.host
    to: tuple[str, ...] = ()
    if name == "git" and verb == "push":
        host, url = remote.destination(given, task.workspace)
        to = (url,)
    verbs = (verb,) if tool.verbs and isinstance(verb, str) else ()
    return Wish(
        kind="tool",
        tool=name,
        given=given,
        argv=(name, *verbs, tool_audit.canonical(given), *to),
        rank=max(need.rank, own.rank),
        level=own if tool.level <= own.rank else parts.levels.get(tool.level),
        alone=tool.where == "sandbox",
        host=host,
        reason=need.why,
        destructive=need.destructive,
        person=need.person,
        files=given,
    )


def address(given: object) -> str:
    """ "host:port" of a host that was asked for. Raises InputError for what is none."""
    text = given.strip().lower() if isinstance(given, str) else ""
    bare = text.endswith("]") or ":" not in text
    name, port = (text, str(PORT)) if bare else text.rsplit(":", 1)
    name = name.rstrip(".")
    if not (_NAME.fullmatch(name) or _SIX.fullmatch(name)):
        raise InputError(
            "say in `host` which host: example.org or example.org:8443, without a scheme or path "
            "and in plain ASCII (xn--… for other letters)"
        )
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise InputError(f"{port[:20]!r} is no port")
    return f"{name}:{int(port)}"


def show(parts: Parts, approval: Approval) -> None:
    """The request in the window, with nothing hidden in it."""
    line, request = parts.transcript.line, approval.request
    line(f"┃ PERMISSION ASKED · risk {approval.risk} · {left(approval)} left", "1;33")
    line(f"┃ {visible(approval.sentence)}", "33")
    if request.argv:
        exactly = exact(request.argv)
        line(f"┃ exactly: {clipped(exactly, COMMAND_CHARS)}", "33")
        if redact(exactly) != exactly:
            line("┃ NOT ALL OF IT IS SHOWN: a part looks like a secret. See all of it with", "1;31")
            line(f"┃ ai-infra approvals show {approval.id[:8]}", "1;31")
    for one in request.operands[:5]:
        line(f"┃ file: {visible(one.path)} {one.sha256 or 'not there yet'}", "2")
    if request.reason:
        line(f"┃ the agent says: {visible(request.reason[:REASON_CHARS])}", "2")
    line(f"┃ /approve {approval.id[:8]}  or  /deny {approval.id[:8]}", "1;33")


def left(approval: Approval) -> str:
    """How long it may still be decided, such as `9:41`."""
    left_s = max(0, round((approval.expires_at - datetime.now(UTC)).total_seconds()))
    return f"{left_s // 60}:{left_s % 60:02d}"
