"""HTML of memories: what one says, who said it, how it is kept and what became of it. Escaped."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from nicegui import ui

from base.plural import counted
from pai.shapes import SHARED, Card, Item, Memory
from portal.pages import parts
from portal.pages.marks import shown

#: Beyond so many characters a text is folded.
FOLD_CHARS = 700
#: A button inside a list of memories says what it does to which.
ACT_JS = """(event) => {
  const button = event.target.closest('button[data-do]');
  if (button) emit([button.dataset.do, button.dataset.id]);
}"""
KINDS = {
    "warm": "warm: found at once by meaning and words",
    "hot": "hot: of a task that runs",
    "cold": "cold: in the archive, found by words only when asked for",
}
PLACES = {
    "card": "the record",
    "warm": "the warm store",
    "hot": "the hot store",
    "cold": "the archive",
    "uses": "notes of its uses",
    "cache": "the cache of vectors",
    "files": "its file",
    "originals": "imported files",
    "search": "a search for it",
    "merged": "duplicates merged into it",
}


def frame(
    act: Callable[[Any], Awaitable[None]], older: Callable[[], Awaitable[None]]
) -> tuple[ui.label, ui.html, ui.button]:
    """Where a list of memories goes: a note, the list, and the button for more, still hidden."""
    note = ui.label("").classes("hint").props("role=status")
    cards = ui.html("").classes("recalled")
    cards.on("click", act, js_handler=ACT_JS)
    more = ui.button("Show more", on_click=older, color=None)
    more.props("flat no-caps").classes("quiet")
    more.set_visibility(False)
    return note, cards, more


def listed(cards: Sequence[Card], user_id: str, hits: Mapping[str, Item] | None = None) -> str:
    """Memories as a list; `hits`: by id how a search found them."""
    return shown(
        "".join(_memory(card, user_id, (hits or {}).get(card.memory.id)) for card in cards)
    )


def _memory(card: Card, user_id: str, hit: Item | None) -> str:
    memory = card.memory
    id = escape(memory.id, quote=True)
    own = memory.user_id == user_id
    actions = (
        f'<button type="button" data-do="edit" data-id="{id}">Edit</button>'
        f'<button type="button" data-do="forget" data-id="{id}">Forget</button>'
        if own
        else '<span class="hint">changed only by the owner\'s own command</span>'
    )
    around = "".join(
        f'<p class="around" dir="auto">{escape(one.text)}</p>'
        for one in (hit.around if hit else ())
    )
    return (
        f'<article class="memory" data-id="{id}"><div class="marks">{_marks(card)}</div>'
        f"{_text(memory.text)}{_lesson(card)}"
        f'<div class="from">{_from(memory)}</div>'
        f'<div class="figures">{_figures(card, hit)}</div>'
        f"{around and f'<details><summary>What stands around it</summary>{around}</details>'}"
        f'<div class="acts">{actions}</div></article>'
    )


def _text(text: str) -> str:
    if len(text) <= FOLD_CHARS:
        return f'<div class="text" dir="auto">{escape(text)}</div>'
    return (
        f'<details class="long"><summary><div class="text" dir="auto">{escape(text[:FOLD_CHARS])}…'
        f'</div><span class="hint">all {len(text):,} characters</span></summary>'
        f'<div class="text" dir="auto">{escape(text)}</div></details>'
    )


def _marks(card: Card) -> str:
    memory = card.memory
    found = [
        f'<span class="pill" title="{KINDS[card.tier.value]}">{card.tier.value}</span>',
        parts.pill(f"{memory.collection.value} · {memory.kind}", ""),
    ]
    if memory.tainted:
        said = "It stands on text from outside: no prompt holds it by itself."
        found.append(f'<span class="pill warn" title="{said}">text from outside</span>')
    if memory.user_id == SHARED:
        found.append(parts.pill("for everybody", "busy"))
    if memory.outcome:
        found.append(parts.pill(memory.outcome))
    found += [parts.pill(tag, "") for tag in memory.tags]
    return "".join(found)


def _lesson(card: Card) -> str:
    """What only a learning has."""
    memory = card.memory
    if card.usefulness is None:
        return ""
    rows = {"Applies when": memory.applies_when, "Measured": memory.evidence}
    said = "".join(
        f'<dt>{name}</dt><dd dir="auto">{escape(text)}</dd>' for name, text in rows.items() if text
    )
    judged = card.helped + card.harmed
    told = f"helped {card.helped} of {judged} times" if judged else "not judged yet"
    return (
        f'<dl class="lesson">{said}<dt>Usefulness</dt><dd class="useful"><span class="meter">'
        f'<i style="width:{card.usefulness:.0%}"></i></span>{card.usefulness:.0%}, {told}</dd></dl>'
    )


def _from(memory: Memory) -> str:
    """Who said it, when, in which task, conversation and file."""
    who = memory.speaker or memory.agent or memory.source or "somebody"
    also = f" ({escape(memory.agent)})" if memory.agent and memory.agent != who else ""
    found = [f"<b dir='auto'>{escape(who)}</b>{also}", parts.when(memory.created_at)]
    if memory.phase:
        found.append(escape(memory.phase.lower()))
    if memory.task_id and _known(memory.task_id):
        found.append(f'<a href="/tasks/{escape(memory.task_id, quote=True)}">task</a>')
    if memory.conversation_id and _known(memory.conversation_id):
        place = escape(memory.conversation_id, quote=True)
        found.append(f'<a href="/chat/{place}">conversation</a>')
    if memory.file:
        part = f", part {memory.seq + 1}" if memory.seq is not None else ""
        found.append(f'<code dir="auto">{escape(memory.file)}</code>{part}')
    if memory.source and memory.source != who:
        found.append(f"from {escape(memory.source)}")
    edited = memory.extra.get("edited")
    if isinstance(edited, dict) and isinstance(edited.get("at"), str):
        times = edited.get("times", 1)
        often = f", {times} times" if isinstance(times, int) and times > 1 else ""
        found.append(f"changed by hand {parts.when(_moment(edited['at']))}{often}")
    return "".join(f"<span>{one}</span>" for one in found)


def _figures(card: Card, hit: Item | None) -> str:
    found = []
    if hit is not None:
        why = escape(", ".join(hit.why)) or "fits"
        found.append(f"<b>{hit.score:.3g}</b> {why}")
    found.append(f"utility {card.utility:.2f}")
    found.append(f"given to {counted(card.access_count, 'task')}")
    if card.support > 1:
        found.append(f"said {card.support} times, first {parts.when(card.first_seen)}")
    return "".join(f"<span>{one}</span>" for one in found)


def proof(answer: Mapping[str, Any]) -> str:
    """What forgetting removed, and that nothing is found any more."""
    rows = []
    for one in answer["forgotten"]:
        for place, name in PLACES.items():
            gone, left = _count(one["removed"].get(place)), _count(one["found"].get(place))
            if gone is None and left is None:
                continue
            told = "" if gone is None else f"{gone} removed"
            still = "" if left is None else f"{left} found"
            rows.append(
                f"<tr><td>{name}</td><td class=num>{told}</td><td class=num>{still}</td></tr>"
            )
    same = sum(len(one["same_text"]) for one in answer["forgotten"])
    head = (
        '<p class="verdict good"><b>Forgotten, and looked for everywhere: nothing is found.</b></p>'
        if answer["proved"]
        else '<p class="verdict bad"><b>Something of it is still found.</b></p>'
    )
    more = (
        f"<p>{counted(same, 'other memory says', 'other memories say')} the same in other words'"
        " places; they stay.</p>"
        if same
        else ""
    )
    kept = "".join(f"<li>{escape(one)}</li>" for one in answer["kept"])
    return shown(
        f"{head}<table><thead><tr><th scope=col>Where</th><th scope=col class=num>Removed</th>"
        "<th scope=col class=num>Found after</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>{more}"
        f'<p class="hint">What forgetting cannot reach:</p><ul class="hint">{kept}</ul>'
    )


def _count(value: Any) -> int | None:
    if value is None:
        return None
    return len(value) if isinstance(value, list) else int(value)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _known(id: str) -> bool:
    try:
        return bool(uuid.UUID(id))
    except ValueError:
        return False
