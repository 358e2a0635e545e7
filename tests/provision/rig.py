"""A broker process of its own, people and agents who ask it, and approvals in the record."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from present import wait_for

from base.approvals import Approval, ApprovalRequest, ApprovalStatus
from base.broker import call
from base.deadline import Deadline
from base.settings import Settings
from base.store import Store
from base.verbs import TOOL, Ask, By, Said, words
from supervisor import docket

REPO = Path(__file__).resolve().parents[2]
NOBODY = pwd.getpwnam("nobody")
ME = pwd.getpwuid(os.geteuid()).pw_name

two_users = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="only root can become another user"
)


@dataclass(slots=True, kw_only=True)
class Rig:
    """Where one broker is. `start` and `kill` as often as the test likes. As root it can write
    `folder` and `others` alone, whatever a verb takes for its place.
    """

    folder: Path
    redis: str
    dsn: str
    others: tuple[Path, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "broker.sock"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "broker.toml"

    @property
    def settings(self) -> Settings:
        return Settings(
            home=self.folder / "home", redis_url=self.redis, postgres_dsn=self.dsn,
            broker=self.socket,
        )  # fmt: skip

    @property
    def did(self) -> list[str]:
        """What the played verbs did."""
        path = self.state / "did"
        return path.read_text().splitlines() if path.exists() else []

    def rules(
        self,
        text: str = "",
        *,
        people: str = ME,
        agents: str = "nobody",
        inbox: Path | None = None,
    ) -> None:
        peers = f'[peers]\npeople = ["{people}"]\nagents = ["{agents}"]\n'
        box = f'[box]\nstate = "{self.state}"\nprograms = ["{self.folder}/bin"]\n'
        for name in ("nginx", "www", "letsencrypt"):
            box += f'{name} = "{self.folder}/{name}"\n'
        box += "" if inbox is None else f'inbox = "{inbox}"\n'
        self.config.write_text(f'{text}\n{peers}{box}docker = "unix://{self.folder}/docker.sock"\n')

    def start(self, *, wait: bool = True, played: bool = True) -> None:
        group = {"AI_INFRA_BROKER_GROUP": "nogroup"} if os.geteuid() == 0 else {}
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPO),
            "AI_INFRA_HOME": str(self.folder / "home"),
            "AI_INFRA_BROKER": str(self.socket),
            "AI_INFRA_BROKER_CONFIG": str(self.config),
            "AI_INFRA_REDIS_URL": self.redis,
            "AI_INFRA_POSTGRES_DSN": self.dsn,
            "AI_INFRA_DRAIN_S": "1",
            **group,
        }
        real = ["-m", "provision"]
        what = [str(Path(__file__).with_name("played.py"))] if played else real
        line = [sys.executable, *what]
        if os.geteuid() == 0:
            walled = [sys.executable, str(Path(__file__).with_name("walled.py"))]
            line = [*walled, *map(str, (self.folder, *self.others)), "--", *line]
        self.process = subprocess.Popen(line, cwd=REPO, env=environment, stderr=subprocess.PIPE)
        if wait:
            wait_for("the broker", self._listens, 60)

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            assert self.process.stderr is not None
            pytest.fail(f"the broker died: {self.process.stderr.read().decode()}")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.socket))
            return (self.socket.stat().st_mode & 0o777) == 0o660
        return False

    def end(self) -> int:
        """Ask it to end; its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(20)
        self.process = None
        return code

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)
        self.process = None

    # Asking ----------------------------------------------------------------------------------

    async def ask(
        self, verb: str, request: Ask, by: By = By(role="admin"), *, dry_run: bool = False,
        steps: list[str] | None = None,
    ) -> Said:  # fmt: skip
        """As the product asks, from this process."""

        async def tell(step: str) -> None:
            if steps is not None:
                steps.append(step)

        return await call(
            self.socket, verb, request, by=by, dry_run=dry_run, deadline=Deadline.after(30),
            tell=tell,
        )  # fmt: skip

    def lines(self, raw: bytes, *, uid: int | None = None) -> list[dict[str, Any]]:
        """What is said to raw bytes; `uid`: of another user's process."""
        if uid is None:
            return _exchange(self.socket, raw)
        ours, theirs = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.setgroups([])
                os.setgid(NOBODY.pw_gid)
                os.setuid(uid)
                os.write(theirs, json.dumps(_exchange(self.socket, raw)).encode())
            except OSError as error:
                os.write(theirs, json.dumps([{"refused": error.strerror}]).encode())
            finally:
                os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as answer:
            text = answer.read()
        os.waitpid(child, 0)
        found: list[dict[str, Any]] = json.loads(text)
        return found

    def order(
        self, verb: str, request: dict[str, Any], *, uid: int | None = None, dry_run: bool = False,
        **by: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """The last word about an order as anybody could write it."""
        line = {"id": "o1", "verb": verb, "request": request, "dry_run": dry_run, "by": by}
        return self.lines(json.dumps(line).encode() + b"\n", uid=uid)[-1]


def _exchange(path: Path, raw: bytes) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(str(path))
        line.sendall(raw)
        with line.makefile("rb") as answers, contextlib.suppress(ConnectionResetError):
            return [json.loads(one) for one in answers]
        return []


@contextlib.contextmanager
def made(redis: str, dsn: str) -> Iterator[Rig]:
    """A folder that others may enter, with a broker in it that is ended at last."""
    folder = Path(tempfile.mkdtemp(prefix="ai-b-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "bin").mkdir()
    rig = Rig(folder=folder, redis=redis, dsn=dsn)
    try:
        yield rig
    finally:
        if rig.process is not None:
            rig.kill()
        shutil.rmtree(folder, ignore_errors=True)


class Record:
    """Users, tasks and approvals as the supervisor writes them."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def user(self, role: str = "user", *, active: bool = True) -> str:
        found: str = await self.store.fetchval(
            "INSERT INTO users (email, role, is_active) VALUES ($1, $2, $3) RETURNING id::text",
            *(f"{uuid.uuid4().hex[:12]}@example.org", role, active),
        )
        return found

    async def task(self, user_id: str) -> str:
        found: str = await self.store.fetchval(
            "INSERT INTO tasks (user_id, assigned_agent, type, input, status) VALUES"
            " ($1, 'infra', 't', '{}', 'in_progress') RETURNING id::text",
            user_id,
        )
        return found

    async def approval(
        self, verb: str, request: Ask, by: By, *, decided_by: str, via: str = "api",
        approve: bool = True, expires_s: float = 60, consent: bool = True, **changed: Any,
    ) -> Approval:  # fmt: skip
        """A request of an agent, and a decision about it; `changed`: fields of the request;
        consent: the portal has the person's own yes.
        """
        assert None not in {by.task_id, by.agent, by.user_id}
        asked = ApprovalRequest(
            **{
                "task_id": by.task_id,
                "root_id": by.task_id,
                "epoch": 1,
                "agent": by.agent,
                "user_id": by.user_id,
                "call_id": uuid.uuid4().hex,
                "kind": "command",
                "tool": TOOL,
                "argv": words(verb, request),
                "level": 3,
            }
            | changed
        )
        status = ApprovalStatus.APPROVED if approve else ApprovalStatus.DENIED
        async with self.store.transaction() as tx:
            found = await docket.add(tx, asked, "high", "it wants to", 60)
            done = await docket.decide(tx, found.id, status, decided_by, via, "", expires_s)
        assert done is not None
        if consent and approve and via != "policy":
            await self.store.execute(
                "INSERT INTO consents (approval_id, user_id, binding) SELECT $1, id, $2"
                " FROM users WHERE id::text = $3",
                *(found.id, found.binding, decided_by),
            )
        return done
