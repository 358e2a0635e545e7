"""An approval that waits, answered where it is seen: what exactly, how risky, until when."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from html import escape

from nicegui import ui

from base.approvals import Approval
from portal.pages import parts
from portal.pages.marks import shown

Answer = Callable[[Approval, bool, str], Awaitable[bool]]
DENIED_ONLY = "This needs an admin's leave; you may deny it."


def draw(approval: Approval, answer: Answer, may: bool) -> None:
    """One approval inside the present element. may: whether this person may approve it."""
    with (
        ui.element("section")
        .classes(f"ask {approval.risk}")
        .props('role=group aria-label="Approval"')
    ):
        ui.html(_words(approval))
        reason = ui.input(placeholder="Reason, told to the agent (optional)").props(
            'outlined dense maxlength=500 aria-label="Reason"'
        )
        with ui.element("div").classes("line"):
            ui.label("" if may else DENIED_ONLY).classes("hint")
            ui.element("div").classes("grow")
            deny = ui.button("Deny", color=None).props("flat no-caps").classes("quiet")
            approve = ui.button("Approve", color=None).props("unelevated no-caps").classes("main")
        approve.set_enabled(may)

        async def say(word: bool) -> None:
            deny.disable()
            approve.disable()
            if not await answer(approval, word, str(reason.value or "")):
                deny.enable()
                approve.set_enabled(may)

        deny.on_click(lambda: say(False))
        approve.on_click(lambda: say(True))


def _words(approval: Approval) -> str:
    asked = approval.request
    exact = shlex.join(asked.argv) if asked.argv else asked.host or asked.tool
    rows = {"Agent": asked.agent, "In": asked.cwd, "Address": asked.host or ""}
    rows["Why, in its own words"] = asked.reason
    rows["Files"] = ", ".join(one.path for one in asked.operands)
    listed = "".join(
        f"<dt>{name}</dt><dd dir=auto>{escape(text)}</dd>" for name, text in rows.items() if text
    )
    taint = (
        "<p class=taint>The task has read text from outside; look twice.</p>"
        if asked.tainted
        else ""
    )
    return shown(
        f"<header>{parts.pill(f'{approval.risk} risk', parts.tone(approval.risk))}"
        f"<b>{escape(asked.agent)} asks for leave</b><small>until {parts.when(approval.expires_at)}"
        f"</small></header><p dir=auto>{escape(approval.sentence)}</p>"
        f"<pre><code>{escape(exact)}</code></pre>{taint}<dl>{listed}</dl>"
    )
