"""`ai-infra ask`: send a task, follow it over the WebSocket, print the answer.

The answer goes to standard output, progress to standard error, so that a pipe gets the answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import typer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from base.messages import Status
from base.plural import counted
from base.settings import Settings
from base.terminal import neutral, short
from portal.cli_approvals import asking
from portal.cli_client import EXIT_FAILED, EXIT_NOT_RUNNING, call, show, stop, token

RECONNECT_S = 60.0
QUIET_CHECK_S = 5.0
ENDED = {status.value for status in Status if status.ended}
MARKS = {"passed": "✓", "failed": "✗", "unmeasured": "?"}


def piped() -> str:
    """Standard input as it came: no line ending is changed. Exits 2 for what is no UTF-8."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        stop(f"standard input is no UTF-8 text: {error}", 2)


def prepare(text: str, *, conversation: str | None, **fields: Any) -> dict[str, Any]:
    """The request to post: `conversation` (a new one if None) and `body`."""
    if not text.strip():
        stop("there is nothing to ask: the text is empty", 2)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of the command line that were no UTF-8
        stop(f"the text is no UTF-8: the byte at position {error.start}", 2)
    body = {"content": text, **{key: value for key, value in fields.items() if value is not None}}
    if conversation is None:
        title = short(text, 60)
        conversation = call("POST", "/api/conversations", body={"title": title})["id"]
    return {"conversation": conversation, "body": body}


def send(request: dict[str, Any]) -> dict[str, Any]:
    """Post it; the accepted ids."""
    path = f"/api/conversations/{request['conversation']}/messages"
    accepted: dict[str, Any] = call("POST", path, body=request["body"])
    return accepted


def follow(config: Settings, request: dict[str, Any], as_json: bool) -> int:
    """Send and stream until the task ends. 0 when it completed, 1 when not, 3: portal gone."""
    seen = Seen(quiet=as_json, free=config.rehearsal)
    try:
        reached = asyncio.run(_watch(config, request, seen))
    except KeyboardInterrupt:
        if seen.task_id:
            typer.echo(f"\nit goes on without you: ai-infra tasks show {seen.task_id}", err=True)
        return 130
    if not reached:
        typer.echo("ai-infra: lost the portal; see: ai-infra status", err=True)
        return EXIT_NOT_RUNNING
    whole = call("GET", f"/api/tasks/{seen.task_id}")
    completed = whole["task"]["status"] == Status.COMPLETED
    if as_json:
        show(whole, True)
    else:
        seen.finish(whole)
    return 0 if completed else EXIT_FAILED


@dataclass(slots=True)  # mutable: what has been printed so far
class Seen:
    """Turns server messages into lines. `printed` is how much of the answer is on the screen."""

    quiet: bool
    free: bool = False
    task_id: str = ""
    answer_id: str = ""
    cursor: str | None = None
    attempt: int = 0
    printed: str = ""
    told: set[str] = field(default_factory=set)

    def take(self, frame: dict[str, Any]) -> bool:
        """Digest one server message; True when the task has ended."""
        self.cursor = frame.get("event_id") or self.cursor
        payload = frame["payload"]
        if payload.get("root_id") != self.task_id and payload.get("task_id") != self.task_id:
            return False
        if frame["type"] == "message_chunk" and payload["message_id"] == self.answer_id:
            self._chunk(payload)
        elif frame["type"] == "task_update":
            return self._update(payload)
        return False

    def finish(self, whole: dict[str, Any]) -> None:
        """What is still missing on the screen once the task has ended."""
        task = whole["task"]
        answer = neutral(((task["output"] or {}).get("answer") or "").strip())
        if answer and self.printed.strip() != answer:
            sys.stdout.write(("\n\n" if self.printed else "") + answer)
            self.printed = answer
        sys.stdout.write("\n" if self.printed and not self.printed.endswith("\n") else "")
        sys.stdout.flush()
        if task["status"] != Status.COMPLETED:
            self._say(f"{task['status']}: {task['error'] or 'no reason was given'}")
        usage = task["usage"] or {}
        price = f"${usage.get('cost_usd', 0.0):.4f}"
        price = f"rehearsal, nothing spent (at a provider about {price})" if self.free else price
        spent = f"{counted(usage.get('model_calls', 0), 'model call')}, {price}"
        self._say(f"{task['status']} · {spent} · ai-infra tasks show {self.task_id}")

    def _chunk(self, payload: dict[str, Any]) -> None:
        if payload["attempt"] != self.attempt:
            if self.printed:
                self._say("\nthe model was cut off; it starts again")
            self.attempt, self.printed = payload["attempt"], ""
        piece = neutral(payload["content"])
        self.printed += piece
        if not self.quiet:
            sys.stdout.write(piece)
            sys.stdout.flush()

    def _update(self, payload: dict[str, Any]) -> bool:
        kind = payload.get("kind")
        if kind == "plan":
            for step in payload.get("subtasks", ()):
                after = f" (after {', '.join(step['depends_on'])})" if step["depends_on"] else ""
                title = step.get("title") or step["instruction"]
                self._say(f"  {step['key']:<4} {step['agent']:<9} {short(title, 60)}{after}")
        elif kind == "tool" and payload.get("state") == "started":
            self._say(f"  {payload['agent']:<9} {payload['name']} {payload.get('summary', '')}")
        elif kind == "approval":
            self.approval(payload)
        elif kind == "criterion":
            mark = MARKS.get(payload["verdict"], "?")
            self._say(f"  {payload['agent']:<9} {mark} {payload['id']} {payload['text']}")
        elif kind == "task":
            status, phase = payload.get("status"), payload.get("phase")
            if payload["task_id"] == self.task_id and status in ENDED:
                return True
            if phase and payload["task_id"] != self.task_id:
                self._once(f"  {payload['agent']:<9} {phase}", payload["task_id"])
        return False

    def approval(self, found: dict[str, Any]) -> None:
        """Say once what waits for an answer, and how to give it; also when the rest is quiet."""
        key = found["id"] + found["status"]
        if key in self.told:
            return
        self.told.add(key)
        if found["status"] == "pending":
            typer.secho(asking(found), err=True, fg="yellow")
        else:
            self._say(f"  {found['agent']:<9} approval {found['id'][:8]} {found['status']}")

    def _once(self, line: str, task_id: str) -> None:
        if task_id + line not in self.told:
            self.told.add(task_id + line)
            self._say(line)

    def _say(self, line: str) -> None:
        if not self.quiet:
            typer.secho(neutral(line)[:160], err=True, dim=True)


