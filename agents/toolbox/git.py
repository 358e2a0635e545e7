"""Work with git by verbs. We build each command line; no shell, no program that is configured.

What a repository's own configuration could start or redirect is switched off, or refused where
git cannot switch it off: a push must go where the person who approved it was told.
"""

from __future__ import annotations

import os
import re
import time

from .files import Files
from .programs import Programs
from .wire import Refused, clean

TYPE_CHECKING = False  # typing itself is slow to import
if TYPE_CHECKING:
    from typing import Any

LIMIT_S = 120.0
_REMOTE = {"clone", "fetch", "pull", "push"}
_ENV = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ALLOW_PROTOCOL": "https:http",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "/bin/false",
    "GIT_EDITOR": "/bin/false",
    "GIT_SEQUENCE_EDITOR": "/bin/false",
    "GIT_EXTERNAL_DIFF": "",
    "GIT_PAGER": "cat",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
}
_CONFIG = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "core.pager=cat", "core.askPass=",
    "core.sshCommand=/bin/false", "core.editor=/bin/false", "core.alternateRefsCommand=",
    "credential.helper=", "diff.external=", "commit.gpgSign=false", "tag.gpgSign=false",
    "push.gpgSign=false", "log.showSignature=false", "gc.auto=0", "maintenance.auto=false",
    "submodule.recurse=false", "fetch.recurseSubmodules=false", "push.recurseSubmodules=no",
    "protocol.ext.allow=never", "protocol.file.allow=never", "safe.directory=*",
    "safe.bareRepository=explicit", "advice.detachedHead=false", "color.ui=false",
    "init.defaultBranch=main", "core.quotePath=false",
    "user.name=AI Infrastructure", "user.email=agent@localhost",
)  # fmt: skip
#: Settings of a repository that redirect a connection or start a program for it.
_REDIRECTS = re.compile(
    r"url\..*\.(pushinsteadof|insteadof)|remote\..*\.(vcs|proxy|uploadpack|receivepack)"
    r"|core\.gitproxy|include\.path|includeif\..*|http\.(.*\.)?(proxy|sslverify|curloptresolve)"
)
_PROGRAMS = re.compile(r"(filter\..*\.)(?:clean|smudge|process)")
_TAKES = {
    "status": (), "init": (), "add": ("paths",), "commit": ("message", "paths", "amend"),
    "log": ("ref", "paths", "stat", "limit"), "show": ("ref", "paths", "stat"),
    "diff": ("ref", "paths", "stat", "staged"), "branch": ("branch", "ref", "delete", "force"),
    "checkout": ("ref", "paths", "create", "force"), "clone": ("url", "branch", "depth"),
    "fetch": ("url", "remote", "branch", "depth"), "pull": ("url", "remote", "branch"),
    "push": ("url", "remote", "branch", "force", "delete"), "reset": ("ref", "paths", "hard"),
    "clean": ("paths", "force"),
}  # fmt: skip


class Git:
    def __init__(self, files: Files, programs: Programs) -> None:
        self._files = files
        self._programs = programs
        self._program = next(
            (path for path in ("/usr/bin/git", "/usr/local/bin/git") if os.access(path, os.X_OK)),
            None,
        )

    def run(self, given: dict[str, Any], at_s: float, number: int) -> dict[str, Any]:
        if self._program is None:
            raise Refused("git is not installed here")
        verb = given["verb"]
        at_s = min(at_s, time.monotonic() + given.get("limit_s", LIMIT_S))
        arguments = command(given)
        real = self._files.inside(given.get("folder", "."))
        here = real
        if verb in {"clone", "init"}:
            os.makedirs(os.path.dirname(real) if verb == "clone" else real, exist_ok=True)
            here = os.path.dirname(real) if verb == "clone" else real
            if verb == "clone":
                self._empty(real, given)
                arguments.append(real)
        elif not os.path.isdir(real):
            raise Refused(f"{given.get('folder', '.')}: no such folder")
        base = [self._program, "--no-pager", "--literal-pathspecs", "-C", here]
        if verb not in {"clone", "init"}:
            base += self._checked(base, verb, at_s, number)
        for setting in _CONFIG:
            base += ["-c", setting]
        env = {**_ENV, "GIT_CEILING_DIRECTORIES": os.path.dirname(self._files.workspace)}
        code, printed = self._programs.run([*base, *arguments], env, at_s, number)
        head = "" if code == 0 else f"git {verb}: exit code {code}\n"
        reply: dict[str, Any] = {"ok": code == 0, "text": head + (printed or "(no output)")}
        if verb in _REMOTE - {"push"}:
            reply["untrusted"] = given.get("url") or f"git {verb} {given.get('remote', 'origin')}"
        return reply

    def _empty(self, real: str, given: dict[str, Any]) -> None:
        if real == self._files.workspace and not given.get("folder"):
            raise Refused("git clone: name a new `folder` to clone into")
        if os.path.isdir(real) and os.listdir(real):
            raise Refused(f"git clone: {given['folder']} is there and not empty")

    def _checked(self, base: list[str], verb: str, at_s: float, number: int) -> list[str]:
        """What the repository configures: programs switched off, redirections refused."""
        argv = [*base, "-c", "safe.directory=*", "config", "--list", "--name-only"]
        code, printed = self._programs.run(argv, _ENV, at_s, number)
        names = printed.splitlines() if code == 0 else []
        if verb in _REMOTE:
            bad = [name for name in names if _REDIRECTS.fullmatch(name.lower())]
            if bad:
                raise Refused(
                    f"git {verb}: the repository's configuration has {clean(bad[0])}, which can "
                    "lead the connection elsewhere; take it out (git config --unset-all) first"
                )
        off: list[str] = []
        for name in names:
            found = _PROGRAMS.fullmatch(name)
            if found is not None:
                off += ["-c", f"{name}=", "-c", f"{found[1]}required=false"]
        return off


