"""`ai-infra telos`: the owner's goals as prompts have them, and what they were before."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer

from base.errors import AIError
from base.settings import Settings
from base.terminal import neutral
from pai import telos, telos_history
from pai.hooks import Hooks
from portal.cli_client import EXIT_FAILED, EXIT_USAGE, settings, show, stop

app = typer.Typer(no_args_is_help=True, help="Your goals (TELOS): show, path, history, diff.")
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Name = Annotated[str | None, typer.Argument(help="mission, vision, values, priorities, success.")]


@app.command("show")
def show_(as_json: AsJson = False) -> None:
    """What every prompt says of your goals now. What is left out or cut is told on stderr."""
    goals = _goals(_place())
    if as_json:
        told = {"version": goals.version, "text": goals.text, "faults": list(goals.faults)}
        show(told, True)
        return
    typer.echo(neutral(goals.text) or "nothing yet: the files hold no more than their templates")
    for fault in goals.faults:
        typer.echo(f"ai-infra: {neutral(fault)}", err=True)


@app.command()
def path(as_json: AsJson = False) -> None:
    """Where the five files are, for your editor. Makes the ones that are missing."""
    place = _place()
    if as_json:
        show({name: str(place / f"{name}.md") for name in telos.NAMES}, True)
        return
    for name in telos.NAMES:
        typer.echo(place / f"{name}.md")


@app.command()
def history(name: Name = None, as_json: AsJson = False) -> None:
    """Every text that was seen, newest last; of one file when it is named."""
    place = _place()
    found = telos_history.versions(place, _known(name))
    rows = [
        {"at": one.at, "name": one.name, "version": one.digest[:8], "size_bytes": one.size_bytes}
        for one in found
    ]
    heads = (("at", "SEEN"), ("name", "FILE"), ("version", "VERSION"), ("size_bytes", "BYTES"))
    show(rows, as_json, heads)


@app.command()
def diff(
    name: Name = None,
    since: Annotated[
        str | None, typer.Option(help="A version of that file; default: the one before.")
    ] = None,
) -> None:
    """What changed last in a file, or in each of them; or since a version."""
    place = _place()
    wanted = _known(name)
    if since is not None and wanted is None:
        stop("say which file the version is of: telos diff values --since 1a2b3c4d", EXIT_USAGE)
    said = ""
    for one in telos.NAMES if wanted is None else (wanted,):
        said += _diff(place, one, since)
    typer.echo(neutral(said).rstrip("\n") or "nothing changed")


def rows(config: Settings) -> list[dict[str, Any]]:
    """For doctor: what is wrong with the goals and the hooks."""
    faults: list[str] = []
    known = Hooks(config.config, faults.append).due_any()
    found = [_row("hooks", fault, f"mend {config.config / 'settings.json'}") for fault in faults]
    if known:
        free = sum(one.trusted for one in known)
        detail = f"{len(known)} known, {free} of them trusted and so outside the sandbox"
        found.insert(0, {"name": "hooks", "ok": True, "detail": detail, "mend": ""})
    goals = telos.compose(*telos.read(telos.folder(config)))
    return found + [
        _row("TELOS", fault, f"mend it in {telos.folder(config)}") for fault in goals.faults
    ]


def _row(name: str, detail: str, mend: str) -> dict[str, Any]:
    return {"name": name, "ok": False, "detail": detail.removeprefix("hooks: "), "mend": mend}


def _place() -> Path:
    """The folder, its files made and what they say now kept."""
    config = settings()
    try:
        config.prepare()
        telos.prepare(config)
        place = telos.folder(config)
        telos_history.keep(place, telos.read(place)[0])
    except AIError as error:
        stop(str(error), EXIT_FAILED)
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}", EXIT_FAILED)
    return place


def _goals(place: Path) -> telos.Goals:
    return telos.compose(*telos.read(place))


def _known(name: str | None) -> str | None:
    name = None if name is None else name.lower().removesuffix(".md")
    if name is not None and name not in telos.NAMES:
        stop(f"no file {name!r}; there are: {', '.join(telos.NAMES)}", EXIT_USAGE)
    return name


def _diff(place: Path, name: str, since: str | None) -> str:
    """A file's last change as a unified diff, or all changes since a version; "" for none."""
    found = telos_history.versions(place, name)
    if since is not None:
        start = [n for n, one in enumerate(found) if one.digest.startswith(since.lower())]
        if not start:
            stop(f"no version {since!r} of {name}; see: ai-infra telos history {name}", EXIT_USAGE)
        found = found[start[-1] :]
    if len(found) < 2:
        return ""
    old, new = (found[0] if since else found[-2]), found[-1]
    try:
        before, after = (telos_history.text(place, one).splitlines() for one in (old, new))
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}", EXIT_FAILED)
    was, now = (f"{name}.md {one.digest[:8]} {one.at}" for one in (old, new))
    lines = difflib.unified_diff(before, after, was, now, lineterm="")
    return "".join(f"{line}\n" for line in lines)