def render_task(whole: dict[str, Any]) -> str:
    """A task as text: state, parts with their criteria, answer, error."""
    task = whole["task"]
    lines = [f"{task['id']}  {task['status']}  {task['title'] or ''}"]
    for part in whole["subtasks"]:
        key = part["key"] or "-"
        lines.append(f"  {key:<4} {part['assigned_agent']:<9} {part['status']:<11} {part['title']}")
        for checked in (part["output"] or {}).get("criteria", ()):
            mark = MARKS.get(checked["verdict"], "?")
            lines.append(f"       {mark} {checked['id']} {checked['text']}: {checked['evidence']}")
        for found in whole["approvals"]:
            if found["request"]["task_id"] == part["id"]:
                lines.append(f"       waits for approval {found['id'][:8]}: {found['sentence']}")
        if part["error"]:
            lines.append(f"       {part['error']}")
    if task["error"]:
        lines.append(task["error"])
    answer = (task["output"] or {}).get("answer")
    return "\n".join([*lines, "", answer] if answer else lines)


async def _watch(config: Settings, request: dict[str, Any], seen: Seen) -> bool:
    """Follow until the task ends, resuming after a dropped connection. False: gave up.

    The subscription stands before the message is sent, so that no event is missed.
    """
    url = f"ws://{config.host}:{config.port}/ws"
    loop = asyncio.get_running_loop()
    lost_at_s: float | None = None
    while lost_at_s is None or loop.time() - lost_at_s < RECONNECT_S:
        headers = {"Authorization": f"Bearer {token(config)}"}
        try:
            async with connect(url, additional_headers=headers, proxy=None) as socket:
                lost_at_s = None
                await _subscribe(socket, request["conversation"], seen)
                if not seen.task_id:
                    sent = await asyncio.to_thread(send, request)
                    seen.task_id, seen.answer_id = sent["task_id"], sent["answer_message_id"]
                if await _until_ended(socket, seen):
                    return True
        except (OSError, TimeoutError, WebSocketException):
            if lost_at_s is None:
                lost_at_s = loop.time()
        await asyncio.sleep(1.0)
    return False


async def _subscribe(socket: ClientConnection, conversation_id: str, seen: Seen) -> None:
    """Subscribe, from where we were if that is known, and wait until it stands."""
    payload = {"channel": "conversation", "conversation_id": conversation_id}
    if seen.cursor:
        payload["last_event_id"] = seen.cursor
    await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
    while (frame := json.loads(await socket.recv()))["type"] != "subscribed":
        _refused(frame)
    seen.cursor = seen.cursor or frame["payload"]["event_id"]


def _refused(frame: dict[str, Any]) -> None:
    """Stop on an error frame, unless it only says that old events are gone."""
    if frame["type"] == "error" and frame["payload"].get("code") != "resync":
        stop(frame["payload"]["message"])


async def _until_ended(socket: ClientConnection, seen: Seen) -> bool:
    """Read frames until the task has ended; when nothing comes, ask the record."""
    while True:
        try:
            async with asyncio.timeout(QUIET_CHECK_S):
                frame = json.loads(await socket.recv())
        except TimeoutError:
            task = await asyncio.to_thread(call, "GET", f"/api/tasks/{seen.task_id}")
            for found in task["approvals"]:
                seen.approval({**found, "agent": found["request"]["agent"]})
            if task["task"]["status"] in ENDED:
                return True
            continue
        _refused(frame)
        if seen.take(frame):
            return True
