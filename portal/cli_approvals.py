"""`ai-infra approvals`: what agents ask leave for; approve or deny it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from base.terminal import exact, visible
from portal.cli_client import EXIT_USAGE, call, show, stop

app = typer.Typer(
    invoke_without_command=True,
    help="What agents ask leave for: list, show, approve, deny.",
)
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Id = Annotated[str, typer.Argument(help="The approval's id, or as much of it as is unique.")]
COLOURS = {"low": "green", "medium": "yellow", "high": "red", "critical": "bright_red"}
FULL_ID_CHARS = 36


@app.callback()
def listed(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Answered and expired ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """What waits for an answer."""
    if context.invoked_subcommand is not None:
        return
    page = call("GET", "/api/approvals", params={"all": every or None})
    if as_json:
        show(page, True)
        return
    if not page["approvals"]:
        typer.echo("nothing waits for approval")
    for found in page["approvals"]:
        typer.echo(brief(found))
    if page["more"]:
        typer.echo("… and older ones: --json, or /api/approvals?limit=200")


@app.command("show")
def shown(approval_id: Id, as_json: AsJson = False) -> None:
    """One request in full: the exact command, its files, its environment."""
    found = find(approval_id)
    show(found, True) if as_json else typer.echo(whole(found))


@app.command()
def approve(approval_id: Id, as_json: AsJson = False) -> None:
    """Let exactly this happen, once."""
    _answer(approval_id, True, "", as_json)


@app.command()
def deny(
    approval_id: Id,
    reason: Annotated[str, typer.Option(help="What the agent is told.")] = "",
    as_json: AsJson = False,
) -> None:
    """Refuse it; the agent is told to do without."""
    _answer(approval_id, False, reason, as_json)


def find(approval_id: str) -> dict[str, Any]:
    """The approval whose id begins so. Exits 2 when there is none, or more than one."""
    if not approval_id or set(approval_id.lower()) - set("0123456789abcdef-"):
        stop(f"{visible(approval_id)[:80]!r} is no approval's id; see: ai-infra approvals", 2)
    if len(approval_id) >= FULL_ID_CHARS:
        found: dict[str, Any] = call("GET", f"/api/approvals/{approval_id}")
        return found
    params = {"all": True, "prefix": approval_id, "limit": 10}
    page = call("GET", "/api/approvals", params=params)["approvals"]
    if not page:
        stop(f"no approval {approval_id}; see: ai-infra approvals --all", EXIT_USAGE)
    if len(page) > 1:
        ids = ", ".join(one["id"][:13] for one in page)
        stop(f"{approval_id} is not unique: {ids}", EXIT_USAGE)
    one: dict[str, Any] = page[0]
    return one


def brief(found: dict[str, Any]) -> str:
    """Two lines: which, how risky, how long; and what."""
    risk = typer.style(found["risk"], fg=COLOURS[found["risk"]], bold=True)
    head = f"{found['id'][:8]}  {risk}  {visible(found['request']['agent'])}  {_state(found)}"
    return f"{head}\n    {visible(found['sentence'])}"


def asking(found: dict[str, Any]) -> str:
    """What to tell somebody who waits for a task that waits for them."""
    short = found["id"][:8]
    return (
        f"{visible(found['agent'])} waits for approval {short} ({found['risk']} risk):\n"
        f"  {visible(found['sentence'])}\n"
        f"  ai-infra approvals show {short}   approve {short}   deny {short}"
    )


def whole(found: dict[str, Any]) -> str:
    """Everything that the approval is bound to. Nothing in it can hide or move the cursor."""
    request = found["request"]
    lines = [brief(found), ""]
    if request["host"]:
        lines.append(f"address      {visible(request['host'])}")
    lines.append(f"tool         {visible(request['tool'])}")
    if request["argv"]:
        lines.append(f"exactly      {exact(request['argv'])}")
    if request["cwd"]:
        lines.append(f"folder       {exact([request['cwd']])}")
    for name, value in request["environment"].items():
        lines.append(f"environment  {exact([name])}={exact([value])}")
    for operand in request["operands"]:
        lines.append(f"file         {exact([operand['path']])}  {operand['sha256'] or 'not there'}")
    marks = [word for word in ("tainted", "destructive") if request[word]]
    lines.append(f"level        {request['level']}{''.join(f', {word}' for word in marks)}")
    if request["reason"]:
        lines.append(f"agent says   {visible(request['reason'])}")
    lines.append(f"task         {request['task_id']}")
    lines.append(f"id           {found['id']}")
    lines.append(f"binding      {found['binding']}")
    if found["status"] == "pending":
        lines.append(f"answer       ai-infra approvals approve|deny {found['id'][:8]}")
    return "\n".join(lines)


def _answer(approval_id: str, approve: bool, reason: str, as_json: bool) -> None:
    found = find(approval_id)
    body = {"approve": approve, "reason": reason}
    done = call("POST", f"/api/approvals/{found['id']}/decision", body=body)
    if as_json:
        show(done, True)
    else:
        typer.echo(f"{done['id'][:8]} {done['status']}: {visible(done['sentence'])}")


def _state(found: dict[str, Any]) -> str:
    if found["status"] == "pending":
        left_s = (datetime.fromisoformat(found["expires_at"]) - datetime.now(UTC)).total_seconds()
        return (
            f"expires in {max(0, left_s) / 60:.0f} min"
            if left_s >= 90
            else (f"expires in {max(0, left_s):.0f} s")
        )
    by = f" by {visible(found['decided_by'])}" if found["decided_by"] else ""
    via = f" ({found['decided_via']})" if found["decided_via"] else ""
    why = f": {visible(found['decided_why'])}" if found["decided_why"] else ""
    return f"{found['status']}{by}{via}{why}"
