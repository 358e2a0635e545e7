"""Which folder may be a task's workspace, and making the product's own ones."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from agents.sandbox import SCRATCH, Account, blocked
from base.errors import SandboxError
from base.settings import Settings

#: Run by a person's shell, editor or tools when that person works in the folder.
START_FILES = {
    ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".profile", ".zshrc", ".zshenv",
    ".zprofile", ".zlogin", ".gitconfig", ".gitmodules", ".envrc", ".ripgreprc", ".mcp.json",
    ".vscode", ".idea", ".claude",
}  # fmt: skip
#: In a repository's folder it names another one, whose configuration counts.
BEND = "commondir"
#: How deep and how far repositories are looked for below a workspace.
DEPTH_MAX, FOLDERS_MAX = 3, 2000
SYSTEM = ("/usr", "/etc", "/proc", "/dev", "/sys", "/boot", "/bin", "/sbin", "/lib", "/lib64")


def refusal(workspace: Path, settings: Settings) -> str | None:
    """Why a folder cannot be a workspace; None when it can. `workspace` is a real path."""
    own = Path(os.path.realpath(settings.workspaces))
    home, run = (Path(os.path.realpath(path)) for path in (settings.home, settings.run))
    if any(workspace == Path(path) for path in ("/", *SCRATCH, "/var", "/var/lib", "/srv")):
        return f"{workspace} is a folder of the system"
    if any(workspace.is_relative_to(path) for path in SYSTEM):
        return f"{workspace} is part of the system"
    for name, kept in (("state", home), ("workspaces", own), ("sockets", run)):
        if kept.is_relative_to(workspace):
            return f"{workspace} holds the product's own {name}"
    if workspace.is_relative_to(own):
        few = len(workspace.relative_to(own).parts) < 2
        return f"{workspace} holds all workspaces of a user" if few else None
    for kept in (home, run):
        if workspace.is_relative_to(kept):
            return f"{workspace} is part of the product's own state"
    return None


def prepare(workspace: Path, settings: Settings, who: Account) -> Path:
    """The workspace's real path. One of the product's own is made, for the hands alone.

    SandboxError when it cannot be one, or cannot be reached. Safe to call again.
    """
    asked = Path(os.path.abspath(workspace))
    real = Path(os.path.realpath(workspace))
    own = Path(os.path.realpath(settings.workspaces))
    inside = [base for base in (settings.workspaces, own) if asked.is_relative_to(base)]
    straight = own / asked.relative_to(inside[0]) if inside else asked
    if real != straight and (inside or real.is_relative_to(own)):
        raise SandboxError(f"the workspace {asked} leads to {real}: no link may do that")
    reason = refusal(real, settings)
    if reason is not None:
        raise SandboxError(f"no workspace: {reason}; give a folder made for the task")
    if real.is_relative_to(own) and len(real.relative_to(own).parts) == 2:
        _make(own, real, who)
    if not real.is_dir():
        raise SandboxError(f"no workspace: there is no folder {real}")
    folder = blocked(real / "x", who)
    if folder is not None and folder != real:
        raise SandboxError(
            f"{who.name} cannot reach the workspace {real}: "
            f"setfacl -m u:{who.name}:x {folder}, or give another folder"
        )
    return real


def frozen(workspace: Path, settings: Settings, who: Account) -> tuple[str, ...]:
    """What the hands may not change in a folder that a person gave: what would run as that person.

    The hooks and the configuration of the repositories in it, and start files of shells and
    editors, as far as they are there. Empty for the product's own workspaces while the hands have
    an account of their own: git runs nothing of a folder that belongs to another.
    """
    if who.switch and workspace.is_relative_to(os.path.realpath(settings.workspaces)):
        return ()
    found: list[str] = []
    left = FOLDERS_MAX
    folders = [(str(workspace), 0)]
    while folders and left:
        folder, depth = folders.pop()
        left -= 1
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name == ".git":
                found += _repository(entry)
            elif entry.name in START_FILES and not entry.is_symlink():
                found.append(entry.path)
            elif depth < DEPTH_MAX and entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, depth + 1))
    return tuple(found)


def planted(kept: Iterable[str]) -> list[str]:
    """Files that came into the repositories of `frozen` since, and make git read other hooks and
    another configuration: no mount keeps away what is not there.
    """
    before = set(kept)
    folders = [os.path.dirname(path) for path in before if os.path.basename(path) == "config"]
    paths = sorted(os.path.join(folder, BEND) for folder in folders)
    return [path for path in paths if path not in before and os.path.lexists(path)]


def _repository(entry: os.DirEntry[str]) -> list[str]:
    """Hooks and configuration of a repository; a file `.git` points to one elsewhere."""
    if not entry.is_dir(follow_symlinks=False):
        return [] if entry.is_symlink() else [entry.path]
    folders = [entry.path]
    for inner in ("modules", "worktrees"):
        walk = os.walk(os.path.join(entry.path, inner))
        for folder, names, files in itertools.islice(walk, FOLDERS_MAX):
            if "HEAD" in files:
                folders.append(folder)
                names[:] = [name for name in names if name in {"modules", "worktrees"}]
    parts = ("hooks", "config", "config.worktree", BEND)
    paths = [os.path.join(folder, part) for folder in folders for part in parts]
    return [path for path in paths if os.path.exists(path) and not os.path.islink(path)]


def ownership(workspace: str, who: Account) -> str:
    """The message for a workspace that the hands cannot write."""
    return (
        f"{who.name} cannot read and write the workspace {workspace}: "
        f"setfacl -R -m u:{who.name}:rwX -m d:u:{who.name}:rwX {workspace} "
        f"(or chown -R {who.name}: {workspace})"
    )


def _make(own: Path, real: Path, who: Account) -> None:
    """`own/<user>/<name>`: the parents are ours and let others only pass."""
    try:
        for folder in (own, real.parent):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        real.mkdir(mode=0o700, exist_ok=True)
        if who.switch:
            for folder in (own, real.parent):
                folder.chmod(0o711)
            if real.stat().st_uid != who.uid:
                os.chown(real, who.uid, who.gid, follow_symlinks=False)
    except OSError as error:
        raise SandboxError(
            f"cannot make the workspace {real}: {error.strerror} ({error.filename})"
        ) from error
