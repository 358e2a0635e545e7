"""`ai-infra`: the owner's command.

Exit codes: 0 done (a task: completed), 1 failed, 2 wrong usage, 3 not running.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from base import program
from base.errors import SettingsError
from base.terminal import neutral
from portal import (
    cli_approvals,
    cli_audit,
    cli_backup,
    cli_broker,
    cli_domains,
    cli_memory,
    cli_secrets,
    cli_telos,
    cli_update,
    cli_voice,
)
from portal.cli_client import EXIT_NOT_RUNNING, EXIT_USAGE, call, settings, show, stop

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs and steers the agents on this machine.",
)
tasks = typer.Typer(no_args_is_help=True, help="The work: list, show, cancel, retry.")
agents = typer.Typer(
    no_args_is_help=True, help="The agents: list, start, pause, resume, restart, logs."
)
dlq = typer.Typer(no_args_is_help=True, help="Dead letters: list, replay, purge.")
app.add_typer(tasks, name="tasks")
app.add_typer(agents, name="agents")
app.add_typer(dlq, name="dlq")
app.add_typer(cli_secrets.app, name="secrets")
app.add_typer(cli_telos.app, name="telos")
app.add_typer(cli_audit.app, name="audit")
app.add_typer(cli_approvals.app, name="approvals")
app.add_typer(cli_memory.app, name="memory")
app.add_typer(cli_voice.app, name="voice")
app.add_typer(cli_domains.app, name="domains")
app.add_typer(cli_broker.app, name="broker")
app.add_typer(cli_backup.app, name="backup")
app.command()(cli_update.update)

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def _supervisor(word: str, as_json: bool) -> NoReturn:
    """Become `python -m supervisor …` of this installation."""
    os.chdir(Path(__file__).parent.parent)
    line = [sys.executable, "-m", "supervisor", word, *(["--json"] if as_json else [])]
    os.execv(line[0], line)


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start everything and wait until it is ready. Safe to repeat."""
    _supervisor("up", as_json)


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop everything in order; running tasks go on at the next start."""
    _supervisor("down", as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """What runs, and what it is doing. Exit 3 when it is not running."""
    from portal.cli_doctor import state

    report = state(settings())
    if as_json:
        show(report, True)
    else:
        typer.echo(f"AI Infrastructure in {report['home']}: {report['state']}")
        if report["state"] != "down":
            typer.echo(f"portal {report['portal']}   model {report['model']}")
            show(
                report["agents"], False, (("name", "AGENT"), ("status", "STATE"), ("task", "TASK"))
            )
    if report["state"] == "down":
        raise typer.Exit(EXIT_NOT_RUNNING)


@app.command()
def doctor(
    as_json: AsJson = False,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the report for the portal, too.")
    ] = False,
) -> None:
    """Check every prerequisite and service; each fault comes with the line that mends it."""
    from portal.cli_doctor import tell

    if not tell(settings(), as_json=as_json, record=record):
        raise typer.Exit(1)


@app.command()
def ask(
    text: Annotated[str, typer.Argument(help="What you want; - reads it from standard input.")],
    agent: Annotated[
        str | None, typer.Option(help="Give it to this agent, without a plan.")
    ] = None,
    effort: Annotated[
        str | None, typer.Option(help="minimal, standard, extended or deep (default: decided).")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Name of the workspace to work in (default: main).")
    ] = None,
    conversation: Annotated[
        str | None, typer.Option(help="Go on in this conversation instead of a new one.")
    ] = None,
    priority: Annotated[int, typer.Option(min=1, max=10, help="10 goes first.")] = 5,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its answer.")] = True,
    as_json: AsJson = False,
) -> None:
    """Send a task and stream its plan, progress and answer."""
    from portal.cli_ask import follow, piped, prepare, send

    if text == "-":
        text = piped()
    request = prepare(
        text,
        agent=agent,
        effort=effort,
        workspace=workspace,
        conversation=conversation,
        priority=priority,
    )
    if not wait:
        sent = send(request)
        show(sent, True) if as_json else typer.echo(sent["task_id"])
        return
    raise typer.Exit(follow(settings(), request, as_json))


@app.command()
def rate(
    task_id: Annotated[str, typer.Argument(help="The task whose answer it is about.")],
    rating: Annotated[int, typer.Argument(min=1, max=5, help="1 (useless) to 5 (excellent).")],
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say how good an answer was; what it was made with is judged by it."""
    from base.messages import answer_id

    task = call("GET", f"/api/tasks/{task_id}")["task"]
    message_id = answer_id(task["root_id"] or task["id"])
    body = {"rating": rating, "comment": comment}
    heard = call("POST", f"/api/messages/{message_id}/feedback", body=body)
    show(heard, True) if as_json else typer.echo(f"{task_id}: rated {rating} of 5")


