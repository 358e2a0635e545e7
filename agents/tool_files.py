"""The tools that read and change files of the workspace."""

from __future__ import annotations

from agents.tool_shape import FILE, boolean, integer, string, tool

_FILE = string(FILE)
_FOLDER = string("Folder or file to search, relative to the workspace; default: all of it.")

PATCH = """\
Change several files at once: all of it or, when any part does not fit, nothing. Takes a unified \
diff (as from `git diff`) or this envelope:
*** Begin Patch
*** Update File: src/a.py
*** Move to: src/b.py        (only to rename it)
@@ def main():               (optional: a line that the hunk comes after)
 a line that stays
-a line that goes
+a line that comes
*** Add File: new.txt
+every line with a plus
*** Delete File: old.txt
*** End Patch
Lines that stay and go must be in the file as given; line numbers of a diff are only a hint."""

FILES = (
    tool(
        "read",
        "sandbox",
        0,
        "Read a text file with line numbers.",
        {"path": _FILE},
        {
            "offset": integer("First line to show, from 1; default 1.", 1, 1_000_000_000),
            "limit": integer("How many lines to show; default 2000.", 1, 100_000),
        },
    ),
    tool(
        "write",
        "sandbox",
        1,
        "Write a text file whole; makes missing folders and replaces an existing file.",
        {"path": _FILE, "content": string("The file's whole text.", empty=True)},
    ),
    tool(
        "edit",
        "sandbox",
        1,
        "Replace text in a file. `old` must be found exactly once, byte for byte and "
        "without line numbers, unless `replace_all` is true.",
        {
            "path": _FILE,
            "old": string("The text that is there now."),
            "new": string("The text to put in its place.", empty=True),
        },
        {"replace_all": boolean("Replace every place.")},
    ),
    tool("patch", "sandbox", 1, PATCH, {"patch": string("The diff or the envelope.")}),
    tool(
        "glob",
        "sandbox",
        0,
        "List files by name pattern such as `src/**/*.{ts,tsx}`, newest first; a pattern "
        "without a slash, such as `*.py`, matches in every folder.",
        {"pattern": string("Pattern of paths; ** matches any folders.")},
        {"path": _FOLDER},
    ),
    tool(
        "grep",
        "sandbox",
        0,
        "Search file contents by regular expression; answers path:line:text.",
        {"pattern": string("Regular expression.")},
        {
            "path": _FOLDER,
            "glob": string("Only files whose name matches, such as `*.py`."),
            "ignore_case": boolean("Ignore upper and lower."),
        },
    ),
)
