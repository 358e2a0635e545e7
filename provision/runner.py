"""`python -m provision.runner [--vars FILE] [--check] [--tags A,B] [--playbook NAME] [--json]`.

Runs the ansible project on this machine. The only file that knows ansible-runner. One line a
role on the screen, everything in the log. Exit code 0: all of it holds now.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import yaml

from base.plural import counted

PROJECT = Path(__file__).parent / "project"
LOG = Path("/var/log/ai-infra/install.log")
KEY = Path("/etc/ai-infra/anthropic-api-key.new")
#: Variables that are no role's, with what becomes of them.
API_KEY = "anthropic_api_key"
FAILED = {"runner_on_failed", "runner_on_unreachable"}
Say = Callable[[str], None]


@dataclass(slots=True, kw_only=True)  # mutable: it is counted up
class Run:
    """What came of it so far. `changed` and `failed` name tasks; roles in the order they ran."""

    ok: bool = False
    count: Counter[str] = field(default_factory=Counter)
    changed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    roles: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "changed": len(self.changed),
            "tasks": sum(self.count.values()),
            "changes": self.changed,
            "failures": self.failed,
            "notes": self.told,
            "roles": list(self.roles),
        }


class Listener:
    """Takes ansible's events: counts, writes the log, says one line for each role."""

    def __init__(self, out: TextIO, say: Say, *, check: bool) -> None:
        self.run = Run()
        self._out, self._say, self._check = out, say, check
        self._role = ""
        self.ignored: list[str] = []

    def __call__(self, event: Mapping[str, Any]) -> bool:
        if text := event.get("stdout"):
            self._out.write(text + "\n")
            self._out.flush()
        data: Mapping[str, Any] = event.get("event_data") or {}
        kind = str(event.get("event"))
        role, task = str(data.get("role") or ""), str(data.get("task") or "")
        if kind == "playbook_on_task_start" and role and role != self._role:
            self.end_role()
            self._role = role
            self.run.roles.setdefault(role, 0)
        if kind == "runner_on_ok":
            self.run.count["ok"] += 1
            result = data.get("res") or {}
            if result.get("changed"):
                self.run.changed.append(f"{role}: {task}" if role else task)
                self.run.roles[role] = self.run.roles.get(role, 0) + 1
            if data.get("task_action") == "ansible.builtin.debug" and "msg" in result:
                self.run.told.append(str(result["msg"]))
        elif kind in FAILED:
            result = data.get("res") or {}
            reason = str(result.get("stderr") or result.get("msg") or "failed").strip()
            told = self.ignored if data.get("ignore_errors") else self.run.failed
            told.append(f"{role}: {task}: {reason}"[:2000])
        return False  # nothing of it is kept beside the log

    def end_role(self) -> None:
        """Say what the role before this one came to."""
        if self._role:
            count = self.run.roles[self._role]
            word = "would change" if self._check else "changed"
            self._say(f"{self._role:<11} {f'{count} {word}' if count else 'as it should be'}")
        self._role = ""


def play(
    playbook: str, variables: Mapping[str, Any], *, check: bool, tags: str, log: Path, say: Say
) -> Run:
    """Run a playbook of the project here. Variables never reach a command line or the log's head.

    The log is appended to, mode 0640. Twice is safe, and so is being killed.
    """
    import ansible_runner

    log.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix="ai-provision-"))
    number = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        with os.fdopen(number, "a") as out:
            listener = Listener(out, say, check=check)
            done = ansible_runner.run(
                private_data_dir=str(private),
                project_dir=str(PROJECT),
                playbook=playbook,
                inventory=str(PROJECT / "inventory"),
                extravars=dict(variables),
                cmdline="--check --diff" if check else "--diff",
                tags=tags or None,
                event_handler=listener,
                quiet=True,
                envvars={
                    "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
                    "ANSIBLE_NOCOLOR": "1",
                    "ANSIBLE_HOME": str(private / "home"),
                    "ANSIBLE_LOCAL_TEMP": str(private / "tmp"),
                    "ANSIBLE_REMOTE_TEMP": str(private / "tmp"),
                    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
                    "LC_ALL": "C.UTF-8",
                },
            )
        listener.end_role()
        listener.run.ok = done.status == "successful"
        # A task that failed and was rescued has not failed.
        if listener.run.ok:
            listener.run.failed.clear()
        # Only looking ahead ignores anything; ansible also does with a condition that is none.
        if listener.ignored and not check:
            listener.run.ok = False
            listener.run.failed += listener.ignored
        return listener.run
    finally:
        shutil.rmtree(private, ignore_errors=True)


def read(path: Path | None) -> dict[str, Any]:
    """The owner's variables, a YAML or JSON mapping. Raises ValueError for what is none."""
    if path is None:
        return {}
    found = yaml.safe_load(path.read_text())
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{path} is no list of `name: value` lines")
    return found


def unknown(variables: Mapping[str, Any]) -> list[str]:
    """Names that no role knows: a slip of the pen would else change nothing, silently."""
    known = {"ai_release", "uninstall_purge", API_KEY}
    for path in (PROJECT / "vars" / "all.yml", *PROJECT.glob("roles/*/defaults/main.yml")):
        known |= set(yaml.safe_load(path.read_text()) or {})
    return sorted(set(variables) - known)


def keep_key(variables: dict[str, Any]) -> None:
    """Lay the API key where the role `app` takes it from, and out of ansible's sight."""
    if key := str(variables.pop(API_KEY, "") or "").strip():
        KEY.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(KEY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(number, "w") as out:
            out.write(key + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m provision.runner", description=__doc__)
    parser.add_argument("--vars", type=Path, help="a file with variables")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--playbook", default="site.yml", choices=["site.yml", "uninstall.yml"])
    parser.add_argument("--tags", default="")
    parser.add_argument("--check", action="store_true", help="change nothing, say what would")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--log", type=Path, default=LOG)
    given = parser.parse_args()
    out = sys.stderr if given.json else sys.stdout
    try:
        variables = read(given.vars) | dict(one.split("=", 1) for one in given.set)
        if strange := unknown(variables):
            raise ValueError(f"no such variables: {', '.join(strange)}")
    except (OSError, ValueError, yaml.YAMLError) as error:
        print(f"provision: {error}", file=sys.stderr)
        return 2
    if not given.check:
        keep_key(variables)
    variables.pop(API_KEY, None)

    def say(text: str) -> None:
        print(f"      {text}", file=out, flush=True)

    done = play(
        given.playbook, variables, check=given.check, tags=given.tags, log=given.log, say=say
    )
    if given.json:
        print(json.dumps(done.summary(), indent=2))
    else:
        _tell(done, given.log, check=given.check)
    return 0 if done.ok else 1


def _tell(done: Run, log: Path, *, check: bool) -> None:
    for note in done.told:
        print(f"      note: {note}")
    for fault in done.failed:
        print(f"      failed: {fault}", file=sys.stderr)
    for change in done.changed if check else ():
        print(f"      would change: {change}")
    word = "would be changed" if check else "changed"
    tasks = sum(done.count.values())
    print(f"      {counted(tasks, 'task')}, {word}={len(done.changed)}; the whole log is in {log}")


if __name__ == "__main__":
    sys.exit(main())