@app.command()
def attach(
    window: Annotated[str | None, typer.Argument(help="Window to open on, e.g. code.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Look, never type.")] = False,
) -> None:
    """Open the agents' tmux session here. Ctrl+b d leaves it."""
    config = settings()
    tmux = shutil.which("tmux") or stop("tmux is not installed: apt-get install tmux", 3)
    target = "ai-infrastructure" + (f":{window}" if window else "")
    line = [tmux, "-u", "-S", str(config.tmux_socket)]
    probe = subprocess.run([*line, "has-session", "-t", target], capture_output=True, check=False)
    if probe.returncode != 0:
        stop(f"no window {target} to attach to; start it with: ai-infra up", EXIT_NOT_RUNNING)
    os.environ.pop("TMUX", None)
    os.execv(tmux, [*line, "attach", *(["-r"] if read_only else []), "-t", target])


@app.command("login-link")
def login_link(as_json: AsJson = False) -> None:
    """A link that signs you in to the portal once, within 15 minutes."""
    link = call("POST", "/api/auth/links")
    show(link, True) if as_json else typer.echo(link["url"])


@app.command()
def passwd() -> None:
    """Set the owner's password (admin@local) for signing in to the portal."""
    word = typer.prompt("New password (12 characters or more)", hide_input=True)
    if typer.prompt("Once more", hide_input=True) != word:
        stop("the two are not the same", 2)
    call("POST", "/api/auth/password", body={"new_password": word})
    typer.echo("password of admin@local set")