def command(given: dict[str, Any]) -> list[str]:
    """The arguments after `git`. Refused for fields that the verb does not take, or lacks."""
    verb = given["verb"]
    takes = ("verb", "folder", "limit_s", *_TAKES[verb])
    for name in given:
        if name not in takes:
            more = ", ".join(_TAKES[verb]) or "nothing more"
            raise Refused(f"git {verb} takes no {name!r}; it takes: folder, limit_s, {more}")
    ref, branch, paths = given.get("ref"), given.get("branch"), list(given.get("paths", ()))
    for name in ("ref", "branch", "remote"):
        _plain(name, given.get(name))
    out = _BUILD[verb](given, ref, branch)
    if verb in {"add", "commit", "log", "show", "diff", "checkout", "reset", "clean"} and paths:
        out += ["--", *paths]
    return out


def _plain(name: str, value: str | None) -> None:
    if value is not None and (value.startswith("-") or re.search(r"[\s\x00-\x1f:\\]", value)):
        raise Refused(f"git: {value[:100]!r} is no {name}")


def _where(given: dict[str, Any]) -> str:
    url = given.get("url")
    if url is None:
        return str(given.get("remote", "origin"))
    if not re.fullmatch(r"https?://[^\s@\\]+", url):
        raise Refused(f"git: {url[:200]!r} is no https address without a name or password in it")
    return str(url)


def _log(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    out = ["log", "--no-ext-diff", "--no-textconv", f"--max-count={given.get('limit', 20)}"]
    out += ["--date=iso", "--decorate=short", *_stat(given), "--end-of-options"]
    return [*out, ref or "HEAD"]


def _show(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    out = ["show", "--no-ext-diff", "--no-textconv", "--date=iso", *_stat(given)]
    return [*out, "--end-of-options", ref or "HEAD"]


def _diff(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    out = ["diff", "--no-ext-diff", "--no-textconv", *_stat(given)]
    out += ["--cached"] if given.get("staged") else []
    return [*out, "--end-of-options", *([ref] if ref else [])]


def _stat(given: dict[str, Any]) -> list[str]:
    return ["--stat"] if given.get("stat") else []


def _branch(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    if branch is None:
        return ["branch", "--all", "--verbose", "--no-abbrev"]
    if given.get("delete"):
        return ["branch", "-D" if given.get("force") else "-d", "--end-of-options", branch]
    return ["branch", "--end-of-options", branch, *([ref] if ref else [])]


def _checkout(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    if ref is None and not given.get("paths"):
        raise Refused("git checkout needs `ref`, or `paths` to restore")
    out = ["checkout", *(["--force"] if given.get("force") else [])]
    if given.get("create"):
        return [*out, "-b", str(ref)]
    return [*out, *([ref] if ref else [])] + ([] if given.get("paths") else ["--"])


def _commit(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    amend = bool(given.get("amend"))
    if not given.get("message") and not amend:
        raise Refused("git commit needs `message`")
    out = ["commit", "--no-verify", "--cleanup=strip", *(["--amend"] if amend else [])]
    return [*out, *([f"--message={given['message']}"] if given.get("message") else ["--no-edit"])]


def _clone(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    if given.get("url") is None:
        raise Refused("git clone needs `url`")
    out = ["clone", "--no-recurse-submodules", *_depth(given)]
    out += [f"--branch={branch}"] if branch else []
    return [*out, "--", _where(given)]


def _depth(given: dict[str, Any]) -> list[str]:
    return [f"--depth={given['depth']}"] if given.get("depth") else []


def _fetch(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    out = ["fetch", "--no-recurse-submodules", "--no-auto-maintenance", *_depth(given), "--"]
    return [*out, _where(given), *([branch] if branch else [])]


def _pull(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    out = ["pull", "--ff-only", "--no-rebase", "--no-recurse-submodules", "--"]
    return [*out, _where(given), *([branch] if branch else [])]


def _push(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    if branch is None:
        raise Refused("git push needs `branch`")
    out = ["push", "--no-verify", *(["--force"] if given.get("force") else [])]
    spec = f":refs/heads/{branch}" if given.get("delete") else f"refs/heads/{branch}"
    return [*out, "--", _where(given), spec]


def _reset(given: dict[str, Any], ref: str | None, branch: str | None) -> list[str]:
    out = ["reset", *(["--hard"] if given.get("hard") else []), *([ref] if ref else [])]
    if given.get("hard") and given.get("paths"):
        raise Refused("git reset takes `hard` or `paths`, not both")
    return out + ([] if given.get("paths") else ["--"])


_BUILD = {
    "status": lambda given, ref, branch: ["status", "--short", "--branch"],
    "init": lambda given, ref, branch: ["init"],
    "add": lambda given, ref, branch: ["add", *([] if given.get("paths") else ["--all"])],
    "clean": lambda given, ref, branch: ["clean", "-d", "-f" if given.get("force") else "-n"],
    "log": _log, "show": _show, "diff": _diff, "branch": _branch, "checkout": _checkout,
    "commit": _commit, "clone": _clone, "fetch": _fetch, "pull": _pull, "push": _push,
    "reset": _reset,
}  # fmt: skip
