"""Models, budgets, permissions, limits, the system's own settings, and every file as text."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Literal, get_args, get_origin

from nicegui import Client, ui

from base.errors import AIError, ConflictError, FieldsError
from base.messages import Effort
from base.settings import Settings
from portal import config_files, configuring, spending
from portal.auth import Caller
from portal.configuring import Configured
from portal.desk import Desk
from portal.pages import parts
from portal.pages.marks import shown
from portal.pages.settings_form import FileForm, Group, Item, restart_panel

PURPOSES = {
    "plan": ("Plans", "The supervisor's: what is to be done and by whom"),
    "minimal": ("Plain questions", "Answered in one call"),
    "judge": ("Judging", "Criteria that nothing else can measure"),
    "title": ("Titles", "Of conversations"),
    "reflect": ("Reflection", "What is learnt from a task"),
}
RULES = "New rules: approvals.toml, under Files."
RANKS = {0: "0 restricted", 1: "1 standard", 2: "2 elevated", 3: "3 privileged"}
DURING = {
    "expires_s": ("A request waits", "s", "Then it counts as denied"),
    "open_max": ("Waiting at once", "", "Of one agent"),
    "per_minute": ("New ones a minute", "", "Of one agent"),
    "denials_max": ("Denials until refused", "", "In one task; then nobody is asked again"),
}
RATES = {
    "api": ("Requests", {
        "anonymous": "Without a token", "authenticated": "Of a user", "premium": "Of an admin",
    }),
    "websocket": ("Chat", {"messages": "Messages of a user", "connections": "Sockets at once"}),
    "agents": ("Agents", {
        "inter_agent_messages": "Messages between agents", "tool_calls": "Tool calls of an agent",
        "escalations": "Requests for more",
    }),
    "auth": ("Logins", {
        "login_attempts": "That fail, of an address", "password_reset": "Links to an account",
    }),
}  # fmt: skip
#: Keys of settings.toml whose name alone says too little.
LABELS = {
    "anthropic_base_url": "Address of the Messages API",
    "model_timeout_s": "Longest answer",
    "model_silence_s": "Longest silence",
    "embed_model": "Embedding model",
    "embed_base_url": "Address for openai: models",
    "embed_device": "Device",
    "embed_dtype": "Precision",
    "embed_compile": "Compiled code",
    "rerank_model": "Reranking model (a folder)",
    "sentiment_model": "Sentiment model (a folder)",
    "qdrant_url": "Address of a Qdrant server",
    "local_workers": "Workers on this machine",
    "aws_region": "Region",
    "aws_secrets_prefix": "Prefix of the names",
    "aws_endpoint_url": "Another endpoint",
    "heartbeat_s": "Heartbeat",
    "lease_s": "Lease of a task",
    "drain_s": "Time to end in",
    "stable_s": "Stable after",
    "hook_s": "Longest hook",
    "log_level": "Log level",
    "voice_base_url": "Address of the voice API",
    "whisper_model": "Whisper model (a folder)",
    "piper_voice": "Piper voice (a file)",
    "espeak_voice": "eSpeak voice",
}
#: The parts of settings.toml, in order; a key that is nowhere here is changed in the text.
SYSTEM: Sequence[tuple[str, str, Sequence[str]]] = (
    ("Voice", "How speech becomes text, and text speech.", (
        "speech_to_text", "text_to_speech", "transcription_model", "speech_model", "speech_voice",
        "voice_base_url", "whisper_model", "piper_voice", "espeak_voice",
    )),
    ("Model", "Where the model is asked, and how long.", (
        "anthropic_base_url", "model_timeout_s", "model_silence_s",
    )),
    ("Memory", "What turns words into meaning. Another model makes all memories anew.", (
        "embed_model", "embed_base_url", "embed_device", "embed_dtype", "embed_compile",
        "rerank_model",
        "sentiment_model", "qdrant_url", "local_workers",
    )),
    ("Secrets in AWS", "With a region, secrets are looked for there first.", (
        "aws_region", "aws_secrets_prefix", "aws_endpoint_url",
    )),
    ("Logins", "Addresses of the portal, and logins by Google and GitHub.", (
        "public_url", "google_client_id", "github_client_id",
    )),
    ("Work", "How patient the system is with its agents.", (
        "heartbeat_s", "lease_s", "drain_s", "stable_s", "hook_s", "log_level",
    )),
)  # fmt: skip


async def models(desk: Desk, caller: Caller, client: Client) -> None:
    """Which model does what, and what each costs."""
    found = await configuring.read(desk, caller, "models")
    known: Mapping[str, Any] = found.values.get("models", {})
    chosen = {name: name for name in known}
    perhaps = {"": "as below", **chosen}
    ui.label(
        "The first that is given wins: the agent's, the purpose's, the effort's, else the default."
    ).classes("lead")
    agents = list(await configuring.files(desk, caller))
    names = [one.file.partition("/")[2] for one in agents if one.file.startswith("agents/")]
    groups = [
        Group(title="For everything else", items=[
            Item(at=("use", "default"), label="Default", kind="choice", options=chosen),
        ]),
        Group(title="By purpose", items=[
            Item(at=("use", "purposes", key), label=label, kind="choice", options=chosen, hint=hint)
            for key, (label, hint) in PURPOSES.items()
        ]),
        Group(title="By effort", items=[
            Item(at=("use", "efforts", one.value), label=one.value.capitalize(), kind="choice",
                 options={**perhaps, "": "the default"})
            for one in Effort
        ]),
        Group(title="By agent", hint="For its own work.", items=[
            Item(at=("use", "agents", name, "default"), label=name, kind="choice",
                 options={**perhaps, "": "as above"})
            for name in names if name != "supervisor"
        ]),
    ]  # fmt: skip
    FileForm(desk, caller, found, groups).build()
    ui.label("Prices").classes("section")
    columns = {
        "name": "Model",
        "in": "Input",
        "out": "Output",
        "cache": "Cached",
        "size": "Context",
    }
    rows = [
        {
            "name": shown(escape(name)),
            "in": f"${table['input_usd']:g}",
            "out": f"${table['output_usd']:g}",
            "cache": f"${table['cache_read_usd']:g}",
            "size": parts.count(table["context_tokens"]),
        }
        for name, table in known.items()
    ]
    with ui.element("div").classes("panel flush"):
        parts.table(columns, rows)
    ui.label("Dollars for a million tokens. To add a model: models.toml, under Files.").classes(
        "hint"
    )


async def budgets(desk: Desk, caller: Caller, client: Client) -> None:
    """What a task and a day may cost."""
    found = await configuring.read(desk, caller, "budgets")
    if not found.faults:
        today = await spending.budget(desk, caller)
        part = today.spent_usd / today.hard_limit_usd if today.hard_limit_usd else 1.0
        with ui.element("div").classes("panel"):
            limit = parts.usd(today.hard_limit_usd)
            ui.html(f"<b>{parts.usd(today.spent_usd)}</b> of {limit} today (UTC)")
            ui.html(parts.meter(part, label="Spent today"))
    groups = [
        Group(title="A day", hint="At the limit no new task starts.", items=[
            Item(at=("daily", "warning_usd"), label="Warning", kind="number", unit="USD"),
            Item(at=("daily", "hard_limit_usd"), label="Limit", kind="number", unit="USD"),
        ]),
        *(
            Group(title=f"A task of effort {one.value}", items=[
                Item(at=("task", one.value, "usd"), label="Cost", kind="number", unit="USD"),
                Item(at=("task", one.value, "tokens"), label="Tokens", kind="whole"),
            ])
            for one in Effort
        ),
    ]  # fmt: skip
    FileForm(desk, caller, found, groups).build()


async def levels(desk: Desk, caller: Caller, client: Client) -> None:
    """What each level allows, who may reach which, and what is approved without a person."""
    found = await configuring.read(desk, caller, "levels")
    with ui.element("div").classes("levels"):
        for name, level in found.values.get("levels", {}).items():
            ui.html(shown(_level(name, level))).classes("panel level")
    with ui.element("div").classes("line"):
        ui.link("Change levels in levels.toml", "/settings/files?file=levels")
    users = [
        Item(at=("users", role), label=f"Role {role}", kind="choice", options=RANKS)
        for role in found.values.get("users", {})
    ]
    hint = "The highest level at which work for them is done, and which they may approve."
    FileForm(desk, caller, found, [Group(title="Users", hint=hint, items=users)]).build()
    await _approvals(desk, caller)


async def _approvals(desk: Desk, caller: Caller) -> None:
    found = await configuring.read(desk, caller, "approvals")
    rules: Mapping[str, Any] = found.values.get("auto", {})
    groups = [
        Group(title="Approvals", items=[
            *(
                Item(at=(key,), label=label, kind="whole" if key != "expires_s" else "number",
                     unit=unit, hint=hint)
                for key, (label, unit, hint) in DURING.items()
            ),
            Item(at=("level_max",), label="Nobody approves above", kind="choice", options=RANKS),
        ]),
        Group(title="Approved without asking", hint=RULES, items=[
            Item(at=("auto", name, "enabled"), label=name, kind="switch", hint=_rule(rule))
            for name, rule in rules.items()
        ]),
    ]  # fmt: skip
    FileForm(desk, caller, found, groups).build()


async def limits(desk: Desk, caller: Caller, client: Client) -> None:
    """How often users and agents may ask."""
    found = await configuring.read(desk, caller, "limits")
    ui.label("Write 10/minute, 5/15minutes or unlimited.").classes("lead")
    groups = [
        Group(title=title, items=[
            Item(at=(part, key), label=label, kind="whole" if key == "connections" else "text")
            for key, label in keys.items() if key in found.values.get(part, keys)
        ])
        for part, (title, keys) in RATES.items()
    ]  # fmt: skip
    FileForm(desk, caller, found, groups).build()


async def system(desk: Desk, caller: Caller, client: Client) -> None:
    """The keys of settings.toml that are worth changing here."""
    found = await configuring.read(desk, caller, "settings")
    groups = [
        Group(title=title, hint=hint, items=[
            _item(name) for name in names if name in Settings.model_fields
        ])
        for title, hint, names in SYSTEM
    ]  # fmt: skip
    FileForm(desk, caller, found, [group for group in groups if group.items]).build()


async def files(desk: Desk, caller: Caller, client: Client) -> None:
    """Every file, and the one that is open as text."""
    name = client.request.query_params.get("file", "")
    if name:
        await _text(desk, caller, await configuring.read(desk, caller, name))
        return
    rows = [
        {
            "id": one.file,
            "file": f"<b>{escape(one.file)}.toml</b>",
            "about": shown(escape(one.about)),
            "state": _state(one),
            "at": parts.when(one.modified_at, ago=True) if one.modified_at else "",
        }
        for one in await configuring.files(desk, caller)
    ]
    columns = {"file": "File", "about": "What it says", "state": "State", "at": "Changed"}

    def open_one(file: str) -> None:
        ui.navigate.to(f"/settings/files?file={file}")

    with ui.element("div").classes("panel flush"):
        parts.table(columns, rows, on_row=open_one)
    ui.label(f"They lie in {desk.settings.config}, over what is shipped.").classes("hint")


async def _text(desk: Desk, caller: Caller, found: Configured) -> None:
    ui.link("All files", "/settings/files")
    ui.label(found.about).classes("lead")
    if found.text is None:
        with ui.element("div").classes("notice"):
            ui.label(f"{found.path}: {found.withheld}")
        return
    state = {"version": found.version}
    after = ui.element("div").classes("changed")
    told = ui.element("div").classes("notice bad told").props("role=alert")
    told.set_visibility(bool(found.faults))
    with told:
        for fault in found.faults:
            ui.label(str(fault))
    area = ui.textarea(f"{found.file}.toml", value=found.text)
    area.props("outlined autogrow spellcheck=false input-class=mono").classes("text")

    async def save() -> None:
        told.set_visibility(False)
        try:
            written = await configuring.write(
                desk, caller, found.file, state["version"], text=area.value or ""
            )
        except FieldsError as error:
            told.clear()
            told.set_visibility(True)
            with told:
                for field in error.fields:
                    ui.label(": ".join(part for part in field if part))
        except ConflictError as error:
            more = f"{str(error).capitalize()}. Your text here stays until you load the page again."
            if await parts.sure(
                "Somebody else changed this file", more, "Load it again", bad=False
            ):
                ui.navigate.reload()
        except AIError as error:
            parts.tell(error)
        else:
            state["version"] = written.configured.version
            parts.done("Saved")
            after.clear()
            with after:
                await restart_panel(desk, caller, "Saved.", written.restart)

    with ui.element("div").classes("line end"):
        ui.label(found.path).classes("hint mono grow")
        ui.button("Save", on_click=functools.partial(save), color=None).props(
            "unelevated no-caps"
        ).classes("main")
    if (shipped := config_files.shipped(found.file)) is not None:
        with ui.element("details").classes("panel shipped"):
            with ui.element("summary"):
                ui.label("What is shipped, below yours")
            ui.label(shipped).classes("mono whole").props("tabindex=0")


def _state(one: Configured) -> str:
    if one.faults:
        return parts.pill("faulty", "bad")
    return (
        parts.pill("as shipped", "")
        if one.version == configuring.ABSENT
        else parts.pill("yours", "good")
    )


def _rule(rule: Mapping[str, Any]) -> str:
    """What a rule approves, in a line."""
    names = [*(rule.get("hosts") or ()), *(rule.get("tools") or ()), *(rule.get("verbs") or ())]
    whose = f" for {', '.join(rule['agents'])}" if rule.get("agents") else ""
    return f"{rule['kind']} up to level {rule['level_max']}{whose}: {', '.join(names)}"


def _level(name: str, level: Mapping[str, Any]) -> str:
    bounds = level["limits"]
    lines = {
        "Workspace": "reads and writes" if level["workspace"] == "write" else "reads",
        "Reads": ", ".join(level["read"]) or "nothing else",
        "Writes": ", ".join(level["write"]) or "nothing else",
        "Runs programs": "in the sandbox" if level["execute"] else "no",
        "Network": ", ".join(level["network"]) or "none",
        "Memory": f"{parts.count(bounds['memory_bytes'])}B",
        "One call": f"{bounds['wall_s']:,} s at most",
    }
    rows = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in lines.items())
    return f"<h3>{level['rank']} {escape(name)}</h3><dl>{rows}</dl>"


def _item(name: str) -> Item:
    """The field for a key of settings.toml, from its type."""
    field = Settings.model_fields[name]
    unit = "s" if name.endswith("_s") else ""
    label = LABELS.get(name) or name.removesuffix("_s").replace("_", " ").capitalize()
    found = field.annotation
    if get_origin(found) is Literal:
        options = {one: str(one) for one in get_args(found)}
        return Item(at=(name,), label=label, kind="choice", options=options)
    kinds: dict[Any, Any] = {bool: "switch", int: "whole", float: "number"}
    return Item(at=(name,), label=label, kind=kinds.get(found, "text"), unit=unit)
