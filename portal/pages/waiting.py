"""An approval that waits, answered where it is seen: what exactly, how risky, until when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape

from nicegui import ui

from base.approvals import Approval
from portal.pages import ask, parts
from portal.pages.marks import shown

Answer = Callable[[Approval, bool, str], Awaitable[bool]]
MAY = "You or an admin may answer."
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
            ui.label(MAY if may else DENIED_ONLY).classes("hint")
            ui.element("div").classes("grow")
            deny = ui.button("Deny", color=None).props("flat no-caps").classes("quiet")
            approve = ui.button("Approve", color=None).props("unelevated no-caps").classes("main")
        approve.set_enabled(may)

        async def say(word: bool) -> None:
            if word and approval.risk in ask.TWICE:
                told = f"{ask.command(approval)} — {ask.RISKS[approval.risk]}"
                if not await parts.sure(f"Approve this {approval.risk} risk?", told, "Approve"):
                    return
            deny.disable()
            approve.disable()
            if not await answer(approval, word, str(reason.value or "")):
                deny.enable()
                approve.set_enabled(may)

        deny.on_click(lambda: say(False))
        approve.on_click(lambda: say(True))


def _words(approval: Approval) -> str:
    request = approval.request
    reason = (
        f"<p dir=auto><b>{escape(request.agent)} says:</b> {escape(request.reason)}</p>"
        if request.reason.strip()
        else ""
    )
    return shown(
        f"<header>{parts.pill(f'{approval.risk} risk', ask.tone(approval.risk))}"
        f"<b>{escape(request.agent)} asks for leave</b>{ask.tainted(approval)}"
        f"<small>until {parts.when(approval.expires_at)}</small></header>"
        f"<p dir=auto>{escape(approval.sentence)}</p>"
        f"<pre class=command><code>{escape(ask.command(approval))}</code></pre>{reason}"
        f"<details><summary>All that the answer is bound to</summary>{ask.details(approval)}"
        "</details>"
    )
