"""HTML of one agent's standing, as the fleet shows it."""

from __future__ import annotations

from html import escape

from portal.fleet import Standing
from portal.pages import parts, rows
from portal.pages.marks import shown

WORDS = {"busy": "working", "running": "idle"}
#: States of a window that say more than the agent's own word.
WINDOW_WORDS = {"fatal": "gave up", "exited": "stopped", "backoff": "restarting"}
TONES = {"gave up": "bad", "stopped": "bad", "restarting": "warn", "offline": "bad"}
TOOL_CHARS = 160


def word(one: Standing) -> str:
    """Its state in one word."""
    if one.window in WINDOW_WORDS:
        return WINDOW_WORDS[one.window]
    return "paused" if one.agent.paused else WORDS.get(one.agent.status, one.agent.status)


def card(one: Standing) -> str:
    """Everything about it at a glance; the buttons are elements beside it."""
    name = escape(one.agent.name)
    state = word(one)
    head = (
        f'<header><a href="/agents/{name}">{name}</a>{parts.pill(state, TONES.get(state))}'
        f"<small>{escape(one.agent.title)}</small></header>"
    )
    return shown(head + _trouble(one) + _work(one) + _facts(one))


def _trouble(one: Standing) -> str:
    found = one.trouble
    if found is None:
        return ""
    kind = "bad" if found.bad else "warn"
    then = escape(found.then)
    if found.kind == "approval":
        then = f'<a href="/approvals">{then}</a>'
    return f'<p class="stuck {kind}"><b>Stuck: {escape(found.said)}.</b> <span>{then}</span></p>'


def _work(one: Standing) -> str:
    if one.agent.status != "busy":
        since = f"; last sign of work {parts.when(one.last_event_at, ago=True)}"
        return f'<p class="does">No task{since if one.last_event_at else ""}.</p>'
    title = escape(one.title or "a task of somebody else")
    if one.root_id:
        title = f'<a href="/tasks/{escape(one.root_id)}" dir="auto">{title}</a>'
    phase = f"<em>{escape(one.phase.title())}</em>" if one.phase else ""
    bar = parts.meter(one.progress, label=f"Progress of {one.agent.name}", warn=2.0) if (
        one.progress is not None and one.progress < 1
    ) else ""  # fmt: skip
    tool = ""
    if one.tool:
        text = one.tool if len(one.tool) <= TOOL_CHARS else one.tool[: TOOL_CHARS - 1] + "…"
        since = parts.when(one.tool_since, ago=True)
        tool = f'<p class="tool"><code dir="auto">{escape(text)}</code><small>{since}</small></p>'
    elif one.last_event_at:
        sign = parts.when(one.last_event_at, ago=True)
        tool = f'<p class="tool"><small>last sign {sign}</small></p>'
    return f'<div class="does"><p>{title}{phase}</p>{bar}{tool}</div>'


def _facts(one: Standing) -> str:
    age_s = one.heartbeat_age_s
    beat = "never" if age_s is None else f"{rows.long(round(age_s))} ago"
    cpu = "unknown" if one.cpu_percent is None else f"{one.cpu_percent:.0f} %"
    memory = "unknown" if one.rss_bytes is None else f"{one.rss_bytes / 2**20:,.0f} MB"
    facts = {
        "Heartbeat": beat,
        "Restarts": str(one.restarts),
        "CPU": cpu,
        "Memory": memory,
        "Tokens today": parts.count(one.tokens),
        "Cost today": parts.usd(one.cost_usd),
        "Queue": str(one.queue),
        "Work waiting": str(one.waiting),
    }
    shown_facts = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items()
    )
    return f"<dl>{shown_facts}</dl>"


def tiles(found: list[Standing]) -> str:
    """The fleet in five figures."""
    stuck = [one for one in found if one.trouble is not None]
    work = sum(one.agent.status == "busy" for one in found)
    return (
        parts.tile("At work", f"{work} of {len(found)}")
        + parts.tile("Stuck", str(len(stuck)), ", ".join(one.agent.name for one in stuck))
        + parts.tile("Approvals wait", str(sum(one.approvals for one in found)))
        + parts.tile("On the queues", str(sum(one.queue for one in found)))
        + parts.tile("Spent today", parts.usd(sum(one.cost_usd for one in found)))
    )
