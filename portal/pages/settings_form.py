"""A form over one file of the configuration: what counts now, what is one's own, and what a change
needs to count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nicegui import ui

from base.errors import AIError, ConflictError, FieldsError
from portal import configuring
from portal.auth import Caller
from portal.config_files import EVERYTHING, PORTAL
from portal.configuring import Configured
from portal.desk import Desk
from portal.pages import parts
from portal.toml_edit import Change, Value

FIELD = "outlined dense"
Kind = Literal["number", "whole", "text", "choice", "switch"]
At = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One key. options: of a choice, value to words; unit: behind the field; hint: below it."""

    at: At
    label: str
    kind: Kind = "text"
    options: Mapping[Any, str] | None = None
    unit: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    title: str
    items: Sequence[Item]
    hint: str = ""


class FileForm:
    """The form. `build` makes it inside the present element; saving makes it anew."""

    def __init__(
        self, desk: Desk, caller: Caller, found: Configured, groups: Sequence[Group]
    ) -> None:
        self._desk = desk
        self._caller = caller
        self._found = found
        self._groups = groups
        self._inputs: dict[At, Any] = {}
        self._gone: set[At] = set()
        self._root: ui.element | None = None

    def build(self) -> None:
        """Once."""
        self._root = ui.element("div").classes("fileform")
        self._fill()

    def _fill(self) -> None:
        assert self._root is not None
        self._root.clear()
        self._inputs.clear()
        self._gone.clear()
        with self._root:
            self._after = ui.element("div").classes("changed")
            self._told = ui.element("div").classes("notice bad told").props("role=alert")
            self._told.set_visibility(bool(self._found.faults))
            with self._told:
                for fault in self._found.faults:
                    ui.label(str(fault))
            for group in self._groups:
                with ui.element("fieldset").classes("panel"):
                    ui.label(group.title).classes("section")
                    if group.hint:
                        ui.label(group.hint).classes("hint")
                    with ui.element("div").classes("fields"):
                        for item in group.items:
                            self._field(item)
            with ui.element("div").classes("line end"):
                ui.label(f"Written to {self._found.path}").classes("hint mono grow")
                ui.button("Save", on_click=self._save, color=None).props(
                    "unelevated no-caps"
                ).classes("main")

    def _field(self, item: Item) -> None:
        now, own = look(self._found.values, item.at), look(self._found.own, item.at)
        with ui.element("div").classes("field").props(f'data-at="{".".join(item.at)}"'):
            made = _input(item, now)
            hint = f"{item.hint} " if item.hint else ""
            if item.at[-1] in self._found.environment:
                made.disable()
                hint = f"Set by AI_INFRA_{item.at[-1].upper()} in the environment. "
            with ui.element("div").classes("under"):
                if hint:
                    ui.label(hint.strip()).classes("hint")
                if own is not None:
                    ui.button(
                        "yours · back to shipped",
                        on_click=lambda: self._back(item, made),
                        color=None,
                    ).props(
                        f'flat no-caps dense aria-label="{item.label}: back to shipped"'
                    ).classes("back")
        self._inputs[item.at] = (item, made, made.value)

    def _back(self, item: Item, made: Any) -> None:
        self._gone.add(item.at)
        made.disable()
        made.props('hint="goes back to shipped when you save"')

    def _changes(self) -> list[Change]:
        found = [Change(at=at, value=None) for at in sorted(self._gone)]
        for at, (item, made, was) in self._inputs.items():
            if at in self._gone or made.value == was:
                continue
            value: Value | None = made.value
            if item.kind == "whole" and isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, str):
                value = value.strip() or None
            if value is not None or look(self._found.own, at) is not None:
                found.append(Change(at=at, value=value))
        return found

    async def _save(self) -> None:
        changes = self._changes()
        if not changes:
            ui.notify("Nothing was changed", position="top")
            return
        for _, made, _ in self._inputs.values():
            made.props(remove="error error-message")
        try:
            written = await configuring.write(
                self._desk, self._caller, self._found.file, self._found.version, changes=changes
            )
        except FieldsError as error:
            self._tell(error)
        except ConflictError as error:
            await self._conflict(error)
        except AIError as error:
            parts.tell(error)
        else:
            self._found = written.configured
            parts.done("Saved")
            self._fill()  # from here on, what this was called from is gone
            with self._after:
                await restart_panel(self._desk, self._caller, "Saved.", written.restart)

    def _tell(self, error: FieldsError) -> None:
        """Each fault at its field; what has none here stands above the form."""
        rest = []
        for file, field, message in error.fields:
            at = next((at for at in self._inputs if ".".join(at) == field), None)
            if at is None:
                rest.append(f"{file}: {field}: {message}" if field else f"{file}: {message}")
                continue
            quoted = message.replace("\\", "/").replace('"', "'")
            self._inputs[at][1].props(f'error error-message="{quoted}"')
        self._told.clear()
        self._told.set_visibility(bool(rest))
        with self._told:
            for line in rest:
                ui.label(line)
        if not rest:
            ui.notify("Not saved: see the marked fields", type="negative", position="top")

    async def _conflict(self, error: ConflictError) -> None:
        if await parts.sure(
            "Somebody else changed this file",
            f"{str(error).capitalize()}. What you entered here goes.",
            "Load it again",
            bad=False,
        ):
            self._found = await configuring.read(self._desk, self._caller, self._found.file)
            self._fill()


def look(table: Mapping[str, Any], at: At) -> Any:
    """The value at those keys; None where there is none."""
    found: Any = table
    for key in at:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found


def _input(item: Item, now: Any) -> Any:
    label = f"{item.label} ({item.unit})" if item.unit else item.label
    if item.kind == "switch":
        return ui.switch(item.label, value=bool(now))
    if item.kind == "choice":
        options = dict(item.options or {})
        if now is not None and now not in options:
            options[now] = str(now)
        value = now if now is not None else ("" if "" in options else None)
        return ui.select(options, label=label, value=value).props(f"{FIELD} options-dense")
    if item.kind in {"number", "whole"}:
        step = 1 if item.kind == "whole" else "any"
        return ui.number(label, value=now).props(f"{FIELD} step={step}")
    return ui.input(label, value="" if now is None else str(now)).props(f"{FIELD} maxlength=1000")


async def restart_panel(desk: Desk, caller: Caller, said: str, programs: Sequence[str]) -> None:
    """What a change needs to count, with a button where that can be done from here."""
    with ui.element("div").classes("notice restart").props("role=status") as panel:
        if not programs:
            ui.label(f"{said} It counts from the next use on.")
            return
        if EVERYTHING in programs:
            ui.label(f"{said} It counts after a new start of everything. On the server:")
            ui.html("<code>ai-infra down; ai-infra up</code>")
            return
        ui.label(f"{said} Read at the start only by: {', '.join(programs)}.")

        async def restart() -> None:
            more = "What they are at ends first, at most half a minute; tasks go on afterwards."
            if PORTAL in programs:
                more += " The portal is away for some seconds."
            if not await parts.sure("Restart them now?", more, "Restart", bad=False):
                return
            button.props(add="loading")
            try:
                await configuring.restart(desk, caller, programs)
            except AIError as error:
                parts.tell(error)
                button.props(remove="loading")
                return
            panel.clear()
            with panel:
                ui.label(f"Restarting: {', '.join(programs)}.")

        button = ui.button("Restart them", icon="restart_alt", on_click=restart, color=None)
        button.props("flat no-caps").classes("quiet")
