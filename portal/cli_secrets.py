"""`ai-infra secrets`: which secrets there are and where from, never what they are."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from base import secrets, secrets_files
from base.errors import AIError, InputError
from base.settings import Settings
from portal.cli_client import EXIT_FAILED, EXIT_USAGE, settings, show, stop
from portal.kept import Kept, kept

RESTART = "systemctl restart ai-infrastructure.target"
DAY_S, HOUR_S, MINUTE_S = 86_400, 3_600, 60

app = typer.Typer(no_args_is_help=True, help="Secrets: list, set, remove. Never shows a value.")


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """The names, where each comes from, and how old it is. Exit 1 when one cannot be had."""
    rows = listed(settings())
    show(rows, as_json, (("name", "SECRET"), ("source", "SOURCE"), ("age", "AGE")))
    faults = list(dict.fromkeys(row["fault"] for row in rows if row["fault"]))
    for fault in () if as_json else faults:
        typer.echo(f"ai-infra: {fault}", err=True)
    if faults:
        raise typer.Exit(EXIT_FAILED)


@app.command("set")
def set_(name: Annotated[str, typer.Argument(help="Such as anthropic-api-key.")]) -> None:
    """Keep a secret in its file, mode 0600. Reads it from standard input, or asks for it."""
    config = settings()
    try:
        secrets_files.named(name)
        if sys.stdin.isatty():
            value = typer.prompt(f"{name} (not shown)", hide_input=True, err=True)
        else:
            value = sys.stdin.buffer.read(secrets_files.MAX_BYTES + 1).decode()
        rehearsed = name == secrets.ANTHROPIC_API_KEY and config.anthropic_base_url is None
        first = rehearsed and _source(config, name) == "none"
        path = secrets_files.put(config.secrets, name, value)
    except UnicodeDecodeError:
        stop("standard input is no UTF-8 text", EXIT_USAGE)
    except AIError as error:
        stop(str(error), EXIT_USAGE if isinstance(error, InputError) else EXIT_FAILED)
    typer.echo(f"{name} is kept in {path}")
    if name == secrets.ANTHROPIC_API_KEY and os.environ.get("ANTHROPIC_API_KEY"):
        typer.echo("note: ANTHROPIC_API_KEY in this shell's environment goes before the file")
    if first:
        how = "ai-infra down; ai-infra up" if config.broker is None else RESTART
        typer.echo(f"the rehearsal model answers until the next start: {how}")
    where = _source(config, name)
    if where != "file":
        typer.echo(f"note: {where} goes before the file")


@app.command("remove")
def remove(name: str) -> None:
    """Delete a secret's file. Exit 2 when there is none; AWS and systemd are not touched."""
    config = settings()
    try:
        gone = secrets_files.remove(config.secrets, name)
    except AIError as error:
        stop(str(error), EXIT_USAGE if isinstance(error, InputError) else EXIT_FAILED)
    if not gone:
        stop(f"there is no file {config.secrets / name}", EXIT_USAGE)
    typer.echo(f"{config.secrets / name} is removed")


def listed(config: Settings) -> list[dict[str, Any]]:
    """One row a secret that there is or that cannot be read; `age_s` None: unknown."""
    return [_row(one) for one in kept(config)]


def check(config: Settings) -> tuple[bool, str]:
    """For doctor: where the API key comes from, and every file that is open to others."""
    faults = secrets_files.faults(config.secrets)
    try:
        where = "environment" if os.environ.get("ANTHROPIC_API_KEY", "").strip() else ""
        where = where or secrets.of(config).source(secrets.ANTHROPIC_API_KEY)
        _ = config.api_key
    except AIError as error:
        if not any(fault in str(error) for fault in faults):
            faults.append(str(error))
        where = "refused"
    told = {"none": "no API key", "refused": "the API key cannot be had"}
    return not faults, "; ".join([told.get(where, f"API key from {where}"), *faults])


def _row(one: Kept) -> dict[str, Any]:
    since = one.since
    age_s = max(0, round((datetime.now(UTC) - since).total_seconds())) if since else None
    found = {"name": one.name, "source": one.source, "age": _age(age_s), "age_s": age_s}
    return {**found, "fault": one.fault}


def _age(age_s: int | None) -> str | None:
    if age_s is None:
        return None
    for unit_s, unit in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if age_s >= unit_s:
            return f"{age_s // unit_s} {unit}"
    return f"{age_s} s"


def _source(config: Settings, name: str) -> str:
    """Where the secret now comes from; AWS out of reach counts as AWS."""
    try:
        return secrets.of(config).source(name)
    except AIError:
        return "aws"
