"""HTML of what stands around a message: its files, its versions, what can be done with it."""

from __future__ import annotations

from html import escape

from portal.pages import parts
from portal.pages.draw import user_text
from portal.pages.marks import shown
from portal.pages.view import Run
from portal.talk import File, Said
from portal.thread import Turn

STARS = 5
KIB = 1024


def mine(turn: Turn) -> str:
    """A person's message with its files, and its place among its versions."""
    said = turn.message
    tools = (
        _switch("version", turn.versions, said.id, "Version")
        + _button("copy-mine", "content_copy", "Copy message")
        + _button("edit", "edit", "Edit message")
    )
    return (
        f'<div class="mine">{files(turn.files)}{user_text(said.content)}'
        f'<div class="deeds">{parts.when(said.created_at)}{tools}</div></div>'
    )


def files(found: list[File]) -> str:
    """Pictures small, the rest by name; each leads to its download."""
    if not found:
        return ""
    return f'<div class="files">{"".join(map(_file, found))}</div>'


def _file(file: File) -> str:
    path = f"/api/attachments/{escape(file.id, quote=True)}"
    name, size = escape(file.name, quote=True), _size(file.size_bytes)
    inner = (
        f'<img src="{path}" alt="{name}" loading="lazy">'
        if file.kind == "image"
        else f"{_icon('picture_as_pdf' if file.kind == 'pdf' else 'description')}"
    )
    return shown(
        f'<a class="file {file.kind}" href="{path}" download title="{name}, {size}">{inner}'
        f"<span>{escape(file.name)}</span><small>{size}</small></a>"
    )


def foot(turn: Turn, run: Run, said: Said | None, rating: int | None, *, rehearsal: bool) -> str:
    """What can be done with an answer, once there is one or the request has ended."""
    if not (run.whole or run.ended):
        return ""
    known = run.root_id in turn.roots
    deeds = _switch("answer", turn.roots, run.root_id, "Answer")
    if run.answer:
        deeds += _button("copy", "content_copy", "Copy answer")
        deeds += '<span class="speak-place"></span>'
    if known:
        deeds += _button("retry", "refresh", "Try again")
        deeds += _button("memories", "psychology", "Memories it was given")
    if known and said is not None:
        deeds += _stars(said.id, rating)
    spent = parts.cost(run.cost_usd, rehearsal=rehearsal)
    at = parts.when(said.created_at) if said is not None else ""
    return f'<div class="deeds">{deeds}<span class="grow"></span><em>{spent}</em>{at}</div>'


def _stars(message_id: str, rating: int | None) -> str:
    stars = "".join(
        f'<button data-do="rate" data-id="{escape(message_id, quote=True)}" data-value="{count}"'
        f' class="star{" on" if rating and count <= rating else ""}"'
        f' aria-pressed="{"true" if count == rating else "false"}"'
        f' aria-label="Rate {count} of {STARS}" title="{count} of {STARS}">'
        f"{_icon('star' if rating and count <= rating else 'star_border')}</button>"
        for count in range(1, STARS + 1)
    )
    return f'<span class="stars" role="group" aria-label="Rating">{stars}</span>'


def _switch(do: str, ids: list[str], here: str, what: str) -> str:
    """One of several: back, "2/3", on; nothing for a single one."""
    if len(ids) < 2 or here not in ids:
        return ""
    at = ids.index(here)
    back = _button(do, "chevron_left", f"{what} before", ids[at - 1] if at else None)
    on = _button(do, "chevron_right", f"{what} after", ids[at + 1] if at + 1 < len(ids) else None)
    return f'<span class="switch">{back}<span>{at + 1}/{len(ids)}</span>{on}</span>'


def _button(do: str, icon: str, name: str, value: str | None = "") -> str:
    """value: what it means, None for one that cannot be pressed now."""
    off = " disabled" if value is None else ""
    given = f' data-value="{escape(value, quote=True)}"' if value else ""
    return (
        f'<button data-do="{do}"{given}{off} aria-label="{name}" title="{name}">'
        f"{_icon(icon)}</button>"
    )


def _icon(name: str) -> str:
    return f'<i class="q-icon material-icons" aria-hidden="true">{name}</i>'


def _size(size_bytes: int) -> str:
    if size_bytes < KIB:
        return f"{size_bytes} B"
    kib = size_bytes / KIB
    return f"{kib:.0f} KB" if kib < KIB else f"{kib / KIB:.1f} MB"
