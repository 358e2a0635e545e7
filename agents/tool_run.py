"""The tools that run programs in the sandbox: shell, jobs, python, git, sql."""

from __future__ import annotations

from typing import Any

from agents.tool_need import host_of
from agents.tool_shape import Need, boolean, choice, integer, limit_s, string, strings, tool

GIT_VERBS = {
    "status": 1, "log": 1, "diff": 1, "show": 1, "branch": 1, "checkout": 1, "add": 1,
    "commit": 1, "init": 1, "clone": 1, "fetch": 1, "pull": 1, "reset": 1, "clean": 1, "push": 3,
}  # fmt: skip
SQL_ROWS = 200
SQL_ROWS_MAX = 10_000


def git_need(given: dict[str, Any]) -> Need:
    """push leaves the box; force, deleting a branch, hard reset and clean lose work."""
    verb = str(given.get("verb"))
    rank = GIT_VERBS.get(verb, 3)
    host = host_of(given.get("url"))
    force, delete = bool(given.get("force")), bool(given.get("delete"))
    if verb == "push":
        why = "git push publishes work outside this box"
        if force or delete:
            what = "overwrites" if force else "deletes"
            return Need(rank=rank, why=f"{why} and {what} a branch there", destructive=True)
        return Need(rank=rank, why=why, host=host)
    lost = {
        "branch": delete and "git branch with delete removes a branch",
        "checkout": (force or bool(given.get("paths"))) and "git checkout discards changes",
        "reset": bool(given.get("hard")) and "git reset with hard discards changes",
        "clean": force and "git clean deletes files that git does not know",
    }.get(verb)
    if lost:
        return Need(rank=rank, why=str(lost), destructive=True)
    return Need(rank=rank, why=f"git {verb} runs in the workspace", host=host)


def sql_need(given: dict[str, Any]) -> Need:
    host = host_of(given.get("database"))
    what = "writes" if given.get("write") else "reads"
    return Need(rank=1, why=f"sql {what} a database", host=host)


RUN = (
    tool(
        "shell",
        "sandbox",
        1,
        "Run a bash command in the workspace; answers its exit code and output (stdout and stderr "
        "together). The current folder and exported variables are kept for the next call. There "
        "is no terminal; only the workspace and /tmp can be written, and the network reaches only "
        "the hosts that your level allows. For a server or a long run set `background`: it answers "
        "a job number for the tool `jobs` and runs on until it ends, is killed, or the task ends.",
        {"command": string("What bash shall run; may have many lines.")},
        {
            "limit_s": limit_s(),
            "background": boolean("Start it and answer at once; `limit_s` then has no default."),
        },
    ),
    tool(
        "jobs",
        "sandbox",
        1,
        "Look after the commands started with `background`: `list` them, take a job's `output` "
        "since the last look, or `kill` it with all it started.",
        {"verb": choice("What to do.", ("list", "output", "kill"))},
        {
            "job": integer("The job's number; for output and kill.", 1, 1_000_000),
            "wait_s": integer(
                "For output: wait so long for the job to end; default 0: look and answer.", 0, 600
            ),
        },
    ),
    tool(
        "python",
        "sandbox",
        1,
        "Run Python code with python3 in the workspace, as a program of its own: print what you "
        "want to see. A folder .venv in the workspace is used when there is one.",
        {"code": string("The program.")},
        {"limit_s": limit_s()},
    ),
    tool(
        "git",
        "sandbox",
        1,
        "Work with a git repository: status, log, diff, show, branch (list; create or delete with "
        "`branch`), checkout (`ref`, or `paths` to restore files), add, commit, init, clone, "
        "fetch, pull (fast-forward only), reset, clean, push. Only https remotes. Hooks and "
        "configured programs do not run. push, and whatever throws work away, needs an approval.",
        {"verb": choice("What to do.", GIT_VERBS)},
        {
            "folder": string("The repository, or where to clone or init; default: workspace."),
            "url": string("For clone; for fetch, pull and push instead of `remote`. https only."),
            "remote": string("For fetch, pull and push; default origin."),
            "branch": string("For branch: to create or delete; for push and pull: which one."),
            "ref": string("Commit, branch or range, such as HEAD~2 or main..HEAD."),
            "paths": strings("Only these files; for add: what to add (default: everything).", 500),
            "message": string("For commit."),
            "create": boolean("For checkout: make the branch `ref` first."),
            "staged": boolean("For diff: what is added but not committed."),
            "stat": boolean("For diff, show and log: only which files changed, and how much."),
            "amend": boolean("For commit: replace the last one."),
            "depth": integer("For clone and fetch: only so many commits.", 1, 100_000),
            "limit": integer("For log: how many commits; default 20.", 1, 500),
            "delete": boolean("For branch and push: delete `branch`. Needs an approval."),
            "hard": boolean("For reset: discard the changes as well. Needs an approval."),
            "force": boolean("For push, checkout and clean: do it even if work is lost by it."),
            "limit_s": limit_s(),
        },
        verbs=GIT_VERBS,
        need=git_need,
    ),
    tool(
        "sql",
        "sandbox",
        1,
        "Run one SQL statement and see its rows. `database` is a DuckDB or SQLite file of the "
        "workspace (by its content; a new one by its ending: .duckdb, .db, .sqlite), or a "
        "postgresql:// URL, which is always read-only. Without it an empty DuckDB in memory runs "
        "the statement: FROM 'data/sales.csv', read_parquet('x/*.parquet') and read_json read "
        "files of the workspace. Read-only unless `write`.",
        {"query": string("One statement.")},
        {
            "database": string("File in the workspace, or postgresql:// URL."),
            "parameters": {
                "type": "array",
                "maxItems": 100,
                "items": {"type": ["string", "number", "boolean", "null"]},
                "description": "Values for ? (SQLite, DuckDB) or $1 (DuckDB, PostgreSQL).",
            },
            "write": boolean("Allow changes to a database file of the workspace."),
            "rows": integer(f"Rows to show; default {SQL_ROWS}.", 1, SQL_ROWS_MAX),
            "format": choice("How to show them; default markdown.", ("markdown", "csv")),
            "save": string("Write all rows as CSV to this file of the workspace as well."),
            "limit_s": limit_s(60, 600),
        },
        need=sql_need,
    ),
)
