"""HTML of one approval: what would happen, exactly, and what could go wrong. Text is escaped."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape

from base.approvals import UNBOUND, Approval, Operand
from base.levels import NAMES
from portal.approvals import Waiting
from portal.pages import parts
from portal.pages.marks import shown

#: How each risk reads in a word, and what it means for the one who decides.
RISKS = {
    "low": "Nothing outside the task's own workspace can come to harm.",
    "medium": "Other work or other machines can be touched; it can be put right again.",
    "high": "Damage is possible that takes time to undo. Read the command before you approve.",
    "critical": "It can break the server or give somebody else a way in. Approve it only when you"
    " would type it yourself.",
}
TWICE = frozenset({"high", "critical"})
TITLE_CHARS = 120
#: Who decided, where nobody logged in did.
DECIDERS = {
    "policy": "a rule of the policy",
    "window": "the owner, in tmux",
    "supervisor": "the supervisor",
}


def head(one: Waiting, *, everybody: bool) -> str:
    """Who asks, how bad it could be, what it has cost so far, and how long there is to decide."""
    found = one.approval
    request = found.request
    spent = parts.usd(one.spent_usd) + (" rehearsed" if one.rehearsed else "")
    whose = f'<span class="whose">for {escape(one.whose)}</span>' if everybody and one.whose else ""
    return shown(
        f'<div class="top"><b>{escape(request.agent)}</b>'
        f"{parts.pill(f'{found.risk} risk', tone(found.risk))}"
        f"{tainted(found)}<span>asked {parts.when(found.created_at, ago=True)}</span>"
        f"<span>{spent} spent</span>{whose}{countdown(found)}</div>"
    )


def countdown(found: Approval) -> str:
    """How long an answer is still taken; the page's script counts it down."""
    iso = found.expires_at.astimezone(UTC).isoformat(timespec="milliseconds")
    left_s = max(0, int((found.expires_at - datetime.now(UTC)).total_seconds()))
    return (
        f'<span class="left" role="timer" data-until="{iso}">{left_s // 60}:{left_s % 60:02d}'
        " left</span>"
    )


def body(one: Waiting) -> str:
    """What would happen, in words and as it would be run, and what the agent says for it."""
    found = one.approval
    request = found.request
    title = " ".join(one.title.split()) or "a task"
    title = title if len(title) <= TITLE_CHARS else title[: TITLE_CHARS - 1] + "…"
    reason = (
        f'<p class="reason"><b>{escape(request.agent)} says:</b> <q dir="auto">'
        f"{escape(request.reason)}</q></p>"
        if request.reason.strip()
        else '<p class="reason">The agent gave no reason.</p>'
    )
    return shown(
        f'<p class="sentence">{escape(found.sentence)}</p>'
        f"<pre class=command>{escape(command(found))}</pre>{reason}"
        f'<p class="task">Task: <a href="/tasks/{request.root_id}" dir="auto">'
        f"{escape(title)}</a></p>"
    )


def details(found: Approval) -> str:
    """All that the answer is bound to."""
    request = found.request
    rows = {
        "Risk": f"{escape(found.risk)}: {escape(RISKS[found.risk])}",
        "Level": f"{request.level} ({escape(NAMES[request.level])})",
        "Tool": f"<code>{escape(request.tool)}</code> ({escape(request.kind)})",
        "Arguments": _list([f"<code>{escape(one)}</code>" for one in request.argv]),
        "Host": f"<code>{escape(request.host)}</code>" if request.host else "",
        "Folder": f"<code>{escape(request.cwd)}</code>" if request.cwd else "",
        "Files": _list([_operand(one) for one in request.operands]),
        "Environment": _list(
            [f"<code>{escape(k)}={escape(v)}</code>" for k, v in request.environment.items()]
        ),
        "Cannot be undone": "yes" if request.destructive else "",
        "Text from outside": "the task has read some, so the wish may be somebody else's"
        if request.tainted
        else "",
        "Asked": parts.when(found.created_at),
        "Expires": parts.when(found.expires_at),
        "Bound to": f"<code>{escape(found.binding)}</code>",
    }
    lines = "".join(f"<dt>{name}</dt><dd>{said}</dd>" for name, said in rows.items() if said)
    return shown(f"<dl>{lines}</dl>")


def past(found: Approval, whose: Mapping[str, str]) -> str:
    """One that was answered, as a line with its details to open."""
    by = found.decided_by or ""
    who = DECIDERS.get(by) or whose.get(by) or by or "nobody"
    via = f" by {escape(found.decided_via)}" if found.decided_via in {"cli", "api"} else ""
    why = f'<q dir="auto">{escape(found.decided_why)}</q>' if found.decided_why else ""
    at = parts.when(found.decided_at or found.expires_at)
    return shown(
        f'<details class="past"><summary>{parts.pill(found.status.value)}'
        f"<b>{escape(found.request.agent)}</b>"
        f'<span class="what" dir="auto">{escape(command(found))}</span>'
        f"{at}</summary><p>{escape(found.sentence)}</p>"
        f"<p>{parts.pill(found.status.value)} {escape(who)}{via} {why}</p>"
        f"<pre class=command>{escape(command(found))}</pre>{details(found)}</details>"
    )


def command(found: Approval) -> str:
    """The call as a shell would be given it; for an address, the address."""
    request = found.request
    if request.kind == "domain":
        return f"{request.tool}: reach {request.host}"
    return shlex.join(request.argv) or request.tool


def tone(risk: str) -> str:
    """The look of a risk."""
    return {"low": "good", "medium": "warn"}.get(risk, "bad")


def tainted(found: Approval) -> str:
    return parts.pill("read text from outside", "warn") if found.request.tainted else ""


def _operand(one: Operand) -> str:
    what = {None: "is not there yet", "outside": "not looked at", UNBOUND: UNBOUND}
    said = what.get(one.sha256) or f"sha256 {escape(str(one.sha256))}"
    return f"<code>{escape(one.path)}</code> <small>{said}</small>"


def _list(items: list[str]) -> str:
    return f"<ol>{''.join(f'<li>{one}</li>' for one in items)}</ol>" if items else ""
