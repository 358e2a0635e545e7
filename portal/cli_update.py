"""`ai-infra update`: another version of the product, on the appliance."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Annotated

import typer
from pydantic import ValidationError

from base import broker
from base.deadline import Deadline
from base.errors import AIError
from base.terminal import neutral
from base.verbs import By, UpdateApply
from portal.cli_client import EXIT_FAILED, EXIT_USAGE, settings, show, stop

UPDATE_S = 5_500.0


def update(
    version: Annotated[str | None, typer.Argument(help="Such as 0.2.0.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what would be done, and do nothing.")
    ] = False,
    recover: Annotated[
        bool, typer.Option("--recover", help="Undo an update that was cut off.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Back up, bring that version, switch to it; back within a minute if it does not work."""
    config = settings()
    if config.broker is None:
        stop("in local mode: git pull, then ./install.sh, which restarts what runs", EXIT_FAILED)
    if recover:
        if os.geteuid() != 0:
            stop("this is root's: sudo ai-infra update --recover", EXIT_FAILED)
        line = [sys.executable, "-m", "provision.product", "--recover"]
        raise typer.Exit(subprocess.run(line, check=False).returncode)
    try:
        request = UpdateApply(version=version or "")
    except ValidationError:
        stop(f"{version or 'nothing'} is no version; such as: ai-infra update 0.2.0", EXIT_USAGE)

    async def tell(text: str) -> None:
        typer.echo(neutral(text), err=True)

    try:
        said = asyncio.run(
            broker.call(
                config.broker,
                "update.apply",
                request,
                by=By(role="admin"),
                dry_run=check,
                deadline=Deadline.after(UPDATE_S),
                tell=tell,
            )
        )
    except AIError as error:
        stop(str(error), EXIT_FAILED)
    if as_json:
        show({"plan": said.plan, "result": said.result}, True)
        return
    for step in said.plan:
        typer.echo(neutral(step))
    for name, value in said.result.items():
        typer.echo(neutral(f"{name}: {value}"))
