"""The side of the chat page: conversations to find, rename, archive, bring back; the agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from html import escape
from typing import Any, Literal

from nicegui import ui

from base.errors import AIError
from portal import conversations, talk
from portal.auth import Caller
from portal.crew import Agent
from portal.desk import Desk
from portal.pages import parts
from portal.pages.marks import shown
from portal.talk import Conversation

PAGE = 40
UNNAMED = "New conversation"
STATES = {"idle": "idle", "running": "idle", "busy": "working", "offline": "offline"}

Pick = Callable[[str], Awaitable[None]]
Do = Callable[[], Awaitable[None]]


class Listing:
    """The list as it is looked at: active or archived, all or those that a search finds."""

    def __init__(
        self,
        desk: Desk,
        caller: Caller,
        *,
        on_new: Do,
        on_open: Pick,
        on_gone: Pick,
        on_title: Callable[[str], None],
    ) -> None:
        self._desk = desk
        self._caller = caller
        self._on_open = on_open
        self._on_new = on_new
        self._on_gone = on_gone
        self._on_title = on_title
        self._status: Literal["active", "archived"] = "active"
        self._words = ""
        self._limit = PAGE
        self._here: str | None = None
        self._found: list[Conversation] = []
        self._more = False
        self._renaming: str | None = None
        self._archived: Conversation | None = None
        self._drawn: object = None

    def build(self) -> None:
        """Make it inside the present element."""
        ui.button(UNNAMED, icon="add", on_click=self._on_new).props(
            "unelevated no-caps align=left"
        ).classes("new main")
        ui.input(placeholder="Search conversations", on_change=self._search).props(
            'outlined dense clearable debounce=250 data-search aria-label="Search conversations"'
        ).classes("find")
        self._list = (
            ui.column()
            .classes("conversations")
            .props('role=list aria-label="Conversations"')
            .on("click", self._act, js_handler=ROW_JS)
        )
        with ui.element("div").classes("foot-row"):
            self._swap = ui.button("Archived", icon="inventory_2", on_click=self._other, color=None)
            self._swap.props("flat no-caps dense").classes("swap")
        ui.label("Agents").classes("caption")
        self._agents = ui.html("").classes("agents")

    def show_agents(self, found: Sequence[Agent]) -> None:
        """Draw every agent with its state."""
        rows = ""
        for one in found:
            state = "paused" if one.paused else STATES.get(one.status, one.status)
            rows += (
                f'<div class="agent {escape(state)}"><b></b><span>{escape(one.name)}</span>'
                f"<em>{escape(state)}</em></div>"
            )
        self._agents.set_content(rows)

    async def refresh(self, here: str | None) -> None:
        """Look again, and mark the open one. A row that is being renamed stays."""
        self._here = here
        desk, caller = self._desk, self._caller
        if self._words:
            page = await conversations.search(
                desk, caller, self._words, status=self._status, limit=self._limit
            )
        else:
            page = await talk.conversations(desk, caller, status=self._status, limit=self._limit)
        self._found, self._more = page.conversations, page.next_cursor is not None
        self._draw()

    def _draw(self) -> None:
        rows = [(one.id, one.title) for one in self._found]
        state = (rows, self._here, self._status, self._words, self._more, self._renaming)
        now = (*state, self._archived and self._archived.id)
        if now == self._drawn:
            return
        self._drawn = now
        self._list.clear()
        with self._list:
            if self._archived is not None:
                ui.html(_undo(self._archived)).props("role=status").classes("undo")
            for one in self._found:
                if one.id == self._renaming:
                    self._rename_box(one)
                else:
                    ui.html(_row(one, one.id == self._here)).props("role=listitem").classes(
                        "conversation here" if one.id == self._here else "conversation"
                    )
            if not self._found:
                ui.label(self._nothing()).classes("hint")
            if self._more:
                ui.html('<button class="more" data-do="more">Load more</button>')
        self._swap.set_text("Archived" if self._status == "active" else "Back to all")
        self._swap.set_icon("inventory_2" if self._status == "active" else "arrow_back")

    def _nothing(self) -> str:
        if self._words:
            return "Nothing with these words."
        if self._status == "archived":
            return "Nothing is archived."
        return "Nothing yet. Your conversations will be listed here."

    def _rename_box(self, one: Conversation) -> None:
        box = ui.input(value=one.title or "").props(
            'outlined dense autofocus maxlength=255 aria-label="New title"'
        )
        box.classes("rename")

        async def save() -> None:
            self._renaming = None
            title = str(box.value or "").strip()
            try:
                if title and title != one.title:
                    made = await conversations.rename(self._desk, self._caller, one.id, title)
                    if one.id == self._here:
                        self._on_title(made.title or UNNAMED)
                await self.refresh(self._here)
            except AIError as error:
                parts.tell(error, "Not renamed")

        async def leave() -> None:
            self._renaming = None
            self._draw()

        box.on("keydown.enter", save)
        box.on("keydown.esc", leave)

    # What the person does ------------------------------------------------------------------

    async def _search(self, event: Any) -> None:
        self._words = str(event.value or "").strip()[: conversations.QUERY_MAX_CHARS]
        self._limit = PAGE
        await self._again()

    async def _other(self) -> None:
        self._status = "archived" if self._status == "active" else "active"
        self._limit, self._archived = PAGE, None
        await self._again()

    async def _again(self) -> None:
        try:
            await self.refresh(self._here)
        except AIError as error:
            parts.tell(error)

    async def _act(self, event: Any) -> None:
        do, conversation_id = event.args["do"], str(event.args.get("id") or "")
        try:
            if do == "open":
                await self._on_open(conversation_id)
            elif do == "more":
                self._limit = min(self._limit + PAGE, 1_000)
                await self.refresh(self._here)
            elif do == "rename":
                self._renaming = conversation_id
                self._draw()
            elif do == "archive":
                found = await talk.conversation(self._desk, self._caller, conversation_id)
                await talk.archive(self._desk, self._caller, conversation_id)
                self._archived = found
                await self.refresh(self._here)
                await self._on_gone(conversation_id)
            elif do in {"undo", "restore"}:
                await conversations.restore(self._desk, self._caller, conversation_id)
                self._archived = None
                await self.refresh(self._here)
        except AIError as error:
            parts.tell(error)


def _row(one: Conversation, here: bool) -> str:
    name, row_id = escape(one.title or UNNAMED), escape(one.id, quote=True)
    current = " aria-current=page" if here else ""
    last = (
        _small("archive", row_id, "archive", "Archive conversation")
        if one.status == "active"
        else _small("restore", row_id, "unarchive", "Bring back")
    )
    return shown(
        f'<button class="name" data-do="open" data-id="{row_id}" dir="auto"{current}>{name}'
        "</button>"
        f"{_small('rename', row_id, 'edit', 'Rename conversation')}{last}"
    )


def _small(do: str, row_id: str, icon: str, name: str) -> str:
    return (
        f'<button class="deed" data-do="{do}" data-id="{row_id}" aria-label="{name}"'
        f' title="{name}"><i class="q-icon material-icons" aria-hidden="true">{icon}</i></button>'
    )


def _undo(one: Conversation) -> str:
    return shown(
        f"<span>Archived “{escape(one.title or UNNAMED)}”.</span>"
        f'<button data-do="undo" data-id="{escape(one.id, quote=True)}">Undo</button>'
    )


ROW_JS = """(event) => {
  const found = event.target.closest('[data-do]');
  if (found) emit({do: found.dataset.do, id: found.dataset.id});
}"""
