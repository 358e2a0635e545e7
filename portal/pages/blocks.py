"""A turn of the conversation on the page: its elements and the runs of its requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui
from nicegui.elements.html import Html

from base.approvals import Approval
from base.messages import Event, Kind, answer_id
from portal import thread, work
from portal.pages import draw, said, view, waiting
from portal.talk import Said
from portal.thread import Turn

Answer = Callable[[Approval, bool, str], Awaitable[bool]]


class Block:
    """`runs` by root, oldest first; the newest is shown unless another was chosen. `since`: events
    up to this place of the stream are in it already.
    """

    def __init__(
        self, turn: Turn, known: dict[str, work.TaskWhole], since: str, *, rehearsal: bool
    ) -> None:
        self._rehearsal = rehearsal
        self.turn = turn
        self.since = since
        self.ratings: dict[str, int] = {}
        self.approvals: dict[str, Approval] = {}
        self.runs: dict[str, view.Run] = {}
        for root_id in turn.roots or [thread.own_root(turn.message.id)]:
            whole = known.get(root_id)
            self.runs[root_id] = (
                view.opened(whole) if whole is not None else _told(root_id, bool(turn.roots))
            )
            if whole is not None:
                self.approvals |= {one.id: one for one in whole.approvals}
        for answer in turn.answers:
            self._answer(answer.task_id, answer.content, answer.agent or "")
        self.shown = list(self.runs)[-1]
        self.editing = False
        self.box: ui.element
        self._mine: Html
        self._panel: Html
        self._answered: Html
        self._foot: Html
        self._asked: ui.element
        self._drawn: set[str] = set()

    @property
    def id(self) -> str:
        return self.turn.message.id

    @property
    def run(self) -> view.Run:
        """The run that is shown."""
        return self.runs[self.shown]

    @property
    def open_roots(self) -> list[str]:
        """Requests that have not ended."""
        return [run.root_id for run in self.runs.values() if not run.ended]

    def _answer(self, root_id: str | None, content: str, agent: str) -> None:
        root_id = root_id if root_id in self.runs else list(self.runs)[-1]
        event = Event(
            kind=Kind.MESSAGE,
            agent=agent,
            root_id=root_id,
            data={"role": "assistant", "content": content},
        )
        self.runs[root_id] = view.apply(self.runs[root_id], event)

    def add_root(self, root_id: str) -> None:
        """A further try of the same message; it is shown."""
        if root_id not in self.runs:
            self.runs[root_id] = view.Run(root_id=root_id)
            roots = [*self.turn.roots, root_id]
            self.turn = self.turn.model_copy(update={"roots": roots})
            self.shown = root_id

    def fold(self, event: Event) -> None:
        """Take in one event of one of its requests; painting comes later."""
        root_id = str(event.root_id)
        self.runs[root_id] = view.apply(self.runs[root_id], event)
        data = event.data
        if event.kind is Kind.MESSAGE and data.get("role") == "assistant":
            known = {one.id for one in self.turn.answers}
            if (message_id := str(data.get("message_id") or answer_id(root_id))) not in known:
                answer = Said(
                    id=message_id,
                    conversation_id=self.turn.message.conversation_id,
                    role="assistant",
                    content=str(data.get("content") or ""),
                    agent=event.agent,
                    task_id=root_id,
                    parent_message_id=self.id,
                    created_at=event.timestamp,
                )
                answers = [*self.turn.answers, answer]
                self.turn = self.turn.model_copy(update={"answers": answers})

    def message_of(self, root_id: str) -> str | None:
        """The id of the answer to that request, once it is in the record."""
        return next((one.id for one in self.turn.answers if one.task_id == root_id), None)

    # Elements ------------------------------------------------------------------------------

    def build(self, index: int = -1) -> None:
        """Make the elements inside the present element, at `index` of it."""
        with (
            ui.element("article")
            .classes("turn")
            .props(f'data-turn="{self.id}" tabindex=-1 aria-label="Message and answer"') as self.box
        ):
            self._mine = ui.html("").classes("msg user")
            self._panel = ui.html("").classes("run")
            self._asked = ui.element("div").classes("asked")
            self._answered = ui.html("").classes("msg answer")
            self._foot = ui.html("").classes("foot")
        if index >= 0:
            self.box.move(target_index=index)

    def remove(self) -> None:
        self.box.delete()

    def paint(self, answer: Answer, may: Callable[[Approval], bool]) -> None:
        """Bring what changed onto the page."""
        run = self.run
        busy = "false" if run.ended else "true"  # read out once it is whole
        if self.box.props.get("aria-busy") != busy:
            self.box.props(f"aria-busy={busy}")
        _set(self._mine, "" if self.editing else said.mine(self.turn))
        _set(self._panel, draw.panel(run) if run.steps or not run.answer else "")
        _set(self._answered, draw.answer(run))
        found = next((one for one in self.turn.answers if one.task_id in {self.shown, None}), None)
        _set(
            self._foot,
            said.foot(
                self.turn, run, found, self.ratings.get(self.shown), rehearsal=self._rehearsal
            ),
        )
        wanted = {
            one for one in self.approvals if self.approvals[one].request.root_id == run.root_id
        }
        if wanted != self._drawn:
            self._drawn = wanted
            self._asked.clear()
            with self._asked:
                for approval_id in sorted(wanted, key=lambda one: self.approvals[one].created_at):
                    waiting.draw(
                        self.approvals[approval_id], answer, may(self.approvals[approval_id])
                    )

    def edit(self, save: Callable[[str], Awaitable[None]], cancel: Callable[[], None]) -> None:
        """Turn the message into a box to write in."""
        self.editing = True
        _set(self._mine, "")
        with self.box, ui.element("div").classes("editor") as editor:
            box = ui.textarea(value=self.turn.message.content).props(
                'autogrow outlined dense autofocus aria-label="Edit message" maxlength=60000'
            )

            async def done() -> None:
                if (box.value or "").strip():
                    await save(box.value)

            def leave() -> None:
                self.editing = False
                editor.delete()
                cancel()

            with ui.element("div").classes("line end"):
                ui.label("The message before stays as a version of its own.").classes("hint")
                ui.button("Cancel", on_click=leave, color=None).props("flat no-caps")
                ui.button("Send as a new branch", on_click=done, color=None).props(
                    "unelevated no-caps"
                ).classes("main")
            box.on("keydown.esc", leave)
        editor.move(target_index=0)


def _told(root_id: str, asked: bool) -> view.Run:
    """A run that the record says nothing of: still to come, or from elsewhere and over."""
    return view.Run(root_id=root_id, status="pending" if asked else "completed")


def _set(element: Html, content: str) -> None:
    if element.content != content:
        element.set_content(content)
