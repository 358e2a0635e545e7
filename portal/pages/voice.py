"""Voice on a page: two buttons for the composer's row of tools, and what speaks the answers.

The browser does the work (static/voice.js); here are its buttons, and whether it wants to be fed.
"""

from __future__ import annotations

import json
from typing import Any

from nicegui import ui

HEAD = """<link rel="stylesheet" href="/static/voice.css">
<script defer src="/static/sentences.js"></script>
<script defer src="/static/voice.js"></script>"""

BUTTONS = (("retry", "Try again"), ("discard", "Discard"), ("hush", "Be quiet"), ("close", "Close"))


class Voice:
    """One open page's voice. Make it with `add`."""

    def __init__(self) -> None:
        self._speaking = False
        self._client = ui.context.client

    def feed(self, answer_id: str, text: str, *, whole: bool) -> None:
        """Have what is new of a live answer spoken, if the person wants that. `text`: markdown,
        all of it so far; `whole`: there will be no more. An answer of the past is not to be fed.
        """
        if self._speaking and text:
            said = json.dumps([answer_id, text, whole])
            self._client.run_javascript(f"window.aiVoice && window.aiVoice.feed(...{said})")

    def _turned(self, event: Any) -> None:
        self._speaking = event.args is True


def add() -> Voice:
    """Put the buttons where the page is being built, inside the composer's row of tools."""
    ui.add_head_html(HEAD)
    voice = Voice()
    _bar()
    _button("talk", "Talk", "mic", "mic_none")
    speak = _button("speak", "Read answers aloud", "volume_up", "volume_off")
    speak.on("speaking", voice._turned, js_handler="(event) => emit(event.detail)")
    return voice


def _button(name: str, label: str, on: str, off: str) -> ui.element:
    props = f'type=button data-voice={name} aria-label="{label}" aria-pressed=false'
    with ui.element("button").props(props).classes("voice-button") as button:
        ui.icon(on).classes("on")
        ui.icon(off).classes("off")
    return button


def _bar() -> None:
    with ui.element("div").props("data-voice=bar hidden").classes("voice-bar"):
        with ui.element("div").props("data-voice=meter aria-hidden=true").classes("voice-meter"):
            ui.element("div")
        ui.element("div").props("data-voice=said role=status aria-live=polite").classes(
            "voice-said"
        )
        with ui.element("label").props("hidden"):
            ui.element("input").props("type=checkbox data-voice=at-once")
            ui.label("Submit at once")
        for name, label in BUTTONS:
            with ui.element("button").props(f"type=button data-voice={name} hidden"):
                ui.label(label)
