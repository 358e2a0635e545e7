"""`ai-infra voice`: who hears and who speaks, and a Whisper for this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from base.terminal import neutral
from portal.cli_client import call, show

app = typer.Typer(no_args_is_help=True, help="Voice: what is set up, and a model to hear with.")
ASPECTS = {"speech_to_text": "hears", "text_to_speech": "speaks"}


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Who hears and who speaks, and what to set where nobody does."""
    offers = call("GET", "/api/voice")
    if as_json:
        show(offers, True)
        return
    for aspect, word in ASPECTS.items():
        offer = offers[aspect]
        state = offer["title"] if offer["ready"] else "nobody"
        typer.echo(neutral(f"{word:<7} {state}"))
        if offer["note"]:
            typer.echo(neutral(f"        {offer['note']}"))


@app.command()
def pull(
    name: Annotated[
        str,
        typer.Argument(help="tiny, base, small, medium, large-v3, large-v3-turbo, or OWNER/NAME."),
    ],
) -> None:
    """Fetch a Whisper from a model hub into this home. Needs internet, or HF_ENDPOINT."""
    os.chdir(Path(__file__).parent.parent)
    os.execv(sys.executable, [sys.executable, "-m", "workers", "fetch", "--", name])
