"""`ai-infra audit`: read the log, check it, take it along. Needs PostgreSQL, not the portal."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from base.errors import AIError, StoreError
from base.plural import counted
from base.terminal import short
from portal.cli_client import EXIT_FAILED, EXIT_NOT_RUNNING, EXIT_USAGE, settings, show, stop

if TYPE_CHECKING:
    from base.audit_verify import Report
    from base.store import Store

app = typer.Typer(no_args_is_help=True, help="The audit log: tail, verify, export.")
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
FOLLOW_S = 0.5
PAGE = 500
T = TypeVar("T")


@app.command()
def tail(
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=10_000)] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as rows come.")] = False,
    as_json: AsJson = False,
) -> None:
    """The newest rows, oldest first; with --json one object a line."""
    _with_store(lambda store: _tail(store, lines, follow, as_json))


@app.command()
def verify(
    file: Annotated[Path | None, typer.Option(help="Check this exported file instead.")] = None,
    key: Annotated[Path | None, typer.Option(help="Public key (PEM) to check --file with.")] = None,
    heads: Annotated[
        Path | None, typer.Option(help="Signed heads kept elsewhere, to compare with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Whether anybody changed the log. Exit 0: no; 1: yes, and each fault names its row."""
    for path in (file, key, heads):
        if path is not None and not path.is_file():
            stop(f"there is no file {path}", EXIT_USAGE)
    if file is not None:
        report = _check_file(file, key)
    else:
        report = _with_store(lambda store: _verify(store, heads))
    if as_json:
        show({**asdict(report), "ok": report.ok}, True)
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def export(
    since: Annotated[
        datetime | None, typer.Option("--from", help="Only from this moment on (UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", help="Only before this moment (UTC).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write (default: standard output).")
    ] = None,
) -> None:
    """JSON Lines with hashes, signed heads and public key; `audit verify --file` checks them."""
    moments = [at.replace(tzinfo=at.tzinfo or UTC) if at else None for at in (since, until)]
    _with_store(lambda store: _export(store, moments[0], moments[1], out))


def _with_store(do: Callable[[Store], Awaitable[T]]) -> T:
    """What `do` gives. Exits 3 without PostgreSQL, 1 on another error."""
    from base import log
    from base.store import Store

    log.start("audit", None, "critical")  # each fault is told once, by `stop`

    async def run() -> T:
        store = await Store.open(settings().postgres, "ai-infra audit")
        try:
            return await do(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except StoreError as error:
        stop(f"the audit log cannot be read: {error}; see: ai-infra doctor", EXIT_NOT_RUNNING)
    except AIError as error:
        stop(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _tail(store: Store, lines: int, follow: bool, as_json: bool) -> None:
    from base.audit_months import SELECT

    rows = await store.fetch(
        f"{SELECT}audit_logs WHERE seq IS NOT NULL ORDER BY seq DESC LIMIT $1", lines
    )
    last = rows[0]["seq"] if rows else None
    if last is None:
        last = await store.fetchval("SELECT COALESCE(max(seq), 0) FROM audit_logs")
    _rows(rows[::-1], as_json)
    if not rows and lines and not follow and not as_json:
        typer.echo("nothing there")
    while follow:
        found = await store.fetch(
            f"{SELECT}audit_logs WHERE seq > $1 ORDER BY seq LIMIT {PAGE}", last
        )
        if found:
            _rows(found, as_json)
            last = found[-1]["seq"]
        else:
            await asyncio.sleep(FOLLOW_S)


def _rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    import orjson

    from base.audit_chain import plain

    for row in rows:
        found = plain(row)
        if as_json:
            typer.echo(orjson.dumps({**found, "hash": row["hash"]}))
            continue
        told = {name: one for name, one in found["details"].items() if one not in ("", None)}
        said = " ".join(f"{name}={one}" for name, one in told.items())
        where = f"{found['resource_type'] or ''} {found['resource_path'] or ''}"
        who = f"{found['actor_type']} {found['actor_id']}"
        head = f"{found['seq']:>7} {found['timestamp'][:19]} {found['risk_level']:<8}"
        what = f"{found['event_type']}/{found['action']} {found['outcome']}"
        typer.echo(f"{head} {short(who, 40):<24} {what:<26} {short(where, 60)}  {short(said, 200)}")
    sys.stdout.flush()


async def _verify(store: Store, copy: Path | None) -> Report:
    from base import audit_heads, audit_verify

    config = settings()
    copies = audit_heads.read(copy) if copy else []
    return await audit_verify.verify(config, store, copies=[*copies, *audit_verify.journal(config)])


def _check_file(path: Path, key: Path | None) -> Report:
    from base import audit_heads, audit_verify

    try:
        public = audit_heads.public_key(key.read_bytes()) if key else None
        with path.open("rb") as lines:
            return audit_verify.check_file(lines, public)
    except AIError as error:
        stop(str(error), EXIT_USAGE)


def _print(report: Report) -> None:
    if report.rows:
        typer.echo(f"{counted(report.rows, 'row')}, {report.first_seq} to {report.last_seq}")
    else:
        typer.echo("no rows")
    if report.signed_at is not None:
        open_rows = max(0, report.last_seq - report.signed_seq)
        signed = f"{counted(report.heads, 'signed head')}, the newest of {report.signed_at}"
        typer.echo(f"{signed} for row {report.signed_seq}; {counted(open_rows, 'row')} since")
    for note in report.notes:
        typer.echo(f"note: {note}")
    for fault in report.faults:
        where = f"row {fault.seq}" if fault.seq is not None else "log"
        name = f" ({fault.id})" if fault.id else ""
        typer.secho(f"{fault.kind.upper()} {where}{name}: {short(fault.said, 300)}", fg="red")
    if report.fault_count > len(report.faults):
        typer.echo(f"and {report.fault_count - len(report.faults)} more")
    typer.echo("verified: nothing was changed" if report.ok else "TAMPERED: see above")


async def _export(
    store: Store, since: datetime | None, until: datetime | None, out: Path | None
) -> None:
    from base.audit_export import export as lines

    config = settings()
    if out is None:
        async for line in lines(config, store, since, until):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            async for line in lines(config, store, since, until):
                file.write(line)
    except OSError as error:
        stop(f"cannot write {out}: {error.strerror}", EXIT_FAILED)
    typer.echo(f"wrote {out}")
