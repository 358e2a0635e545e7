"""One SQL statement on a DuckDB or SQLite file of the workspace, or on a PostgreSQL server."""

from __future__ import annotations

import os
import time

from .files import Files
from .programs import Programs
from .web import framed
from .wire import Refused, clean

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

LIMIT_S = 60.0
ROWS = 200
_SERVER = ("postgresql://", "postgres://")
_ENDINGS = {".duckdb": "duckdb", ".ddb": "duckdb", ".db": "sqlite", ".sqlite": "sqlite",
            ".sqlite3": "sqlite"}  # fmt: skip


class Sql:
    """Read-only unless `write`, which never holds for a server."""

    def __init__(self, files: Files, programs: Programs) -> None:
        self._files = files
        self._programs = programs

    def run(self, given: dict[str, Any], at_s: float, number: int) -> dict[str, Any]:
        database, write = given.get("database"), bool(given.get("write"))
        request: dict[str, Any] = {
            "query": given["query"],
            "parameters": given.get("parameters", []),
            "write": write,
            "rows": given.get("rows", ROWS),
            "format": given.get("format", "markdown"),
            "save": given.get("save") is not None,
            "workspace": self._files.workspace,
        }
        where = None
        if database is not None and database.startswith(_SERVER):
            if write:
                raise Refused("sql: a PostgreSQL server is only read: leave `write` out")
            request |= {"engine": "postgresql", "url": database}
            where = _shown(database)
        else:
            request |= self._file(database, write)
        save = given.get("save")
        real = None if save is None else self._files.inside(save)
        at_s = min(at_s, time.monotonic() + given.get("limit_s", LIMIT_S))
        reply, body = self._programs.ask("tool_sql.mjs", request, at_s, number)
        if "refused" in reply:
            raise Refused(
                f"sql: blocked by policy: {clean(str(reply['refused']))} may not be reached"
            )
        if "error" in reply:
            raise Refused(f"sql: {clean(str(reply['error']))}")
        text = clean(str(reply["text"]))
        result: dict[str, Any] = {"ok": True, "text": text}
        if real is not None and save is not None:
            self._files.store(save, real, body)
            result["files"] = [self._files.shown(real)]
            result["text"] += f"\nall {reply['saved']:,} rows are in {self._files.shown(real)}"
        if where is not None:
            result |= {"text": framed(where, result["text"]), "untrusted": where}
        elif request["write"] and request.get("path") is not None:
            result["files"] = [*result.get("files", ()), self._files.shown(request["path"])]
        return result

    def _file(self, database: str | None, write: bool) -> dict[str, Any]:
        """Which engine, by the file's content; by its name when it is to be made."""
        if database is None:
            return {"engine": "duckdb", "path": None}
        if "://" in database:
            raise Refused("sql: `database` is a file of the workspace or a postgresql:// address")
        real = self._files.inside(database)
        try:
            with open(real, "rb") as file:
                head = file.read(16)
        except FileNotFoundError:
            head = b""
            if not write:
                raise Refused(
                    f"sql: {database}: no such file; `write` makes a new database"
                ) from None
        except OSError as error:
            raise Refused(f"sql: {database}: {error.strerror}") from error
        if head.startswith(b"SQLite format 3\0"):
            return {"engine": "sqlite", "path": real}
        if head[8:12] == b"DUCK":
            return {"engine": "duckdb", "path": real}
        ending = os.path.splitext(real)[1].lower()
        if head or ending not in _ENDINGS:
            raise Refused(
                f"sql: {database} is neither a DuckDB nor a SQLite database; for CSV, Parquet and "
                "JSON leave `database` out and name the file after FROM"
            )
        return {"engine": _ENDINGS[ending], "path": real}


def _shown(url: str) -> str:
    """The address without its password."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return f"postgresql://{parts.hostname}:{parts.port or 5432}{parts.path}"
    except ValueError as error:
        raise Refused(f"sql: that is no postgresql:// address: {error}") from error
