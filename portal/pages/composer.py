"""Where a message is written: the box, its files and tools; and what stands there before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from portal.sniff import TAKEN

#: `aiSend` reads box and files, and says why there is nothing to send yet.
ENTER_JS = """(event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    window.aiSend(emit);
  }
}"""
SEND_JS = "() => window.aiSend(emit)"
EXAMPLES = (
    "Look at the workspace and tell me what is in it.",
    "Write a small Python program that counts words, with tests, and run them.",
    "Review the code in the workspace and fix what is broken.",
)

Do = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a person is about to send. files: ids of uploaded ones."""

    content: str
    files: tuple[str, ...]
    effort: str | None
    agent: str | None


Send = Callable[[Draft], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composer:
    """The parts that change. voice: an empty place in the row of tools."""

    stop: ui.button
    voice: ui.element


def welcome() -> ui.column:
    """What stands where nothing has been said."""
    with ui.column().classes("welcome") as made:
        ui.html('<img src="/static/favicon.svg" alt="">').classes("mark")
        ui.label("What should the agents do?").classes("headline")
        ui.label(
            "Say it in your own words. The supervisor makes a plan, the agents carry it out in "
            "their windows, and every result is checked before it counts as done."
        ).classes("lead")
        with ui.element("div").classes("examples"):
            for text in EXAMPLES:
                ui.button(text, color=None).props("flat no-caps align=left").on(
                    "click", js_handler=f"() => window.aiFill({text!r})"
                )
    return made


def build(
    *,
    efforts: Sequence[str],
    agents: Sequence[str],
    file_bytes: int,
    files: int,
    on_send: Send,
    on_stop: Do,
) -> Composer:
    """Make it at the foot of the present page. Files are uploaded by the browser to
    `/api/attachments`; `file_bytes` and `files` are told to it, the server holds to them.
    """
    with ui.footer().classes("bottom"):
        ui.html(
            '<button class="newest" data-do="newest" hidden aria-label="To the newest message">'
            '<i class="q-icon material-icons" aria-hidden="true">arrow_downward</i></button>'
        ).classes("newest-place")
        with (
            ui.element("div")
            .classes("composer")
            .props(f'data-file-bytes="{file_bytes}" data-files="{files}"')
        ):
            ui.html('<ul class="chips" aria-label="Attached files" aria-live="polite"></ul>')
            box = ui.textarea(placeholder="Message the agents").props(
                'autogrow borderless dense aria-label="Message" maxlength=60000'
            )
            with ui.element("div").classes("tools"):
                ui.button(icon="attach_file", color=None).props(
                    'flat round dense aria-label="Attach files"'
                ).classes("attach").on("click", js_handler="() => window.aiFiles.pick()").tooltip(
                    f"Attach {TAKEN}"
                )
                voice = ui.element("div").classes("voice-place")
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
                    given = event.args if isinstance(event.args, dict) else event.args[0]
                    draft = Draft(
                        content=str(given["text"]),
                        files=tuple(map(str, given["files"])),
                        effort=effort.value or None,
                        agent=agent.value or None,
                    )
                    box.set_value("")
                    if await on_send(draft):
                        ui.run_javascript("window.aiFiles.clear()")
                    else:
                        box.set_value(draft.content)

                box.on("keydown", send, js_handler=ENTER_JS)
                ui.button(icon="arrow_upward").props('unelevated round dense aria-label="Send"').on(
                    "click", send, js_handler=SEND_JS
                ).classes("send")
        ui.label("Enter sends · Shift+Enter makes a new line · ? shows all keys").classes("keys")
    stop.set_visibility(False)
    return Composer(stop=stop, voice=voice)
