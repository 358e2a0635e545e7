"""`ai-infra broker`: what only root can do, by typed verbs."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from base.terminal import neutral
from portal.cli_client import EXIT_USAGE, call, settings, show, stop
from portal.cli_domains import PATIENCE_S, AsJson, DryRun, planned

app = typer.Typer(no_args_is_help=True, help="What only root can do: verbs, call.")


@app.command()
def verbs(as_json: AsJson = False) -> None:
    """The verbs of this machine, whose yes an agent needs, and on what they may work."""
    found = call("GET", "/api/broker")
    if as_json:
        return show(found, True)
    columns = (("name", "VERB"), ("approval", "AN AGENT NEEDS"), ("deadline_s", "AT MOST S"))
    show(found["verbs"], False, columns)
    for name in ("units", "containers"):
        typer.echo(neutral(f"{name}: {', '.join(found[name]) or 'none'}"))
    for one in found["interrupted"]:
        line = f"interrupted {one['at']}: {one['verb']} {one['about']}; look what it left"
        typer.echo(typer.style(neutral(line), fg="red"))
    return None


@app.command("call")
def do(
    verb: Annotated[str, typer.Argument(help="Such as unit.restart.")],
    fields: Annotated[
        list[str] | None, typer.Argument(help="Its fields, such as unit=nginx.service.")
    ] = None,
    direct: Annotated[
        bool, typer.Option("--direct", help="Past the portal, as root on this machine.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have one verb done. A value that is JSON is taken as such."""
    request = dict(_field(one) for one in fields or ())
    if direct:
        answer = asyncio.run(_direct(verb, request, dry_run))
    else:
        answer = call(
            "POST", f"/api/broker/{verb}", body=request, params={"dry_run": dry_run},
            patience_s=PATIENCE_S,
        )  # fmt: skip
    if dry_run:
        return planned(answer, as_json)
    if as_json:
        return show(answer["result"], True)
    for name, value in answer["result"].items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(neutral(f"{name}: {shown}"))
    return None


async def _direct(verb: str, request: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """As the user of this shell, whom the broker's rules must let speak for people."""
    from base import broker
    from base.deadline import Deadline
    from base.errors import AIError, NotRunningError
    from base.verbs import By
    from portal.broker import shaped

    async def tell(step: str) -> None:
        typer.echo(neutral(step), err=True)

    try:
        said = await broker.call(
            settings().broker, verb, shaped(verb, request), by=By(role="admin"), dry_run=dry_run,
            deadline=Deadline.after(PATIENCE_S), tell=tell,
        )  # fmt: skip
    except NotRunningError as error:
        stop(str(error), 3)
    except AIError as error:
        stop(str(error))
    return {"plan": list(said.plan), "result": said.result}


def _field(text: str) -> tuple[str, Any]:
    name, mark, value = text.partition("=")
    if not mark or not name:
        stop(f"{text!r} must be name=value", EXIT_USAGE)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
