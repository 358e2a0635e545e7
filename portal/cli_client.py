"""The command's line to the portal: one HTTP client, errors as one line and an exit code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import httpx
import typer

from base.errors import AIError, SettingsError
from base.settings import Settings, load
from base.terminal import UNSAFE, neutral, short

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
REQUEST_TIMEOUT_S = 30.0


def settings() -> Settings:
    """The settings, or exit 2 with every fault of them."""
    try:
        return load()
    except SettingsError as error:
        stop(str(error), EXIT_USAGE)


def stop(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """One line on stderr, then exit."""
    typer.echo(f"ai-infra: {neutral(message)}", err=True)
    raise typer.Exit(code)


def token(config: Settings) -> str:
    """A short-lived token of the local owner. Exit 3 when this home was never started."""
    from portal.auth import local_token

    if not (config.secrets / "jwt-secret").is_file():
        stop(f"not running (nothing in {config.home}); start it with: ai-infra up", 3)
    try:
        return local_token(config)
    except (OSError, AIError) as error:
        stop(f"cannot sign in: {error}", EXIT_NOT_RUNNING)


def call(
    method: str,
    path: str,
    *,
    body: dict[str, Any] | None = None,
    params: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    files: list[tuple[str, tuple[str, Any]]] | None = None,
    patience_s: float = REQUEST_TIMEOUT_S,
) -> Any:
    """The decoded answer of one API call. Exits 3 when nobody listens, 1 or 2 on a refusal."""
    config = settings()
    try:
        answer = httpx.request(
            method,
            f"http://{config.host}:{config.port}{path}",
            json=body,
            files=files,
            params={key: value for key, value in (params or {}).items() if value is not None},
            headers={"Authorization": f"Bearer {token(config)}", **(headers or {})},
            timeout=patience_s,
            trust_env=False,
            verify=False,  # plain HTTP to this machine: certificates would be loaded for nothing
        )
    except httpx.ConnectError:
        where = f"{config.host}:{config.port}"
        stop(f"not running (nothing listens on {where}); start it with: ai-infra up", 3)
    except httpx.HTTPError as error:
        stop(f"the portal did not answer: {error}; see: ai-infra doctor", EXIT_NOT_RUNNING)
    return unwrap(answer)


def unwrap(answer: httpx.Response) -> Any:
    """The JSON of a good answer; a problem document becomes one line and an exit code."""
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        problem = answer.json()
    except json.JSONDecodeError:
        stop(f"the portal answered {answer.status_code}: {answer.text[:200]}")
    said = problem.get("detail") or problem.get("title") or f"status {answer.status_code}"
    faults = "; ".join(f"{one['at']}: {one['message']}" for one in problem.get("faults", ()))
    code = EXIT_USAGE if answer.status_code in {400, 404, 413, 422} else EXIT_FAILED
    stop(f"{said}{': ' + faults if faults and faults not in said else ''}", code)


def show(value: Any, as_json: bool, columns: Sequence[tuple[str, str]] = ()) -> None:
    """Print `value` as JSON, or a list of objects as a table of (key, heading) columns."""
    if as_json:
        text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
        # The same JSON to a program, and harmless to a terminal.
        sys.stdout.write(UNSAFE.sub(_escaped, text) + "\n")
        return
    rows = [[_cell(row.get(key)) for key, _ in columns] for row in value]
    if not rows:
        typer.echo("nothing there")
        return
    heads = [heading for _, heading in columns]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for index, row in enumerate([heads, *rows]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.secho(line.rstrip(), bold=index == 0)


def _escaped(match: re.Match[str]) -> str:
    """A character as JSON spells it in ASCII, beyond U+FFFF as two halves."""
    return json.dumps(match[0])[1:-1]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return short(str(value), 72)
