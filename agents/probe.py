"""VERIFY's instrument: a criterion goes in, what was measured comes out.

A probe that could not run reads unmeasured, never passed. Commands, files and patterns are
looked at inside the sandbox, where no link can lead this process astray.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agents.hands import Hands
from base.deadline import Deadline
from base.errors import ModelError, SandboxError
from base.levels import Level
from base.messages import Checked, Criterion, Probe, Verdict

EVIDENCE_MAX_CHARS = 300
HTTP_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NEEDS = {
    "command": ("command",),
    "file": ("path",),
    "pattern": ("path", "pattern"),
    "http": ("url",),
    "judge": ("question",),
}

Judge = Callable[[Criterion], Awaitable[tuple[bool | None, str]]]
Measured = tuple[bool | None, str]


async def check(
    criterion: Criterion,
    hands: Hands | None,
    *,
    workspace: Path,
    level: Level,
    judge: Judge,
    deadline: Deadline,
) -> Checked:
    """Run the criterion's probe in the task's hands, at its level: what the task may not do, its
    probes do not either. Never raises for what the probe met, a dead sandbox included.
    """
    try:
        passed, evidence = await _measure(criterion, hands, workspace, level, judge, deadline)
    except (SandboxError, ModelError) as error:
        passed, evidence = None, str(error)
    verdict = {True: Verdict.PASSED, False: Verdict.FAILED, None: Verdict.UNMEASURED}[passed]
    return Checked(
        id=criterion.id, text=criterion.text, verdict=verdict, evidence=_one_line(evidence)
    )


async def _measure(
    criterion: Criterion,
    hands: Hands | None,
    workspace: Path,
    level: Level,
    judge: Judge,
    deadline: Deadline,
) -> Measured:
    probe = criterion.probe
    for name in _NEEDS[probe.kind]:
        if not getattr(probe, name):
            return None, f"the {probe.kind} probe names no {name}"
    if deadline.passed:
        return None, "not run: the deadline had passed"
    if probe.kind == "judge":
        return await judge(criterion)
    if hands is not None and hands.workspace != workspace.resolve():
        return None, f"the sandbox is for another workspace, {hands.workspace}"
    if probe.kind == "command" and not level.execute:
        return None, f"nothing may be run at level {level.name}"
    if probe.kind == "http":
        return await _http(probe, hands, level, deadline)
    if hands is None:
        return None, f"there is no sandbox to run the {probe.kind} probe in"
    fields: dict[str, tuple[str, ...]] = {
        "command": ("command", "pattern"),
        "file": ("path",),
        "pattern": ("path", "pattern"),
    }
    given = {name: getattr(probe, name) for name in fields[probe.kind]}
    limit = deadline if probe.kind == "command" else deadline.sooner(Deadline.after(HTTP_S))
    return _verdict(await hands.check(probe.kind, given, deadline=limit))


async def _http(probe: Probe, hands: Hands | None, level: Level, deadline: Deadline) -> Measured:
    """One GET, redirects not followed: what runs in the sandbox first, then this machine, as far
    as `level` may reach it; a probe is the model's own wish like any other.
    """
    url = probe.url or ""
    reason = off_loopback(url)
    if reason is not None:
        return None, reason
    if hands is not None:
        given = {"url": url, "expect_status": probe.expect_status, "limit_s": HTTP_S}
        limit = deadline.sooner(Deadline.after(HTTP_S + 1))
        reply = await hands.check("http", given, deadline=limit)
        if not reply.get("refused"):
            return _verdict(reply)
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if parts.hostname == "::1" else parts.hostname
    address = f"{host}:{parts.port or 80}"
    if address not in level.network:
        return None, (
            f"nothing in the sandbox answers at {address}, and outside it {address} is not on "
            f"the list of level {level.name}"
        )
    import httpx2  # a fifth of an agent's start, for what few of them do

    limit_s = min(HTTP_S, deadline.left_s)
    try:
        async with (
            httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=limit_s) as client,
            client.stream("GET", url) as response,
        ):
            status = response.status_code
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return False, f"{url}: {type(error).__name__} {error}"
    return status == probe.expect_status, f"{url}: status {status}, {probe.expect_status} wanted"


def off_loopback(url: str) -> str | None:
    """Why `url` may not be asked; None when it is plain HTTP to this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"{url} is no URL: {error}"
    if parts.scheme != "http" or host not in LOOPBACK or parts.username is not None:
        return f"{url} is not http:// to {', '.join(LOOPBACK)}: only this machine is asked"
    if any(ord(char) <= 32 or ord(char) == 127 or char == "\\" for char in url):
        return f"{url!r} is no URL"
    return None


def _verdict(reply: dict[str, Any]) -> Measured:
    """What the toolbox measured; anything but its three words reads unmeasured."""
    word = reply.get("verdict")
    passed = {"passed": True, "failed": False}.get(word) if isinstance(word, str) else None
    return passed, str(reply["text"])


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= EVIDENCE_MAX_CHARS else line[: EVIDENCE_MAX_CHARS - 1] + "…"
