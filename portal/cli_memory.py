"""`ai-infra memory`: search what is remembered, add to it, forget, look after it."""

from __future__ import annotations

from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any

import typer

from base import plural
from base.terminal import neutral
from portal.cli_client import EXIT_USAGE, call, show, stop

app = typer.Typer(no_args_is_help=True, help="What is remembered: find, add, forget, take along.")
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Shared = Annotated[bool, typer.Option("--shared", help="For everybody who uses this machine.")]

FILE_MAX_BYTES = 10_000_000
FILE_MAX_PIECES = 100
FORGET_S = 70.0
SHARED = "*"


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="What it is about, in any words.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100)] = 10,
    tier: Annotated[
        list[str] | None, typer.Option(help="hot, warm or cold; may be given more than once.")
    ] = None,
    cold: Annotated[bool, typer.Option("--cold", help="Look through the archive, too.")] = False,
    agent: Annotated[str | None, typer.Option(help="Only what this agent said or noted.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, e.g. fact.")] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="memories, learnings, conversations or knowledge.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Not older: a date, or date and time.")] = None,
    until: Annotated[str | None, typer.Option(help="Not younger.")] = None,
    around: Annotated[
        int, typer.Option(min=0, max=5, help="So many neighbours on each side of a hit.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Find what is remembered about something, best first."""
    tiers = [*(tier or []), *(["cold"] if cold else [])]
    if cold and not tier:
        tiers = ["hot", "warm", "cold"]
    filters = {
        "tier": tiers or None,
        "agent": agent,
        "kind": kind,
        "collection": collection or [],
        "since": _moment("--since", since, time.min),
        "until": _moment("--until", until, time.max),
    }
    body = {"query": text, "limit": limit, "filters": filters, "neighbours": around}
    found = call("POST", "/api/memory/search", body=body)
    if as_json:
        show(found, True)
        return
    if not found["dense"]:
        typer.echo("ai-infra: the embedding worker did not answer: found by words alone", err=True)
    if not found["items"]:
        typer.echo("nothing there")
    for item in found["items"]:
        typer.echo(told(item))


@app.command()
def remember(
    text: Annotated[
        str | None, typer.Argument(help="What to keep; - reads it from standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A text file instead, kept in pieces.")
    ] = None,
    knowledge: Annotated[
        bool, typer.Option("--knowledge", help="Reference material rather than a memory.")
    ] = False,
    kind: Annotated[str, typer.Option(help="What kind of thing it is.")] = "fact",
    tag: Annotated[list[str] | None, typer.Option(help="May be given more than once.")] = None,
    source: Annotated[str, typer.Option(help="Where it is from.")] = "",
    domain: Annotated[str, typer.Option(help="What field it is of.")] = "",
    shared: Shared = False,
    as_json: AsJson = False,
) -> None:
    """Keep a fact, or a whole file."""
    if (text is None) == (file is None):
        stop("give either a text or --file", EXIT_USAGE)
    body: dict[str, Any] = {
        "kind": kind,
        "tags": tag or [],
        "knowledge": knowledge,
        "source": source,
        "domain": domain,
        "shared": shared,
    }
    ids: list[str] = []
    if file is not None:
        from portal.pieces import pieces

        found, path = pieces(_read(file)), str(file.resolve())
        if not found:
            stop(f"{file} is empty", EXIT_USAGE)
        for first in range(0, len(found), FILE_MAX_PIECES):
            part = {"text": found[first : first + FILE_MAX_PIECES], "first": first}
            ids += call("POST", "/api/memory", body=body | part | {"file": path[-500:]})["ids"]
    else:
        from portal.cli_ask import piped

        given = piped() if text == "-" else text
        ids = call("POST", "/api/memory", body=body | {"text": given})["ids"]
    if as_json:
        show({"ids": ids}, True)
    else:
        typer.echo(
            ids[0] if file is None else f"remembered {file} in {plural.counted(len(ids), 'piece')}"
        )


@app.command()
def forget(
    ids: Annotated[list[str], typer.Argument(help="Ids of memories, as `search` shows them.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    shared: Shared = False,
    as_json: AsJson = False,
) -> None:
    """Remove memories everywhere, and show the proof."""
    what = "this memory" if len(ids) == 1 else f"these {len(ids)} memories"
    if not yes and not typer.confirm(f"Forget {what} for good?", err=True):
        raise typer.Exit(1)
    body = {"ids": ids, "shared": shared}
    proof = call("POST", "/api/memory/forget", body=body, patience_s=FORGET_S)
    if as_json:
        show(proof, True)
    else:
        typer.echo("\n".join(outline(proof)))


@app.command()
def stats(
    everybody: Annotated[bool, typer.Option("--everybody", help="Of all users.")] = False,
    as_json: AsJson = False,
) -> None:
    """How much is remembered and where; with --everybody also how keeper and workers do."""
    found = call("GET", "/api/memory/stats", params={"everybody": everybody or None})
    if as_json:
        show(found, True)
    else:
        typer.echo("\n".join([*counted(found.pop("tiers")), *outline(found)]))


@app.command("import", help="Take in a PAI folder; twice is safe.")
def import_folder(
    folder: Annotated[Path, typer.Argument(help="A PAI folder: MEMORY, or what holds it.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is in it.")] = False,
    goals: Annotated[
        bool, typer.Option("--goals", help="Take its TELOS even where you have goals already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """See `portal/cli_passport.py`, which loads more than a search needs."""
    from portal.cli_passport import bring

    bring(folder, dry_run=dry_run, goals=goals, as_json=as_json)


@app.command("export", help="Write all that is remembered of you as a PAI folder; twice is safe.")
def export_folder(
    folder: Annotated[Path, typer.Argument(help="Where to write it; made when it is not there.")],
    as_json: AsJson = False,
) -> None:
    """See `portal/cli_passport.py`."""
    from portal.cli_passport import take_along

    take_along(folder, as_json=as_json)


@app.command()
def maintain(as_json: AsJson = False) -> None:
    """Move, merge and let go what is due now instead of later."""
    from pai.client import MemoryClient
    from portal.cli_keeper import keeper

    done = keeper(lambda bus: MemoryClient(bus).maintain())
    show(done, True) if as_json else typer.echo("\n".join(outline(done)) or "nothing was due")


def told(item: dict[str, Any]) -> str:
    """One memory found, with where it is from and why it is here."""
    memory = item["memory"]
    when = datetime.fromisoformat(memory["created_at"]).astimezone()
    who = memory["speaker"] or memory["agent"]
    shared = "for everybody" if memory["user_id"] == SHARED else ""
    place = [f"{when:%Y-%m-%d %H:%M}", who, memory["file"] or memory["source"], shared]
    head = f"{item['score']:.3g}  {item['tier']} {memory['collection']}/{memory['kind']}"
    if memory["tainted"]:
        head += typer.style("  stands on text from outside", fg="yellow")
    lines = [typer.style(head, bold=True) + "  " + neutral("  ".join(filter(None, place)))]
    before = [one for one in item["around"] if _seq(one) < _seq(memory)]
    after = [one for one in item["around"] if _seq(one) >= _seq(memory)]
    for one, mark in (*((o, "· ") for o in before), (memory, ""), *((o, "· ") for o in after)):
        said = neutral(one["text"]).strip().splitlines()
        lines += [f"    {mark}{line}" for line in said]
    why = ", ".join(item["why"])
    lines.append(
        typer.style(f"    {memory['id']}" + (f"  {neutral(why)}" if why else ""), dim=True)
    )
    return "\n".join(lines)


def counted(tiers: dict[str, dict[str, dict[str, int]]]) -> list[str]:
    """How many of what are where, as a table."""
    heads = [*next(iter(tiers.values()), {}), "bytes of text"]
    lines = [f"{'':<6}" + "".join(f"{head:>15}" for head in heads)]
    for tier, found in tiers.items():
        numbers = [one["count"] for one in found.values()]
        numbers.append(sum(one["size_bytes"] for one in found.values()))
        lines.append(f"{tier:<6}" + "".join(f"{number:>15,}" for number in numbers))
    return lines


def outline(value: dict[str, Any], indent: int = 0) -> list[str]:
    """Nested data for people: one line a value, and what is beneath a name set in."""
    lines = []
    for name, found in value.items():
        head = f"{' ' * indent}{neutral(str(name)).replace('_', ' ')}"
        if isinstance(found, dict) and found:
            lines += [head, *outline(found, indent + 2)]
        elif isinstance(found, list) and found and isinstance(found[0], dict):
            for one in found:
                lines += [head, *outline(one, indent + 2)]
        else:
            lines.append(f"{head:<34}{_said(found)}")
    return lines


def _said(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    if isinstance(value, list | dict):
        return ", ".join(map(str, value)) or "-"
    return neutral(str(value))


def _seq(memory: dict[str, Any]) -> int:
    return memory["seq"] if memory["seq"] is not None else 0


def _moment(option: str, text: str | None, of_day: time) -> str | None:
    """A date or time as the API takes it; without a zone it is this machine's."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        stop(f"{option}: {text!r} is no date; write it as 2026-01-31 or 2026-01-31T18:00", 2)
    if len(text) <= len("2026-01-31"):
        found = datetime.combine(found.date(), of_day)
    return (found if found.tzinfo else found.astimezone()).isoformat()


def _read(path: Path) -> str:
    """The text of a file. Exits 2 when it is none."""
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            stop(f"{path} is larger than {FILE_MAX_BYTES // 1_000_000} MB; split it", EXIT_USAGE)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        stop(f"{path}: {error.strerror}", EXIT_USAGE)
    except UnicodeDecodeError:
        stop(f"{path} is no text in UTF-8; convert it first", EXIT_USAGE)
    if "\0" in text:
        stop(f"{path} is no text: it holds NUL characters", EXIT_USAGE)
    return text
