"""The dialogs about one memory: change what it says, forget it."""

from __future__ import annotations

import asyncio

from nicegui import ui
from pydantic import ValidationError

from base.errors import AIError
from pai.shapes import TEXT_CHARS, Card
from portal import memory
from portal.auth import Caller
from portal.desk import Desk
from portal.pages import parts, recalled
from portal.shapes import EditMemory

SHORT_CHARS = 140
TAGS_CHARS = 400


async def change(desk: Desk, caller: Caller, card: Card) -> Card | None:
    """Let a person change it; the new card, None when they did not. What they wrote stays in the
    box until it is stored.
    """
    old = card.memory
    found: list[Card] = []
    with ui.dialog().props("persistent") as asked, ui.card().classes("sheet wide"):
        ui.label("Change what it says").classes("headline")
        ui.label(
            "Its place, its task and when it was said stay; that you changed it is noted."
        ).classes("lead")
        text = ui.textarea(value=old.text).props(
            f'outlined autogrow autofocus maxlength={TEXT_CHARS} counter aria-label="Text"'
        )
        with ui.element("div").classes("line"):
            kind = ui.input(label="Kind", value=old.kind).props("outlined dense maxlength=40")
            tags = ui.input(label="Tags, with commas", value=", ".join(old.tags))
            tags.props(f"outlined dense maxlength={TAGS_CHARS}").classes("grow")
        fault = ui.label("").classes("fault").props("role=alert")
        fault.set_visibility(False)

        async def save() -> None:
            try:
                body = EditMemory(
                    text=text.value or "",
                    kind=(kind.value or "").strip() or old.kind,
                    tags=split(tags.value),
                    seen=card.hash,
                )
                button.props("loading")
                answer = await memory.edit(desk, caller, old.id, body)
            except ValidationError as error:
                said = error.errors()[0]["msg"].removeprefix("Value error, ")
            except AIError as error:
                said = str(error)
            else:
                found.append(Card.model_validate(answer["card"]))
                asked.submit(True)
                return
            finally:
                button.props(remove="loading")
            fault.set_text(f"Not saved: {said}")
            fault.set_visibility(True)

        with ui.element("div").classes("line end"):
            ui.button("Cancel", on_click=lambda: asked.submit(False), color=None).props(
                "flat no-caps"
            )
            button = ui.button("Save", on_click=save, color=None)
            button.props("unelevated no-caps").classes("main")
    await asked
    asked.delete()
    if found:
        parts.done("Changed: it is found by its new words from now on")
    return found[0] if found else None


async def forget(desk: Desk, caller: Caller, card: Card) -> bool:
    """Ask, forget, show the proof. Whether it is gone."""
    said = " ".join(card.memory.text.split())
    short = said if len(said) <= SHORT_CHARS else said[: SHORT_CHARS - 1] + "…"
    question = "Forget this for good?"
    more = f"“{short}” Every copy goes, and then it is looked for everywhere. There is no way back."
    if not await parts.sure(question, more, "Forget"):
        return False
    with ui.dialog().props("persistent") as shown, ui.card().classes("sheet proof"):
        ui.label("Forgetting").classes("headline")
        busy = ui.linear_progress(show_value=False).props('indeterminate aria-label="Forgetting"')
        told = ui.html("Every copy is removed and looked for.").props("role=status")
        with ui.element("div").classes("line end"):
            close = ui.button("Close", on_click=lambda: shown.submit(True), color=None)
            close.props("unelevated no-caps").classes("main")
    close.disable()
    shown.open()
    gone = False
    try:
        answer = await memory.forget(desk, caller, [card.memory.id])
        gone = True
        told.set_content(recalled.proof(answer))
    except AIError as error:
        told.set_content("")
        with shown:
            parts.tell(error, "Not forgotten")
        shown.close()
    busy.set_visibility(False)
    close.enable()
    if gone:
        await shown
    await asyncio.sleep(0)
    shown.delete()
    return gone


def split(text: str | None) -> list[str]:
    """Tags out of a line with commas, each once."""
    return list(dict.fromkeys(one.strip() for one in (text or "").split(",") if one.strip()))