@app.command()
def events(
    after: Annotated[str | None, typer.Option(help="Only events after this cursor.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """What happened lately, oldest first."""
    page = call("GET", "/api/events", params={"after": after, "limit": limit})
    rows = [
        {**one["event"], "said": " ".join(f"{k}={v}" for k, v in one["event"]["data"].items())}
        for one in page["events"]
    ]
    columns = (("timestamp", "WHEN"), ("agent", "WHO"), ("kind", "WHAT"), ("said", ""))
    show(page if as_json else rows, as_json, columns)


@tasks.command("list")
def tasks_list(
    status: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only those of this agent.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest tasks."""
    page = call("GET", "/api/tasks", params={"status": status, "agent": agent, "limit": limit})
    columns = (("id", "ID"), ("status", "STATE"), ("assigned_agent", "AGENT"), ("title", "TITLE"))
    show(page if as_json else page["tasks"], as_json, columns)


@tasks.command("show")
def tasks_show(task_id: str, as_json: AsJson = False) -> None:
    """One task: its subtasks, criteria with evidence, answer."""
    from portal.cli_ask import render_task

    task = call("GET", f"/api/tasks/{task_id}")
    show(task, True) if as_json else typer.echo(neutral(render_task(task)))


@tasks.command("cancel")
def tasks_cancel(task_id: str, as_json: AsJson = False) -> None:
    """Stop a task and all its parts."""
    answer = call("POST", f"/api/tasks/{task_id}/cancel")
    show(answer, True) if as_json else typer.echo(neutral(f"{task_id} {answer['status']}"))


@tasks.command("retry")
def tasks_retry(task_id: str, as_json: AsJson = False) -> None:
    """Run an ended task's request again, as a new task."""
    answer = call("POST", f"/api/tasks/{task_id}/retry")
    show(answer, True) if as_json else typer.echo(answer["task_id"])


@agents.command("list")
def agents_list(as_json: AsJson = False) -> None:
    """Who there is and what they do."""
    page = call("GET", "/api/agents")
    columns = (
        ("name", "AGENT"),
        ("status", "STATE"),
        ("last_heartbeat", "HEARTBEAT"),
        ("current_task_id", "TASK"),
    )
    show(page if as_json else page["agents"], as_json, columns)


def _agent_verb(verb: str, name: str, as_json: bool) -> None:
    answer = call("POST", f"/api/agents/{name}/{verb}")
    show(answer, True) if as_json else typer.echo(f"{name}: {verb} asked")


@agents.command("start")
def agents_start(name: str, as_json: AsJson = False) -> None:
    """Start an agent whose program has ended or was given up."""
    _agent_verb("start", name, as_json)


@agents.command("restart")
def agents_restart(name: str, as_json: AsJson = False) -> None:
    """Restart an agent; its task goes on where the journal ends."""
    _agent_verb("restart", name, as_json)


@agents.command("pause")
def agents_pause(name: str, as_json: AsJson = False) -> None:
    """Hold an agent at its next safe point; it takes no new work."""
    _agent_verb("pause", name, as_json)


@agents.command("resume")
def agents_resume(name: str, as_json: AsJson = False) -> None:
    """Let a paused agent go on."""
    _agent_verb("resume", name, as_json)


@agents.command("logs")
def agents_logs(
    name: str,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
) -> None:
    """The agent's log file."""
    path = settings().logs / f"{name}.log"
    if not path.is_file():
        known = sorted(log.stem for log in settings().logs.glob("*.log"))
        stop(f"no log of {name!r}; there are: {', '.join(known) or 'none'}", 2)
    line = ["tail", "-n", str(lines), *(["-F"] if follow else []), str(path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as tail:
        for raw in tail.stdout or ():
            typer.echo(neutral(raw.decode(errors="backslashreplace")), nl=False)
    raise typer.Exit(tail.returncode)


@dlq.command("list")
def dlq_list(as_json: AsJson = False) -> None:
    """Messages that could not be handled."""
    page = call("GET", "/api/dlq")
    columns = (
        ("id", "ID"),
        ("source_queue", "STREAM"),
        ("attempts", "TRIES"),
        ("failed_at", "WHEN"),
        ("error_message", "ERROR"),
    )
    show(page if as_json else page["letters"], as_json, columns)


@dlq.command("replay")
def dlq_replay(letter_id: str, as_json: AsJson = False) -> None:
    """Put a dead letter back on its stream."""
    answer = call("POST", f"/api/dlq/{letter_id}/replay")
    show(answer, True) if as_json else typer.echo(f"{letter_id} replayed")


@dlq.command("purge")
def dlq_purge(
    stream: Annotated[str | None, typer.Option(help="Only those of this stream.")] = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good (those past 7 days go by themselves)."""
    answer = call("POST", "/api/dlq/purge", body={"stream": stream})
    show(answer, True) if as_json else typer.echo(f"{answer['purged']} removed")


def main() -> None:
    """Entry point of the `ai-infra` command."""
    code: str | int | None = 0
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    except BrokenPipeError:
        sys.stderr.close()
    except SettingsError as error:  # such as a key that is open to others
        typer.echo(f"ai-infra: {error}", err=True)
        code = EXIT_USAGE
    if isinstance(code, str):  # which Python prints
        sys.exit(code)
    program.leave(code or 0)


if __name__ == "__main__":
    main()
