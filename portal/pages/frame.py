"""The chat page's furniture: header, drawer, thread, composer. It knows no task and no event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from nicegui import ui
from nicegui.elements.html import Html

from portal.crew import Agent
from portal.talk import Conversation

HEAD = """<link rel="stylesheet" href="/static/portal.css">
<script defer src="/static/chat.js"></script>"""
ENTER_JS = """(event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (event.target.value.trim()) emit(event.target.value);
  }
}"""
SEND_JS = """() => {
  const box = document.querySelector('.composer textarea');
  if (box.value.trim()) emit(box.value);
}"""
LOGOUT_JS = "fetch('/logout', {method: 'POST'}).then(() => location.assign('/login'))"
EXAMPLES = (
    "Look at the workspace and tell me what is in it.",
    "Write a small Python program that counts words, with tests, and run them.",
    "Review the code in the workspace and fix what is broken.",
)
#: Below this width the drawer lies over the page; the style sheet has the same number.
NARROW_PX = 900
STATES = {"idle": "idle", "running": "idle", "busy": "working", "offline": "offline"}

Send = Callable[[str, str | None, str | None], Awaitable[bool]]
Do = Callable[[], Awaitable[None]]
Pick = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The parts that change."""

    drawer: ui.left_drawer
    thread: ui.column
    welcome: ui.column
    stop: ui.button
    title: ui.label
    conversations: ui.column
    agents: Html
    on_open: Pick
    on_archive: Pick

    def show_conversations(self, found: Sequence[Conversation], here: str | None) -> None:
        """Draw the list anew, the open one marked."""
        self.conversations.clear()
        title = next((one.title for one in found if one.id == here), None)
        self.title.set_text(title or "New conversation")
        with self.conversations:
            for one in found:
                self._row(one, one.id == here)
            if not found:
                ui.label("Nothing yet. Your conversations will be listed here.").classes("hint")

    def _row(self, one: Conversation, here: bool) -> None:
        async def open_it() -> None:
            await self.on_open(one.id)

        async def archive() -> None:
            await self.on_archive(one.id)

        with ui.element("div").classes("conversation here" if here else "conversation"):
            name = one.title or "New conversation"
            ui.button(name, on_click=open_it, color=None).props("flat no-caps align=left").classes(
                "name"
            )
            ui.button(icon="archive", on_click=archive, color=None).props(
                'flat round dense size=sm aria-label="Archive conversation"'
            ).classes("archive").tooltip("Archive")

    def show_agents(self, found: Sequence[Agent]) -> None:
        """Draw every agent with its state."""
        rows = ""
        for one in found:
            state = "paused" if one.paused else STATES.get(one.status, one.status)
            rows += (
                f'<div class="agent {escape(state)}"><b></b><span>{escape(one.name)}</span>'
                f"<em>{escape(state)}</em></div>"
            )
        self.agents.set_content(rows)


def build(
    *,
    rehearsal: bool,
    theme: str | None,
    email: str,
    efforts: Sequence[str],
    agents: Sequence[str],
    on_send: Send,
    on_stop: Do,
    on_new: Do,
    on_open: Pick,
    on_archive: Pick,
) -> Frame:
    """Make the whole page inside the present client."""
    ui.add_head_html(HEAD)
    ui.colors(primary="#4f5bd5")
    if theme in {"dark", "light"}:  # chosen before; else the system's preference holds
        ui.dark_mode(theme == "dark")
    ui.query(".q-page").classes("chat-page")
    with (
        ui.left_drawer(top_corner=True, bottom_corner=True)
        .props(f"width=272 breakpoint={NARROW_PX}")
        .classes("side") as drawer
    ):
        ui.html('<div class="brand"><img src="/static/favicon.svg" alt="">AI Infrastructure</div>')
        ui.button("New conversation", icon="add", on_click=on_new).props(
            "unelevated no-caps align=left"
        ).classes("new")
        conversations = ui.column().classes("conversations")
        ui.label("Agents").classes("caption")
        agent_rows = ui.html("").classes("agents")
        with ui.element("div").classes("me"):
            ui.label(email).classes("email")
            ui.button(
                icon="logout", on_click=lambda: ui.run_javascript(LOGOUT_JS), color=None
            ).props('flat round dense aria-label="Log out"').tooltip("Log out")
    with ui.header(elevated=False).classes("top"):
        with ui.element("div").classes("topline"):
            ui.button(icon="menu", on_click=drawer.toggle, color=None).props(
                'flat round dense aria-label="Conversations and agents"'
            ).classes("menu")
            title = ui.label("New conversation").classes("title")
            ui.button(icon="contrast", color=None).props(
                'flat round dense aria-label="Light or dark"'
            ).on("click", js_handler="() => window.aiTheme()").tooltip("Light or dark")
        if rehearsal:
            ui.html(
                "<b>Rehearsal model: no AI is answering.</b> Answers follow a fixed script. "
                "Set ANTHROPIC_API_KEY and start again for real ones."
            ).classes("rehearsal")
    with ui.column().classes("welcome") as welcome:
        _welcome()
    thread = ui.column().classes("thread")
    with ui.footer().classes("bottom"):
        stop = _composer(efforts, agents, on_send, on_stop)
    return Frame(
        drawer=drawer,
        thread=thread,
        welcome=welcome,
        stop=stop,
        title=title,
        conversations=conversations,
        agents=agent_rows,
        on_open=on_open,
        on_archive=on_archive,
    )


def _welcome() -> None:
    ui.html('<img src="/static/favicon.svg" alt="">').classes("mark")
    ui.label("What should the agents do?").classes("headline")
    ui.label(
        "Say it in your own words. The supervisor makes a plan, the agents carry it out in their "
        "windows, and every result is checked before it counts as done."
    ).classes("lead")
    with ui.element("div").classes("examples"):
        for text in EXAMPLES:
            ui.button(text, color=None).props("flat no-caps align=left").on(
                "click", js_handler=f"() => window.aiFill({text!r})"
            )


def _composer(
    efforts: Sequence[str], agents: Sequence[str], on_send: Send, on_stop: Do
) -> ui.button:
    with ui.element("div").classes("composer"):
        box = ui.textarea(placeholder="Message the agents").props(
            'autogrow borderless dense aria-label="Message" maxlength=60000'
        )
        with ui.element("div").classes("tools"):
            effort = ui.select(
                {"": "Effort: auto"} | {name: f"Effort: {name}" for name in efforts}, value=""
            ).props('dense borderless options-dense aria-label="Effort"')
            agent = ui.select(
                {"": "Supervisor plans"} | {name: f"Only {name}" for name in agents}, value=""
            ).props('dense borderless options-dense aria-label="Agent"')
            ui.element("div").classes("grow")
            stop = (
                ui.button(icon="stop", on_click=on_stop, color=None)
                .props('unelevated round dense aria-label="Stop"')
                .classes("stop")
            )
            stop.tooltip("Stop the work")

            async def send(event: Any) -> None:
                text = event.args if isinstance(event.args, str) else event.args[0]
                box.set_value("")
                if not await on_send(text, effort.value or None, agent.value or None):
                    box.set_value(text)

            box.on("keydown", send, js_handler=ENTER_JS)
            ui.button(icon="arrow_upward").props('unelevated round dense aria-label="Send"').on(
                "click", send, js_handler=SEND_JS
            ).classes("send")
    ui.label("Enter sends · Shift+Enter makes a new line").classes("keys")
    stop.set_visibility(False)
    return stop
